//! The pairs in use: what Envoy is given, by name.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use crate::caller::Caller;
use crate::certificate::Pair;
use crate::config::ClientCertificateCredential;
use crate::freshness::MintError;
use crate::hex::hex;
use crate::secret::{SecretBytes, Secrets};

/// A pair as Envoy gets it. No `Debug`: it holds a key.
pub struct Presented {
    /// The chain, PEM.
    pub certificate: Arc<SecretBytes>,
    /// The key, PEM.
    pub key: Arc<SecretBytes>,
    /// What was seen in both.
    pub pair: Pair,
    /// The same for the same chain.
    pub version: String,
}

/// What is in use, shared by everything that asks.
pub struct InUse {
    entries: RwLock<HashMap<String, Entry>>,
    /// Grows with each change.
    changes: watch::Sender<u64>,
}

struct Entry {
    configured: ClientCertificateCredential,
    presented: Option<Arc<Presented>>,
    /// Why there is nothing to present, though there may have been.
    trouble: Option<MintError>,
    /// SHA-256 of the pair that was refused last, and why.
    refused: Option<([u8; 32], String)>,
}

/// What a store holds, before it is looked at.
struct Found {
    certificate: Arc<SecretBytes>,
    key: Arc<SecretBytes>,
}

// === impl Presented ===

impl Presented {
    /// What the stores hold, looked at.
    ///
    /// # Errors
    /// It cannot be had, or must not be used.
    pub async fn have(own: &ClientCertificateCredential, secrets: &Secrets) -> Result<Presented, MintError> {
        let found = Found::have(own, secrets).await?;
        found.accepted().map_err(|cause| MintError::rejected(format!("client certificate `{}`: {cause}", own.name)))
    }

    fn is(&self, found: &Found) -> bool {
        self.certificate.ct_eq(&found.certificate) && self.key.ct_eq(&found.key)
    }
}

// === impl Found ===

impl Found {
    async fn have(own: &ClientCertificateCredential, secrets: &Secrets) -> Result<Found, MintError> {
        let both = secrets.get_all(&[&own.certificate, &own.key], &Caller::none("")).await?;
        match <[_; 2]>::try_from(both) {
            Ok([certificate, key]) => Ok(Found { certificate: certificate.value, key: key.value }),
            Err(_) => Err(MintError::transient("the store gave something else")),
        }
    }

    fn accepted(self) -> Result<Presented, String> {
        let pair = Pair::read(self.certificate.expose(), self.key.expose(), SystemTime::now());
        let pair = pair.map_err(|error| error.to_string())?;
        // Over the chain only: it is public, and names the key.
        let version = hex(Sha256::digest(self.certificate.expose()).iter().take(8));
        Ok(Presented { certificate: self.certificate, key: self.key, pair, version })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(Sha256::digest(self.certificate.expose()));
        digest.update(Sha256::digest(self.key.expose()));
        digest.finalize().into()
    }
}

// === impl InUse ===

impl Default for InUse {
    fn default() -> InUse {
        InUse { entries: RwLock::default(), changes: watch::Sender::new(0) }
    }
}

impl InUse {
    /// What Envoy presents under this configuration, or why nothing. `None` where nobody looked yet.
    #[must_use]
    pub fn of(&self, own: &ClientCertificateCredential) -> Option<Result<Arc<Presented>, MintError>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&own.name).filter(|entry| entry.configured == *own)?;
        match (&entry.trouble, &entry.presented) {
            (Some(error), _) => Some(Err(error.clone())),
            (None, Some(presented)) => Some(Ok(presented.clone())),
            (None, None) => None,
        }
    }

    /// What Envoy is given under this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Arc<Presented>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).filter(|entry| entry.trouble.is_none())?.presented.clone()
    }

    /// Tells of every change from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Forgets what is not configured any more.
    pub fn forget(&self, name: &str) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Looks whether the stores hold another pair, and uses it from now on if it is good. Says what became of another one:
    /// accepted or, once for each, refused. Only one may look at a time.
    pub async fn look(&self, own: &ClientCertificateCredential, secrets: &Secrets) -> Option<bool> {
        let found = Found::have(own, secrets).await;
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(own.name.clone()).or_insert_with(|| Entry::new(own));
        entry.configured = own.clone();
        let had_trouble = entry.trouble.take().is_some();
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                if !had_trouble {
                    tracing::warn!(name = own.name, %error, "the client certificate cannot be had");
                }
                entry.trouble = Some(error);
                return None;
            }
        };
        if entry.presented.as_ref().is_some_and(|presented| presented.is(&found)) {
            entry.refused = None;
            if had_trouble {
                self.changes.send_modify(|number| *number += 1);
            }
            return None;
        }
        let digest = found.digest();
        match found.accepted() {
            Ok(presented) => {
                let ends = crate::audit::record::rfc3339(presented.pair.ends);
                tracing::info!(name = own.name, version = presented.version, ends, "a client certificate is in use");
                (entry.presented, entry.refused) = (Some(Arc::new(presented)), None);
                self.changes.send_modify(|number| *number += 1);
                Some(true)
            }
            Err(cause) => {
                let error = MintError::rejected(format!("client certificate `{}`: {cause}", own.name));
                entry.trouble = entry.presented.is_none().then_some(error);
                // Files of a pair are replaced one after the other: it is said of what is still so at the next look.
                match &entry.refused {
                    Some((before, said)) if *before == digest && *said == cause => return None,
                    Some((before, _)) if *before == digest => {}
                    _ => {
                        entry.refused = Some((digest, String::new()));
                        return None;
                    }
                }
                let kept = entry.presented.is_some();
                tracing::error!(name = own.name, cause, kept, "a new client certificate was refused");
                entry.refused = Some((digest, cause));
                Some(false)
            }
        }
    }
}

// === impl Entry ===

impl Entry {
    fn new(own: &ClientCertificateCredential) -> Entry {
        Entry { configured: own.clone(), presented: None, trouble: None, refused: None }
    }
}
