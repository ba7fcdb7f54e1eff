//! Taking a step with a binding, for whoever may: the command line and the operator API.

use std::time::SystemTime;

use super::{Action, Entry, MAX_REASON_BYTES, Record, State as Stands, StepError};
use crate::config::Config;
use crate::database::{HistoryError, unix_ms};
use crate::state::State;

/// How often a step is tried that others are faster than.
const ATTEMPTS: usize = 16;

/// A step that somebody wants to take.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// The binding.
    pub id: &'a str,
    /// What to do.
    pub action: Action,
    /// Who says to do it.
    pub by: &'a str,
    /// What the system knows of them.
    pub user: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Only if the binding is still at this version.
    pub version: Option<i64>,
}

/// What came of a wish.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The step was taken.
    Taken(Box<Entry>),
    /// It had been taken before. Where the binding stands, and its version.
    Nothing(Stands, i64),
}

/// Why a wish cannot be fulfilled; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// Nobody would care.
    #[error("there is no `lifecycle` in the configuration, so that no server would care")]
    NoLifecycle,
    /// There is no such binding.
    #[error("there is none in the configuration")]
    NotDeclared,
    /// The reason cannot be kept.
    #[error("the reason is longer than {MAX_REASON_BYTES} bytes, or has control characters")]
    Reason,
    /// Somebody was faster.
    #[error("it is at version {version} and {stands}, not at version {expected}; nothing has changed")]
    Version {
        /// Where it is.
        version: i64,
        /// Where it stands.
        stands: Stands,
        /// Where it was expected.
        expected: i64,
    },
    /// The step leads nowhere from there.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Others are faster, always.
    #[error("others are changing it all the time; nothing has changed")]
    Contended,
}

// === impl Wish ===

impl Wish<'_> {
    /// Takes the step, where it can be taken.
    ///
    /// # Errors
    /// It cannot; nothing has changed.
    pub async fn fulfil(&self, state: &State, config: &Config) -> Result<Outcome, WishError> {
        let Wish { id, action, by, user, reason, version: expected } = *self;
        if reason.len() > MAX_REASON_BYTES || reason.chars().any(char::is_control) {
            return Err(WishError::Reason);
        }
        let rule = config.lifecycle.ok_or(WishError::NoLifecycle)?;
        let binding = config.bindings.iter().find(|binding| binding.id == id);
        for _ in 0..ATTEMPTS {
            let newest = newest(state, &config.environment, id).await?;
            let version = newest.as_ref().map_or(0, |entry| entry.version);
            let record = newest.as_ref().map_or_else(Record::default, |entry| entry.record.clone());
            let definition = match (binding, &newest, action) {
                (Some(binding), ..) => binding.definition.clone(),
                // What is not declared any more can still be kept from coming back.
                (None, Some(entry), Action::Disable | Action::Revoke) => entry.definition.clone(),
                (None, ..) => return Err(WishError::NotDeclared),
            };
            let stands = record.state(&definition, rule.approvals);
            if let Some(expected) = expected
                && expected != version
            {
                return Err(WishError::Version { version, stands, expected });
            }
            let Some(next) = record.after(action, &definition, by, rule.approvals)? else {
                return Ok(Outcome::Nothing(stands, version));
            };
            let entry = Entry {
                environment: config.environment.clone(),
                id: id.to_owned(),
                version: version + 1,
                action,
                from: stands,
                to: next.state(&definition, rule.approvals),
                definition,
                by: by.to_owned(),
                user: user.to_owned(),
                reason: reason.to_owned(),
                at_ms: unix_ms(SystemTime::now()),
                record: next,
            };
            if state.bindings.add(&entry).await? {
                return Ok(Outcome::Taken(Box::new(entry)));
            }
        }
        Err(WishError::Contended)
    }
}

/// The newest step of a binding.
async fn newest(state: &State, environment: &str, id: &str) -> Result<Option<Entry>, HistoryError> {
    let all = state.bindings.newest().await?;
    let found = all.into_iter().find(|newest| newest.environment == environment && newest.id == id);
    found.map(|found| found.entry).transpose()
}
