//! The lifecycle of bindings: draft, approved, active, disabled, revoked; which step leads where, and who has to agree.
//!
//! An approval is of one definition, by its digest. A definition that changes is a draft until it was approved as well; the one
//! before stays approved, so that replicas that still run with it go on, and the next one can be approved before it is
//! rolled out. A stop is of the binding, whatever its definition: `disabled` is lifted by activating, `revoked` by nothing.

mod book;
mod step;
mod used;

pub use book::{Book, Gate, Known, NotKnown, Standing};
pub use step::{Outcome, Wish, WishError};
pub use used::{Used, unbind};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::audit::record::{StepRecord, bounded, rfc3339};
use crate::database::from_unix_ms;

/// The most definitions of one binding that are remembered; the oldest goes first, and is a draft again.
const MAX_DEFINITIONS: usize = 16;
/// The longest name of a person, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 512;

/// Where a binding stands. Only an active one serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not enough people approved this definition.
    Draft,
    /// Enough people did; nobody has activated it.
    Approved,
    /// It serves.
    Active,
    /// Stopped until somebody activates it.
    Disabled,
    /// Stopped for good.
    Revoked,
}

/// What a person can do with a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Agree to a definition.
    Approve,
    /// Let an approved definition serve, or a disabled binding serve again.
    Activate,
    /// Stop it.
    Disable,
    /// Stop it for good.
    Revoke,
}

/// All that is known of one binding; empty before the first step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    stop: Option<Stop>,
    definitions: Vec<Definition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stop {
    Disabled,
    Revoked,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Definition {
    digest: String,
    approvers: Vec<String>,
    active: bool,
}

/// One step, as it is kept for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The environment of the configuration.
    pub environment: String,
    /// The binding.
    pub id: String,
    /// How many steps there were, with this one.
    pub version: i64,
    /// What was done.
    pub action: Action,
    /// Where it stood before, under the rule of whoever took the step.
    pub from: State,
    /// Where it stood then.
    pub to: State,
    /// The digest of the definition.
    pub definition: String,
    /// Who says to have done it.
    pub by: String,
    /// The system's user that ran the command.
    pub user: String,
    /// Why, as the person wrote it.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// All that was known of the binding from then on.
    pub record: Record,
}

/// A step that cannot be taken. The text says where the binding stands and what can be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// It leads nowhere from there.
    #[error("it is {state}, so that it cannot be {}; what can be done: {}", .action.done(), listed(*.state))]
    Illegal {
        /// Where it stands.
        state: State,
        /// What was asked for.
        action: Action,
    },
    /// Not enough people approved it.
    #[error("it is {state}, with {have} of {need} approvals of this definition; what can be done: {}", listed(*.state))]
    NotApproved {
        /// Where it stands.
        state: State,
        /// How many did.
        have: usize,
        /// How many have to.
        need: usize,
    },
    /// Nobody has to approve anything.
    #[error("`lifecycle.approvals` is 0: nothing has to be approved")]
    NothingToApprove,
    /// The definition has no digest.
    #[error("its definition cannot be read")]
    NoDefinition,
    /// Not the name of a person.
    #[error("`{0}` is no name: use 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_`, `-`, `+` and `@`")]
    Name(String),
}

// === impl Entry ===

impl Entry {
    /// The step as an audit record holds it.
    #[must_use]
    pub fn to_record(&self) -> StepRecord {
        StepRecord {
            id: self.id.clone(),
            action: self.action.as_str(),
            from: self.from.as_str(),
            to: self.to.as_str(),
            version: self.version,
            definition: self.definition.clone(),
            by: self.by.clone(),
            user: self.user.clone(),
            reason: bounded(&self.reason),
            at: rfc3339(from_unix_ms(self.at_ms)),
        }
    }
}

// === impl State ===

