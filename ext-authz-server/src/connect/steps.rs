//! What is remembered between two steps of a person, under a name that stands in an address once.

use serde::{Deserialize, Serialize};

use super::ticket::Ticket;

/// The person is at the identity issuer.
#[derive(Serialize, Deserialize)]
pub(super) struct LoginStep {
    pub(super) ticket: Ticket,
    /// The digest of the browser's cookie.
    pub(super) browser: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
}

/// The person has proved who they are and decides.
#[derive(Serialize, Deserialize)]
pub(super) struct ConsentStep {
    pub(super) ticket: Ticket,
    pub(super) browser: String,
}

/// The person is at the provider.
#[derive(Serialize, Deserialize)]
pub(super) struct ProviderStep {
    pub(super) ticket: Ticket,
    pub(super) browser: String,
    pub(super) verifier: String,
    /// The scopes that were asked for.
    pub(super) scopes: Vec<String>,
}

/// A step and the name of its kind.
pub(super) trait Step: Serialize + for<'de> Deserialize<'de> + Send + Sync {
    const KIND: &'static str;
    fn browser(&self) -> &str;
    fn ticket(&self) -> &Ticket;
}

macro_rules! step {
    ($step:ty, $kind:literal) => {
        impl Step for $step {
            const KIND: &'static str = $kind;

            fn browser(&self) -> &str {
                &self.browser
            }

            fn ticket(&self) -> &Ticket {
                &self.ticket
            }
        }
    };
}

step!(LoginStep, "step login");
step!(ConsentStep, "step consent");
step!(ProviderStep, "step provider");
