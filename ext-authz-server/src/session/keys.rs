//! The keys of sealed sessions: roots that replicas share, and of each root one key for each caller at each server entry.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use keyward_contract::session::SessionKey;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Whose;
use crate::run::audit_key;
use crate::snapshot::{Snapshot, Snapshots};

/// The shortest of `sessions.keys`, in bytes.
pub const MIN_KEY_BYTES: usize = 32;
/// How often it is looked whether the keys are other ones.
const KEY_INTERVAL: Duration = Duration::from_secs(1);
/// The most roots that are kept.
const MAX_ROOTS: usize = 16;
/// What makes a root of a secret. No JSON text begins with its first byte, so that no digest in the audit trail is one.
const ROOT_LABEL: &[u8] = b"\0keyward session root 1";
/// What makes a caller's key of a root.
const CALLER_LABEL: &[u8] = b"keyward session caller 1";

/// A root key; wiped when dropped.
pub type Root = Zeroizing<[u8; 32]>;

/// The roots in use, the newest first.
#[derive(Default)]
pub struct Keyring(Mutex<Vec<Held>>);

#[derive(Clone)]
struct Held {
    root: Root,
    /// Since when it only opens, although no configuration names it any more.
    retired: Option<Instant>,
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// One of them cannot be had.
    #[error("sessions.keys[{index}]: {cause}")]
    Secret {
        /// Which.
        index: usize,
        /// Why.
        cause: String,
    },
    /// One of them is too short.
    #[error("sessions.keys[{index}]: the key is shorter than {MIN_KEY_BYTES} bytes")]
    Short {
        /// Which.
        index: usize,
    },
    /// The key that they are made of where none is named.
    #[error("audit.hmac_key: {0}")]
    Audit(String),
}

/// The roots that a configuration names, the newest first; without any, one of `audit.hmac_key`. The flag says whether it is
/// that one.
///
/// # Errors
/// Names the key that cannot be had.
async fn roots(snapshot: &Snapshot) -> Result<(Vec<Root>, bool), KeyError> {
    let named = &snapshot.config.sessions.keys;
    if named.is_empty() {
        let key = audit_key(snapshot).await.map_err(KeyError::Audit)?;
        return Ok((vec![root(key.expose())], true));
    }
    let mut roots = Vec::with_capacity(named.len());
    for (index, source) in named.iter().enumerate() {
        let key = snapshot.sources.secrets.resolve(source).await;
        let key = key.map_err(|error| KeyError::Secret { index, cause: error.to_string() })?;
        if key.len() < MIN_KEY_BYTES {
            return Err(KeyError::Short { index });
        }
        roots.push(root(key.expose()));
    }
    Ok((roots, false))
}

/// Uses the keys of the first snapshot.
///
/// # Errors
/// Names the key that cannot be had.
pub async fn start(snapshot: &Snapshot) -> Result<(), KeyError> {
    let (roots, derived) = roots(snapshot).await?;
    let lifetime = Duration::from_secs(snapshot.config.sessions.max_lifetime_secs);
    snapshot.sources.secrets.sessions().keyring().replace(roots, derived, lifetime);
    Ok(())
}

/// Uses whatever keys there are now; those before stay in use while they cannot be had. Without end.
pub async fn follow(snapshots: Arc<Snapshots>) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(KEY_INTERVAL).await;
        let snapshot = snapshots.current();
        match roots(&snapshot).await {
            Ok((roots, derived)) => {
                said.clear();
                let lifetime = Duration::from_secs(snapshot.config.sessions.max_lifetime_secs);
                if snapshot.sources.secrets.sessions().keyring().replace(roots, derived, lifetime) {
                    tracing::info!("other keys seal the ids of sessions");
                }
            }
            Err(error) => {
                let cause = error.to_string();
                if cause != said {
                    tracing::error!(cause, "the keys of sessions cannot be used; those before stay in use");
                    said = cause;
                }
            }
        }
    }
}

fn root(secret: &[u8]) -> Root {
    derive(secret, ROOT_LABEL, &[])
}

