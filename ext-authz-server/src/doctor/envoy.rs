//! Envoy's bootstrap: the fields without which the filter cannot work or does not protect. A hint, no proof: it reads one
//! YAML or JSON file in the spelling of Envoy's documentation, and sees nothing that comes by xDS.

mod secrets;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;

use super::{Findings, Seen, Wrong};
use crate::config::{Config, ListenAddress, Server};

const WASM: &str = "envoy.extensions.filters.http.wasm.v3.Wasm";
const MANAGER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
/// Envoy's own limits, where a listener names none and the filter none.
const DEFAULT_BUFFER_BYTES: u64 = 1 << 20;

/// Adds a finding for each field.
pub(super) fn examine(file: &Path, config: &Config, findings: &mut Findings) {
    let document = match read(file) {
        Ok(document) => document,
        Err(cause) => {
            let seen = format!("`{}`: {cause}", file.display());
            return findings.note("Envoy", Err(Wrong::failed(seen, "name Envoy's bootstrap, a YAML or JSON file")));
        }
    };
    let mut listeners = Vec::new();
    all(
        &document,
        &|value| value.get("filter_chains").is_some() || value.get("default_filter_chain").is_some(),
        &mut listeners,
    );
    let mut found = false;
    let mut asked = BTreeSet::new();
    for listener in listeners {
        let mut managers = Vec::new();
        all(listener, &|value| is_type(value, MANAGER), &mut managers);
        for manager in managers {
            let mut filters = Vec::new();
            all(manager, &|value| is_type(value, WASM) && value.to_string().contains("keyward"), &mut filters);
            for filter in filters {
                found = true;
                let name = listener.get("name").and_then(Value::as_str).unwrap_or("without a name");
                let place = Place { document: &document, listener, manager, filter, config };
                place.examine(name, findings);
                asked.extend(place.names_cluster());
            }
        }
    }
    if !found {
        let seen = format!("`{}` has no Wasm filter of Keyward's", file.display());
        findings.note("Envoy: filter", Err(Wrong::failed(seen, "put it before the router, as envoy/demo.yaml does")));
    }
    secrets::examine(&document, &asked, config, findings);
}

/// One filter and what surrounds it.
struct Place<'a> {
    document: &'a Value,
    listener: &'a Value,
    manager: &'a Value,
    filter: &'a Value,
    config: &'a Config,
}

// === impl Place ===

