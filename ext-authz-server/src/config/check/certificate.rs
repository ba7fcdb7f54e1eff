//! That whoever's request goes over a connection is bound to the client certificate which Envoy presents on it.

use super::Checker;
use super::perimeter::leads_to;
use crate::config::{Binding, Config, Credential};

const REMEDY: &str = "give both bindings the same `client_certificate`, or lead these calls over a `cluster` of their \
                      own and name both clusters in the server entries";

// === impl Checker ===

impl Checker<'_> {
    /// A certificate belongs to connections, not to requests. So a binding whose calls share them with those of another
    /// one has to hold its certificate as well, whichever of the two serves now: Envoy keeps a certificate that it was
    /// given, also that of a binding which was revoked.
    pub(super) fn certificates(&mut self) {
        let config = self.config;
        let holders: Vec<&Binding> =
            config.bindings.iter().filter(|binding| certificates(binding).next().is_some()).collect();
        for (index, binding) in config.bindings.iter().enumerate() {
            for (place, server) in binding.servers.iter().enumerate() {
                let beside = holders.iter().filter(|other| {
                    other.environment == binding.environment
                        && other.servers.iter().any(|theirs| share_connections(config, server, theirs))
                });
                let lacks = |name: &&str| certificates(binding).all(|own| own != *name);
                let mut lacking =
                    beside.filter_map(|other| Some((other.id.as_str(), certificates(other).find(lacks)?)));
                if let Some((id, name)) = lacking.next() {
                    let message = format!(
                        "calls to `{server}` go over connections on which Envoy presents the client certificate \
                         `{name}` of binding `{id}`, which this binding does not hold"
                    );
                    self.add(format!("bindings[{index}].servers[{place}]"), message, REMEDY);
                }
            }
        }
    }
}

/// The names of the client certificates of a binding.
fn certificates(binding: &Binding) -> impl Iterator<Item = &str> {
    binding.credentials.iter().filter_map(|credential| match credential {
        Credential::ClientCertificate(own) => Some(own.name.as_str()),
        _ => None,
    })
}

/// Whether Envoy may carry the requests of these two server entries over one connection. Where both name a cluster, that
/// decides, since no other route is admitted; else whether one upstream can be meant.
fn share_connections(config: &Config, one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let (Some(one), Some(other)) = (config.servers.get(one), config.servers.get(other)) else { return false };
    if let (Some(one), Some(other)) = (&one.cluster, &other.cluster) {
        return one == other;
    }
    let others = leads_to("", other);
    leads_to("", one).iter().any(|(_, one)| others.iter().any(|(_, other)| one.meets(other)))
}
