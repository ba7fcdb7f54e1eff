//! Envoy's bootstrap: `envoy/demo.yaml` with typed changes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};

use super::egress::Egress;
use super::socket_address;
use crate::files;

/// The access log's file, in the folder where Envoy runs.
pub(super) const ACCESS_LOG_FILE: &str = "access.log";
pub(super) const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What may be changed on the sample.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where agents connect. Default: a free port.
    pub listen: SocketAddr,
    /// The admin interface. Default: a free port.
    pub admin: SocketAddr,
    /// What agents may speak. Default: HTTP/1.1 and HTTP/2.
    pub codec: Codec,
    /// `transport_socket` of the agents' listener; `null`: plain TCP.
    pub listener_transport_socket: Value,
    /// Keyward's server.
    pub keyward: Endpoint,
    /// Further replicas of it: the cluster is then that of `envoy/replicas.yaml`.
    pub replicas: Vec<SocketAddr>,
    /// The upstream of the sample's route and cluster `demo_upstream`.
    pub upstream: UpstreamCluster,
    /// Who decides. Default: the filter.
    pub authorizer: Authorizer,
    /// The filter's module; none: as built.
    pub module: Option<PathBuf>,
    /// Keys set in the filter's JSON configuration; `null` removes one.
    pub plugin: Vec<(String, Value)>,
    /// Replaces the filter's whole configuration by this text.
    pub plugin_text: Option<String>,
    /// `allow_on_headers_stop_iteration`. Default: true.
    pub stop_iteration: bool,
    /// What happens after a trap. Default: reload.
    pub failure_policy: FailurePolicy,
    /// `request_body_buffer_limit`; none: as in the sample.
    pub body_limit_bytes: Option<u32>,
    /// `max_stream_duration`; none: as in the sample.
    pub max_stream_ms: Option<u64>,
    /// The access log. Default: none, as in the sample.
    pub access_log: AccessLog,
    /// Envoy's log level. Default: `info`.
    pub log_level: String,
    /// Worker threads. Default: 1.
    pub concurrency: u32,
    /// Routes before the sample's own.
    pub routes: Vec<Route>,
    /// Clusters beside the sample's own.
    pub clusters: Vec<UpstreamCluster>,
    /// Metadata keys of the sample's route under `keyward`; `null` removes one.
    pub route_metadata: Vec<(String, Value)>,
    /// Starts `envoy/egress.yaml` instead, with these changes: hosts are resolved by name, `upstream` has no meaning.
    pub egress: Option<Egress>,
    /// JSON merged over the HTTP connection manager at the end, for what has no field here: objects are merged,
    /// everything else is replaced.
    pub connection_manager: Value,
}

/// `codec_type` of the listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// Both.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// Where a program listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Who decides about a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Authorizer {
    /// Keyward's filter.
    #[default]
    Filter,
    /// Envoy's own `ext_authz` with body, asking the cluster `keyward`; no scrubbing.
    NativeExtAuthz,
    /// Nobody: the router only.
    Nobody,
    /// These HTTP filters, before the router.
    Filters(Vec<Value>),
}

/// `failure_policy` of the filter. There is no `FAIL_OPEN`, on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// `FAIL_RELOAD`.
    #[default]
    Reload,
    /// `FAIL_CLOSED`.
    Closed,
}

/// The access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// None.
    #[default]
    None,
    /// Envoy's default format.
    Default,
    /// Every fact about a request and its answer that Envoy can print, but for the headers that carry credentials.
    Full,
}

/// A route.
#[derive(Clone, Debug)]
pub struct Route {
    /// The path prefix, up to a `/` or the end.
    pub prefix: String,
    /// The cluster.
    pub cluster: String,
    /// `keyward` metadata; `null`: none.
    pub metadata: Value,
}

