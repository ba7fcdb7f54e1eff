//! AWS Secrets Manager and the Parameter Store of Systems Manager, through AWS's own SDKs.
//!
//! A version is chosen behind a question mark: `NAME://db?stage=AWSPENDING`, `NAME:///db?version=3`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};

use super::{MAX_SECRET_BYTES, Resolved, Resolving, SecretError, SecretStore, Secrets};
use crate::caller::Caller;
use crate::config::{AwsEndpoint, AwsSecretsManagerStore, AwsSsmStore, Caching};
use crate::credential::aws::failure::{Asked, failure};
use crate::credential::aws::identity::Access;
use crate::freshness::{MintErrorKind, Terms};

const READ_SECRET: &str =
    "allow Keyward's identity `secretsmanager:GetSecretValue` on it, and `kms:Decrypt` on its key";
const READ_PARAMETER: &str = "allow Keyward's identity `ssm:GetParameter` on it, and `kms:Decrypt` on its key";
/// What a probe asks for; nobody has it.
const PROBE: &str = "keyward-doctor-probe";

/// Secrets Manager.
pub(super) struct SecretsManager {
    store: Store,
}

/// The Parameter Store.
pub(super) struct Parameters {
    store: Store,
}

/// What both have.
struct Store {
    name: String,
    access: Access,
    caching: Caching,
    local: Arc<Secrets>,
}

/// A reference without its scheme: the id, and the version behind the question mark.
struct Reference<'a> {
    id: &'a str,
    version: Option<(&'a str, &'a str)>,
}

// === impl Reference ===

impl<'a> Reference<'a> {
    fn read(rest: &'a str) -> Reference<'a> {
        match rest.split_once('?') {
            None => Reference { id: rest, version: None },
            Some((id, version)) => Reference { id, version: Some(version.split_once('=').unwrap_or((version, ""))) },
        }
    }

    /// Checks the form: characters of the id, and a version of one of these kinds.
    fn check(&self, others: &str, max: usize, kinds: &[&str]) -> Result<(), SecretError> {
        // Placeholders and what fills them are allowed here; AWS has the last word on a filled-in name.
        let fits = |char: char| char.is_ascii_alphanumeric() || others.contains(char) || "{}".contains(char);
        if self.id.is_empty() || self.id.len() > max || !self.id.chars().all(fits) {
            return Err(SecretError::Reference { cause: "what follows `://` is no name or ARN that AWS takes" });
        }
        let is_version = |value: &str| {
            let inner = |char: char| char.is_ascii_alphanumeric() || "_+=.@/-".contains(char);
            !value.is_empty() && value.len() <= 256 && value.chars().all(inner)
        };
        match self.version {
            None => Ok(()),
            Some((kind, value)) if kinds.contains(&kind) && is_version(value) => Ok(()),
            Some(_) => Err(SecretError::Reference { cause: "what follows `?` chooses no version" }),
        }
    }
}

// === impl Store ===

impl Store {
    fn terms(&self) -> Terms {
        let secs = Duration::from_secs;
        Terms::Stored { refresh: secs(self.caching.refresh_secs), max_stale: secs(self.caching.max_stale_secs) }
    }

    fn reference(&self, rest: &str) -> String {
        format!("{}://{rest}", self.name)
    }

    async fn config(&self, rest: &str) -> Result<aws_config::SdkConfig, SecretError> {
        let config = self.access.config(&Caller::none(""), &self.local).await;
        config.map_err(|error| SecretError::Unavailable { reference: self.reference(rest), cause: error.cause })
    }

    fn content(&self, rest: &str, content: Vec<u8>) -> Result<Resolved, SecretError> {
        if content.is_empty() {
            return Err(SecretError::NotSet { reference: self.reference(rest) });
        }
        if content.len() > MAX_SECRET_BYTES {
            return Err(SecretError::TooLarge { reference: self.reference(rest) });
        }
        Ok(Resolved::lasting(content))
    }

    fn error<E>(&self, rest: &str, error: &SdkError<E>, asked: &Asked<'_>) -> SecretError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let reference = self.reference(rest);
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        if let Some("ResourceNotFoundException" | "ParameterNotFound" | "ParameterVersionNotFound") = code {
            return SecretError::NotSet { reference };
        }
        let failed = failure(error, asked);
        match failed.kind {
            MintErrorKind::Transient => SecretError::Unavailable { reference, cause: failed.cause },
            _ => SecretError::Refused { reference, cause: failed.cause },
        }
    }

    /// What the answer to a probe means; that there is no such secret means that the store lets Keyward in.
    fn probed(&self, answer: Result<Resolved, SecretError>) -> Result<String, SecretError> {
        let seen = format!("{} lets Keyward in", self.access.endpoint().unwrap_or(self.access.region()));
        match answer {
            Ok(_) => Ok("the store lets Keyward in".to_owned()),
            Err(SecretError::NotSet { .. }) => Ok(seen),
            Err(SecretError::Refused { cause, .. }) if cause.contains("AccessDenied") => {
                Ok(format!("{seen}; which secrets it may read is up to its policy"))
            }
            Err(other) => Err(other),
        }
    }
}

// === impl SecretsManager ===

impl SecretsManager {
    pub(super) fn new(name: &str, config: &AwsSecretsManagerStore, local: &Arc<Secrets>) -> SecretsManager {
        let endpoint = AwsEndpoint { region: None, endpoint: config.endpoint.clone() };
        let access = Access::new(&config.identity, &endpoint, &config.region);
        SecretsManager { store: Store { name: name.into(), access, caching: config.caching, local: local.clone() } }
    }

