//! `type: client_certificate`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Credential, Kind};
use crate::caller::is_template;
use crate::config::SecretSource;
use crate::config::check::Checker;

/// A client certificate and its key, which Envoy asks Keyward's server for (Secret Discovery Service) and presents on every
/// connection of the cluster that names it, whoever's request it carries.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateCredential {
    /// The name in the cluster's `tls_certificate_sds_secret_configs`: 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`.
    /// Bindings that share a certificate give it the same name.
    pub name: String,
    /// The certificate, followed by those that lead to its authority: PEM.
    pub certificate: SecretSource,
    /// The key of the certificate: PEM, not encrypted.
    pub key: SecretSource,
}

impl Kind for ClientCertificateCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        vec![("certificate", &self.certificate), ("key", &self.key)]
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        checker.name(format!("{key}.name"), &self.name);
        for (field, source) in self.secrets() {
            if is_template(&source.reference) || source.provider().is_some() {
                let message = "the connections of a cluster are everybody's, so the certificate cannot be one caller's";
                checker.add(format!("{key}.{field}.ref"), message, "name a secret of the service");
            }
        }
        let all = checker.config().bindings.iter().flat_map(|binding| &binding.credentials);
        let is_other = |other: &Credential| matches!(other, Credential::ClientCertificate(other) if other.name == self.name && other != self);
        if all.into_iter().any(is_other) {
            let message = format!("`{}` names two different certificates", self.name);
            checker.add(format!("{key}.name"), message, "choose another name, or the same certificate and key");
        }
    }
}
