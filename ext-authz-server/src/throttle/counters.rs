//! The counters of one server: a bounded table in memory.
//!
//! Counters that have run down say nothing, so they go first and their going loosens nothing. One lock guards the table: it
//! is held for some look-ups, and, at most once a second and only when the table is full, to sweep it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::rate::{Exhausted, Rate};
use crate::freshness::Digest;

/// How long a full table is not swept again.
const SWEEP_INTERVAL_NS: i64 = 1_000_000_000;

/// The counters. All times are nanoseconds since they began, by a clock that never goes back.
pub struct Counters {
    began: Instant,
    table: Mutex<Table>,
}

/// One counter that is to move on.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Which.
    pub id: Digest,
    /// How fast.
    pub rate: Rate,
    /// By how many calls.
    pub count: u32,
}

/// Why nothing was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This counter, by its position, is used up.
    Exhausted(usize, Exhausted),
    /// There is no place for this one.
    Full(usize),
}

#[derive(Default)]
struct Table {
    arrivals: HashMap<Digest, i64>,
    swept_ns: i64,
}

// === impl Counters ===

impl Default for Counters {
    fn default() -> Counters {
        Counters { began: Instant::now(), table: Mutex::default() }
    }
}

impl Counters {
    /// Now.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    /// Moves all of these counters on, or none of them. `max` bounds how many are kept; where that is `lenient`, one for which
    /// there is no place is not counted.
    ///
    /// # Errors
    /// The counter that is used up for the longest, or the first for which there is no place.
    pub fn take(&self, wanted: &[Wanted], now_ns: i64, max: usize, lenient: bool) -> Result<(), Refusal> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let mut longest: Option<(usize, Exhausted)> = None;
        let mut next = Vec::with_capacity(wanted.len());
        for (position, want) in wanted.iter().enumerate() {
            let arrival = table.arrivals.get(&want.id).copied().unwrap_or(0);
            match want.rate.take(arrival, now_ns, want.count) {
                Ok(arrival) => next.push((want.id, arrival)),
                Err(refused) if longest.is_none_or(|(_, other)| other.wait_ns < refused.wait_ns) => {
                    longest = Some((position, refused));
                }
                Err(_) => {}
            }
        }
        if let Some((position, refused)) = longest {
            return Err(Refusal::Exhausted(position, refused));
        }
        let is_new = |table: &Table, id: &Digest| !table.arrivals.contains_key(id);
        let needed = next.iter().filter(|(id, _)| is_new(&table, id)).count();
        table.make_place(needed, now_ns, max);
        let mut places = max.saturating_sub(table.arrivals.len());
        if needed > places && !lenient {
            let without = next.iter().position(|(id, _)| is_new(&table, id)).unwrap_or_default();
            return Err(Refusal::Full(without));
        }
        for (id, arrival) in next {
            if is_new(&table, &id) {
                if places == 0 {
                    continue;
                }
                places -= 1;
            }
            table.arrivals.insert(id, arrival);
        }
        Ok(())
    }

    /// Takes back what [`take`](Self::take) counted.
    pub fn give_back(&self, wanted: &[Wanted]) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        for want in wanted {
            if let Some(arrival) = table.arrivals.get_mut(&want.id) {
                *arrival = arrival.saturating_sub(want.rate.way_ns(want.count));
            }
        }
    }

    /// How far ahead of now this counter stands, if it does.
    #[must_use]
    pub fn ahead(&self, id: &Digest, now_ns: i64) -> Option<i64> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.arrivals.get(id).map(|arrival| arrival.saturating_sub(now_ns)).filter(|ahead| *ahead > 0)
    }

    /// Notes a time for an id, where there is a place.
    pub fn note(&self, id: Digest, until_ns: i64, now_ns: i64, max: usize) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.make_place(1, now_ns, max);
        if table.arrivals.len() < max || table.arrivals.contains_key(&id) {
            table.arrivals.insert(id, until_ns);
        }
    }

    /// How many are kept, run down or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).arrivals.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// === impl Table ===

impl Table {
    /// Drops what has run down, where `needed` more would be too many and the last time is long enough ago.
    fn make_place(&mut self, needed: usize, now_ns: i64, max: usize) {
        if self.arrivals.len() + needed <= max || now_ns.saturating_sub(self.swept_ns) < SWEEP_INTERVAL_NS {
            return;
        }
        self.swept_ns = now_ns;
        self.arrivals.retain(|_, arrival| *arrival > now_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const NOW: i64 = 1_000 * SECOND;

    fn want(id: u8, rate: Rate) -> Wanted {
        Wanted { id: Digest([id; 32]), rate, count: 1 }
    }

    #[test]
    fn a_call_that_one_rule_denies_uses_up_no_other() {
        let counters = Counters::default();
        let (wide, narrow) = (Rate::new(2, 10, 2), Rate::new(1, 20, 1));
        let both = [want(1, wide), want(2, narrow)];
        counters.take(&both, NOW, 16, false).unwrap();
        for _ in 0..10 {
            let refused = counters.take(&both, NOW, 16, false).unwrap_err();
            assert_eq!(refused, Refusal::Exhausted(1, Exhausted { wait_ns: 20 * SECOND }));
        }
        // The wide one has one left all the same.
        counters.take(&both[..1], NOW, 16, false).unwrap();
        assert!(counters.take(&both[..1], NOW, 16, false).is_err());
        counters.give_back(&both[..1]);
        counters.take(&both[..1], NOW, 16, false).unwrap();
    }

    #[test]
    fn of_several_that_are_used_up_the_longest_says_when() {
        let counters = Counters::default();
        let both = [want(1, Rate::new(1, 5, 1)), want(2, Rate::new(1, 60, 1)), want(3, Rate::new(1, 5, 1))];
        counters.take(&both, NOW, 16, false).unwrap();
        let refused = counters.take(&both, NOW, 16, false).unwrap_err();
        assert_eq!(refused, Refusal::Exhausted(1, Exhausted { wait_ns: 60 * SECOND }));
    }

    #[test]
    fn a_full_table_denies_or_lets_pass_as_told_and_makes_place_when_counters_run_down() {
        let counters = Counters::default();
        let rate = Rate::new(1, 10, 1);
        for id in 0..16 {
            counters.take(&[want(id, rate)], NOW, 16, false).unwrap();
        }
        assert_eq!(counters.take(&[want(99, rate)], NOW, 16, false), Err(Refusal::Full(0)));
        assert_eq!(counters.take(&[want(99, rate)], NOW, 16, true), Ok(()));
        assert_eq!(counters.len(), 16, "what passes uncounted takes no place");
        // Those that are there are still counted.
        assert!(counters.take(&[want(3, rate)], NOW, 16, true).is_err());
        // A flood of new ones does not sweep with each call; a second later they have run down.
        assert_eq!(counters.take(&[want(99, rate)], NOW + 9 * SECOND, 16, false), Err(Refusal::Full(0)));
        counters.take(&[want(99, rate)], NOW + 11 * SECOND, 16, false).unwrap();
        assert_eq!(counters.len(), 1);
    }
}
