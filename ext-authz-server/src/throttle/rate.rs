//! How many may come: the generic cell rate algorithm, one number a counter.
//!
//! A counter holds the time at which it will have run down (the theoretical arrival time, ITU-T I.371). Each call moves it
//! on by one step; a call for which it would stand further ahead than a whole burst does not pass. No window begins or
//! ends, so that nobody gets twice the limit around its edge, and a counter that has run down is one that is not there.

/// How fast calls may come. All times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    step_ns: i64,
    burst_ns: i64,
}

/// A counter that may not be moved on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// After how many nanoseconds the same call passes, if nothing else comes.
    pub wait_ns: i64,
}

// === impl Rate ===

impl Rate {
    /// `limit` calls in `window_secs`, `burst` of them at once. None of them is zero.
    #[must_use]
    pub fn new(limit: u32, window_secs: u32, burst: u32) -> Rate {
        // Rounded up: never more than the limit.
        let step_ns = ceil(i64::from(window_secs) * 1_000_000_000, i64::from(limit.max(1)));
        Rate { step_ns, burst_ns: step_ns.saturating_mul(i64::from(burst.max(1))) }
    }

    /// How far `count` calls move a counter.
    #[must_use]
    pub fn way_ns(&self, count: u32) -> i64 {
        self.step_ns.saturating_mul(i64::from(count))
    }

    /// How far ahead of now a counter may stand.
    #[must_use]
    pub fn burst_ns(&self) -> i64 {
        self.burst_ns
    }

    /// Where a counter that stands at `arrival_ns` stands after `count` calls at `now_ns`.
    ///
    /// # Errors
    /// They are too many now.
    pub fn take(&self, arrival_ns: i64, now_ns: i64, count: u32) -> Result<i64, Exhausted> {
        let next = arrival_ns.max(now_ns).saturating_add(self.way_ns(count));
        let over = next.saturating_sub(now_ns).saturating_sub(self.burst_ns);
        if over <= 0 { Ok(next) } else { Err(Exhausted { wait_ns: over }) }
    }
}

/// `of` divided by `by`, rounded up; both are positive.
fn ceil(of: i64, by: i64) -> i64 {
    of / by + i64::from(of % by != 0)
}

// === impl Exhausted ===

impl Exhausted {
    /// In whole seconds, rounded up, at least one: what `Retry-After` says (RFC 9110, 10.2.3).
    #[must_use]
    pub fn retry_after_secs(self) -> i64 {
        ceil(self.wait_ns, 1_000_000_000).max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_then_one_a_step() {
        let rate = Rate::new(10, 60, 3);
        let mut arrival = 0;
        for _ in 0..3 {
            arrival = rate.take(arrival, 0, 1).unwrap();
        }
        let refused = rate.take(arrival, 0, 1).unwrap_err();
        assert_eq!((refused.wait_ns, refused.retry_after_secs()), (6 * SECOND, 6));
        assert_eq!(rate.take(arrival, 6 * SECOND - 1, 1).unwrap_err().retry_after_secs(), 1);
        let arrival = rate.take(arrival, 6 * SECOND, 1).unwrap();
        assert!(rate.take(arrival, 6 * SECOND, 1).is_err());
        // After a pause the burst is there again, and no more than that.
        let (mut arrival, now) = (arrival, 1000 * SECOND);
        for _ in 0..3 {
            arrival = rate.take(arrival, now, 1).unwrap();
        }
        assert!(rate.take(arrival, now, 1).is_err());
    }

    #[test]
    fn a_batch_passes_as_a_whole_or_not() {
        let rate = Rate::new(5, 10, 5);
        let arrival = rate.take(0, 0, 3).unwrap();
        assert_eq!(rate.take(arrival, 0, 3).unwrap_err().retry_after_secs(), 2);
        assert!(rate.take(arrival, 0, 2).is_ok());
        // More than a burst never pass.
        assert!(rate.take(0, 0, 6).is_err() && rate.take(0, 1000 * SECOND, u32::MAX).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]
        #[test]
        fn no_window_ever_sees_more_than_limit_and_burst(
            limit in 1u32..50, window_secs in 1u32..100, part in 1u32..50,
            pauses in prop::collection::vec((0i64..5_000_000_000, 1u32..4), 1..200),
        ) {
            let burst = part.min(limit);
            let rate = Rate::new(limit, window_secs, burst);
            let (mut now, mut arrival, mut passed) = (0, 0, Vec::new());
            for (pause, count) in pauses {
                now += pause;
                match rate.take(arrival, now, count) {
                    Ok(next) => {
                        arrival = next;
                        passed.push((now, count));
                    }
                    Err(refused) => prop_assert!(count > burst || rate.take(arrival, now + refused.wait_ns, count).is_ok()),
                }
            }
            let window = i64::from(window_secs) * SECOND;
            for (end, _) in &passed {
                let inside = passed.iter().filter(|(at, _)| at <= end && *at > end - window);
                let count: u32 = inside.map(|(_, count)| count).sum();
                prop_assert!(count <= limit + burst, "{count} in one window");
            }
        }
    }
}
