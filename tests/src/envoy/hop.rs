//! An Envoy that only sets headers and passes everything on.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::bootstrap::ROUTER;
use super::socket_address;

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// The bootstrap of a hop that sets headers on every request.
pub(super) fn bootstrap(target: SocketAddr, headers: &[(&str, &str)]) -> Value {
    let any_port = socket_address(SocketAddr::from(([127, 0, 0, 1], 0)));
    let headers: Vec<Value> = headers
        .iter()
        .map(|(key, value)| {
            json!({"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
        })
        .collect();
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": "agents",
        "route_config": {"request_headers_to_add": headers, "virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "target", "timeout": "0s"}}],
        }]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    });
    json!({
        "admin": {"address": any_port},
        "static_resources": {
            "listeners": [{
                "name": "agents", "address": any_port,
                "filter_chains": [{"filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager},
                ]}],
            }],
            "clusters": [{"name": "target", "type": "STATIC", "load_assignment": {
                "cluster_name": "target",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(target)}}]}],
            }}],
        },
    })
}