    async fn get(&self, rest: &str) -> Result<Resolved, SecretError> {
        let Reference { id, version } = Reference::read(rest);
        let config = self.store.config(rest).await?;
        let mut builder = aws_sdk_secretsmanager::config::Builder::from(&config);
        if let Some(endpoint) = self.store.access.endpoint() {
            builder = builder.endpoint_url(endpoint);
        }
        let mut ask = aws_sdk_secretsmanager::Client::from_conf(builder.build()).get_secret_value().secret_id(id);
        match version {
            Some(("version", version)) => ask = ask.version_id(version),
            Some((_, stage)) => ask = ask.version_stage(stage),
            None => {}
        }
        let asked = Asked { operation: "GetSecretValue", resource: id, permission: READ_SECRET };
        let mut answer = ask.send().await.map_err(|error| self.store.error(rest, &error, &asked))?;
        let text = answer.secret_string.take().map(String::into_bytes);
        let content =
            text.or_else(|| answer.secret_binary.take().map(aws_sdk_secretsmanager::primitives::Blob::into_inner));
        self.store.content(rest, content.unwrap_or_default())
    }
}

impl SecretStore for SecretsManager {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        Reference::read(rest).check("/_+=.@-:%", 2048, &["stage", "version"])
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        Box::pin(self.get(rest))
    }

    fn terms(&self) -> Option<Terms> {
        Some(self.store.terms())
    }

    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<String, SecretError>> + Send + '_>> {
        Box::pin(async { self.store.probed(self.get(PROBE).await) })
    }
}

// === impl Parameters ===

impl Parameters {
    pub(super) fn new(name: &str, config: &AwsSsmStore, local: &Arc<Secrets>) -> Parameters {
        let endpoint = AwsEndpoint { region: None, endpoint: config.endpoint.clone() };
        let access = Access::new(&config.identity, &endpoint, &config.region);
        Parameters { store: Store { name: name.into(), access, caching: config.caching, local: local.clone() } }
    }

    async fn get(&self, rest: &str) -> Result<Resolved, SecretError> {
        let Reference { id, version } = Reference::read(rest);
        let config = self.store.config(rest).await?;
        let mut builder = aws_sdk_ssm::config::Builder::from(&config);
        if let Some(endpoint) = self.store.access.endpoint() {
            builder = builder.endpoint_url(endpoint);
        }
        let name = match version {
            Some((_, version)) => format!("{id}:{version}"),
            None => id.to_owned(),
        };
        let client = aws_sdk_ssm::Client::from_conf(builder.build());
        let asked = Asked { operation: "GetParameter", resource: &name, permission: READ_PARAMETER };
        let answer = client.get_parameter().name(&name).with_decryption(true).send().await;
        let answer = answer.map_err(|error| self.store.error(rest, &error, &asked))?;
        let value = answer.parameter.and_then(|parameter| parameter.value).unwrap_or_default();
        self.store.content(rest, value.into_bytes())
    }
}

impl SecretStore for Parameters {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        Reference::read(rest).check("/_.-%", 1011, &["version", "label"])
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        Box::pin(self.get(rest))
    }

    fn terms(&self) -> Option<Terms> {
        Some(self.store.terms())
    }

    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<String, SecretError>> + Send + '_>> {
        Box::pin(async { self.store.probed(self.get(PROBE).await) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_reference_names_a_secret_and_a_version() {
        let dir = Scratch::new();
        let local = Arc::new(Secrets::standard(dir.path()));
        let manager: AwsSecretsManagerStore =
            serde_json::from_value(serde_json::json!({"region": "eu-west-1"})).unwrap();
        let manager = SecretsManager::new("sm", &manager, &local);
        for good in [
            "db",
            "prod/{tenant}/db",
            "prod/acme%2Deu/db",
            "db?stage=AWSPENDING",
            "db?stage=AWSPREVIOUS",
            "db?version=EXAMPLE1-90ab-cdef-fedc-ba987EXAMPLE",
            "arn:aws:secretsmanager:eu-west-1:111122223333:secret:db-a1b2c3",
        ] {
            assert!(manager.check(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "db?", "db?stage=", "db?stage=a b", "db?label=x", "db?version=1&stage=2", "db#x"] {
            assert!(manager.check(bad).is_err(), "{bad}");
        }
        let parameters: AwsSsmStore = serde_json::from_value(serde_json::json!({"region": "eu-west-1"})).unwrap();
        let parameters = Parameters::new("ssm", &parameters, &local);
        for good in ["/prod/db", "db", "/prod/{tenant}/db?version=3", "/db?label=live"] {
            assert!(parameters.check(good).is_ok(), "{good}");
        }
        for bad in ["", "/a b", "/db?stage=AWSCURRENT", "/db:3", "/db?version="] {
            assert!(parameters.check(bad).is_err(), "{bad}");
        }
        assert_eq!(
            manager.terms(),
            Some(Terms::Stored { refresh: Duration::from_secs(60), max_stale: Duration::from_secs(300) })
        );
    }
}
