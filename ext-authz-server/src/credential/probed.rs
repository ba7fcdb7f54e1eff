//! Credentials whose new values are tried before they are used: the value before serves until an upstream has accepted the
//! new one, and goes on serving if it does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use sha2::{Digest as _, Sha256};

use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName, Turn};
use crate::caller::{Caller, is_template};
use crate::config::{Probe, ProbeMethod};
use crate::freshness::{Digest, Key, MintError, Terms};
use crate::outbound::{self, Ask};
use crate::sources::Sources;

/// The kind, in its keys too.
pub(crate) const KIND: &str = "probed";
/// Of how many callers it is remembered which values were accepted.
const MAX_ACCEPTED: usize = 8192;

/// All credentials of a binding, and the request that tries them.
pub struct Probed {
    binding: String,
    credentials: Vec<Arc<dyn Credential>>,
    probe: Probe,
    /// By key, SHA-256 of the values that were accepted last.
    accepted: Mutex<HashMap<Digest, [u8; 32]>>,
}

// === impl Probed ===

impl Probed {
    /// These credentials, tried together.
    #[must_use]
    pub fn new(binding: &str, credentials: Vec<Arc<dyn Credential>>, probe: Probe) -> Probed {
        Probed { binding: binding.to_owned(), credentials, probe, accepted: Mutex::default() }
    }

    /// Sends the probe with these values.
    async fn ask(&self, material: &Material, sources: &Sources) -> Result<(), MintError> {
        let failed = |cause: String| {
            let Probe { url, .. } = &self.probe;
            MintError::transient(format!("the probe `{url}` of binding `{}`: {cause}", self.binding))
        };
        let authority = outbound::authority(&self.probe.url).map_err(|error| failed(error.to_string()))?.to_string();
        let (origin, target) = split(&self.probe.url);
        let (name, method) = match self.probe.method {
            ProbeMethod::Get => ("GET", Method::GET),
            ProbeMethod::Head => ("HEAD", Method::HEAD),
        };
        let scheme = origin.split_once("://").map_or("https", |(scheme, _)| scheme);
        let mut outgoing = Outgoing::plain(name, scheme, &authority, target, b"");
        self.apply(material, &mut outgoing).map_err(|error| failed(error.to_string()))?;
        let mut ask = Ask::new(method, format!("{origin}{}", outgoing.target()));
        for (name, value) in outgoing.headers() {
            ask = ask.named(name, value).ok_or_else(|| failed(format!("`{name}` cannot be sent")))?;
        }
        // Only the cause: a credential in the path is in the address.
        let answer = sources.outbound.send(ask).await.map_err(|error| failed(error.cause()))?;
        if self.probe.statuses.contains(&answer.status) {
            return Ok(());
        }
        Err(failed(format!("the new value was answered with {}; the one before stays in use", answer.status)))
    }
}

impl Credential for Probed {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn places(&self) -> Vec<SlotName> {
        self.credentials.iter().flat_map(|credential| credential.places()).collect()
    }

    fn parts(&self) -> &[Arc<dyn Credential>] {
        &self.credentials
    }

    fn references(&self) -> Vec<String> {
        self.credentials.iter().flat_map(|credential| credential.references()).collect()
    }

    fn provider(&self) -> Option<String> {
        self.credentials.iter().find_map(|credential| credential.provider())
    }

    /// Not the references: when one changes, the value of the one before serves until the new one is accepted.
    fn key(&self, caller: &Caller) -> Option<Key> {
        let mut key = Key::new(KIND, caller.tenant())
            .with("binding", &self.binding)
            .with("environment", &caller.environment)
            .with("server", &caller.server);
        let mut is_personal = false;
        for credential in &self.credentials {
            key = key.with("kind", credential.kind());
            for place in credential.places() {
                key = key.with("place", place.to_string());
            }
            // What tells minted materials apart tells these apart.
            if let Some(inner) = credential.key(caller) {
                key = key.with("material", inner.digest().to_string());
            }
            is_personal |= credential.key(caller).is_some() || credential.provider().is_some();
            is_personal |= credential.references().iter().any(|reference| is_template(reference));
        }
        Some(if is_personal { key.with("principal", &caller.principal.key) } else { key })
    }

