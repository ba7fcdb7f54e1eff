//! Why a secret cannot be had.

use super::MAX_SECRET_BYTES;
use crate::caller::PlaceholderError;
use crate::freshness::{MintError, MintErrorKind};

/// Why a secret cannot be had. Never holds any part of a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The reference has no known form. No part of it is shown, since it may be the secret itself.
    #[error("not a secret reference (not shown, it may be a secret): {cause}")]
    Reference {
        /// What is wrong with it.
        cause: &'static str,
    },
    /// Two placeholders that nothing keeps apart.
    #[error("not a secret reference (not shown, it may be a secret): {}", PlaceholderError::Touching)]
    Touching,
    /// There is nothing there.
    #[error("secret `{reference}` is not set")]
    NotSet {
        /// The reference.
        reference: String,
    },
    /// It cannot be read.
    #[error("secret `{reference}` cannot be read: {cause}")]
    Read {
        /// The reference.
        reference: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is larger than [`MAX_SECRET_BYTES`].
    #[error("secret `{reference}` is larger than {MAX_SECRET_BYTES} bytes")]
    TooLarge {
        /// The reference.
        reference: String,
    },
    /// It is not a regular file.
    #[error("secret `{reference}` is not a regular file")]
    NotAFile {
        /// The reference.
        reference: String,
    },
    /// It is not a JSON object with a string under the key.
    #[error("secret `{reference}` is not a JSON object with a string in `{json_key}`")]
    JsonKey {
        /// The reference.
        reference: String,
        /// The key.
        json_key: String,
    },
    /// The store answered, and the answer is no.
    #[error("secret `{reference}`: {cause}")]
    Refused {
        /// The reference.
        reference: String,
        /// What the store said, and what to do.
        cause: String,
    },
    /// The store did not answer, or not well.
    #[error("secret `{reference}`: {cause}")]
    Unavailable {
        /// The reference.
        reference: String,
        /// What happened.
        cause: String,
    },
    /// The reference depends on the caller and there is none, or the caller lacks what it needs.
    #[error("secret `{reference}`: {cause}")]
    Caller {
        /// The reference, not filled in.
        reference: String,
        /// What is missing.
        cause: PlaceholderError,
    },
    /// The person has not given it yet.
    #[error("secret `{reference}`: the person has not connected it")]
    Consent {
        /// The reference.
        reference: String,
    },
    /// The cache's word for a failed store.
    #[error(transparent)]
    Kept(MintError),
}

// === impl SecretError ===

impl From<SecretError> for MintError {
    fn from(error: SecretError) -> MintError {
        let kind = match &error {
            SecretError::Kept(error) => return error.clone(),
            SecretError::Unavailable { .. } | SecretError::Read { .. } => MintErrorKind::Transient,
            SecretError::Caller { .. } => MintErrorKind::NeedsCaller,
            SecretError::Consent { .. } => MintErrorKind::Consent,
            _ => MintErrorKind::Rejected,
        };
        MintError { kind, cause: error.to_string() }
    }
}
