//! The list of kinds: from what configuration says to what does it.

use std::sync::Arc;

use super::Credential;
use super::aws::Aws;
use super::basic::Basic;
use super::client_certificate::ClientCertificate;
use super::gateway_proof::GatewayProof;
use super::header::Header;
use super::hmac::Hmac;
use super::oauth::Oauth;
use super::placeholder::Placeholder;
use super::probed::Probed;
use super::query::Query;
use crate::config;

/// The credentials of a binding: tried before a new value is used, where it has a probe.
#[must_use]
pub fn of_binding(binding: &config::Binding) -> Vec<Arc<dyn Credential>> {
    let credentials: Vec<_> = binding.credentials.iter().map(of).collect();
    match &binding.probe {
        Some(probe) => vec![Arc::new(Probed::new(&binding.id, credentials, probe.clone()))],
        None => credentials,
    }
}

/// The credential that this part of a configuration describes.
#[must_use]
pub fn of(configured: &config::Credential) -> Arc<dyn Credential> {
    match configured.clone() {
        config::Credential::Header(own) => Arc::new(Header(own)),
        config::Credential::Query(own) => Arc::new(Query(own)),
        config::Credential::Basic(own) => Arc::new(Basic(own)),
        config::Credential::Aws(own) => Arc::new(Aws::new(own)),
        config::Credential::Oauth(own) => Arc::new(Oauth(*own)),
        config::Credential::Hmac(own) => Arc::new(Hmac(own)),
        config::Credential::Placeholder(own) => Arc::new(Placeholder(own)),
        config::Credential::GatewayProof(own) => Arc::new(GatewayProof(own)),
        config::Credential::ClientCertificate(own) => Arc::new(ClientCertificate(own)),
    }
}
