//! A client certificate that Envoy presents to the upstream. Nothing is put on the request: [`crate::sds`] gives certificate and
//! key to Envoy, and here it is seen to that a request is allowed only while there is one to present.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Credential, CredentialError, Material, Minting, Outgoing, Probing, SlotName};
use crate::caller::Caller;
use crate::config::ClientCertificateCredential;
use crate::freshness::{Key, MintError};
use crate::sds::Presented;
use crate::sources::Sources;

/// A client certificate of a binding.
pub struct ClientCertificate(pub ClientCertificateCredential);

// === impl ClientCertificate ===

impl ClientCertificate {
    /// What Envoy presents now: what it was given, or, where nobody keeps it up to date, what it would be given.
    async fn presented(&self, sources: &Sources) -> Result<Arc<Presented>, MintError> {
        let presented = match sources.secrets.presented().of(&self.0) {
            Some(known) => known?,
            None => Arc::new(Presented::have(&self.0, &sources.secrets).await?),
        };
        let in_date = presented.pair.check(SystemTime::now());
        in_date.map_err(|error| MintError::rejected(format!("client certificate `{}`: {error}", self.0.name)))?;
        Ok(presented)
    }
}

impl Credential for ClientCertificate {
    fn kind(&self) -> &'static str {
        "client_certificate"
    }

    fn places(&self) -> Vec<SlotName> {
        Vec::new()
    }

    fn references(&self) -> Vec<String> {
        let mut references = vec![self.0.certificate.reference.clone(), self.0.key.reference.clone()];
        references.dedup();
        references
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, _caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        // What an answer could show of it is no secret: the key never reaches the upstream.
        Box::pin(async move { self.presented(&sources).await.map(|_| Material::new()) })
    }

    fn apply(&self, _material: &Material, _outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        Ok(())
    }

    fn probe(self: Arc<Self>, _caller: Arc<Caller>, sources: Arc<Sources>) -> Option<Probing> {
        Some(Box::pin(async move { Ok(self.presented(&sources).await?.pair.end(SystemTime::now())) }))
    }

    fn client_certificate(&self) -> Option<&ClientCertificateCredential> {
        Some(&self.0)
    }
}