impl Place<'_> {
    fn examine(&self, listener: &str, findings: &mut Findings) {
        let mut note = |what: &str, seen: Seen| findings.note(&format!("Envoy, listener `{listener}`: {what}"), seen);
        note("allow_on_headers_stop_iteration", self.stops());
        note("failure policy", self.fails_closed());
        note("server's cluster", self.cluster());
        note("buffer limits", self.buffers());
        note("paths", self.paths());
        note("routes", self.routes());
        note("modes of routes", self.modes());
        note("clusters of routes", self.clusters());
    }

    fn plugin(&self) -> &Value {
        self.filter.get("config").unwrap_or(&Value::Null)
    }

    /// The filter's own configuration.
    fn settings(&self) -> Option<Value> {
        serde_json::from_str(self.plugin().pointer("/configuration/value")?.as_str()?).ok()
    }

    fn stops(&self) -> Seen {
        if self.plugin().get("allow_on_headers_stop_iteration") == Some(&Value::Bool(true)) {
            return Ok("set".to_owned());
        }
        Err(Wrong::failed("not set: Envoy would go on before the decision", "set it to true beside `root_id`"))
    }

    fn fails_closed(&self) -> Seen {
        let policy = self.plugin().get("failure_policy").and_then(Value::as_str).unwrap_or("UNSPECIFIED");
        let fail_open = self.plugin().get("fail_open") == Some(&Value::Bool(true));
        if fail_open || policy == "FAIL_OPEN" {
            return Err(Wrong::failed(
                "a filter that fails lets requests through",
                "write `failure_policy: FAIL_RELOAD`",
            ));
        }
        Ok(format!("{policy}: a filter that fails denies"))
    }

    /// The cluster that the filter asks.
    fn names_cluster(&self) -> Option<String> {
        Some(self.settings()?.get("cluster")?.as_str()?.to_owned())
    }

    fn cluster(&self) -> Seen {
        let name = self.names_cluster().ok_or_else(|| {
            Wrong::failed("the filter's configuration names no `cluster`", "name the cluster of `keyward serve` in it")
        })?;
        let clusters = self.document.pointer("/static_resources/clusters").and_then(Value::as_array);
        let cluster =
            clusters.into_iter().flatten().find(|cluster| cluster.get("name").and_then(Value::as_str) == Some(&name));
        let cluster = cluster.ok_or_else(|| {
            Wrong::failed(
                format!("there is no cluster `{name}`"),
                "add it, or correct `cluster` in the filter's configuration",
            )
        })?;
        if !cluster.to_string().contains("http2_protocol_options") {
            return Err(Wrong::failed(
                format!("cluster `{name}` speaks no HTTP/2"),
                "add `http2_protocol_options`: gRPC needs it",
            ));
        }
        self.endpoints(&name, cluster)?;
        Ok(format!("`{name}`, over HTTP/2"))
    }

    /// Whether the cluster's endpoints are where `keyward serve` listens, as far as both files tell.
    fn endpoints(&self, name: &str, cluster: &Value) -> Result<(), Wrong> {
        let listens = &self.config.listen.grpc;
        let mut addresses = Vec::new();
        let is_address = |value: &Value| value.get("socket_address").is_some() || value.get("pipe").is_some();
        all(cluster.get("load_assignment").unwrap_or(&Value::Null), &is_address, &mut addresses);
        for address in addresses {
            let host = address.pointer("/socket_address/address").and_then(Value::as_str);
            let port = address.pointer("/socket_address/port_value").and_then(Value::as_u64);
            let wrong = |leads: &str, remedy: String| {
                let seen = format!("cluster `{name}` leads to {leads}, and `listen.grpc` is `{listens}`");
                Err(Wrong::failed(seen, remedy))
            };
            match (listens, host, port) {
                (ListenAddress::Unix(path), Some(_), _) => {
                    let remedy = format!("write `pipe: {{ path: {} }}` as the endpoint's address", path.display());
                    return wrong("a TCP port", format!("{remedy}, or correct `listen.grpc`"));
                }
                (ListenAddress::Tcp(_), None, _) => {
                    let remedy = "write a `socket_address`, or `listen.grpc: unix:` and the path of the pipe";
                    return wrong("a Unix socket", remedy.to_owned());
                }
                (ListenAddress::Tcp(own), Some(host), Some(port))
                    if own.port() != 0 && u64::from(own.port()) != port && own.ip().is_loopback() && is_here(host) =>
                {
                    return wrong(&format!("port {port} on loopback"), "write the same port in both".to_owned());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn buffers(&self) -> Seen {
        let number = |value: Option<&Value>| value.and_then(Value::as_u64);
        let body = number(self.settings().as_ref().and_then(|settings| settings.get("max_body_bytes")));
        let body = body.unwrap_or(DEFAULT_BUFFER_BYTES);
        let limit = number(self.listener.get("per_connection_buffer_limit_bytes")).unwrap_or(DEFAULT_BUFFER_BYTES);
        if limit < body {
            let seen = format!("`per_connection_buffer_limit_bytes` is {limit}, the filter's `max_body_bytes` {body}");
            return Err(Wrong::failed(
                seen,
                "make the first at least as large: Envoy refuses such bodies before the filter",
            ));
        }
        Ok(format!("{limit} bytes for bodies of up to {body}"))
    }

    fn paths(&self) -> Seen {
        for field in ["normalize_path", "merge_slashes"] {
            if self.manager.get(field) != Some(&Value::Bool(true)) {
                let seen =
                    format!("`{field}` is not set: Envoy and the upstream may read another path than was decided on");
                return Err(Wrong::failed(seen, format!("write `{field}: true`")));
            }
        }
        let escaped = self.manager.get("path_with_escaped_slashes_action").and_then(Value::as_str);
        if escaped != Some("REJECT_REQUEST") {
            let seen = "escaped slashes in paths are let through";
            return Err(Wrong::failed(seen, "write `path_with_escaped_slashes_action: REJECT_REQUEST`"));
        }
        Ok("normalized; escaped slashes are refused".to_owned())
    }

    fn all_routes(&self) -> Vec<&Value> {
        let mut routes = Vec::new();
        all(self.manager, &|value| value.get("match").is_some() && value.get("route").is_some(), &mut routes);
        routes
    }

    /// Each route whose server entry is known, with the mode in which the filter reads it. A server in the filter's own
    /// configuration is every route's, and what routes say in their metadata does not count then.
    fn served(&self) -> Vec<(&Value, String, &Server, &'static str)> {
        let settings = self.settings().unwrap_or_default();
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let (server, mode) = (text(settings.get("server")), text(settings.get("mode")));
        let of_route = |route: &Value| {
            let named = |key: &str| text(route.pointer(&format!("/metadata/filter_metadata/keyward/{key}")));
            let (server, mode) = match &server {
                Some(name) => (Some(name.clone()), mode.clone()),
                None => (named("server"), named("mode").or_else(|| mode.clone())),
            };
            (server, if mode.as_deref() == Some("http") { "http" } else { "mcp" })
        };
        let routes = self.all_routes().into_iter().filter_map(|route| {
            let (server, mode) = of_route(route);
            let server = server?;
            let entry = self.config.servers.get(&server)?;
            Some((route, server, entry, mode))
        });
        routes.collect()
    }

    fn modes(&self) -> Seen {
        let served = self.served();
        for (_, name, server, mode) in &served {
            let expected = server.mode.as_str();
            if *mode != expected {
                let seen =
                    format!("the filter reads a route of `{name}` as `{mode}`, `servers.{name}.mode` is `{expected}`");
                let remedy = format!(
                    "write `mode: {expected}` where Envoy names the server, in the route's `filter_metadata.keyward` or the \
                     filter's configuration, or correct `servers.{name}.mode`"
                );
                return Err(Wrong::failed(seen, remedy));
            }
        }
        Ok(format!("{} routes are read as their servers' `mode` says", served.len()))
    }

    fn clusters(&self) -> Seen {
        for (route, name, server, _) in self.served() {
            let leads = route.pointer("/route/cluster").and_then(Value::as_str);
            if let (Some(leads), Some(expected)) = (leads, &server.cluster)
                && leads != expected
            {
                let seen = format!("a route of `{name}` leads to `{leads}`, `servers.{name}.cluster` is `{expected}`");
                return Err(Wrong::failed(seen, "name one cluster in both: such requests are denied"));
            }
        }
        Ok("none is another one than `servers` demands".to_owned())
    }

    fn routes(&self) -> Seen {
        let routes = self.all_routes();
        let named =
            routes.iter().filter_map(|route| route.pointer("/metadata/filter_metadata/keyward/server")?.as_str());
        let unknown: Vec<&str> = named.filter(|name| !self.config.servers.contains_key(*name)).collect();
        if !unknown.is_empty() {
            let seen = format!("`servers` has no `{}`", unknown.join("`, `"));
            return Err(Wrong::failed(
                seen,
                "correct `filter_metadata.keyward.server` of the route, or add the server",
            ));
        }
        let cut = routes.iter().filter(|route| route.pointer("/route/timeout").is_none()).count();
        if cut > 0 {
            let seen = format!("{cut} of {} routes have Envoy's timeout of 15 s, which cuts streams", routes.len());
            return Err(Wrong::failed(seen, "write `timeout: 0s` there; `stream_idle_timeout` bounds them"));
        }
        Ok(format!("{} routes", routes.len()))
    }
}

fn read(file: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(file).map_err(|cause| cause.to_string())?;
    serde_saphyr::from_str(&text).map_err(|cause| cause.to_string().lines().next().unwrap_or_default().to_owned())
}

/// Whether a host is this machine.
fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn is_type(value: &Value, name: &str) -> bool {
    value.get("@type").and_then(Value::as_str).is_some_and(|found| found.ends_with(name))
}

/// Every object within `value` that `wanted` accepts, the outermost only.
fn all<'a>(value: &'a Value, wanted: &dyn Fn(&Value) -> bool, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(_) if wanted(value) => found.push(value),
        Value::Object(object) => object.values().for_each(|inner| all(inner, wanted, found)),
        Value::Array(list) => list.iter().for_each(|inner| all(inner, wanted, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::parse;
    use crate::doctor::{Finding, Outcome};
    use crate::scratch::Scratch;

    const CONFIGURATION: &str = r#"
version: 1
environment: test
listen: { grpc: "127.0.0.1:9191" }
identity:
  issuers:
    - name: demo
      issuer: https://issuer.example
      audiences: [https://mcp.example/mcp]
      algorithms: [ES256]
      jwks: { file: jwks.json }
policy: { directory: policies }
audit: { file: "-", hmac_key: { ref: "env://KEYWARD_AUDIT_KEY" } }
servers:
  demo: { mode: mcp, destinations: [{ host: 127.0.0.1, path: /mcp }], cluster: demo_upstream }
"#;
    const SOCKET: &str = "socket_address: { address: 127.0.0.1, port_value: 9191 }";

    /// What fails with `envoy/demo.yaml` and the configuration above, each with replacements.
    fn failed(envoy: [&str; 2], configuration: [&str; 2]) -> Vec<Finding> {
        let sample = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../envoy/demo.yaml")).unwrap();
        assert!(sample.contains(envoy[0]) && CONFIGURATION.contains(configuration[0]));
        let folder = Scratch::new();
        let file = folder.write("envoy.yaml", &sample.replace(envoy[0], envoy[1]));
        let text = CONFIGURATION.replace(configuration[0], configuration[1]);
        let config = parse(Path::new("keyward.yaml"), &text).unwrap();
        let mut findings = Findings { all: Vec::new(), until: Instant::now() };
        examine(&file, &config, &mut findings);
        findings.all.into_iter().filter(|finding| finding.outcome == Outcome::Fail).collect()
    }

    #[test]
    fn envoy_and_keyward_yaml_must_say_the_same() {
        let same = ["", ""];
        assert_eq!(failed(same, same), []);
        let pipe = "pipe: { path: /run/keyward/keyward.sock }";
        let other_port = SOCKET.replace("9191", "9190");
        let in_filter = [r#""cluster": "keyward","#, r#""cluster": "keyward", "server": "demo", "mode": "http","#];
        let cases = [
            (["server: demo, mode: mcp", "server: demo, mode: http"], same, "modes of routes", "write `mode: mcp`"),
            (same, ["mode: mcp", "mode: http"], "modes of routes", "write `mode: http`"),
            (in_filter, same, "modes of routes", "write `mode: mcp`"),
            (same, ["demo_upstream", "other"], "clusters of routes", "name one cluster"),
            ([SOCKET, pipe], same, "server's cluster", "write a `socket_address`"),
            ([SOCKET, &other_port], same, "server's cluster", "the same port"),
            (same, ["127.0.0.1:9191", "unix:/run/k.sock"], "server's cluster", "pipe: { path: /run/k.sock }"),
        ];
        for (envoy, configuration, check, remedy) in cases {
            let found = failed(envoy, configuration);
            let [only] = &found[..] else { panic!("{check}: {found:?}") };
            assert!(only.check.ends_with(check) && only.remedy.as_ref().unwrap().contains(remedy), "{only:?}");
        }
    }

    #[test]
    fn what_the_files_cannot_tell_is_let_pass() {
        let same = ["", ""];
        let pipe = "pipe: { path: /run/keyward/keyward.sock }";
        let elsewhere = SOCKET.replace("127.0.0.1", "keyward.internal").replace("9191", "443");
        for (envoy, configuration) in [
            ([SOCKET, &elsewhere], same),
            (same, ["127.0.0.1:9191", "127.0.0.1:0"]),
            ([SOCKET, pipe], ["127.0.0.1:9191", "unix:/elsewhere/keyward.sock"]),
            (["cluster: demo_upstream\n", "cluster_header: x-cluster\n"], same),
        ] {
            assert_eq!(failed(envoy, configuration), [], "{envoy:?} {configuration:?}");
        }
    }
}
