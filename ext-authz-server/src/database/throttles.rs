//! Counters that all replicas move on together: one row each, one statement a call.

use std::time::{SystemTime, UNIX_EPOCH};

use sqlx::Row as _;

use super::{Database, DatabaseError, failed};
use crate::throttle::rate::{Exhausted, Rate};

/// The counters. Ids are digests; a row that has run down says nothing and is deleted.
#[derive(Clone)]
pub struct DatabaseThrottles {
    database: Database,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was counted.
    Passed,
    /// It was not: there were too many.
    Exhausted(Exhausted),
}

// === impl DatabaseThrottles ===

impl DatabaseThrottles {
    /// The counters of this database.
    #[must_use]
    pub fn new(database: Database) -> DatabaseThrottles {
        DatabaseThrottles { database }
    }

    /// Moves a counter on by `count` calls, if it may be. A call that does not pass writes nothing.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn take(&self, id: &str, rate: &Rate, count: u32) -> Result<Taken, DatabaseError> {
        let now_ns = now_ns();
        let (way_ns, burst_ns) = (rate.way_ns(count), rate.burst_ns());
        if way_ns > burst_ns {
            return self.refused(id, rate, count, now_ns).await;
        }
        // Where the counter stands is behind now or ahead of it; what follows is counted from the later of both.
        let taken = sqlx::query(
            "INSERT INTO throttles (id, arrival_ns) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET arrival_ns = \
             (CASE WHEN throttles.arrival_ns > $3 THEN throttles.arrival_ns ELSE $3 END) + $4 \
             WHERE throttles.arrival_ns <= $5 RETURNING id",
        )
        .bind(id)
        .bind(now_ns.saturating_add(way_ns))
        .bind(now_ns)
        .bind(way_ns)
        // What rate.rs says, solved for where the counter may stand at most.
        .bind(now_ns.saturating_add(burst_ns).saturating_sub(way_ns))
        .fetch_optional(self.database.pool())
        .await
        .map_err(|error| failed("count a call", &error))?;
        if taken.is_some() {
            return Ok(Taken::Passed);
        }
        self.refused(id, rate, count, now_ns).await
    }

    /// Takes back what [`take`](Self::take) counted.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn give_back(&self, id: &str, rate: &Rate, count: u32) -> Result<(), DatabaseError> {
        sqlx::query("UPDATE throttles SET arrival_ns = arrival_ns - $1 WHERE id = $2")
            .bind(rate.way_ns(count))
            .bind(id)
            .execute(self.database.pool())
            .await
            .map_err(|error| failed("take back a call", &error))?;
        Ok(())
    }

    /// How long calls that were refused have to wait, by where the counter stands.
    async fn refused(&self, id: &str, rate: &Rate, count: u32, now_ns: i64) -> Result<Taken, DatabaseError> {
        let reading = |error: sqlx::Error| failed("read a counter", &error);
        let found = sqlx::query("SELECT arrival_ns FROM throttles WHERE id = $1")
            .bind(id)
            .fetch_optional(self.database.pool())
            .await
            .map_err(reading)?;
        let arrival_ns: i64 = found.map_or(Ok(0), |row| row.try_get(0)).map_err(reading)?;
        // Since it was refused it may have been deleted or taken back: the next one passes, not this one.
        let wait = rate.take(arrival_ns, now_ns, count).err().unwrap_or(Exhausted { wait_ns: 1 });
        Ok(Taken::Exhausted(wait))
    }
}

/// Nanoseconds since 1970; they fit until 2262.
pub(super) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