/// A cluster with one endpoint.
#[derive(Clone, Debug)]
pub struct UpstreamCluster {
    /// The name.
    pub name: String,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
    /// `transport_socket`; `null`: plain TCP.
    pub transport_socket: Value,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any_port,
            admin: any_port,
            codec: Codec::default(),
            listener_transport_socket: Value::Null,
            keyward: Endpoint::Tcp(SocketAddr::from(([127, 0, 0, 1], 9191))),
            replicas: Vec::new(),
            upstream: UpstreamCluster::tcp("demo_upstream", SocketAddr::from(([127, 0, 0, 1], 9000))),
            authorizer: Authorizer::default(),
            module: None,
            plugin: Vec::new(),
            plugin_text: None,
            stop_iteration: true,
            failure_policy: FailurePolicy::default(),
            body_limit_bytes: None,
            max_stream_ms: None,
            access_log: AccessLog::default(),
            log_level: "info".to_owned(),
            concurrency: 1,
            routes: Vec::new(),
            clusters: Vec::new(),
            route_metadata: Vec::new(),
            egress: None,
            connection_manager: Value::Null,
        }
    }
}

impl Options {
    /// The bootstrap.
    ///
    /// # Errors
    /// Where the sample cannot be read or has lost a part that is to be changed.
    pub fn bootstrap(&self) -> Result<Value> {
        let mut root = read(if self.egress.is_some() { "envoy/egress.yaml" } else { "envoy/demo.yaml" })?;
        *part(&mut root, "/admin/address")? = socket_address(self.admin);
        self.change_listener(part(&mut root, "/static_resources/listeners/0")?)?;
        self.change_clusters(part(&mut root, "/static_resources/clusters")?)?;
        // Whoever asks for certificates has to say who it is.
        set(&mut root, "node", json!({"id": "envoy", "cluster": "tests"}));
        Ok(root)
    }

    fn change_listener(&self, listener: &mut Value) -> Result<()> {
        *part(listener, "/address")? = socket_address(self.listen);
        if !self.listener_transport_socket.is_null() {
            let chain = part(listener, "/filter_chains/0")?;
            set(chain, "transport_socket", self.listener_transport_socket.clone());
        }
        let manager = part(listener, "/filter_chains/0/filters/0/typed_config")?;
        *part(manager, "/codec_type")? = match self.codec {
            Codec::Auto => json!("AUTO"),
            Codec::Http1 => json!("HTTP1"),
            Codec::Http2 => json!("HTTP2"),
        };
        if let Some(limit_ms) = self.max_stream_ms {
            *part(manager, "/common_http_protocol_options/max_stream_duration")? = json!(seconds(limit_ms));
        }
        if let Some(log) = self.access_log.filter() {
            set(manager, "access_log", json!([log]));
        }
        let host = part(manager, "/route_config/virtual_hosts/0")?;
        if let Some(limit_bytes) = self.body_limit_bytes {
            set(host, "request_body_buffer_limit", json!(limit_bytes));
        }
        self.change_routes(part(host, "/routes")?)?;
        self.change_filters(part(manager, "/http_filters")?)?;
        merge(manager, &self.connection_manager);
        Ok(())
    }

    fn change_routes(&self, routes: &mut Value) -> Result<()> {
        let metadata = part(routes, "/0/metadata/filter_metadata/keyward")?;
        for (key, value) in &self.route_metadata {
            set(metadata, key, value.clone());
        }
        let list = routes.as_array_mut().ok_or_else(|| anyhow!("the sample's routes are no list"))?;
        for route in self.routes.iter().rev() {
            list.insert(0, route.render());
        }
        if self.authorizer == Authorizer::NativeExtAuthz {
            for route in list {
                let server = route.pointer("/metadata/filter_metadata/keyward/server").cloned().unwrap_or_default();
                let cluster = route.pointer("/route/cluster").cloned().unwrap_or_default();
                let settings = json!({
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                    "check_settings": {"context_extensions": {"keyward.server": server, "keyward.cluster": cluster}},
                });
                set(route, "typed_per_filter_config", json!({"envoy.filters.http.ext_authz": settings}));
            }
        }
        Ok(())
    }

