//! Envoy bootstraps of one shape, which differ only in the filters before the router.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The name of the server entry, for the filter and the server alike.
pub const SERVER: &str = "bench";
/// The cluster that is asked for decisions.
const DECISIONS: &str = "decisions";

/// The filters before the router.
#[derive(Clone, Debug)]
pub enum Filters {
    /// None.
    None,
    /// Envoy's `ext_authz` with the request body.
    ExtAuthz,
    /// Envoy's `mcp` and `rbac`: one tool is allowed, nothing is asked.
    McpRbac,
    /// A Wasm filter.
    Wasm(PathBuf),
}

/// A whole bootstrap. Envoy listens on free ports on loopback.
#[must_use]
pub fn bootstrap(filters: &Filters, upstream: SocketAddr, decisions: Option<SocketAddr>) -> Value {
    let mut http_filters = http_filters(filters);
    http_filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": extension("filters.http.router.v3.Router")},
    }));
    let mut clusters = vec![cluster("upstream", upstream, &json!({"http_protocol_options": {}}))];
    if let Some(decisions) = decisions {
        clusters.push(cluster(DECISIONS, decisions, &json!({"http2_protocol_options": {}})));
    }
    let any_port = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    json!({
        "admin": {"address": any_port},
        "static_resources": {
            "listeners": [{
                "name": "agents",
                "address": any_port,
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "agents",
                        "codec_type": "HTTP1",
                        "route_config": {"virtual_hosts": [{
                            "name": "upstream",
                            "domains": ["*"],
                            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "30s"}}],
                        }]},
                        "http_filters": http_filters,
                    },
                }]}],
            }],
            "clusters": clusters,
        },
    })
}

fn http_filters(filters: &Filters) -> Vec<Value> {
    match filters {
        Filters::None => Vec::new(),
        Filters::ExtAuthz => vec![json!({
            "name": "envoy.filters.http.ext_authz",
            "typed_config": {
                "@type": extension("filters.http.ext_authz.v3.ExtAuthz"),
                "transport_api_version": "V3",
                "failure_mode_allow": false,
                "grpc_service": {"envoy_grpc": {"cluster_name": DECISIONS}, "timeout": "1s"},
                "with_request_body": {
                    "max_request_bytes": 1_048_576, "allow_partial_message": false, "pack_as_bytes": true,
                },
            },
        })],
        Filters::McpRbac => vec![
            json!({
                "name": "envoy.filters.http.mcp",
                "typed_config": {"@type": extension("filters.http.mcp.v3.Mcp"), "traffic_mode": "REJECT_NO_MCP"},
            }),
            json!({
                "name": "envoy.filters.http.rbac",
                "typed_config": {
                    "@type": extension("filters.http.rbac.v3.RBAC"),
                    "rules": {"action": "ALLOW", "policies": {"echo": {
                        "principals": [{"any": true}],
                        "permissions": [{"and_rules": {"rules": [
                            mcp_metadata(&["method"], "tools/call"),
                            mcp_metadata(&["params", "name"], "echo"),
                        ]}}],
                    }}},
                },
            }),
        ],
        Filters::Wasm(path) => vec![json!({
            "name": "envoy.filters.http.wasm",
            "typed_config": {"@type": extension("filters.http.wasm.v3.Wasm"), "config": wasm(path)},
        })],
    }
}

fn mcp_metadata(path: &[&str], exact: &str) -> Value {
    let path: Vec<Value> = path.iter().map(|key| json!({"key": key})).collect();
    json!({"sourced_metadata": {"metadata_matcher": {
        "filter": "envoy.filters.http.mcp", "path": path, "value": {"string_match": {"exact": exact}},
    }}})
}

fn wasm(path: &Path) -> Value {
    let configuration = json!({"cluster": DECISIONS, "server": SERVER}).to_string();
    json!({
        "name": "keyward",
        "root_id": "keyward",
        "failure_policy": "FAIL_CLOSED",
        "allow_on_headers_stop_iteration": true,
        "vm_config": {
            "vm_id": "keyward",
            "runtime": "envoy.wasm.runtime.v8",
            "code": {"local": {"filename": path}},
        },
        "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration},
    })
}

fn cluster(name: &str, address: SocketAddr, protocol: &Value) -> Value {
    let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    let endpoint = json!({"endpoint": {"address": {"socket_address": socket}}});
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": extension("upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": protocol,
            },
        },
    })
}

fn extension(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}