    fn terms(&self) -> Terms {
        Terms::Stored {
            refresh: Duration::from_secs(self.probe.refresh_secs),
            max_stale: Duration::from_secs(self.probe.max_stale_secs),
        }
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        Box::pin(async move {
            let mut parts = Vec::with_capacity(self.credentials.len());
            for credential in &self.credentials {
                parts.push(sources.material(credential, &caller).await?);
            }
            let material = Material::together(parts);
            let key = self.key(&caller).map(|key| key.digest());
            let values = digest(&material);
            let is_known = |accepted: &HashMap<Digest, [u8; 32]>| {
                key.and_then(|key| accepted.get(&key)).is_some_and(|known| *known == values)
            };
            if !is_known(&self.accepted.lock().unwrap_or_else(PoisonError::into_inner)) {
                let asked = self.ask(&material, &sources).await;
                asked.inspect_err(|error| {
                    tracing::warn!(binding = self.binding, cause = error.cause, "a probe failed")
                })?;
                let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
                if accepted.len() >= MAX_ACCEPTED {
                    accepted.clear();
                }
                accepted.extend(key.map(|key| (key, values)));
            }
            Ok(material)
        })
    }

    fn turn(&self) -> Turn {
        self.credentials.iter().map(|credential| credential.turn()).max().unwrap_or(Turn::Fill)
    }

    fn placeholders(&self) -> Vec<&str> {
        self.credentials.iter().flat_map(|credential| credential.placeholders()).collect()
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        for turn in Turn::ALL {
            for (credential, part) in self.credentials.iter().zip(material.parts()) {
                if credential.turn() == turn {
                    credential.apply(part, outgoing)?;
                }
            }
        }
        Ok(())
    }
}

/// SHA-256 over the secret values: tells whether they are the ones that were accepted.
fn digest(material: &Material) -> [u8; 32] {
    let mut digest = Sha256::new();
    for secret in material.secrets() {
        digest.update((secret.len() as u64).to_be_bytes());
        digest.update(secret.expose());
    }
    digest.finalize().into()
}

/// Scheme and authority, and the rest, of a URL that was checked.
fn split(url: &str) -> (&str, &str) {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(start..).and_then(|rest| rest.find(['/', '?'])).map_or(url.len(), |at| start + at);
    match url.split_at_checked(end) {
        Some((origin, "")) => (origin, "/"),
        Some(parts) => parts,
        None => (url, "/"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::Header;
    use super::*;
    use crate::config::{HeaderCredential, SecretSource};
    use crate::identity::{Principal, PrincipalKind};

    fn probed(reference: &str) -> Probed {
        let secret = SecretSource { reference: reference.into(), json_key: None, trim_newline: false };
        let header = HeaderCredential { name: "x-api-key".into(), template: "{secret}".into(), secret };
        let url = "https://api.example/me".to_owned();
        let (method, statuses) = (ProbeMethod::Get, vec![200]);
        let probe = Probe { url, method, statuses, refresh_secs: 10, max_stale_secs: 86_400 };
        Probed::new("binding", vec![Arc::new(Header(header))], probe)
    }

    fn caller(tenant: &str, user: &str, agent: &str, environment: &str) -> Caller {
        let key = Principal::key("jwt", "issuer", PrincipalKind::User, user, Some(agent));
        let principal = Principal { key, tenant: tenant.into(), ..Principal::nobody() };
        Caller { principal: Arc::new(principal), ..Caller::none(environment) }
    }

    #[test]
    fn what_was_tried_for_one_tenant_person_agent_or_environment_serves_no_other() {
        let callers = [
            caller("acme", "alice", "desk", "test"),
            caller("other", "alice", "desk", "test"),
            caller("acme", "bob", "desk", "test"),
            caller("acme", "alice", "shell", "test"),
            caller("acme", "alice", "desk", "production"),
        ];
        let distinct = |probed: &Probed| {
            let keys = callers.iter().filter_map(|caller| probed.key(caller));
            keys.map(|key| key.digest()).collect::<std::collections::BTreeSet<_>>().len()
        };
        for personal in ["vault://kv/{user}", "vault://kv/{agent}", "vault://kv/{environment}", "grant://mail"] {
            assert_eq!(distinct(&probed(personal)), callers.len(), "{personal}");
        }
        // What is a service's own is one for its people and agents, never for tenants or environments.
        assert_eq!(distinct(&probed("vault://kv/key")), 3);
        // Another reference is the same entry: the value before serves until the new one is accepted.
        let key = |reference: &str| probed(reference).key(&callers[0]).map(|key| key.digest());
        assert_eq!(key("vault://kv/key"), key("vault://kv/next"));
    }
}
