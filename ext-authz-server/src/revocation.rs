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

use crate::audit::record::{RevocationRecord, bounded, rfc3339};
use crate::database::from_unix_ms;

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