impl State {
    /// The name in lists and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Draft => "draft",
            State::Approved => "approved",
            State::Active => "active",
            State::Disabled => "disabled",
            State::Revoked => "revoked",
        }
    }

    /// What can be done from there.
    fn actions(self) -> &'static [Action] {
        match self {
            State::Draft => &[Action::Approve, Action::Disable, Action::Revoke],
            State::Approved => &[Action::Activate, Action::Disable, Action::Revoke],
            State::Active => &[Action::Disable, Action::Revoke],
            State::Disabled => &[Action::Approve, Action::Activate, Action::Revoke],
            State::Revoked => &[],
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn listed(state: State) -> String {
    match state.actions() {
        [] => "nothing, declare a binding with another id".to_owned(),
        actions => actions.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(", "),
    }
}

// === impl Action ===

impl Action {
    /// The name of the command.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Approve => "approve",
            Action::Activate => "activate",
            Action::Disable => "disable",
            Action::Revoke => "revoke",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Action::Approve => "approved",
            Action::Activate => "activated",
            Action::Disable => "disabled",
            Action::Revoke => "revoked",
        }
    }
}

// === impl Record ===

impl Record {
    /// Where a binding of this definition stands where so many people have to approve.
    #[must_use]
    pub fn state(&self, definition: &str, approvals: usize) -> State {
        match self.stop {
            Some(Stop::Revoked) => State::Revoked,
            Some(Stop::Disabled) => State::Disabled,
            None if approvals == 0 => State::Active,
            None => match self.find(definition) {
                Some(found) if found.approvers.len() < approvals => State::Draft,
                Some(found) if found.active => State::Active,
                Some(_) => State::Approved,
                None => State::Draft,
            },
        }
    }

    /// Who approved this definition, in order.
    #[must_use]
    pub fn approvers(&self, definition: &str) -> &[String] {
        self.find(definition).map_or(&[], |found| &found.approvers)
    }

    /// The record after a step; `None` where the step has been taken before and changes nothing.
    ///
    /// # Errors
    /// The step leads nowhere from there, or too few people approved.
    pub fn after(
        &self,
        action: Action,
        definition: &str,
        by: &str,
        approvals: usize,
    ) -> Result<Option<Record>, StepError> {
        check_name(by)?;
        let state = self.state(definition, approvals);
        let mut next = self.clone();
        match action {
            Action::Revoke if state == State::Revoked => return Ok(None),
            Action::Revoke => next.stop = Some(Stop::Revoked),
            _ if state == State::Revoked => return Err(StepError::Illegal { state, action }),
            Action::Disable if state == State::Disabled => return Ok(None),
            Action::Disable => {
                next.stop = Some(Stop::Disabled);
                // Activating one definition does not bring back the others.
                next.definitions.iter_mut().for_each(|definition| definition.active = false);
            }
            Action::Approve if approvals == 0 => return Err(StepError::NothingToApprove),
            Action::Approve => {
                let found = next.find_or_add(definition)?;
                if found.approvers.len() >= approvals || found.approvers.iter().any(|name| is_same(name, by)) {
                    return Ok(None);
                }
                found.approvers.push(by.to_owned());
                found.active = false;
            }
            Action::Activate if state == State::Active => return Ok(None),
            Action::Activate => {
                if approvals > 0 {
                    let found = next.find_or_add(definition)?;
                    let have = found.approvers.len();
                    if have < approvals {
                        return Err(StepError::NotApproved { state, have, need: approvals });
                    }
                    found.active = true;
                }
                next.stop = None;
            }
        }
        Ok(Some(next))
    }

    fn find(&self, digest: &str) -> Option<&Definition> {
        self.definitions.iter().find(|definition| definition.digest == digest)
    }

    fn find_or_add(&mut self, digest: &str) -> Result<&mut Definition, StepError> {
        if digest.is_empty() {
            return Err(StepError::NoDefinition);
        }
        let position = match self.definitions.iter().position(|definition| definition.digest == digest) {
            Some(position) => position,
            None => {
                if self.definitions.len() >= MAX_DEFINITIONS {
                    self.definitions.remove(0);
                }
                self.definitions.push(Definition { digest: digest.to_owned(), approvers: Vec::new(), active: false });
                self.definitions.len() - 1
            }
        };
        self.definitions.get_mut(position).ok_or(StepError::NoDefinition)
    }
}

/// Whether two names are one person's: a name counts once, however it is capitalised.
fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Plain letters only: two spellings that look alike must not count as two people.
fn check_name(name: &str) -> Result<(), StepError> {
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-+@".contains(&byte));
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !fits {
        return Err(StepError::Name(bounded(name)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
