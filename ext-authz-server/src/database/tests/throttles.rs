//! Counters that replicas share, as part of the suite.

use crate::database::{Database, DatabaseThrottles, Taken};
use crate::throttle::rate::Rate;

pub(super) async fn of_many_that_count_at_once_as_many_pass_as_may(database: &Database) {
    let rate = Rate::new(10, 3600, 10);
    let take = |count| {
        let throttles = DatabaseThrottles::new(database.clone());
        async move { throttles.take("one", &rate, count).await.unwrap() }
    };
    let waits = |taken| match taken {
        Taken::Passed => None,
        Taken::Exhausted(wait) => Some(wait.retry_after_secs()),
    };
    let all: Vec<_> = (0..40).map(|_| tokio::spawn(take(1))).collect();
    let mut waiting = Vec::new();
    for one in all {
        waiting.extend(waits(one.await.unwrap()));
    }
    assert_eq!(waiting.len(), 30);
    assert!(waiting.iter().all(|secs| (300..=361).contains(secs)), "{waiting:?}");
    let throttles = DatabaseThrottles::new(database.clone());
    throttles.give_back("one", &rate, 2).await.unwrap();
    assert!(waits(take(3).await).is_some(), "a batch passes as a whole or not at all");
    assert_eq!((waits(take(2).await), waits(take(1).await).is_some()), (None, true));
    // Never more than a burst, of a counter that nobody has used either.
    assert!(matches!(throttles.take("two", &rate, 11).await.unwrap(), Taken::Exhausted(_)));

    let fast = Rate::new(1_000_000, 1, 1);
    assert_eq!(throttles.take("three", &fast, 1).await.unwrap(), Taken::Passed);
}

/// After what has ended was deleted.
pub(super) async fn only_counters_that_have_run_down_are_gone(database: &Database) {
    let rows = sqlx::query("SELECT id FROM throttles ORDER BY id").fetch_all(database.pool()).await.unwrap();
    let ids: Vec<String> = rows.iter().map(|row| sqlx::Row::try_get(row, 0).unwrap()).collect();
    assert_eq!(ids, ["one"]);
}
