//! Who asks AWS: the server's own identity as the official SDK finds it, or keys out of a store; and the clients for it.
//!
//! The official chain looks at the environment, at profiles, at a web identity token (IRSA), at the container endpoint (ECS,
//! EKS Pod Identity) and at the instance metadata service (IMDSv2), in this order, and keeps what it found until shortly
//! before it ends.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use tokio::sync::OnceCell;

use crate::caller::Caller;
use crate::config::{AwsEndpoint, AwsIdentity, AwsKeys, SecretSource};
use crate::freshness::MintError;
use crate::secret::Secrets;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long all attempts may take together. Less than a mint may take, so that the error says who did not answer.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(9);
const MAX_ATTEMPTS: u32 = 3;
/// Between attempts, at random up to this, then up to twice as much.
const BACKOFF: Duration = Duration::from_millis(100);

/// Where and as whom to ask.
pub(crate) struct Access {
    identity: AwsIdentity,
    region: String,
    endpoint: Option<String>,
    shared: OnceCell<SdkConfig>,
    temporary: OnceCell<bool>,
}

// === impl Access ===

impl Access {
    pub(crate) fn new(identity: &AwsIdentity, endpoint: &AwsEndpoint, region: &str) -> Access {
        Access {
            identity: identity.clone(),
            region: endpoint.region.as_deref().unwrap_or(region).to_owned(),
            endpoint: endpoint.endpoint.clone(),
            shared: OnceCell::new(),
            temporary: OnceCell::new(),
        }
    }

    /// The region that is asked.
    pub(crate) fn region(&self) -> &str {
        &self.region
    }

    /// The configuration of a client with this identity.
    pub(crate) async fn config(&self, caller: &Caller, secrets: &Secrets) -> Result<SdkConfig, MintError> {
        match &self.identity {
            AwsIdentity::Server => Ok(self.server().await.clone()),
            AwsIdentity::Static(keys) => Ok(self.with(resolve(keys, caller, secrets).await?).await),
        }
    }

    /// The same with these keys.
    pub(crate) async fn with(&self, keys: Credentials) -> SdkConfig {
        let builder = self.server().await.clone().into_builder();
        builder.credentials_provider(SharedCredentialsProvider::new(keys)).build()
    }

    /// Whether this identity is a session itself, so that a role that it assumes is a chained one.
    pub(crate) async fn is_temporary(&self, caller: &Caller, secrets: &Secrets) -> Result<bool, MintError> {
        let found = self.temporary.get_or_try_init(async || {
            let config = self.config(caller, secrets).await?;
            let provider = config.credentials_provider().ok_or_else(|| no_identity(&"no provider"))?;
            let credentials = provider.provide_credentials().await.map_err(|error| no_identity(&chain(&error)))?;
            Ok(credentials.session_token().is_some())
        });
        found.await.copied()
    }

    async fn server(&self) -> &SdkConfig {
        self.shared
            .get_or_init(async || {
                let timeouts = TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .operation_timeout(OPERATION_TIMEOUT);
                let retries = RetryConfig::standard()
                    .with_max_attempts(MAX_ATTEMPTS)
                    .with_initial_backoff(BACKOFF)
                    .with_max_backoff(2 * BACKOFF);
                let loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
                    .region(Region::new(self.region.clone()))
                    .timeout_config(timeouts.build())
                    .retry_config(retries);
                loader.load().await
            })
            .await
    }

    /// STS with this configuration.
    pub(crate) fn sts(&self, config: &SdkConfig) -> aws_sdk_sts::Client {
        let mut builder = aws_sdk_sts::config::Builder::from(config);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint_url(endpoint);
        }
        aws_sdk_sts::Client::from_conf(builder.build())
    }

    /// STS for calls that prove themselves by a token.
    pub(crate) async fn anonymous_sts(&self) -> aws_sdk_sts::Client {
        self.sts(self.server().await)
    }

    /// The endpoint that overrides the public one.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }
}

/// Keys out of their stores.
pub(crate) async fn resolve(keys: &AwsKeys, caller: &Caller, secrets: &Secrets) -> Result<Credentials, MintError> {
    let id = text(&keys.access_key_id, caller, secrets).await?;
    let secret = text(&keys.secret_access_key, caller, secrets).await?;
    let token = match &keys.session_token {
        Some(source) => Some(text(source, caller, secrets).await?),
        None => None,
    };
    Ok(Credentials::new(id, secret, token, None, "keyward"))
}

/// A secret as text, without a line feed at its end.
pub(crate) async fn text(source: &SecretSource, caller: &Caller, secrets: &Secrets) -> Result<String, MintError> {
    let secret = secrets.get(source, caller).await?;
    let text = std::str::from_utf8(secret.value.expose()).map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    text.map_err(|_| MintError::rejected(format!("secret `{}` is not UTF-8", source.reference)))
}

fn no_identity(cause: &dyn std::fmt::Display) -> MintError {
    MintError::transient(format!(
        "Keyward has no AWS identity: {cause}; set one up: IRSA, Pod Identity, an instance profile, or AWS_ACCESS_KEY_ID"
    ))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
