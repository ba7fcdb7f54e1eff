//! What tells one value of the cache from another.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// SHA-256 over a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

/// Labelled parts, in order. Two keys are equal only if all their parts are: each part is framed by its length. A part is
/// no secret; what depends on a secret takes its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    parts: Vec<(&'static str, String)>,
}

// === impl Key ===

impl Key {
    /// The key of a kind of value, with the tenant that it belongs to.
    #[must_use]
    pub fn new(kind: &str, tenant: &str) -> Key {
        Key { parts: vec![("kind", kind.to_owned()), ("tenant", tenant.to_owned())] }
    }

    /// The same with one more part.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Key {
        self.parts.push((name, value.into()));
        self
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.parts.get(1).map(|(_, tenant)| tenant.as_str()).unwrap_or_default()
    }

    /// One part by its name.
    #[must_use]
    pub fn part(&self, name: &str) -> Option<&str> {
        self.parts.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    /// Who is asked for such values, whatever the tenant and the caller.
    #[must_use]
    pub fn source(&self) -> String {
        let named = |name: &&str| self.part(name).filter(|value| !value.is_empty());
        let other_side = ["issuer", "configuration", "binding"].iter().find_map(named);
        format!("{} {}", self.part("kind").unwrap_or_default(), other_side.unwrap_or_default())
    }

    /// Whether every one of these parts is among its own.
    #[must_use]
    pub fn has_all(&self, parts: &[(&str, &str)]) -> bool {
        parts.iter().all(|(name, value)| self.parts.iter().any(|(own, its)| own == name && its == value))
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut digest = Sha256::new();
        for text in self.parts.iter().flat_map(|(name, value)| [*name, value.as_str()]) {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text.as_bytes());
        }
        Digest(digest.finalize().into())
    }
}

// === impl Digest ===

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
