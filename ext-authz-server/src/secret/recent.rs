//! What local secrets were a short while ago: after a rotation an upstream may still show the value before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::SecretBytes;
use crate::freshness::OVERLAP;

/// The most secrets that are watched; of more, changes go unnoticed.
const CAPACITY: usize = 8192;
/// The most earlier values of one secret.
const MAX_RETIRED: usize = 4;

/// The present value of each local secret, and the values it replaced less than [`OVERLAP`] ago.
#[derive(Default)]
pub(super) struct Recent {
    seen: Mutex<HashMap<(String, String), Seen>>,
}

struct Seen {
    current: Arc<SecretBytes>,
    retired: Vec<(Arc<SecretBytes>, Instant)>,
}

// === impl Recent ===

impl Recent {
    /// Notes the value that is read now, and returns those it replaced.
    pub(super) fn note(&self, scheme: &str, rest: &str, content: &Arc<SecretBytes>) -> Vec<Arc<SecretBytes>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (scheme.to_owned(), rest.to_owned());
        let Some(entry) = seen.get_mut(&key) else {
            if seen.len() < CAPACITY {
                seen.insert(key, Seen { current: content.clone(), retired: Vec::new() });
            }
            return Vec::new();
        };
        if !Arc::ptr_eq(&entry.current, content) && !entry.current.ct_eq(content) {
            let before = std::mem::replace(&mut entry.current, content.clone());
            entry.retired.push((before, Instant::now() + OVERLAP));
            let excess = entry.retired.len().saturating_sub(MAX_RETIRED);
            entry.retired.drain(..excess);
        }
        if !entry.retired.is_empty() {
            let now = Instant::now();
            entry.retired.retain(|(value, until)| now < *until && !value.ct_eq(&entry.current));
        }
        entry.retired.iter().map(|(value, _)| value.clone()).collect()
    }

    /// Drops replaced values whose time is over.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values_mut().for_each(|entry| entry.retired.retain(|(_, until)| now < *until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaced_values_are_remembered_and_bounded() {
        let recent = Recent::default();
        let note = |text: &str| -> Vec<Vec<u8>> {
            let value = Arc::new(SecretBytes::new(text.as_bytes().to_vec()));
            recent.note("file", "key", &value).iter().map(|old| old.expose().to_vec()).collect()
        };
        assert!(note("one").is_empty() && note("one").is_empty());
        assert_eq!(note("two"), [b"one"]);
        assert_eq!(note("two"), [b"one"]);
        // Rolled back: the value in use is none of the past.
        assert_eq!(note("one"), [b"two"]);
        for n in 0..20 {
            assert!(note(&format!("value {n}")).len() <= MAX_RETIRED);
        }
    }
}
