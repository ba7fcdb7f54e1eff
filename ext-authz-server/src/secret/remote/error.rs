//! Why a store gave no secret: what is wrong, where, and what to do. Never a value.

/// What could help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreErrorKind {
    /// Time: the store does not answer, or cannot serve now.
    Outage,
    /// The store's operator: it refused this server's identity, or what that may read.
    Refused,
    /// Whoever writes secrets: there is none there.
    Missing,
    /// The store answered something else than its published description says, or the value is damaged.
    Malformed,
    /// Whoever wrote the configuration: it cannot work.
    Setup,
}

/// Why a store gave no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}; {remedy}")]
pub(crate) struct StoreError {
    kind: StoreErrorKind,
    place: String,
    cause: String,
    remedy: &'static str,
}

// === impl StoreError ===

impl StoreError {
    /// `place` says what was being done where, `cause` what went wrong, `remedy` what to do.
    pub(crate) fn new(
        kind: StoreErrorKind,
        place: impl Into<String>,
        cause: impl Into<String>,
        remedy: &'static str,
    ) -> StoreError {
        StoreError { kind, place: place.into(), cause: cause.into(), remedy }
    }

    /// The store does not answer, or cannot serve now.
    pub(crate) fn outage(place: impl Into<String>, cause: impl Into<String>) -> StoreError {
        StoreError::new(StoreErrorKind::Outage, place, cause, "check that the store runs and can be reached from here")
    }

    /// The answer is not what the published description says.
    pub(crate) fn malformed(place: impl Into<String>, cause: impl Into<String>) -> StoreError {
        StoreError::new(
            StoreErrorKind::Malformed,
            place,
            cause,
            "check that the address is that of the store's own API",
        )
    }

    /// What could help.
    pub(crate) fn kind(&self) -> StoreErrorKind {
        self.kind
    }
}
