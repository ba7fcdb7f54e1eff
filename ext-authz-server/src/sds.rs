//! Client certificates for Envoy: its Secret Discovery Service, over which a cluster has the certificate and the key that it
//! presents to its upstream, and has them anew when the store has another pair.
//!
//! A new pair is looked at before Envoy gets it: one that cannot be read, does not belong together or is not in date changes
//! nothing. What is not configured is not answered, nor what belongs to a binding that does not serve now. Who may ask
//! is the listener's matter.

mod asker;
mod presented;
mod stream;

pub use presented::{InUse, Presented};
pub use stream::{MAX_NAMES, MAX_STREAMS, SecretDiscovery};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::check::Engine;
use crate::config::ClientCertificateCredential;

/// How often the stores are looked at; those on the network by their own terms.
const LOOK: Duration = Duration::from_secs(1);
/// Whose certificates these are, in metrics.
pub(crate) const ROLE: &str = "client";

/// Keeps every client certificate of the plan that serves up to date, without end.
pub async fn follow(engine: Arc<Engine>) {
    let mut named: BTreeMap<String, ClientCertificateCredential> = BTreeMap::new();
    loop {
        let sources = engine.plan().sources().clone();
        let configured = configured(&engine);
        for name in named.keys().filter(|name| !configured.contains_key(*name)) {
            sources.secrets.presented().forget(name);
            engine.metrics().certificate_gone(ROLE, name);
        }
        for own in configured.values() {
            let changed = sources.secrets.presented().look(own, &sources.secrets).await;
            if let Some(accepted) = changed {
                engine.metrics().certificate_loaded(ROLE, &own.name, if accepted { "accepted" } else { "refused" });
            }
            if let Some(Ok(presented)) = sources.secrets.presented().of(own) {
                engine.metrics().certificate_ends(ROLE, &own.name, presented.pair.ends);
            }
        }
        named = configured;
        tokio::time::sleep(LOOK).await;
    }
}

/// The client certificates of this environment's bindings that serve now.
fn configured(engine: &Engine) -> BTreeMap<String, ClientCertificateCredential> {
    let plan = engine.plan();
    let bindings = plan.catalogue().bindings().iter();
    let here = bindings.filter(|binding| binding.environment.is_empty() || binding.environment == plan.environment());
    let own = here.flat_map(|binding| {
        let own = binding.credentials.iter().filter_map(|credential| credential.client_certificate());
        own.map(move |own| (binding.id.as_str(), own))
    });
    let serving = own.filter(|(id, _)| plan.catalogue().serves_now(id));
    serving.map(|(_, own)| (own.name.clone(), own.clone())).collect()
}