    fn change_filters(&self, filters: &mut Value) -> Result<()> {
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}});
        match &self.authorizer {
            Authorizer::Filter => self.change_plugin(part(filters, "/0/typed_config/config")?)?,
            Authorizer::NativeExtAuthz => *filters = json!([native_ext_authz(), router]),
            Authorizer::Nobody => *filters = json!([router]),
            Authorizer::Filters(before) => *filters = before.iter().cloned().chain([router]).collect(),
        }
        Ok(())
    }

    fn change_plugin(&self, plugin: &mut Value) -> Result<()> {
        let module = match &self.module {
            Some(path) => path.clone(),
            None => files::filter_module()?,
        };
        *part(plugin, "/vm_config/code/local/filename")? = json!(module);
        *part(plugin, "/failure_policy")? = match self.failure_policy {
            FailurePolicy::Reload => json!("FAIL_RELOAD"),
            FailurePolicy::Closed => json!("FAIL_CLOSED"),
        };
        *part(plugin, "/allow_on_headers_stop_iteration")? = json!(self.stop_iteration);
        let text = part(plugin, "/configuration/value")?;
        let mut configuration: Value = serde_json::from_str(text.as_str().unwrap_or_default())
            .context("the filter's configuration in the sample is not JSON")?;
        for (key, value) in &self.plugin {
            set(&mut configuration, key, value.clone());
        }
        *text = json!(self.plugin_text.clone().unwrap_or_else(|| configuration.to_string()));
        Ok(())
    }

    fn change_clusters(&self, clusters: &mut Value) -> Result<()> {
        let first = part(clusters, "/0")?;
        if self.replicas.is_empty() {
            *part(first, "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address")? = self.keyward.render();
        } else {
            *first = read("envoy/replicas.yaml")?;
            let all = [self.keyward.clone()].into_iter().chain(self.replicas.iter().copied().map(Endpoint::Tcp));
            *part(first, "/load_assignment/endpoints/0/lb_endpoints")? =
                all.map(|one| json!({"endpoint": {"address": one.render()}})).collect();
        }
        if let Some(egress) = &self.egress {
            return egress.change_cluster(part(clusters, "/1")?);
        }
        let sample = part(clusters, "/1")?.clone();
        let list = clusters.as_array_mut().ok_or_else(|| anyhow!("the sample's clusters are no list"))?;
        list.truncate(1);
        for cluster in [&self.upstream].into_iter().chain(&self.clusters) {
            list.push(cluster.render(sample.clone())?);
        }
        Ok(())
    }
}

// === impl AccessLog ===

impl AccessLog {
    fn filter(self) -> Option<Value> {
        let mut config = json!({
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": ACCESS_LOG_FILE,
        });
        match self {
            AccessLog::None => return None,
            AccessLog::Default => {}
            AccessLog::Full => set(&mut config, "log_format", json!({"json_format": full_format()})),
        }
        Some(json!({"name": "envoy.access_loggers.file", "typed_config": config}))
    }
}

fn full_format() -> Value {
    let operators = [
        "START_TIME",
        "REQUEST_HEADERS_BYTES",
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "PROTOCOL",
        "RESPONSE_CODE",
        "RESPONSE_CODE_DETAILS",
        "RESPONSE_FLAGS",
        "DURATION",
        "REQUEST_DURATION",
        "RESPONSE_DURATION",
        "ROUTE_NAME",
        "UPSTREAM_HOST",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        "DOWNSTREAM_REMOTE_ADDRESS",
        "DOWNSTREAM_LOCAL_ADDRESS",
        "CONNECTION_ID",
        "STREAM_ID",
        "GRPC_STATUS",
        "VIRTUAL_CLUSTER_NAME",
        "REQ(:METHOD)",
        "REQ(:AUTHORITY)",
        "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)",
        "REQ(USER-AGENT)",
        "REQ(X-REQUEST-ID)",
        "REQ(X-FORWARDED-FOR)",
        "REQ(MCP-METHOD)",
        "REQ(MCP-NAME)",
        "RESP(CONTENT-TYPE)",
        "RESP(SERVER)",
        "RESP(X-KEYWARD-SCRUB)",
        "RESP(WWW-AUTHENTICATE)",
        "TRAILER(GRPC-MESSAGE)",
        "LOCAL_REPLY_BODY",
        "METADATA(ROUTE:keyward)",
        "DYNAMIC_METADATA(keyward)",
        "DYNAMIC_METADATA(envoy.filters.http.ext_authz)",
        "FILTER_STATE(wasm.keyward)",
    ];
    operators.into_iter().map(|operator| (operator.to_lowercase(), json!(format!("%{operator}%")))).collect()
}

// === impl Route, Endpoint, UpstreamCluster ===

impl Route {
    fn render(&self) -> Value {
        let mut route = json!({
            "match": {"path_separated_prefix": self.prefix},
            "route": {"cluster": self.cluster, "timeout": "0s"},
        });
        if self.prefix == "/" {
            set(&mut route, "match", json!({"prefix": "/"}));
        }
        if !self.metadata.is_null() {
            set(&mut route, "metadata", json!({"filter_metadata": {"keyward": self.metadata}}));
        }
        route
    }
}

