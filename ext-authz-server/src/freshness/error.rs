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
    /// Another attempt: it was made invalid while it was being had, perhaps because the user gave another one just now.
    Outrun,
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

    /// It was made invalid meanwhile.
    #[must_use]
    pub fn outrun() -> MintError {
        let cause = "it was revoked or replaced while it was being had".to_owned();
        MintError { kind: MintErrorKind::Outrun, cause }
    }

    /// It depends on a caller.
    #[must_use]
    pub fn needs_caller(cause: impl ToString) -> MintError {
        MintError { kind: MintErrorKind::NeedsCaller, cause: cause.to_string() }
    }
}
