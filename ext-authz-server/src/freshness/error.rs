//! Why there is no material, and what could help.

/// Why there is no material. The cause is for the operator and holds no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct MintError {
    /// What could help.
    pub kind: MintErrorKind,
    /// What is wrong, where, and what to do.
    pub cause: String,
}

/// What could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintErrorKind {
    /// Time: the other side did not answer, or not well.
    Transient,
    /// The operator: the other side refused, or the configuration cannot work.
    Rejected,
    /// The user: there is no grant, or it ended. Not remembered: the user may give it at any moment.
    Consent,
    /// A caller: the material depends on who calls, and nobody does.
    NeedsCaller,
}

// === impl MintError ===

impl MintError {
    /// Time may help.
    #[must_use]
    pub fn transient(cause: impl ToString) -> MintError {
        MintError { kind: MintErrorKind::Transient, cause: cause.to_string() }
    }

    /// The operator has to do something.
    #[must_use]
    pub fn rejected(cause: impl ToString) -> MintError {
        MintError { kind: MintErrorKind::Rejected, cause: cause.to_string() }
    }

    /// The user has to connect.
    #[must_use]
    pub fn consent(cause: impl ToString) -> MintError {
        MintError { kind: MintErrorKind::Consent, cause: cause.to_string() }
    }

    /// It depends on a caller.
    #[must_use]
    pub fn needs_caller(cause: impl ToString) -> MintError {
        MintError { kind: MintErrorKind::NeedsCaller, cause: cause.to_string() }
    }
}
