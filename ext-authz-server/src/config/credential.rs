//! The kinds of credentials that a binding can hold. Each kind has its fields and its check in a file of its own.

mod basic;
mod header;
mod oauth;
mod query;

pub use basic::BasicCredential;
pub use header::HeaderCredential;
pub use oauth::{
    Assertion, AzureIdentity, ClientAuthentication, GithubApp, GoogleKey, GoogleMetadata, Impersonation, OauthClient,
    OauthCredential, OauthGrant, ResourceServer, SigningAlgorithm, TOKEN, TokenFrom, TokenKind, TokenSource,
    UpstreamScheme,
};
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
    /// An access token that is had from an authorization server (RFC 6749).
    Oauth(Box<OauthCredential>),
}

/// What configuration can say of any kind.
pub(crate) trait Kind {
    /// The secrets that it names, each under its key below the credential.
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)>;

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
            Credential::Oauth(own) => &**own,
        }
    }
}

fn default_template() -> String {
    "{secret}".into()
}
