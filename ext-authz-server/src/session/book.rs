//! When sessions were last used, where there is no database: in memory, of this process alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Use;

/// The most sessions that are remembered.
const MAX_ENTRIES: usize = 65_536;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    Live,
    /// It was unused for too long.
    Idle,
    /// Somebody ended it.
    Ended,
}

/// The sessions that this process has seen.
pub(super) struct Book {
    pages: Mutex<Pages>,
    max_entries: usize,
}

#[derive(Default)]
struct Pages {
    entries: HashMap<String, Entry>,
    /// Of sessions that began up to here some were forgotten, for lack of room.
    forgotten_ms: Option<i64>,
}

struct Entry {
    issued_ms: i64,
    ends_ms: i64,
    seen_ms: i64,
}

// === impl Book ===

impl Default for Book {
    fn default() -> Book {
        Book { pages: Mutex::default(), max_entries: MAX_ENTRIES }
    }
}

impl Book {
    /// Notes a use of a session, and says whether it may be. One that this process has not seen may have been used at another,
    /// so that it counts as used now, unless this process may have forgotten it.
    pub(super) fn touch(&self, used: &Use<'_>) -> Standing {
        let Use { id, issued_ms, ends_ms, now_ms, idle_ms, .. } = *used;
        let pages = &mut *self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = pages.entries.get_mut(id) {
            if now_ms.saturating_sub(entry.seen_ms) > idle_ms {
                return Standing::Idle;
            }
            entry.seen_ms = entry.seen_ms.max(now_ms);
            return Standing::Live;
        }
        let may_be_forgotten = pages.forgotten_ms.is_some_and(|up_to| issued_ms <= up_to);
        if may_be_forgotten && now_ms.saturating_sub(issued_ms) > idle_ms {
            return Standing::Idle;
        }
        if pages.entries.len() >= self.max_entries {
            pages.make_room(now_ms, self.max_entries);
        }
        pages.entries.insert(id.to_owned(), Entry { issued_ms, ends_ms, seen_ms: now_ms });
        Standing::Live
    }
}

// === impl Pages ===

impl Pages {
    /// Forgets what has ended anyway and, where that is not enough, the eighth that was not used for longest.
    fn make_room(&mut self, now_ms: i64, max_entries: usize) {
        self.entries.retain(|_, entry| entry.ends_ms > now_ms);
        if self.entries.len() < max_entries {
            return;
        }
        let mut seen: Vec<i64> = self.entries.values().map(|entry| entry.seen_ms).collect();
        let (_, eighth, _) = seen.select_nth_unstable(max_entries / 8);
        let up_to = *eighth;
        let mut newest = self.forgotten_ms;
        self.entries.retain(|_, entry| {
            let stays = entry.seen_ms > up_to;
            if !stays {
                newest = newest.max(Some(entry.issued_ms));
            }
            stays
        });
        self.forgotten_ms = newest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Whose;

    const NOBODY: Whose<'_> = Whose { environment: "", tenant: "", server: "", principal: "" };

    fn used(id: &str, issued_ms: i64, now_ms: i64) -> Use<'_> {
        Use { id, whose: NOBODY, issued_ms, ends_ms: issued_ms + 10_000, now_ms, idle_ms: 100 }
    }

    #[test]
    fn a_session_that_is_used_goes_on_and_one_that_was_idle_stays_ended() {
        let book = Book::default();
        for now_ms in [0, 100, 200, 300] {
            assert_eq!(book.touch(&used("a", 0, now_ms)), Standing::Live);
        }
        assert_eq!(book.touch(&used("a", 0, 401)), Standing::Idle);
        assert_eq!(book.touch(&used("a", 0, 402)), Standing::Idle, "asking is not using");
    }

    #[test]
    fn a_session_of_another_replica_counts_from_its_first_use_here() {
        let book = Book::default();
        assert_eq!(book.touch(&used("a", 0, 5_000)), Standing::Live);
        assert_eq!(book.touch(&used("a", 0, 5_101)), Standing::Idle);
    }

    #[test]
    fn what_was_forgotten_for_lack_of_room_does_not_come_back() {
        let book = Book { max_entries: 16, ..Book::default() };
        assert_eq!(book.touch(&used("old", 0, 0)), Standing::Live);
        for number in 0..100_i64 {
            assert_eq!(book.touch(&used(&number.to_string(), 1_000 + number, 1_000 + number)), Standing::Live);
            assert!(book.pages.lock().unwrap().entries.len() <= 16);
        }
        assert_eq!(book.touch(&used("old", 0, 1_100)), Standing::Idle);
        assert_eq!(book.touch(&used("new", 1_100, 1_100)), Standing::Live);
    }

    #[test]
    fn what_ends_anyway_makes_room_first() {
        let book = Book { max_entries: 4, ..Book::default() };
        for id in ["a", "b", "c", "d"] {
            book.touch(&used(id, 0, 0));
        }
        assert_eq!(book.touch(&used("e", 10_000, 10_000)), Standing::Live);
        let pages = book.pages.lock().unwrap();
        assert!(pages.entries.len() == 1 && pages.forgotten_ms.is_none());
    }
}
