//! Envoy's bootstrap: the fields without which the filter cannot work or does not protect. A hint, no proof: it reads one
//! YAML or JSON file in the spelling of Envoy's documentation, and sees nothing that comes by xDS.

use std::path::Path;

use serde_json::Value;

use super::{Findings, Seen, Wrong};
use crate::config::Config;

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
    for listener in listeners {
        let mut managers = Vec::new();
        all(listener, &|value| is_type(value, MANAGER), &mut managers);
        for manager in managers {
            let mut filters = Vec::new();
            all(manager, &|value| is_type(value, WASM) && value.to_string().contains("keyward"), &mut filters);
            for filter in filters {
                found = true;
                let name = listener.get("name").and_then(Value::as_str).unwrap_or("without a name");
                Place { document: &document, listener, manager, filter, config }.examine(name, findings);
            }
        }
    }
    if !found {
        let seen = format!("`{}` has no Wasm filter of Keyward's", file.display());
        findings.note("Envoy: filter", Err(Wrong::failed(seen, "put it before the router, as envoy/demo.yaml does")));
    }
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

    fn cluster(&self) -> Seen {
        let name = self.settings().and_then(|settings| Some(settings.get("cluster")?.as_str()?.to_owned()));
        let name = name.ok_or_else(|| {
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
        Ok(format!("`{name}`, over HTTP/2"))
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

    fn routes(&self) -> Seen {
        let mut routes = Vec::new();
        all(self.manager, &|value| value.get("match").is_some() && value.get("route").is_some(), &mut routes);
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
