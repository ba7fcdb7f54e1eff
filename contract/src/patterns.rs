//! Credentials that nobody told us of, recognised by the shapes that their issuers document.
//!
//! A [`Guard`] says what is to happen for each [`Rule`]; it takes whole values ([`Guard::inspect`]) and, for bodies that
//! arrive in pieces, gives out a [`Stream`]. A rule needs more than its prefix: the right length and alphabet, enough
//! entropy, and the checksum or marker where the format has one, so that ordinary text is left alone.
//!
//! Bounds: a stream holds back at most [`HOLD_MAX_BYTES`], and only what begins like a credential. The work is linear in the
//! text, except that each place where a prefix stands is read on for at most [`HOLD_MAX_BYTES`].

mod check;
mod guard;
mod rules;
mod stream;

#[cfg(test)]
mod tests;

pub use guard::{Action, Finding, Guard, Inspected};
pub use rules::{RULES, Rule, rule};
pub use stream::{Passed, Stream};

/// The longest credential that is looked at as a whole, in bytes. Longer ones are recognised by their beginning.
pub const HOLD_MAX_BYTES: usize = 4096;
