//! What a decision says to a person who has to connect an account, and what it takes of a client's next attempt.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_contract::mcp::elicitation::{Asking, Carried, Invitation, Reply, own_state, reply};
use keyward_contract::reason::Reason;
use sha2::{Digest as _, Sha256};

use super::ticket::{RequestState, Ticket, TicketError};
use crate::config::Config;
use crate::identity::{Principal, PrincipalKind};
use crate::operation::Operation;
use crate::state::{State, StateDoor};

/// Makes invitations. One configuration's.
pub struct Invitations {
    public_url: String,
    titles: BTreeMap<String, String>,
    issuers: Vec<String>,
    state: StateDoor,
}

/// An invitation of one person to one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invited {
    asking: Asking,
    id: String,
    url: String,
    message: String,
    state: String,
}

/// A client's attempt at a request: what of it belongs to Keyward, and what to the upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    own: Option<RequestState>,
    carried: Carried,
    declined: bool,
}

/// Why an attempt is refused. For the operator; the client reads that the request is invalid.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The request state is of no use.
    #[error("the request state: {0}")]
    State(#[from] TicketError),
    /// It belongs to somebody else.
    #[error("the request state belongs to another principal")]
    Principal,
    /// It belongs to another request.
    #[error("the request state belongs to another request")]
    Request,
    /// It has let a request through before.
    #[error("the request state was used before")]
    Used,
    /// It cannot be looked at now.
    #[error("the request state cannot be looked at: {0}")]
    Unavailable(String),
}

// === impl AttemptError ===

impl AttemptError {
    /// What the client is told.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            AttemptError::Unavailable(_) | AttemptError::State(TicketError::Seal(_)) => Reason::CredentialUnavailable,
            _ => Reason::InvalidRequest,
        }
    }
}

// === impl Invitations ===

impl Invitations {
    /// The invitations of a configuration with connect pages.
    #[must_use]
    pub fn of(config: &Config, state: &StateDoor) -> Option<Invitations> {
        let connect = config.connect.as_ref()?;
        let title =
            |(name, provider): (&String, &crate::config::Provider)| (name.clone(), provider.title(name).to_owned());
        Some(Invitations {
            public_url: connect.public_url.clone(),
            titles: config.providers.iter().map(title).collect(),
            issuers: connect.login.keys().cloned().collect(),
            state: state.clone(),
        })
    }

    /// Invites a person to a provider. `request` and `carried` are what the client sends back with its next attempt.
    ///
    /// # Errors
    /// Nobody can be asked, or not now; for the operator.
    pub async fn invite(
        &self,
        principal: &Principal,
        provider: &str,
        asking: Asking,
        request: &str,
        carried: &Carried,
    ) -> Result<Invited, String> {
        if principal.kind != PrincipalKind::User {
            return Err("an agent that acts for itself has nobody who could connect".to_owned());
        }
        if !self.issuers.contains(&principal.issuer) {
            return Err(format!("`connect.login` has no entry `{}`", principal.issuer));
        }
        let title = self.titles.get(provider).ok_or_else(|| format!("there is no provider `{provider}`"))?;
        let state = opened(&self.state)?;
        let text = |error: &dyn ToString| error.to_string();
        let ticket = Ticket::new(principal, provider).map_err(|error| text(&error))?;
        let sealed = ticket.seal(&state.sealer).await.map_err(|error| text(&error))?;
        let request_state = match asking {
            Asking::ByResult => {
                let own = RequestState::new(principal, request, carried).map_err(|error| text(&error))?;
                own.seal(&state.sealer).await.map_err(|error| text(&error))?
            }
            Asking::ByError | Asking::Plainly => String::new(),
        };
        Ok(Invited {
            asking,
            id: ticket.id,
            url: format!("{}/connect/{sealed}", self.public_url),
            message: format!("Connect your account at {title} to go on. The link is good for ten minutes."),
            state: request_state,
        })
    }
}

// === impl Invited ===

impl Invited {
    /// How the client is asked.
    #[must_use]
    pub fn asking(&self) -> Asking {
        self.asking
    }

    /// What it is told.
    #[must_use]
    pub fn invitation(&self) -> Invitation<'_> {
        Invitation { id: &self.id, url: &self.url, message: &self.message, state: &self.state }
    }
}

// === impl Attempt ===

impl Attempt {
    /// Reads what a client sent back. A request without a state of Keyward's carries what belongs to the upstream.
    ///
    /// # Errors
    /// A state that is not this principal's for this request.
    pub async fn read(
        operation: &Operation<'_>,
        server: &str,
        principal: &Principal,
        door: &StateDoor,
    ) -> Result<Attempt, AttemptError> {
        let Some(params) = operation.params.and_then(|params| params.as_object()) else {
            return Ok(Attempt::default());
        };
        let Some(text) = own_state(params) else {
            return Ok(Attempt { carried: Carried::of(params), ..Attempt::default() });
        };
        let state = opened(door).map_err(AttemptError::Unavailable)?;
        let own = RequestState::open(text, &state.sealer).await?;
        if own.principal != principal.key || own.tenant != principal.tenant {
            return Err(AttemptError::Principal);
        }
        if own.request != request_digest(operation, server) {
            return Err(AttemptError::Request);
        }
        let unavailable = |error: crate::database::StatesError| AttemptError::Unavailable(error.to_string());
        if state.states.is_used(&own.id).await.map_err(unavailable)? {
            return Err(AttemptError::Used);
        }
        Ok(Attempt { carried: own.carried(), declined: reply(params) == Reply::Declined, own: Some(own) })
    }

    /// What belongs to the upstream.
    #[must_use]
    pub fn carried(&self) -> &Carried {
        &self.carried
    }

    /// Whether the person said no at the last attempt.
    #[must_use]
    pub fn declined(&self) -> bool {
        self.declined
    }

    /// The body as the upstream is to see it, where it is another one.
    #[must_use]
    pub fn body(&self, body: &[u8]) -> Option<Vec<u8>> {
        self.own.as_ref().and_then(|_| self.carried.restore(body))
    }

    /// Uses the state up, now that the request goes through.
    ///
    /// # Errors
    /// Another attempt was faster.
    pub async fn use_up(&self, door: &StateDoor) -> Result<(), AttemptError> {
        let Some(own) = &self.own else { return Ok(()) };
        let state = opened(door).map_err(AttemptError::Unavailable)?;
        match state.states.use_once(&own.id, own.expires()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AttemptError::Used),
            Err(error) => Err(AttemptError::Unavailable(error.to_string())),
        }
    }
}

/// A digest of what is asked: server, method, target and arguments, each framed by its length.
#[must_use]
pub fn request_digest(operation: &Operation<'_>, server: &str) -> String {
    let mut arguments = Vec::new();
    if let Some(value) = operation.arguments {
        value.write(&mut arguments);
    }
    let mut digest = Sha256::new();
    let target = operation.target.unwrap_or_default();
    for part in [server.as_bytes(), operation.method.as_bytes(), target.as_bytes(), &arguments] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    URL_SAFE_NO_PAD.encode(digest.finalize())
}

fn opened(door: &StateDoor) -> Result<Arc<State>, String> {
    door.get().cloned().ok_or_else(|| "there is no open `database`".to_owned())
}
