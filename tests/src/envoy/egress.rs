//! What a test changes on `envoy/egress.yaml`: which resolver is asked, and what may be reached inside.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde_json::{Value, json};

use super::bootstrap::{part, set};
use super::socket_address;

/// Changes of the egress sample. TLS towards upstreams is always taken off.
#[derive(Clone, Debug)]
pub struct Egress {
    /// The DNS server that is asked.
    pub resolver: SocketAddr,
    /// Addresses inside that may be reached all the same.
    pub inside: Vec<IpAddr>,
}

const OPTIONS: &str = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

// === impl Egress ===

impl Egress {
    /// Asks this resolver.
    #[must_use]
    pub fn new(resolver: SocketAddr) -> Egress {
        Egress { resolver, inside: Vec::new() }
    }

    pub(super) fn change_cluster(&self, cluster: &mut Value) -> Result<()> {
        let resolver = part(cluster, "/typed_dns_resolver_config/typed_config")?;
        set(resolver, "resolvers", json!([socket_address(self.resolver)]));
        set(cluster, "dns_refresh_rate", json!("1s"));
        set(cluster, "transport_socket", Value::Null);
        set(part(cluster, "/cluster_type/typed_config")?, "allow_insecure_cluster_options", json!(true));
        let options = part(cluster, OPTIONS)?;
        // Neither has a meaning without TLS.
        set(options, "upstream_http_protocol_options", Value::Null);
        set(options, "auto_config", Value::Null);
        set(options, "explicit_http_config", json!({"http_protocol_options": {}}));
        self.allow_inside(part(options, "/http_filters/0/typed_config/rules/policies")?);
        Ok(())
    }

    fn allow_inside(&self, policies: &mut Value) {
        let matcher = |address: &IpAddr| {
            json!({"matcher": {"name": "address", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
                "upstream_ip": {"address_prefix": address.to_string(), "prefix_len": if address.is_ipv4() { 32 } else { 128 }},
            }}})
        };
        let permissions: Vec<Value> = self.inside.iter().map(matcher).collect();
        if !permissions.is_empty() {
            set(policies, "inside", json!({"principals": [{"any": true}], "permissions": permissions}));
        }
    }
}
