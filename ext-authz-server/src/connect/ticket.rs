//! What travels through an agent: the ticket in the address that a person opens, and the request state that a client
//! sends back. Both are sealed, end after 600 s, and say for whom they are, so that they are of no use to anybody else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keyward_contract::mcp::elicitation::{Carried, STATE_PREFIX};
use serde::{Deserialize, Serialize};

use crate::database::random_name;
use crate::identity::{LoggedIn, Principal};
use crate::seal::{SealError, Sealer};

/// How long a ticket, a state and a step last.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// The longest ticket or request state, in bytes; more is not even looked at.
const MAX_TOKEN_BYTES: usize = 64 * 1024;
/// The most that is carried for an upstream, in bytes.
const MAX_CARRIED_BYTES: usize = 16 * 1024;

/// The right of one person to connect one account once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Unique; used up when the person decides.
    pub id: String,
    /// The principal's tenant.
    pub tenant: String,
    /// The principal's key.
    pub principal: String,
    /// The principal's subject: who has to log in.
    pub subject: String,
    /// The name of the identity issuer at which.
    pub issuer: String,
    /// The agent that asked.
    pub agent: Option<String>,
    /// The provider.
    pub provider: String,
    /// When it ends, in seconds since 1970.
    pub expires_secs: u64,
}

/// What a client sends back with its next attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestState {
    /// Unique; used up by the attempt that is let through.
    pub id: String,
    /// The principal's tenant.
    pub tenant: String,
    /// The principal's key.
    pub principal: String,
    /// A digest of what was asked.
    pub request: String,
    /// When it ends, in seconds since 1970.
    pub expires_secs: u64,
    /// The upstream's own request state.
    pub upstream_state: Option<String>,
    /// The responses that go with it, as JSON text.
    pub upstream_responses: Option<String>,
}

/// Why a ticket or a state is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// Its time is over.
    #[error("its time is over")]
    Expired,
    /// It was changed, cut or made by somebody else.
    #[error("it was not made by this server, or was changed")]
    Forged,
    /// The seal cannot be used now.
    #[error(transparent)]
    Seal(SealError),
    /// An upstream's own state is too long to be carried.
    #[error("the upstream's own request state is longer than {MAX_CARRIED_BYTES} bytes")]
    TooLong,
}

// === impl Ticket ===

impl Ticket {
    /// A fresh ticket for this principal.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new(principal: &Principal, provider: &str) -> Result<Ticket, SealError> {
        Ok(Ticket {
            id: random_name()?,
            tenant: principal.tenant.clone(),
            principal: principal.key.clone(),
            subject: principal.subject.clone(),
            issuer: principal.issuer.clone(),
            agent: principal.agent.clone(),
            provider: provider.to_owned(),
            expires_secs: now_secs() + LIFETIME.as_secs(),
        })
    }

    /// The ticket as it stands in an address.
    ///
    /// # Errors
    /// It cannot be sealed now.
    pub async fn seal(&self, sealer: &Sealer) -> Result<String, SealError> {
        sealer.token("connect ticket", &serde_json::to_vec(self).unwrap_or_default()).await
    }

    /// The ticket of an address.
    ///
    /// # Errors
    /// It is none, or its time is over.
    pub async fn open(text: &str, sealer: &Sealer) -> Result<Ticket, TicketError> {
        let ticket: Ticket = open("connect ticket", text, sealer).await?;
        if ticket.expires_secs <= now_secs() { Err(TicketError::Expired) } else { Ok(ticket) }
    }

    /// Whether it is for who logged in: the same subject, and where the login names an organisation, that one.
    #[must_use]
    pub fn is_for(&self, person: &LoggedIn) -> bool {
        person.subject == self.subject && person.tenant.as_ref().is_none_or(|tenant| *tenant == self.tenant)
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires_secs)
    }
}

// === impl RequestState ===

impl RequestState {
    /// A fresh state for an attempt of this principal at this request, which carries what belongs to the upstream.
    ///
    /// # Errors
    /// There is too much to carry, or the system has no randomness.
    pub fn new(principal: &Principal, request: &str, carried: &Carried) -> Result<RequestState, TicketError> {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if length(&carried.state) + length(&carried.responses) > MAX_CARRIED_BYTES {
            return Err(TicketError::TooLong);
        }
        Ok(RequestState {
            id: random_name().map_err(TicketError::Seal)?,
            tenant: principal.tenant.clone(),
            principal: principal.key.clone(),
            request: request.to_owned(),
            expires_secs: now_secs() + LIFETIME.as_secs(),
            upstream_state: carried.state.clone(),
            upstream_responses: carried.responses.clone(),
        })
    }

