//! When sessions were last used and which ones were ended, where there is a database: what this process knows of it.
//!
//! A session that this process knows costs no query while the database is heard from, except that its use is written now and
//! then. An end is heard within a second; what was last heard too long ago is looked up, and denied where that fails.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Standing, Use};
use crate::database::{DatabaseError, DatabaseSessions, SessionRow};

/// The most sessions that are known; all are looked up anew then.
const MAX_KNOWN: usize = 65_536;
/// How long what is known serves without news from the database.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// How often a use of one session is written at most, in milliseconds; more often where `idle_secs` is short.
const WRITE_EVERY_MS: i64 = 60_000;

/// The sessions of a database, as this process knows them.
pub struct Kept {
    /// The table.
    pub rows: DatabaseSessions,
    known: Mutex<Known>,
}

struct Known {
    sessions: HashMap<String, Session>,
    /// When the database was last heard from.
    heard: Option<Instant>,
    /// How often it was heard that sessions ended.
    ends: u64,
}

#[derive(Clone, Copy)]
struct Session {
    seen_ms: i64,
    written_ms: i64,
    /// How often it had been heard that sessions ended before this one was looked up.
    ends: u64,
}

/// What is known without a query.
enum Recalled {
    /// It goes on; whether its use is to be written.
    Live { is_due: bool },
    /// Nothing that counts; `ends` is how often it was heard that sessions ended.
    LookUp { ends: u64 },
}

// === impl Kept ===

impl Kept {
    /// What is in this table.
    #[must_use]
    pub fn new(rows: DatabaseSessions) -> Kept {
        Kept { rows, known: Mutex::new(Known { sessions: HashMap::new(), heard: None, ends: 0 }) }
    }

    /// Sessions were ended: all are looked up anew.
    pub fn ended(&self) {
        self.known().ends += 1;
    }

    /// The database was heard from.
    pub fn confirm(&self) {
        self.known().heard = Some(Instant::now());
    }

    /// Notes a use of a session, and says whether it may be.
    ///
    /// # Errors
    /// The database does not answer, and what is known is too old.
    pub async fn touch(&self, used: &Use<'_>) -> Result<Standing, DatabaseError> {
        let Use { id, now_ms, idle_ms, .. } = *used;
        let ends = match self.recall(used) {
            Recalled::Live { is_due } => {
                if is_due && let Err(error) = self.rows.seen(id, now_ms).await {
                    // At worst it counts as idle too soon elsewhere.
                    tracing::warn!(%error, "a use of a session was not noted");
                }
                return Ok(Standing::Live);
            }
            Recalled::LookUp { ends } => ends,
        };
        // Unknown, silent for too long, or unused here for so long that it matters whether it was used elsewhere.
        let SessionRow { seen_ms, ended } = self.rows.enter(used).await?;
        if ended {
            return Ok(Standing::Ended);
        }
        let seen_ms = seen_ms.max(self.known().sessions.get(id).map_or(0, |session| session.seen_ms));
        if now_ms.saturating_sub(seen_ms) > idle_ms {
            return Ok(Standing::Idle);
        }
        self.rows.seen(id, now_ms).await?;
        let mut known = self.known();
        if known.sessions.len() >= MAX_KNOWN {
            known.sessions.clear();
        }
        known.sessions.insert(id.to_owned(), Session { seen_ms: now_ms, written_ms: now_ms, ends });
        Ok(Standing::Live)
    }

    /// Notes the use of a session that is known to go on.
    fn recall(&self, used: &Use<'_>) -> Recalled {
        let mut known = self.known();
        let is_fresh = known.heard.is_some_and(|heard| heard.elapsed() < MAX_SILENCE);
        let ends = known.ends;
        // What was heard since it was looked up may have been about this one.
        let own = known.sessions.get_mut(used.id);
        let Some(session) = own.filter(|session| is_fresh && session.ends == ends) else {
            return Recalled::LookUp { ends };
        };
        if used.now_ms.saturating_sub(session.seen_ms) > used.idle_ms {
            return Recalled::LookUp { ends };
        }
        session.seen_ms = session.seen_ms.max(used.now_ms);
        let is_due = used.now_ms.saturating_sub(session.written_ms) >= WRITE_EVERY_MS.min(used.idle_ms / 4);
        if is_due {
            session.written_ms = used.now_ms;
        }
        Recalled::Live { is_due }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Database, SessionFilter};
    use crate::session::Whose;

