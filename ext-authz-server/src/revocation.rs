//! The end of access: who or what is revoked, in every replica and every filter within a second, until somebody lifts it.
//!
//! A revocation names a [`Subject`]. Each call rests on several, [`of_call`] says on which; it is denied while one of them is
//! revoked. The log in the database is only ever added to; [`Book`] is what this process knows of it.

mod act;
mod book;
mod subject;
mod watch;

pub use act::{ActError, Who, lift, revoke};
pub use book::{Book, Gate, NotKnown, Standing};
pub use subject::{Kind, Subject, SubjectError, of_binding, of_call};
pub use watch::Watches;

use serde::{Deserialize, Serialize};

use keyward_contract::reason::Reason;
use keyward_contract::revocation::Tag;
use keyward_contract::session::SESSION_ID_HEADER;

use crate::audit::record::{RevocationRecord, bounded, rfc3339};
use crate::binding::Choice;
use crate::database::from_unix_ms;
use crate::decision::{Denial, Stage};
use crate::plan::{Plan, Principal, Server};
use crate::request::Request;

/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 512;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The environment of the configuration.
    pub environment: String,
    /// Its place in the log, from 1 and without gaps.
    pub number: i64,
    /// What was done.
    pub act: Act,
    /// Who says to have done it.
    pub by: String,
    /// What the system knows of them.
    pub user: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What a line of the log says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A subject is revoked.
    Revoke {
        /// Which.
        subject: Subject,
        /// Until then, in milliseconds since 1970; without end where it is absent.
        until_ms: Option<i64>,
    },
    /// A revocation has ended.
    Lift {
        /// Its number.
        number: i64,
    },
}

/// The tags of everything that a call rests on before a binding is chosen; none where nothing can be revoked.
#[must_use]
pub fn of(plan: &Plan, request: &Request<'_>, server: &Server, principal: &Principal) -> Vec<Tag> {
    if plan.revocation().is_none() {
        return Vec::new();
    }
    of_call(plan.environment(), principal, &server.name, request.access_token())
}

/// The tags of the bindings; none where nothing can be revoked.
pub fn of_choice<'a>(plan: &'a Plan, choice: &'a Choice) -> impl Iterator<Item = Tag> + 'a {
    let bindings = if plan.revocation().is_some() { choice.bindings.as_slice() } else { &[] };
    bindings.iter().map(|binding| of_binding(plan.environment(), &binding.id))
}

/// Denies while something of this is revoked, and while that is not known.
///
/// # Errors
/// The denial.
pub fn standing(plan: &Plan, request: &Request<'_>, subjects: &[Tag]) -> Result<(), Denial> {
    let Some(gate) = plan.revocation() else { return Ok(()) };
    match gate.revoked(subjects) {
        Ok(None) => Ok(()),
        Ok(Some(number)) => {
            // MCP 2025-11-25, Transports, Session Management: a session that has ended answers 404, and the client begins anew.
            let reason = match request.headers.find(SESSION_ID_HEADER) {
                Some(_) => Reason::SessionNotFound,
                None => Reason::AccessRevoked,
            };
            Err(Denial::new(Stage::Revocation, reason, format!("revocation {number}")))
        }
        Err(error) => Err(Denial::new(Stage::Revocation, Reason::DecisionUnavailable, error)),
    }
}

// === impl Entry ===

impl Entry {
    /// The entry as an audit record holds it.
    #[must_use]
    pub fn to_record(&self) -> RevocationRecord {
        let (subject, until, lifts) = match &self.act {
            Act::Revoke { subject, until_ms } => (Some(subject), *until_ms, None),
            Act::Lift { number } => (None, None, Some(*number)),
        };
        RevocationRecord {
            number: self.number,
            kind: subject.map(|subject| subject.kind.as_str()),
            tenant: subject.map(|subject| bounded(&subject.tenant)),
            issuer: subject.and_then(|subject| subject.issuer.as_deref().map(bounded)),
            id: subject.map(|subject| bounded(&subject.id)),
            server: subject.and_then(|subject| subject.server.as_deref().map(bounded)),
            until: until.map(|ms| rfc3339(from_unix_ms(ms))),
            lifts,
            by: bounded(&self.by),
            user: bounded(&self.user),
            reason: bounded(&self.reason),
            at: rfc3339(from_unix_ms(self.at_ms)),
            materials_dropped: None,
        }
    }
}
