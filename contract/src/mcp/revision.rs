//! The revisions of the Model Context Protocol that Keyward speaks.

use std::fmt;

/// A revision, older ones being less than newer ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// 2025-03-26, which also governs requests that declare no revision: batches, sessions.
    #[default]
    R2025_03_26,
    /// 2025-06-18: the version header, no batches.
    R2025_06_18,
    /// 2025-11-25.
    R2025_11_25,
    /// 2026-07-28: stateless, mirrored headers, POST only.
    R2026_07_28,
}

// === impl Revision ===

impl Revision {
    /// All revisions, the newest last.
    pub const ALL: [Revision; 4] =
        [Revision::R2025_03_26, Revision::R2025_06_18, Revision::R2025_11_25, Revision::R2026_07_28];

    /// The names of all revisions, the newest last.
    pub const SUPPORTED: [&'static str; 4] = ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

    /// The names of the revisions in which every request stands alone.
    pub const STATELESS: [&'static str; 1] = ["2026-07-28"];

    /// The revision of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Revision> {
        Revision::ALL.into_iter().find(|revision| revision.as_str() == name)
    }

    /// The name, for example `2025-11-25`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Revision::R2025_03_26 => "2025-03-26",
            Revision::R2025_06_18 => "2025-06-18",
            Revision::R2025_11_25 => "2025-11-25",
            Revision::R2026_07_28 => "2026-07-28",
        }
    }

    /// Whether every request stands alone: no handshake, no session, no GET, no DELETE, no client responses.
    #[must_use]
    pub fn is_stateless(self) -> bool {
        self >= Revision::R2026_07_28
    }

    /// The HTTP methods of the revision, as an `Allow` header lists them.
    #[must_use]
    pub fn http_methods(self) -> &'static str {
        if self.is_stateless() { "POST" } else { "GET, POST, DELETE" }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_revision_in_order() {
        for (revision, name) in Revision::ALL.into_iter().zip(Revision::SUPPORTED) {
            assert_eq!(Revision::parse(name), Some(revision));
            assert_eq!(revision.to_string(), name);
        }
        let stateless = Revision::ALL.into_iter().filter(|revision| revision.is_stateless());
        assert!(stateless.map(Revision::as_str).eq(Revision::STATELESS));
        assert!(Revision::ALL.is_sorted());
        assert_eq!(Revision::parse("2024-11-05"), None);
    }
}
