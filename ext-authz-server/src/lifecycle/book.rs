//! Where every binding stands, as this server knows it, and how long it may rely on that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::{Entry, Record, State, Used};
use crate::config;
use crate::database::{DatabaseBindings, HistoryError};

/// What one process knows of the lifecycle of all bindings.
pub struct Book {
    known: ArcSwap<Known>,
    began: Instant,
    /// When that was last known to be what the database holds, in milliseconds after `began`, plus one; 0 for never.
    read: AtomicU64,
    used: Used,
}

/// By environment and id.
pub type Known = HashMap<String, HashMap<String, Standing>>;

/// The newest step of one binding.
#[derive(Clone)]
pub struct Standing {
    /// The number of steps.
    pub version: i64,
    /// The step; `None` where it cannot be opened.
    pub entry: Option<Arc<Entry>>,
}

/// The rule of one configuration, and where the bindings stand.
#[derive(Clone)]
pub struct Gate {
    environment: String,
    approvals: usize,
    max_stale: Duration,
    book: Option<Arc<Book>>,
}

/// Why it is not known where a binding stands; it then serves nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKnown {
    /// There was no database at the start.
    #[error("where bindings stand is not known: `database` takes effect at the next start")]
    NoDatabase,
    /// It was never read.
    #[error("where bindings stand could not be read yet")]
    Never,
    /// It was read too long ago.
    #[error("where bindings stand could not be read for {0} s")]
    Stale(u64),
    /// The newest step was changed, moved, or sealed under another key.
    #[error("the newest step in its history cannot be opened")]
    Unreadable,
}

// === impl Book ===

impl Default for Book {
    fn default() -> Book {
        Book { known: ArcSwap::default(), began: Instant::now(), read: AtomicU64::new(0), used: Used::default() }
    }
}

impl Book {
    /// Reads everything anew. Returns the steps that are new to this process; at the first time, the newest of each binding.
    ///
    /// # Errors
    /// The database does not answer; what is known stays.
    pub async fn read(&self, history: &DatabaseBindings) -> Result<Vec<Entry>, HistoryError> {
        let at = self.now();
        let before = self.known.load_full();
        let is_first = self.read.load(Ordering::Acquire) == 0;
        let mut known = Known::default();
        let mut steps = Vec::new();
        for newest in history.newest().await? {
            let seen = before.get(&newest.environment).and_then(|all| all.get(&newest.id));
            let version = seen.map_or(0, |seen| seen.version);
            let entry = newest
                .entry
                .inspect_err(|error| {
                    tracing::error!(%error, binding = newest.id, version = newest.version, "a binding's history cannot be opened");
                })
                .ok();
            if newest.version > version {
                match (is_first, &entry) {
                    (true, Some(entry)) => steps.push(entry.clone()),
                    (true, None) => {}
                    // What lies between counts too; where it cannot be opened, the newest has been complained about.
                    (false, _) => match history.history(&newest.environment, &newest.id, version).await {
                        // A step that came between the two readings is told at the next one.
                        Ok(all) => steps.extend(all.into_iter().filter(|step| step.version <= newest.version)),
                        Err(HistoryError::Database(error)) => return Err(error.into()),
                        Err(_) => steps.extend(entry.clone()),
                    },
                }
            }
            let standing = Standing { version: newest.version, entry: entry.map(Arc::new) };
            known.entry(newest.environment).or_default().insert(newest.id, standing);
        }
        // A history only grows: one that shrank was tampered with, or restored from a copy, and brings nothing back.
        for (environment, all) in before.iter() {
            for (id, seen) in all {
                let own = known.entry(environment.clone()).or_default();
                if own.get(id).is_none_or(|now| now.version < seen.version) {
                    tracing::error!(
                        binding = id,
                        version = seen.version,
                        "a binding's history has become shorter; what was known before counts until the next start"
                    );
                    own.insert(id.clone(), seen.clone());
                }
            }
        }
        self.known.store(Arc::new(known));
        self.read.store(at, Ordering::Release);
        Ok(steps)
    }

    /// Notes that nothing has changed in the database.
    pub fn confirm(&self) {
        self.read.store(self.now(), Ordering::Release);
    }

    /// The newest step of a binding.
    #[must_use]
    pub fn standing(&self, environment: &str, id: &str) -> Option<Standing> {
        self.known.load().get(environment)?.get(id).cloned()
    }

    /// What was handed out for which binding.
    #[must_use]
    pub fn used(&self) -> &Used {
        &self.used
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// How long ago it was known to be what the database holds.
    fn age(&self) -> Option<Duration> {
        match self.read.load(Ordering::Acquire) {
            0 => None,
            read => Some(Duration::from_millis(self.now().saturating_sub(read))),
        }
    }
}

// === impl Gate ===

impl Gate {
    /// The rule of a configuration over this book; without one nothing serves.
    #[must_use]
    pub fn new(rule: config::Lifecycle, environment: &str, book: Option<Arc<Book>>) -> Gate {
        Gate {
            environment: environment.to_owned(),
            approvals: rule.approvals,
            max_stale: Duration::from_secs(rule.max_stale_secs),
            book,
        }
    }

    /// Where a binding of this definition stands.
    ///
    /// # Errors
    /// It is not known.
    pub fn state(&self, id: &str, definition: &str) -> Result<State, NotKnown> {
        self.check()?;
        let standing = self.book.as_ref().and_then(|book| book.standing(&self.environment, id));
        match standing {
            None => Ok(Record::default().state(definition, self.approvals)),
            Some(Standing { entry: Some(entry), .. }) => Ok(entry.record.state(definition, self.approvals)),
            Some(Standing { entry: None, .. }) => Err(NotKnown::Unreadable),
        }
    }

