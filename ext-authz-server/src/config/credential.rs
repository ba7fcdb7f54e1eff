//! The kinds of credentials that a binding can hold. Each kind has its fields and its check in a file of its own.

pub(crate) mod aws;
mod basic;
mod client_certificate;
mod gateway_proof;
mod header;
mod hmac;
mod oauth;
mod placeholder;
mod query;

pub use aws::{
    AwsCredential, AwsEndpoint, AwsExternalId, AwsHop, AwsIdentity, AwsKeys, AwsPayload, AwsRole, AwsSession,
    AwsSignature, AwsSource, AwsTenant, AwsWebIdentity,
};
pub use basic::BasicCredential;
pub use client_certificate::ClientCertificateCredential;
pub use gateway_proof::GatewayProofCredential;
pub use header::HeaderCredential;
pub use hmac::{
    HmacAlgorithm, HmacCredential, KeyEncoding, QueryOrder, SignatureEncoding, SignedPlace, TimestampFormat,
};
pub use oauth::{
    Assertion, AzureIdentity, ClientAuthentication, GithubApp, GoogleKey, GoogleMetadata, Impersonation, OauthClient,
    OauthCredential, OauthGrant, ResourceServer, SigningAlgorithm, TOKEN, TokenFrom, TokenKind, TokenSource,
    UpstreamScheme,
};
pub use placeholder::{PlaceholderCredential, Surface};
pub use query::QueryCredential;

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretSource;
use super::check::Checker;

/// One credential and its place on the request.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Credential {
    /// A header; what the client sent under that name is replaced.
    Header(HeaderCredential),
    /// A query parameter; what the client sent under that name is replaced.
    Query(QueryCredential),
    /// `Authorization: Basic` (RFC 7617).
    Basic(BasicCredential),
    /// A signature of AWS (SigV4), with keys for one tenant and one caller.
    Aws(AwsCredential),
    /// An access token that is had from an authorization server (RFC 6749).
    Oauth(Box<OauthCredential>),
    /// A signature over the request, made with a shared key.
    Hmac(HmacCredential),
    /// A secret in place of what the client wrote into path, query, body or tool arguments.
    Placeholder(PlaceholderCredential),
    /// Proof that the request came through Keyward.
    GatewayProof(GatewayProofCredential),
    /// A certificate that Envoy presents to the upstream.
    ClientCertificate(ClientCertificateCredential),
}

/// What configuration can say of any kind.
pub(crate) trait Kind {
    /// The secrets that it names, each under its key below the credential.
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)>;

    /// Whether it is another one for each user.
    fn is_a_users(&self) -> bool {
        names_user(&self.secrets())
    }

    /// Whether it is another one for each agent.
    fn is_an_agents(&self) -> bool {
        self.secrets().iter().any(|(_, source)| source.reference.contains("{agent}"))
    }

    /// Adds what must not stand here; `key` is the place of the credential. Its secrets and places are checked already.
    fn check(&self, key: &str, checker: &mut Checker<'_>);
}

// === impl Credential ===

impl Credential {
    /// What can be said of any kind.
    pub(crate) fn kind(&self) -> &dyn Kind {
        match self {
            Credential::Header(own) => own,
            Credential::Query(own) => own,
            Credential::Basic(own) => own,
            Credential::Aws(own) => own,
            Credential::Oauth(own) => &**own,
            Credential::Hmac(own) => own,
            Credential::Placeholder(own) => own,
            Credential::GatewayProof(own) => own,
            Credential::ClientCertificate(own) => own,
        }
    }
}

/// Whether one of these is a user's own.
fn names_user(secrets: &[(&str, &SecretSource)]) -> bool {
    secrets.iter().any(|(_, source)| source.provider().is_some() || source.reference.contains("{user}"))
}

fn default_template() -> String {
    "{secret}".into()
}
