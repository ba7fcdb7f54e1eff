//! When a value is renewed, until when it is used, and how long a failure is remembered.

use std::time::{Duration, Instant, SystemTime};

use crate::credential::Material;

/// The least and the most by which the use of a minted value ends before the value does: more than clocks differ.
const MARGIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(300));
/// How long a minted value is taken to be good that does not say it.
const UNSAID: Duration = Duration::from_secs(300);
/// The longest that a minted value is used, however long it is good.
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// How long after its refresh was due a stored value serves without a look at its store, at most: calls that follow each
/// other faster never wait, and after a pause the first one asks.
const GRACE: Duration = Duration::from_secs(5);
/// The longest that a failure is remembered.
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How long values of a kind are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// As long as the value says, less a margin for clocks that differ: a tenth of its life, from 30 s to 300 s, never more
    /// than half of it. Replicas share it.
    Minted,
    /// Looked at again every `refresh`; a little later a call waits for that, because the store may have said meanwhile that
    /// it is another one, or gone. While the store cannot be had, in use until it is `max_stale` old.
    Stored {
        /// How often the store is asked.
        refresh: Duration,
        /// How old a value may become in an outage. Less than `refresh` bridges nothing.
        max_stale: Duration,
    },
}

/// The moments of one value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From here on it is renewed in the background.
    pub(super) refresh_at: Instant,
    /// From here on it serves only where no other can be had for a reason that passes.
    pub(super) overdue_at: Instant,
    pub(super) usable_until: Instant,
}

// === impl Terms ===

impl Terms {
    /// Whether replicas share such values. Each replica asks the store itself: a shared copy would be one more place.
    pub(super) fn is_shared(self) -> bool {
        self == Terms::Minted
    }
}

// === impl Times ===

impl Times {
    /// The times of a value that was had just now.
    pub(super) fn of(material: &Material, terms: Terms, now: Instant) -> Times {
        let life = material.expires().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
        let usable = |life: Duration| life.saturating_sub((life / 10).clamp(MARGIN.0, MARGIN.1).min(life / 2));
        let (refresh, overdue, used) = match terms {
            Terms::Minted => {
                let used = usable(life.unwrap_or(UNSAID).min(LONGEST));
                (used.mul_f64(0.7 + 0.2 * random()), used, used)
            }
            Terms::Stored { refresh, max_stale } => {
                let longest = life.map_or(LONGEST, usable);
                let used = refresh.max(max_stale).min(longest);
                // The look comes early, so that replicas drift apart.
                let early = refresh.mul_f64(0.8 + 0.2 * random()).min(longest.mul_f64(0.8));
                (early, (early + refresh.min(GRACE)).min(used), used)
            }
        };
        Times { refresh_at: now + refresh, overdue_at: now + overdue, usable_until: now + used }
    }
}

/// How long the `count`th failure in a row is remembered: 1 s, doubled each time up to 60 s, less up to a half at random.
pub(super) fn backoff(count: u32) -> Duration {
    let longest = Duration::from_secs(1).saturating_mul(2u32.saturating_pow(count.saturating_sub(1).min(16)));
    longest.min(LONGEST_BACKOFF).mul_f64(1.0 - 0.5 * random())
}

/// From 0 to 1. Only spreads moments: without randomness they do not spread.
fn random() -> f64 {
    let mut bytes = [0; 4];
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(life: Option<u64>, terms: Terms) -> (Duration, Duration) {
        let material = match life {
            Some(secs) => Material::new().until(SystemTime::now() + Duration::from_secs(secs)),
            None => Material::new(),
        };
        let now = Instant::now();
        let times = Times::of(&material, terms, now);
        (times.refresh_at - now, times.usable_until - now)
    }

    #[test]
    fn a_minted_value_is_used_for_less_than_its_life_and_renewed_before_that() {
        for (life, least, most) in [
            (3600, 3299, 3301),
            (600, 539, 541),
            (100, 69, 71),
            (40, 19, 21),
            (7200, 6899, 6901),
            (86400, 42899, 42901),
        ] {
            for _ in 0..50 {
                let (refresh, used) = times(Some(life), Terms::Minted);
                assert!((least..=most).contains(&used.as_secs()), "{life}: {used:?}");
                assert!(refresh >= used.mul_f64(0.69) && refresh <= used.mul_f64(0.91), "{life}: {refresh:?}");
            }
        }
        assert!(times(None, Terms::Minted).1 <= UNSAID);
    }

    #[test]
    fn a_stored_value_is_never_older_than_max_stale_nor_used_past_its_own_end() {
        let terms = Terms::Stored { refresh: Duration::from_secs(60), max_stale: Duration::from_secs(300) };
        let (refresh, used) = times(None, terms);
        assert!((48..=60).contains(&refresh.as_secs()) && used == Duration::from_secs(300), "{refresh:?} {used:?}");
        // Where nothing is to be bridged, it is renewed before the refresh is over and used no longer.
        let terms_without = Terms::Stored { refresh: Duration::from_secs(60), max_stale: Duration::ZERO };
        let (refresh, used) = times(None, terms_without);
        assert!(refresh <= used && used == Duration::from_secs(60), "{refresh:?} {used:?}");
        let (refresh, used) = times(Some(120), terms);
        assert!(refresh.as_secs() <= 60 && (89..=91).contains(&used.as_secs()), "{refresh:?} {used:?}");
    }

    #[test]
    fn a_call_waits_for_a_stored_value_soon_after_its_refresh_was_due_and_never_for_a_minted_one() {
        let now = Instant::now();
        for (refresh, grace) in [(1, 1), (2, 2), (60, 5), (86_400, 5)] {
            let terms =
                Terms::Stored { refresh: Duration::from_secs(refresh), max_stale: Duration::from_secs(600_000) };
            let times = Times::of(&Material::new(), terms, now);
            assert_eq!(times.overdue_at - times.refresh_at, Duration::from_secs(grace), "{refresh}");
        }
        let times = Times::of(&Material::new(), Terms::Minted, now);
        assert_eq!(times.overdue_at, times.usable_until);
    }

    #[test]
    fn failures_are_remembered_longer_and_longer_but_never_long() {
        for count in 1..40 {
            let longest = Duration::from_secs(1 << (count - 1).min(6)).min(LONGEST_BACKOFF);
            let backoff = backoff(count);
            assert!(backoff <= longest && backoff >= longest / 2, "{count}: {backoff:?}");
        }
    }
}
