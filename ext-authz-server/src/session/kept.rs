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
        let mut known = self.known();
        known.sessions.clear();
        known.ends += 1;
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
        // What was heard meanwhile may have been about this one.
        if known.ends == ends {
            if known.sessions.len() >= MAX_KNOWN {
                known.sessions.clear();
            }
            known.sessions.insert(id.to_owned(), Session { seen_ms: now_ms, written_ms: now_ms });
        }
        Ok(Standing::Live)
    }

    /// Notes the use of a session that is known to go on.
    fn recall(&self, used: &Use<'_>) -> Recalled {
        let mut known = self.known();
        let is_fresh = known.heard.is_some_and(|heard| heard.elapsed() < MAX_SILENCE);
        let ends = known.ends;
        let Some(session) = known.sessions.get_mut(used.id).filter(|_| is_fresh) else {
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
