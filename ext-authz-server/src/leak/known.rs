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
/// The most sets of secrets, besides all of them, for which what is looked for is kept.
const MAX_FINDERS: usize = 8;

/// The secrets of all bindings.
#[derive(Default)]
pub struct Known {
    state: Mutex<State>,
    first_read: tokio::sync::Mutex<()>,
}

/// The last look at the local secrets.
struct Loaded {
    revision: String,
    begun: Instant,
    /// This revision's have been read.
    is_read: bool,
}

/// SHA-256.
type Digest = [u8; 32];

#[derive(Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// Counts the changes of `entries`.
    version: u64,
    /// Each list of hosts that an entry has.
    hosts: Vec<Arc<[HostPattern]>>,
    finders: Vec<Arc<Finder>>,
    /// One of many secrets is being made; meanwhile the one before serves.
    is_making: bool,
    loaded: Option<Loaded>,
}

/// Which lists of hosts let a secret go to an authority. Authorities of one class have one finder: it is not made anew for
/// each name that a client makes up.
type Class = Vec<bool>;

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

/// What is looked for, made once for many requests.
pub(super) struct Finder {
    scrubber: Scrubber,
    entries: Vec<Entry>,
    /// What must not go to authorities of this class; none for everything.
    class: Option<Class>,
    version: u64,
    made: Instant,
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
            if *entry.hosts == *hosts {
                return;
            }
            let hosts = state.list(hosts);
            state.entries.entry(key).and_modify(|entry| entry.hosts = hosts);
            state.version += 1;
            return;
        }
        state.make_room(binding, holder, now);
        let (holder, hosts) = (holder.map(str::to_owned), state.list(hosts));
        let entry = Entry { binding: binding.to_owned(), holder, digest, value: value.clone(), hosts, used: now };
        state.entries.insert(key, entry);
        state.version += 1;
    }

    /// The binding of a secret that stands in one of the texts, in any form, and may not go to `authority`. A secret of
    /// several bindings may go where one of them may.
    #[must_use]
    pub fn find(&self, texts: &[&[u8]], authority: &Authority) -> Option<String> {
        let all = self.finder(None);
        let found = |finder: &Finder, text: &[u8]| finder.scrubber.scrub_value(text).is_some();
        let suspects: Vec<&[u8]> = texts.iter().copied().filter(|text| found(&all, text)).collect();
        if suspects.is_empty() {
            return None;
        }
        let strangers = self.finder(Some(authority));
        let text = suspects.into_iter().find(|text| found(&strangers, text))?;
        Some(which(&strangers.entries, text).map(|entry| entry.binding.clone()).unwrap_or_default())
    }

    /// Whether there is a secret that may not go to `authority`.
    #[must_use]
    pub fn has_strangers(&self, authority: &Authority) -> bool {
        !self.finder(Some(authority)).entries.is_empty()
    }

    /// Whether the local secrets of this revision were read: until then who needs them waits for [`Known::first_read`].
    #[must_use]
    pub fn was_read(&self, revision: &str) -> bool {
        self.state().loaded.as_ref().is_some_and(|loaded| loaded.is_read && loaded.revision == revision)
    }

    /// The turn of one who reads them for the first time; the others wait until it is dropped.
    pub async fn first_read(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.first_read.lock().await
    }

    /// Whether the local secrets of this revision are to be read now. Says so once in a while, and as long as they were not
    /// read: who began may have given up.
    #[must_use]
    pub fn is_due(&self, revision: &str) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.loaded.as_ref().filter(|loaded| loaded.is_read && loaded.revision == revision);
        if before.is_some_and(|loaded| now.duration_since(loaded.begun) < RELOAD) {
            return false;
        }
        let is_read = before.is_some();
        state.loaded = Some(Loaded { revision: revision.to_owned(), begun: now, is_read });
        true
    }

    /// Says that they were read.
    pub fn note_read(&self, revision: &str) {
        if let Some(loaded) = self.state().loaded.as_mut().filter(|loaded| loaded.revision == revision) {
            loaded.is_read = true;
        }
    }

    /// What finds every secret, or those that may not go to an authority.
    pub(super) fn finder(&self, authority: Option<&Authority>) -> Arc<Finder> {
        let now = Instant::now();
        let mut state = self.state();
        let class = authority.map(|authority| state.class(authority));
        let is_many = state.entries.len() > AT_ONCE;
        let before = state.finders.iter().find(|finder| finder.class == class).cloned();
        if let Some(finder) = &before {
            let may_wait = is_many && (state.is_making || now.duration_since(finder.made) < REBUILD);
            if finder.version == state.version || may_wait {
                return finder.clone();
            }
        }
        let entries = match authority {
            None => state.entries.values().cloned().collect(),
            Some(authority) => state.strangers(authority),
        };
        let version = state.version;
        let make = || {
            let values: Vec<&[u8]> = entries.iter().map(|entry: &Entry| entry.value.expose()).collect();
            let scrubber = Scrubber::new(&values);
            Arc::new(Finder { scrubber, entries, class, version, made: now })
        };
        // Many take long: those who come meanwhile look with the one before. Where there is none they wait for this one.
        let finder = if is_many && before.is_some() {
            state.is_making = true;
            drop(state);
            let finder = make();
            state = self.state();
            state.is_making = false;
            finder
        } else {
            make()
        };
        state.keep(finder.clone());
        finder
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.state().finders.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn class(&self, authority: &Authority) -> Class {
        let may_go = |hosts: &Arc<[HostPattern]>| hosts.iter().any(|host| host.matches(authority).is_some());
        self.hosts.iter().map(may_go).collect()
    }

    /// This list of hosts, the same one for all that have it.
    fn list(&mut self, hosts: &[HostPattern]) -> Arc<[HostPattern]> {
        if let Some(known) = self.hosts.iter().find(|known| ***known == *hosts) {
            return known.clone();
        }
        // Lists of bindings that are gone go with the secrets that had them.
        let used: Vec<Arc<[HostPattern]>> = std::mem::take(&mut self.hosts);
        self.hosts = used.into_iter().filter(|list| Arc::strong_count(list) > 1).collect();
        let list: Arc<[HostPattern]> = hosts.into();
        self.hosts.push(list.clone());
        list
    }

    /// Keeps a finder in place of the one before, and not more than there may be.
    fn keep(&mut self, finder: Arc<Finder>) {
        self.finders.retain(|known| known.class != finder.class);
        let excess =
            |finders: &[Arc<Finder>]| finders.iter().filter(|known| known.class.is_some()).count() >= MAX_FINDERS;
        if finder.class.is_some() && excess(&self.finders) {
            let oldest = self.finders.iter().position(|known| known.class.is_some());
            oldest.map(|at| self.finders.remove(at));
        }
        self.finders.push(finder);
    }

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