    /// Whether what is known may be relied on.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), NotKnown> {
        let book = self.book.as_ref().ok_or(NotKnown::NoDatabase)?;
        match book.age() {
            None => Err(NotKnown::Never),
            Some(age) if age > self.max_stale => Err(NotKnown::Stale(age.as_secs())),
            Some(_) => Ok(()),
        }
    }

    /// The number of steps of a binding, where it is known.
    #[must_use]
    pub fn version(&self, id: &str) -> i64 {
        let standing = self.book.as_ref().and_then(|book| book.standing(&self.environment, id));
        standing.map_or(0, |standing| standing.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;
    use crate::lifecycle::Action;
    use crate::seal::{LocalKey, Sealer};

    const KEY: &[u8] = b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

    async fn history() -> (Database, DatabaseBindings) {
        let database = Database::open("sqlite::memory:", 1).await.unwrap();
        let sealer = Sealer::new(database.clone(), vec![Arc::new(LocalKey::parse(KEY).unwrap())]).unwrap();
        (database.clone(), DatabaseBindings::new(database, Arc::new(sealer)))
    }

    async fn take(history: &DatabaseBindings, before: Option<&Entry>, action: Action) -> Entry {
        let record = before.map(|entry| entry.record.clone()).unwrap_or_default();
        let next = record.after(action, "d", "alice", 0).unwrap().unwrap();
        let entry = Entry {
            environment: "test".into(),
            id: "a".into(),
            version: before.map_or(1, |entry| entry.version + 1),
            action,
            from: record.state("d", 0),
            to: next.state("d", 0),
            definition: "d".into(),
            by: "alice".into(),
            user: "root".into(),
            reason: String::new(),
            at_ms: 0,
            record: next,
        };
        assert!(history.add(&entry).await.unwrap());
        entry
    }

    fn gate(approvals: usize, max_stale_secs: u64, book: &Arc<Book>) -> Gate {
        Gate::new(config::Lifecycle { approvals, max_stale_secs }, "test", Some(book.clone()))
    }

    #[tokio::test]
    async fn what_is_not_known_serves_nobody() {
        let rule = config::Lifecycle { approvals: 0, max_stale_secs: 60 };
        assert_eq!(Gate::new(rule, "test", None).state("a", "d"), Err(NotKnown::NoDatabase));
        let (database, history) = history().await;
        let book = Arc::new(Book::default());
        assert_eq!(gate(0, 60, &book).state("a", "d"), Err(NotKnown::Never));
        book.read(&history).await.unwrap();
        assert_eq!(gate(0, 60, &book).state("a", "d"), Ok(State::Active));
        assert_eq!(gate(1, 60, &book).state("a", "d"), Ok(State::Draft));
        // The database goes away: what is known serves on, until it is too old.
        database.close().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(book.read(&history).await.is_err());
        assert_eq!(gate(0, 60, &book).state("a", "d"), Ok(State::Active));
        assert_eq!(gate(0, 0, &book).state("a", "d"), Err(NotKnown::Stale(0)));
    }

    #[tokio::test]
    async fn each_step_is_told_once() {
        let (_database, history) = history().await;
        let book = Arc::new(Book::default());
        let first = take(&history, None, Action::Disable).await;
        assert_eq!(book.read(&history).await.unwrap(), std::slice::from_ref(&first), "what was found at the start");
        assert_eq!(gate(0, 60, &book).state("a", "d"), Ok(State::Disabled));
        let second = take(&history, Some(&first), Action::Activate).await;
        let third = take(&history, Some(&second), Action::Revoke).await;
        assert_eq!(book.read(&history).await.unwrap(), [second, third], "what lies between, too");
        assert!(book.read(&history).await.unwrap().is_empty());
        assert_eq!(gate(0, 60, &book).state("a", "d"), Ok(State::Revoked));
        assert_eq!(gate(0, 60, &book).version("a"), 3);
        let production = config::Lifecycle { approvals: 0, max_stale_secs: 60 };
        let production = Gate::new(production, "production", Some(book.clone()));
        assert_eq!(production.state("a", "d"), Ok(State::Active), "another environment's step");
    }

    #[tokio::test]
    async fn a_history_that_shrinks_or_cannot_be_opened_brings_nothing_back() {
        let (database, history) = history().await;
        let book = Arc::new(Book::default());
        let first = take(&history, None, Action::Disable).await;
        let second = take(&history, Some(&first), Action::Activate).await;
        take(&history, Some(&second), Action::Revoke).await;
        book.read(&history).await.unwrap();
        for statement in ["DELETE FROM binding_history WHERE version = 3", "DELETE FROM binding_history"] {
            sqlx::query(statement).execute(database.pool()).await.unwrap();
            book.read(&history).await.unwrap();
            assert_eq!(gate(0, 60, &book).state("a", "d"), Ok(State::Revoked), "{statement}");
        }
        let fresh = Arc::new(Book::default());
        take(&history, None, Action::Disable).await;
        sqlx::query("UPDATE binding_history SET version = 2").execute(database.pool()).await.unwrap();
        fresh.read(&history).await.unwrap();
        assert_eq!(gate(0, 60, &fresh).state("a", "d"), Err(NotKnown::Unreadable));
        assert_eq!(gate(0, 60, &fresh).state("b", "d"), Ok(State::Active), "others are not concerned");
    }
}
