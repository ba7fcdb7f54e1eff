//! Where a credential goes, what goes there, and why it could not.

use zeroize::Zeroizing;

/// A place in the upstream request that a credential occupies.
#[derive(Clone, Debug)]
pub enum SlotName {
    /// A header; names compare without case.
    Header(String),
    /// A query parameter, percent-encoded; names compare with case.
    Query(String),
}

/// A credential, ready to be put into its place. No `Debug`: it holds the secret.
pub struct Slot {
    /// The place.
    pub name: SlotName,
    /// What goes there.
    pub value: Zeroizing<String>,
}

/// Why a credential cannot be used. None of these holds any of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The material lacks a field.
    #[error("there is no {0}")]
    Missing(&'static str),
    /// The kind cannot do this to a request; the text says what and why.
    #[error("{0}")]
    Unfit(String),
    /// This request cannot carry it, another one may; the text says why.
    #[error("{0}")]
    Request(String),
    /// So uniform that it would be found everywhere, and cost much to look for.
    #[error("the secret has fewer than {MIN_DISTINCT_BYTES} different bytes")]
    TooUniform,
    /// Too short to be found in answers without false alarms.
    #[error("the secret is shorter than {MIN_SECRET_BYTES} bytes")]
    TooShort,
    /// Control characters, carriage return and line feed among them.
    #[error("the value holds a control character; a line feed at its end goes with `trim_newline: true`")]
    Control,
    /// White space that a peer would trim.
    #[error("the value begins or ends with white space")]
    OuterSpace,
    /// Not UTF-8.
    #[error("the value is not UTF-8")]
    NotUtf8,
    /// RFC 7617, 2: a user name holds no colon.
    #[error("the user name holds a colon")]
    UsernameColon,
    /// Not exactly one placeholder.
    #[error("the template does not hold exactly one `{{secret}}`")]
    Template,
}

/// The shortest secret that is used: shorter ones cannot be scrubbed safely.
pub const MIN_SECRET_BYTES: usize = 8;
/// How many different bytes a secret must have.
pub const MIN_DISTINCT_BYTES: usize = 4;

// === impl SlotName ===

impl PartialEq for SlotName {
    fn eq(&self, other: &SlotName) -> bool {
        match (self, other) {
            (SlotName::Header(one), SlotName::Header(two)) => one.eq_ignore_ascii_case(two),
            (SlotName::Query(one), SlotName::Query(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for SlotName {}

impl std::fmt::Display for SlotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SlotName::Header(name) => write!(f, "header `{name}`"),
            SlotName::Query(name) => write!(f, "query parameter `{name}`"),
        }
    }
}
