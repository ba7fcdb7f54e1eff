//! The secrets that this server has brokered lately, and where each may go.
//!
//! Bounded: of more than [`CAPACITY`] secrets the ones that were used longest ago are forgotten, and so is what was not used
//! for a day. A secret counts from the moment it is noted, or at most a second later where there are many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyward_contract::scrub::Scrubber;
use sha2::{Digest, Sha256};

use crate::perimeter::authority::{Authority, HostPattern};
use crate::secret::SecretBytes;

/// The most secrets that are known.
const CAPACITY: usize = 1024;
/// Up to so many, what is looked for is made anew at once.
const AT_ONCE: usize = 64;
/// With more, as often as this.
const REBUILD: Duration = Duration::from_secs(1);
/// How long a secret is known that nobody uses.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// How often the local secrets of a configuration are read again.
const RELOAD: Duration = Duration::from_secs(5);

/// The secrets of all bindings.
#[derive(Default)]
pub struct Known {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<[u8; 32], Entry>,
    finder: Option<Arc<Finder>>,
    built: Option<Instant>,
    stale: bool,
    loaded: Option<(String, Instant)>,
}

#[derive(Clone)]
struct Entry {
    binding: String,
    value: Arc<SecretBytes>,
    hosts: Arc<[HostPattern]>,
    used: Instant,
}

/// What is looked for, made once for many requests.
struct Finder {
    scrubber: Scrubber,
    entries: Vec<Entry>,
}

// === impl Known ===

impl Known {
    /// Notes a secret of a binding that may go to these hosts.
    pub fn note(&self, binding: &str, hosts: &[HostPattern], value: &Arc<SecretBytes>) {
        if value.expose().len() < crate::credential::MIN_SECRET_BYTES {
            return;
        }
        let mut digest = Sha256::new();
        digest.update((binding.len() as u64).to_be_bytes());
        digest.update(binding.as_bytes());
        digest.update(value.expose());
        let key: [u8; 32] = digest.finalize().into();
        let now = Instant::now();
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.used = now;
            if *entry.hosts == *hosts {
                return;
            }
        }
        if state.entries.len() >= CAPACITY {
            let oldest = state.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
            oldest.and_then(|key| state.entries.remove(&key));
        }
        let entry = Entry { binding: binding.to_owned(), value: value.clone(), hosts: hosts.into(), used: now };
        state.entries.insert(key, entry);
        state.stale = true;
    }

    /// The binding of a secret that stands in the text, in any form, and may not go to `authority`. A secret of several
    /// bindings may go where one of them may.
    #[must_use]
    pub fn find(&self, text: &[u8], authority: &Authority) -> Option<String> {
        let finder = self.finder()?;
        finder.scrubber.scrub_value(text)?;
        let may_go = |entry: &Entry| entry.hosts.iter().any(|host| host.matches(authority).is_some());
        let bound = |value: &SecretBytes| finder.entries.iter().any(|entry| entry.value.ct_eq(value) && may_go(entry));
        let strangers = finder.entries.iter().filter(|entry| !bound(&entry.value));
        let mut strangers = strangers;
        strangers
            .find(|entry| Scrubber::new(&[entry.value.expose()]).scrub_value(text).is_some())
            .map(|entry| entry.binding.clone())
    }

    /// Whether the local secrets of this revision are to be read now. Says so once in a while.
    #[must_use]
    pub fn is_due(&self, revision: &str) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let is_fresh = |(known, at): &(String, Instant)| known == revision && now.duration_since(*at) < RELOAD;
        if state.loaded.as_ref().is_some_and(is_fresh) {
            return false;
        }
        state.loaded = Some((revision.to_owned(), now));
        true
    }

    fn finder(&self) -> Option<Arc<Finder>> {
        let mut state = self.state();
        let now = Instant::now();
        let may_wait = state.entries.len() > AT_ONCE && state.built.is_some_and(|built| now - built < REBUILD);
        if state.stale && !may_wait {
            state.entries.retain(|_, entry| now.duration_since(entry.used) < FORGET);
            let entries: Vec<Entry> = state.entries.values().cloned().collect();
            let values: Vec<&[u8]> = entries.iter().map(|entry| entry.value.expose()).collect();
            let scrubber = Scrubber::new(&values);
            state.finder = (!scrubber.is_empty()).then(|| Arc::new(Finder { scrubber, entries }));
            (state.stale, state.built) = (false, Some(now));
        }
        state.finder.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
