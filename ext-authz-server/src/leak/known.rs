//! The secrets that this server has brokered lately, and where each may go.
//!
//! Bounded: of more than [`CAPACITY`] secrets the ones that were used longest ago are forgotten, and so is what was not used
//! for a day. No caller makes the server forget another's: of what one principal alone uses, only the newest
//! [`OWN_CAPACITY`] of each binding are kept, and what several use goes last. A secret counts from the moment it is noted, or at most a
//! second later where there are many.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keyward_contract::scrub::Scrubber;
use sha2::{Digest as _, Sha256};

use crate::perimeter::authority::{Authority, HostPattern};
use crate::secret::SecretBytes;

/// The most secrets that are known.
const CAPACITY: usize = 1024;
/// The most of them that one principal alone has of one binding.
const OWN_CAPACITY: usize = 8;
/// Up to so many, what is looked for is made anew at once.
const AT_ONCE: usize = 64;
/// With more, as often as this.
const REBUILD: Duration = Duration::from_secs(1);
/// How long a secret is known that nobody uses.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// How often the local secrets of a configuration are read again.
const RELOAD: Duration = Duration::from_secs(5);
/// The most authorities for which what is looked for is kept.
const MAX_FINDERS: usize = 64;

/// The secrets of all bindings.
#[derive(Default)]
pub struct Known {
    state: Mutex<State>,
}

/// SHA-256.
type Digest = [u8; 32];

#[derive(Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// Counts the changes of `entries`.
    version: u64,
    /// By authority.
    finders: HashMap<String, Arc<Finder>>,
    loaded: Option<(String, Instant)>,
}

#[derive(Clone)]
struct Entry {
    binding: String,
    /// The principal that alone has used it; none for what is everybody's.
    holder: Option<String>,
    /// Of the value alone.
    digest: Digest,
    value: Arc<SecretBytes>,
    hosts: Arc<[HostPattern]>,
    used: Instant,
}

/// What must not go to one authority, made once for many requests.
struct Finder {
    scrubber: Scrubber,
    strangers: Vec<Entry>,
    version: u64,
    built: Instant,
}

// === impl Known ===

impl Known {
    /// Notes a secret of a binding that may go to these hosts, used for this principal; none where it is everybody's.
    pub fn note(&self, binding: &str, hosts: &[HostPattern], holder: Option<&str>, value: &Arc<SecretBytes>) {
        if value.expose().len() < crate::credential::MIN_SECRET_BYTES {
            return;
        }
        let digest: Digest = Sha256::digest(value.expose()).into();
        let key: Digest = Sha256::new().chain_update(digest).chain_update(binding).finalize().into();
        let now = Instant::now();
        let mut state = self.state();
        if let Some(entry) = state.entries.get_mut(&key) {
            entry.used = now;
            if entry.holder.as_deref() != holder {
                entry.holder = None;
            }
            if *entry.hosts != *hosts {
                entry.hosts = hosts.into();
                state.version += 1;
            }
            return;
        }
        state.make_room(binding, holder, now);
        let holder = holder.map(str::to_owned);
        let entry =
            Entry { binding: binding.to_owned(), holder, digest, value: value.clone(), hosts: hosts.into(), used: now };
        state.entries.insert(key, entry);
        state.version += 1;
    }

    /// The binding of a secret that stands in one of the texts, in any form, and may not go to `authority`. A secret of
    /// several bindings may go where one of them may.
    #[must_use]
    pub fn find(&self, texts: &[&[u8]], authority: &Authority) -> Option<String> {
        let finder = self.finder(authority);
        let text = texts.iter().find(|text| finder.scrubber.scrub_value(text).is_some())?;
        Some(which(&finder.strangers, text).map(|entry| entry.binding.clone()).unwrap_or_default())
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

    fn finder(&self, authority: &Authority) -> Arc<Finder> {
        let name = authority.to_string();
        let now = Instant::now();
        let (strangers, version) = {
            let state = self.state();
            if let Some(finder) = state.finders.get(&name) {
                let may_wait = state.entries.len() > AT_ONCE && now.duration_since(finder.built) < REBUILD;
                if finder.version == state.version || may_wait {
                    return finder.clone();
                }
            }
            (state.strangers(authority), state.version)
        };
        // Without the lock: it takes long where there are many.
        let values: Vec<&[u8]> = strangers.iter().map(|entry| entry.value.expose()).collect();
        let finder = Arc::new(Finder { scrubber: Scrubber::new(&values), strangers, version, built: now });
        let mut state = self.state();
        if state.finders.len() >= MAX_FINDERS && !state.finders.contains_key(&name) {
            state.finders.clear();
        }
        state.finders.insert(name, finder.clone());
        finder
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// What may not go there: no binding of the same value lets it.
    fn strangers(&self, authority: &Authority) -> Vec<Entry> {
        let may_go = |entry: &&Entry| entry.hosts.iter().any(|host| host.matches(authority).is_some());
        let bound: HashSet<Digest> = self.entries.values().filter(may_go).map(|entry| entry.digest).collect();
        self.entries.values().filter(|entry| !bound.contains(&entry.digest)).cloned().collect()
    }

    /// Forgets what is in the way of one more.
    fn make_room(&mut self, binding: &str, holder: Option<&str>, now: Instant) {
        self.entries.retain(|_, entry| now.duration_since(entry.used) < FORGET);
        let own = |entry: &Entry| holder.is_some() && entry.holder.as_deref() == holder && entry.binding == binding;
        if self.entries.values().filter(|entry| own(entry)).count() >= OWN_CAPACITY {
            self.forget_oldest(own);
        }
        if self.entries.len() >= CAPACITY {
            let is_own = |entry: &Entry| entry.holder.is_some();
            if self.entries.values().any(is_own) { self.forget_oldest(is_own) } else { self.forget_oldest(|_| true) }
        }
    }

    fn forget_oldest(&mut self, of: impl Fn(&Entry) -> bool) {
        let all = self.entries.iter().filter(|(_, entry)| of(entry));
        let oldest = all.min_by_key(|(_, entry)| entry.used).map(|(key, _)| *key);
        oldest.and_then(|key| self.entries.remove(&key));
    }
}

/// The entry whose secret stands in the text, one of whose does: by halves, so that each is looked for twice at most.
fn which<'a>(entries: &'a [Entry], text: &[u8]) -> Option<&'a Entry> {
    let (mut left, mut entries) = entries.split_at(entries.len() / 2);
    loop {
        let values: Vec<&[u8]> = left.iter().map(|entry| entry.value.expose()).collect();
        if Scrubber::new(&values).scrub_value(text).is_some() {
            entries = left;
        }
        if entries.len() <= 1 {
            return entries.first();
        }
        (left, entries) = entries.split_at(entries.len() / 2);
    }
}