    const ALICE: Whose<'_> = Whose { environment: "test", tenant: "one", server: "jira", principal: "alice" };

    async fn kept() -> Kept {
        Kept::new(DatabaseSessions::new(Database::open("sqlite::memory:", 1).await.unwrap()))
    }

    fn used(id: &str, now_ms: i64) -> Use<'_> {
        Use { id, whose: ALICE, issued_ms: 1_000, ends_ms: 10_000_000, now_ms, idle_ms: 1_000 }
    }

    fn named(id: &str) -> SessionFilter {
        SessionFilter { id: Some(id.to_owned()), environment: Some("test".to_owned()), ..SessionFilter::default() }
    }

    #[tokio::test]
    async fn an_end_counts_once_it_is_heard_and_at_once_where_nothing_is_heard() {
        let (one, silent) = (kept().await, kept().await);
        let silent = Kept { rows: one.rows.clone(), ..silent };
        one.confirm();
        for kept in [&one, &silent] {
            assert_eq!(kept.touch(&used("a", 1_100)).await.unwrap(), Standing::Live);
            assert_eq!(kept.touch(&used("b", 1_100)).await.unwrap(), Standing::Live);
        }
        assert_eq!(one.rows.end(&named("a"), 1_200).await.unwrap(), ["a"]);
        assert_eq!(one.touch(&used("a", 1_200)).await.unwrap(), Standing::Live, "not heard yet");
        assert_eq!(silent.touch(&used("a", 1_200)).await.unwrap(), Standing::Ended);
        one.ended();
        assert_eq!(one.touch(&used("a", 1_200)).await.unwrap(), Standing::Ended);
        assert_eq!(one.touch(&used("b", 1_200)).await.unwrap(), Standing::Live);
        assert!(one.rows.end(&named("a"), 1_300).await.unwrap().is_empty(), "it has ended");
        let other = SessionFilter { environment: Some("production".to_owned()), ..SessionFilter::default() };
        assert!(one.rows.end(&other, 1_300).await.unwrap().is_empty());
        let listed = one.rows.list(&SessionFilter::default(), 1_300).await.unwrap();
        assert_eq!(listed.iter().filter(|card| card.ended.is_some()).count(), 1);
    }

    #[tokio::test]
    async fn replicas_count_uses_together_and_what_nobody_used_is_idle() {
        let (one, other) = (kept().await, kept().await);
        let other = Kept { rows: one.rows.clone(), ..other };
        one.confirm();
        other.confirm();
        assert_eq!(one.touch(&used("a", 1_500)).await.unwrap(), Standing::Live);
        // Each use here is written, as an idle time of a second is short.
        for now_ms in [2_400, 3_300, 4_200] {
            assert_eq!(other.touch(&used("a", now_ms)).await.unwrap(), Standing::Live, "{now_ms}");
        }
        assert_eq!(one.touch(&used("a", 5_000)).await.unwrap(), Standing::Live, "it was used elsewhere");
        assert_eq!(one.touch(&used("a", 6_100)).await.unwrap(), Standing::Idle);
        assert_eq!(other.touch(&used("a", 6_100)).await.unwrap(), Standing::Idle);
        // Sealed long ago and never used.
        assert_eq!(one.touch(&used("b", 2_001)).await.unwrap(), Standing::Idle);
    }

    #[tokio::test]
    async fn without_its_database_what_is_known_serves_until_it_is_too_old_to_trust() {
        let kept = kept().await;
        kept.confirm();
        assert_eq!(kept.touch(&used("a", 1_100)).await.unwrap(), Standing::Live);
        sqlx::query("DROP TABLE sessions").execute(kept.rows.pool()).await.unwrap();
        assert_eq!(kept.touch(&used("a", 1_200)).await.unwrap(), Standing::Live);
        kept.touch(&used("b", 1_200)).await.unwrap_err();
        kept.known().heard = None;
        kept.touch(&used("a", 1_200)).await.unwrap_err();
    }
}