/// HMAC-SHA256 (RFC 2104) over a label and texts, each after its length, so that no two lists are one.
fn derive(key: &[u8], label: &[u8], texts: &[&str]) -> Zeroizing<[u8; 32]> {
    // HMAC takes keys of every length: the error type is shared with MACs that do not.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(label);
    for text in texts {
        mac.update(&(text.len() as u64).to_be_bytes());
        mac.update(text.as_bytes());
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

// === impl Keyring ===

impl Keyring {
    /// Uses these roots from now on; whether the first is another than before. A root made of the audit key (`derived`) that
    /// another one follows opens what it sealed for one more lifetime, since nobody can name it any more.
    pub fn replace(&self, roots: Vec<Root>, derived: bool, lifetime: Duration) -> bool {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let changed = held.first().map(|own| &own.root) != roots.first();
        let mut next: Vec<Held> = roots.into_iter().map(|root| Held { root, retired: None }).collect();
        if derived {
            for own in held.iter() {
                let retired = own.retired.unwrap_or(now);
                if now.duration_since(retired) < lifetime && !next.iter().any(|other| other.root == own.root) {
                    next.push(Held { root: own.root.clone(), retired: Some(retired) });
                }
            }
        }
        next.truncate(MAX_ROOTS);
        *held = next;
        changed
    }

    /// The keys of a caller, the one that seals first.
    #[must_use]
    pub fn keys(&self, whose: &Whose<'_>) -> Vec<SessionKey> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Whose { environment, tenant, server, principal } = *whose;
        let texts = [environment, tenant, server, principal];
        held.iter().map(|own| SessionKey::new(*derive(&*own.root, CALLER_LABEL, &texts))).collect()
    }
}

#[cfg(test)]
mod tests {
    use keyward_contract::session::{Span, open, seal};

    use super::*;

    const ALICE: Whose<'_> = Whose { environment: "test", tenant: "one", server: "jira", principal: "alice" };
    const HOUR: Duration = Duration::from_secs(3600);

    fn sealed(keyring: &Keyring, whose: &Whose<'_>) -> String {
        let span = Span { issued_unix_secs: 1, ends_unix_secs: 2 };
        seal(&keyring.keys(whose)[0], &[5; 24], span, b"upstream").unwrap()
    }

    fn opens(keyring: &Keyring, whose: &Whose<'_>, id: &str) -> bool {
        keyring.keys(whose).iter().any(|key| open(key, id).is_some())
    }

    #[test]
    fn an_id_opens_for_nobody_else_and_nowhere_else() {
        let keyring = Keyring::default();
        assert!(keyring.keys(&ALICE).is_empty());
        keyring.replace(vec![root(b"key")], false, HOUR);
        let id = sealed(&keyring, &ALICE);
        assert!(opens(&keyring, &ALICE, &id));
        for other in [
            Whose { environment: "production", ..ALICE },
            Whose { tenant: "two", ..ALICE },
            Whose { server: "mail", ..ALICE },
            Whose { principal: "bob", ..ALICE },
            // The same letters, cut elsewhere.
            Whose { environment: "testo", tenant: "ne", ..ALICE },
            Whose { server: "jiraa", principal: "lice", ..ALICE },
        ] {
            assert!(!opens(&keyring, &other, &id), "{other:?}");
        }
        let replica = Keyring::default();
        replica.replace(vec![root(b"key")], true, HOUR);
        assert!(opens(&replica, &ALICE, &id), "another process with the same key");
    }

    #[test]
    fn a_key_before_opens_while_it_is_named() {
        let keyring = Keyring::default();
        assert!(keyring.replace(vec![root(b"old")], false, HOUR));
        let id = sealed(&keyring, &ALICE);
        assert!(keyring.replace(vec![root(b"new"), root(b"old")], false, HOUR));
        assert!(!keyring.replace(vec![root(b"new"), root(b"old")], false, HOUR));
        assert!(opens(&keyring, &ALICE, &id) && sealed(&keyring, &ALICE) != id);
        keyring.replace(vec![root(b"new")], false, HOUR);
        assert!(!opens(&keyring, &ALICE, &id));
    }

    #[test]
    fn a_key_made_of_the_audit_key_opens_for_one_more_lifetime() {
        let keyring = Keyring::default();
        keyring.replace(vec![root(b"old")], true, HOUR);
        let id = sealed(&keyring, &ALICE);
        for _ in 0..3 {
            keyring.replace(vec![root(b"new")], true, HOUR);
            assert!(opens(&keyring, &ALICE, &id));
        }
        keyring.replace(vec![root(b"new")], true, Duration::ZERO);
        assert!(!opens(&keyring, &ALICE, &id));
    }
}