impl Endpoint {
    fn render(&self) -> Value {
        match self {
            Endpoint::Tcp(address) => socket_address(*address),
            Endpoint::Unix(path) => json!({"pipe": {"path": path}}),
        }
    }
}

impl UpstreamCluster {
    /// A cluster over TCP that speaks HTTP/1.1.
    #[must_use]
    pub fn tcp(name: &str, address: SocketAddr) -> Self {
        Self { name: name.to_owned(), endpoint: Endpoint::Tcp(address), http2: false, transport_socket: Value::Null }
    }

    fn render(&self, mut cluster: Value) -> Result<Value> {
        set(&mut cluster, "name", json!(self.name));
        set(&mut cluster, "transport_socket", self.transport_socket.clone());
        set(
            &mut cluster,
            "load_assignment",
            json!({
                "cluster_name": self.name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": self.endpoint.render()}}]}],
            }),
        );
        let protocol = if self.http2 {
            json!({"http2_protocol_options": {}})
        } else {
            // Trailers of HTTP/1.1 answers are passed on, so that tests can see what the filter does with them.
            json!({"http_protocol_options": {"enable_trailers": true}})
        };
        let options = json!({"@type": format!("type.googleapis.com/{HTTP_OPTIONS}"), "explicit_http_config": protocol});
        set(&mut cluster, "typed_extension_protocol_options", json!({HTTP_OPTIONS: options}));
        Ok(cluster)
    }
}

fn native_ext_authz() -> Value {
    json!({"name": "envoy.filters.http.ext_authz", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "keyward"}, "timeout": "1s"},
        "failure_mode_allow": false,
        "with_request_body": {"max_request_bytes": 1_048_576, "allow_partial_message": false, "pack_as_bytes": true},
    }})
}

fn read(sample: &str) -> Result<Value> {
    let reading = || format!("reading `{sample}`");
    let text = fs::read_to_string(files::workspace().join(sample)).with_context(reading)?;
    serde_saphyr::from_str(&text).with_context(reading)
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{:03}s", milliseconds / 1000, milliseconds % 1000)
}

pub(super) fn part<'a>(value: &'a mut Value, pointer: &str) -> Result<&'a mut Value> {
    value.pointer_mut(pointer).ok_or_else(|| anyhow!("the sample has no `{pointer}` where it is expected"))
}

/// Sets a key of an object; `null` removes it.
pub(super) fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        if value.is_null() {
            object.remove(key);
        } else {
            object.insert(key.to_owned(), value);
        }
    }
}

fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (_, Value::Null) => {}
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { module: Some(PathBuf::from("/filter.wasm")), ..Options::default() }
    }

    #[test]
    fn changes_only_what_was_asked() {
        let bootstrap =
            Options { plugin: vec![("timeout_ms".to_owned(), json!(50))], stop_iteration: false, ..options() }
                .bootstrap()
                .unwrap();
        let plugin = bootstrap
            .pointer("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config")
            .unwrap();
        let configuration: Value = serde_json::from_str(plugin["configuration"]["value"].as_str().unwrap()).unwrap();
        assert_eq!(configuration["timeout_ms"], 50);
        assert_eq!(configuration["cluster"], "keyward");
        assert_eq!(plugin["allow_on_headers_stop_iteration"], false);
        assert_eq!(plugin["failure_policy"], "FAIL_RELOAD");
    }

    #[test]
    fn native_ext_authz_names_the_server_of_each_route() {
        let route = Route { prefix: "/api".to_owned(), cluster: "api".to_owned(), metadata: json!({"server": "api"}) };
        let bootstrap =
            Options { authorizer: Authorizer::NativeExtAuthz, routes: vec![route], ..options() }.bootstrap().unwrap();
        let text = bootstrap.to_string();
        for (server, cluster) in [("api", "api"), ("demo", "demo_upstream")] {
            let expected = json!({"context_extensions": {"keyward.server": server, "keyward.cluster": cluster}});
            assert!(text.contains(&expected.to_string()), "{text}");
        }
        assert!(!text.contains("FAIL_RELOAD"), "{text}");
    }
}