    /// The state as it travels.
    ///
    /// # Errors
    /// It cannot be sealed now.
    pub async fn seal(&self, sealer: &Sealer) -> Result<String, SealError> {
        let token = sealer.token("request state", &serde_json::to_vec(self).unwrap_or_default()).await?;
        Ok(format!("{STATE_PREFIX}{token}"))
    }

    /// The state that a client sent.
    ///
    /// # Errors
    /// It is none, or its time is over.
    pub async fn open(text: &str, sealer: &Sealer) -> Result<RequestState, TicketError> {
        let token = text.strip_prefix(STATE_PREFIX).ok_or(TicketError::Forged)?;
        let state: RequestState = open("request state", token, sealer).await?;
        if state.expires_secs <= now_secs() { Err(TicketError::Expired) } else { Ok(state) }
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.expires_secs)
    }

    /// What belongs to the upstream.
    #[must_use]
    pub fn carried(&self) -> Carried {
        Carried { state: self.upstream_state.clone(), responses: self.upstream_responses.clone() }
    }
}

async fn open<T: for<'de> Deserialize<'de>>(table: &str, text: &str, sealer: &Sealer) -> Result<T, TicketError> {
    if text.len() > MAX_TOKEN_BYTES {
        return Err(TicketError::Forged);
    }
    match sealer.open_token(table, text).await {
        Ok(value) => serde_json::from_slice(&value).map_err(|_| TicketError::Forged),
        Err(SealError::Refused) => Err(TicketError::Forged),
        Err(error) => Err(TicketError::Seal(error)),
    }
}

fn now_secs() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::database::Database;
    use crate::seal::LocalKey;

    async fn sealer() -> Sealer {
        let database = Database::open("sqlite::memory:", 1).await.unwrap();
        let key = LocalKey::parse(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        Sealer::new(database, vec![Arc::new(key)]).unwrap()
    }

    fn alice() -> Principal {
        Principal { subject: "alice".into(), key: "key".into(), tenant: "acme".into(), ..Principal::nobody() }
    }

    #[tokio::test]
    async fn a_ticket_says_for_whom_it_is_until_its_time_is_over() {
        let sealer = sealer().await;
        let mut ticket = Ticket::new(&alice(), "calendar").unwrap();
        let text = ticket.seal(&sealer).await.unwrap();
        assert_eq!(Ticket::open(&text, &sealer).await.unwrap(), ticket);
        assert!(!text.contains("alice"));
        ticket.expires_secs = now_secs();
        let late = ticket.seal(&sealer).await.unwrap();
        assert!(matches!(Ticket::open(&late, &sealer).await, Err(TicketError::Expired)));
        for forged in ["", "x", &text[..text.len() - 1], &"a".repeat(MAX_TOKEN_BYTES + 1)] {
            assert!(matches!(Ticket::open(forged, &sealer).await, Err(TicketError::Forged)));
        }
    }

    #[test]
    fn a_ticket_is_for_one_person_of_one_organisation() {
        let ticket = Ticket::new(&alice(), "calendar").unwrap();
        let person = |subject: &str, tenant: Option<&str>| LoggedIn {
            subject: subject.to_owned(),
            tenant: tenant.map(str::to_owned),
        };
        assert!(ticket.is_for(&person("alice", None)) && ticket.is_for(&person("alice", Some("acme"))));
        assert!(!ticket.is_for(&person("alice", Some("other"))) && !ticket.is_for(&person("bob", Some("acme"))));
    }

    #[tokio::test]
    async fn a_ticket_is_no_request_state_and_the_other_way_round() {
        let sealer = sealer().await;
        let carried = Carried { state: Some("upstream's".into()), responses: None };
        let state = RequestState::new(&alice(), "digest", &carried).unwrap();
        let text = state.seal(&sealer).await.unwrap();
        assert_eq!(RequestState::open(&text, &sealer).await.unwrap().carried(), carried);
        let ticket = Ticket::new(&alice(), "calendar").unwrap().seal(&sealer).await.unwrap();
        assert!(RequestState::open(&format!("{STATE_PREFIX}{ticket}"), &sealer).await.is_err());
        assert!(RequestState::open(&ticket, &sealer).await.is_err());
        assert!(Ticket::open(text.strip_prefix(STATE_PREFIX).unwrap(), &sealer).await.is_err());
        let late = RequestState { expires_secs: now_secs(), ..state };
        let late = late.seal(&sealer).await.unwrap();
        assert!(matches!(RequestState::open(&late, &sealer).await, Err(TicketError::Expired)));
        let long = Carried { state: Some("x".repeat(MAX_CARRIED_BYTES + 1)), responses: None };
        assert!(matches!(RequestState::new(&alice(), "digest", &long), Err(TicketError::TooLong)));
    }
}
