//! What was used once and must not be used again: proofs and one-time tokens, in the database or in bounded memory.
//!
//! What cannot be remembered cannot be accepted: a full memory and a database that does not answer deny.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::database::States;
use crate::sources::Sources;

/// How long the database may take.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is counted what the database remembers.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);

/// What this process remembers, and what it knows of the database.
#[derive(Default)]
pub(super) struct Replay {
    memory: Mutex<Memory>,
    counted: tokio::sync::Mutex<Option<Counted>>,
}

#[derive(Default)]
struct Memory {
    /// By whom, each by its SHA-256.
    used: HashMap<[u8; 32], [u8; 32]>,
    ends: BTreeMap<u64, Vec<[u8; 32]>>,
}

#[derive(Clone, Copy)]
struct Counted {
    at: Instant,
    entries: usize,
}

/// Something that serves once.
#[derive(Clone, Copy)]
pub(super) struct Use<'a> {
    /// What.
    pub(super) id: &'a str,
    /// For which decision. The filter asks a second time about the same one where the first answer was lost.
    pub(super) decision_id: &'a str,
    /// Now, in seconds since 1970.
    pub(super) now: u64,
    /// The last second in which it could be shown again.
    pub(super) ends: u64,
}

/// Why something may not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReplayError {
    /// It was used before.
    #[error("it was used before")]
    Used,
    /// It cannot be told, or not be remembered.
    #[error("whether it was used before cannot be told: {0}")]
    Unavailable(String),
}

// === impl Replay ===

impl Replay {
    /// Marks something as used until it ends; at most `max_entries` are remembered.
    pub(super) async fn use_once(
        &self,
        what: Use<'_>,
        max_entries: usize,
        sources: &Sources,
    ) -> Result<(), ReplayError> {
        if !sources.has_database() {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            return memory.use_once(what, max_entries);
        }
        let unavailable = |cause: &dyn ToString| ReplayError::Unavailable(cause.to_string());
        let state = sources.secrets.state().get().ok_or_else(|| unavailable(&"the database is not open"))?;
        let use_it = async {
            self.make_sure_of_room(&state.states, max_entries).await?;
            // One second more than the last at which it could be shown again.
            let ends = UNIX_EPOCH + Duration::from_secs(what.ends.saturating_add(1));
            match state.states.use_once_by(what.id, what.decision_id, ends).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(ReplayError::Used),
                Err(error) => Err(unavailable(&error)),
            }
        };
        match tokio::time::timeout(DATABASE_TIMEOUT, use_it).await {
            Ok(result) => result,
            Err(_) => Err(unavailable(&"the database does not answer in time")),
        }
    }

    /// Counts now and then what the database remembers, and adds up what this process adds meanwhile.
    async fn make_sure_of_room(&self, states: &States, max_entries: usize) -> Result<(), ReplayError> {
        let mut counted = self.counted.lock().await;
        let known = match *counted {
            Some(known) if known.at.elapsed() < COUNT_INTERVAL => known,
            _ => {
                let entries = states.count_used().await.map_err(|error| ReplayError::Unavailable(error.to_string()))?;
                Counted { at: Instant::now(), entries }
            }
        };
        let has_room = known.entries < max_entries;
        *counted = Some(Counted { entries: known.entries.saturating_add(usize::from(has_room)), ..known });
        if has_room { Ok(()) } else { Err(full(max_entries)) }
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}

// === impl Memory ===

impl Memory {
    fn use_once(&mut self, what: Use<'_>, max_entries: usize) -> Result<(), ReplayError> {
        let digest = |text: &str| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
        let (id, holder) = (digest(what.id), digest(what.decision_id));
        while let Some(oldest) = self.ends.first_entry().filter(|oldest| *oldest.key() < what.now) {
            for id in oldest.remove() {
                self.used.remove(&id);
            }
        }
        if let Some(known) = self.used.get(&id) {
            return if *known == holder { Ok(()) } else { Err(ReplayError::Used) };
        }
        if self.used.len() >= max_entries {
            return Err(full(max_entries));
        }
        self.used.insert(id, holder);
        self.ends.entry(what.ends).or_default().push(id);
        Ok(())
    }
}

fn full(max_entries: usize) -> ReplayError {
    ReplayError::Unavailable(format!("more than {max_entries} are remembered (`identity.replay.max_entries`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_refuses_what_was_used_until_it_has_ended_and_what_it_cannot_keep() {
        let mut memory = Memory::default();
        let mut decisions = 0;
        let mut used = |id: &str, now, ends| {
            decisions += 1;
            memory.use_once(Use { id, decision_id: &decisions.to_string(), now, ends }, 2)
        };
        assert_eq!(used("one", 100, 160), Ok(()));
        assert_eq!(used("one", 130, 190), Err(ReplayError::Used));
        assert_eq!(used("two", 130, 170), Ok(()));
        assert!(matches!(used("three", 140, 200), Err(ReplayError::Unavailable(_))));
        assert_eq!(used("one", 160, 200), Err(ReplayError::Used), "until its last second");
        assert_eq!(used("three", 161, 200), Ok(()), "what has ended makes room");
        assert_eq!(used("one", 171, 230), Ok(()), "and is not remembered");
        assert_eq!((memory.used.len(), memory.ends.len()), (2, 2));
    }

    #[test]
    fn the_same_decision_may_be_asked_for_again() {
        let mut memory = Memory::default();
        let mut used = |decision_id| memory.use_once(Use { id: "one", decision_id, now: 100, ends: 160 }, 2);
        assert_eq!((used("a"), used("a"), used("b"), used("a")), (Ok(()), Ok(()), Err(ReplayError::Used), Ok(())));
    }
}
