//! What is revoked, as this process knows it, and how long it may rely on that.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use keyward_contract::revocation::Tag;
use tokio::sync::watch;

use super::{Act, Entry};
use crate::database::{DatabaseRevocations, LogError, Seen, unix_ms};

/// How many changes are remembered for streams that lag behind; one that lags more is told everything anew.
const MAX_CHANGES: usize = 8192;

/// What one process knows of all revocations.
pub struct Book {
    began: Instant,
    known: Mutex<Log>,
    /// For decisions: no lock.
    standing: ArcSwap<HashMap<Tag, i64>>,
    /// When that was last known to be what the database holds, in milliseconds after `began`, plus one; 0 for never.
    read: AtomicU64,
    changed: watch::Sender<u64>,
}

/// All that was read.
#[derive(Default)]
struct Log {
    seen: Option<Seen>,
    /// Those that have not ended, by number: of what, and until when.
    revoked: BTreeMap<i64, (Tag, Option<i64>, Arc<Entry>)>,
    /// How many of those there are of one tag.
    counts: HashMap<Tag, usize>,
    /// Whether a row could not be opened: then it is not known what is revoked.
    is_unreadable: bool,
    /// What became revoked (true) or stopped being so, with the number of changes before it.
    changes: VecDeque<(u64, Tag, bool)>,
    count: u64,
}

/// A revocation that has not ended.
#[derive(Clone)]
pub struct Standing {
    /// Its entry.
    pub entry: Arc<Entry>,
}

/// The rule of one configuration, and what is revoked.
#[derive(Clone)]
pub struct Gate {
    max_stale: Duration,
    book: Option<Arc<Book>>,
}

/// Why it is not known what is revoked; nobody gets anything then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKnown {
    /// There was no database at the start.
    #[error("what is revoked is not known: `database` takes effect at the next start")]
    NoDatabase,
    /// It was never read.
    #[error("what is revoked could not be read yet")]
    Never,
    /// It was read too long ago.
    #[error("what is revoked could not be read for {0} ms")]
    Stale(u64),
    /// A row was changed, moved, or sealed under another key.
    #[error("a row of the log of revocations cannot be opened")]
    Unreadable,
}

/// What a stream has to say next.
pub(super) struct News {
    /// Whether what was said before is void.
    pub(super) reset: bool,
    /// What is revoked.
    pub(super) revoked: Vec<Tag>,
    /// What is not revoked any more.
    pub(super) lifted: Vec<Tag>,
    /// How many changes there were.
    pub(super) count: u64,
}

// === impl Book ===

impl Default for Book {
    fn default() -> Book {
        Book {
            began: Instant::now(),
            known: Mutex::default(),
            standing: ArcSwap::default(),
            read: AtomicU64::new(0),
            changed: watch::Sender::new(0),
        }
    }
}

impl Book {
    /// Reads what is new in the log. Returns it, oldest first.
    ///
    /// # Errors
    /// The database does not answer; what is known stays.
    pub async fn read(&self, log: &DatabaseRevocations) -> Result<Vec<Entry>, LogError> {
        let mut news = Vec::new();
        loop {
            let at = self.now();
            let seen = self.known().seen.clone();
            let page = log.after(seen.as_ref()).await?;
            let is_last = page.is_last;
            if page.restarted {
                // A log only grows: one that shrank was tampered with, or restored from a copy, and lifts nothing.
                tracing::error!(
                    "the log of revocations is not the one that was read before; what was known stays revoked"
                );
                self.known().orphan();
            }
            self.take(page.entries, page.seen, &mut news);
            if is_last {
                self.read.store(at, Ordering::Release);
                return Ok(news);
            }
        }
    }

    /// Ends what ended by time. Call it now and then.
    pub fn expire(&self) {
        let now = unix_ms(SystemTime::now());
        let mut known = self.known();
        let over = known.revoked.iter().filter(|(_, (_, until, _))| until.is_some_and(|until| until <= now));
        let over: Vec<i64> = over.map(|(number, _)| *number).collect();
        if !over.is_empty() {
            over.into_iter().for_each(|number| known.end(number));
            self.publish(&known);
        }
    }

    fn take(&self, entries: Vec<Option<Entry>>, seen: Option<Seen>, news: &mut Vec<Entry>) {
        if entries.is_empty() {
            return;
        }
        let now = unix_ms(SystemTime::now());
        let mut known = self.known();
        for entry in entries {
            match entry {
                Some(entry) => {
                    known.apply(&entry, now);
                    news.push(entry);
                }
                None => known.is_unreadable = true,
            }
        }
        known.seen = seen;
        self.publish(&known);
    }

    fn publish(&self, known: &Log) {
        let standing = known.revoked.iter().map(|(number, (tag, ..))| (*tag, *number)).collect();
        self.standing.store(Arc::new(standing));
        self.changed.send_replace(known.count);
    }

    /// Those that have not ended, oldest first, in one environment.
    #[must_use]
    pub fn standing(&self, environment: &str) -> Vec<Standing> {
        let known = self.known();
        let all = known.revoked.values().map(|(.., entry)| Standing { entry: entry.clone() });
        all.filter(|own| own.entry.environment == environment).collect()
    }

    /// How many there are that have not ended, in all environments.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known().revoked.len()
    }

    /// What is new since a stream had said so many changes; `None` for one that begins.
    pub(super) fn news(&self, said: Option<u64>) -> News {
        let known = self.known();
        let first = known.count - known.changes.len() as u64;
        match said {
            Some(said) if said >= first && said <= known.count => {
                let (mut revoked, mut lifted) = (Vec::new(), Vec::new());
                for (number, tag, is_revoked) in &known.changes {
                    if *number >= said {
                        // Of one tag the last word counts, and the filter hears those that are revoked last.
                        lifted.retain(|other| other != tag);
                        revoked.retain(|other| other != tag);
                        if *is_revoked { revoked.push(*tag) } else { lifted.push(*tag) }
                    }
                }
                News { reset: false, revoked, lifted, count: known.count }
            }
            _ => {
                let mut revoked: Vec<Tag> = known.revoked.values().map(|(tag, ..)| *tag).collect();
                revoked.sort_unstable();
                revoked.dedup();
                News { reset: true, revoked, lifted: Vec::new(), count: known.count }
            }
        }
    }

    /// Tells of each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How long ago it was last known to be what the database holds.
    ///
    /// # Errors
    /// It is not known, or cannot be.
    pub fn age(&self) -> Result<Duration, NotKnown> {
        if self.known().is_unreadable {
            return Err(NotKnown::Unreadable);
        }
        match self.read.load(Ordering::Acquire) {
            0 => Err(NotKnown::Never),
            read => Ok(Duration::from_millis(self.now().saturating_sub(read))),
        }
    }

    fn known(&self) -> MutexGuard<'_, Log> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

// === impl Log ===

impl Log {
    fn apply(&mut self, entry: &Entry, now_ms: i64) {
        match &entry.act {
            Act::Revoke { until_ms: Some(until), .. } if *until <= now_ms => {}
            Act::Revoke { subject, until_ms } => {
                let tag = subject.tag(&entry.environment);
                if self.revoked.insert(entry.number, (tag, *until_ms, Arc::new(entry.clone()))).is_some() {
                    return;
                }
                let count = self.counts.entry(tag).or_default();
                *count += 1;
                if *count == 1 {
                    self.note(tag, true);
                }
            }
            Act::Lift { number } => self.end(*number),
        }
    }

    fn end(&mut self, number: i64) {
        let Some((tag, ..)) = self.revoked.remove(&number) else { return };
        let left = self.counts.get(&tag).map_or(0, |count| count - 1);
        if left > 0 {
            self.counts.insert(tag, left);
        } else {
            self.counts.remove(&tag);
            self.note(tag, false);
        }
    }

    /// Keeps what is known apart from what the log says from now on: its numbers mean something else there.
    fn orphan(&mut self) {
        let orphans = std::mem::take(&mut self.revoked).into_values().enumerate();
        self.revoked = orphans.map(|(n, own)| (i64::MIN + i64::try_from(n).unwrap_or_default(), own)).collect();
    }

    fn note(&mut self, tag: Tag, is_revoked: bool) {
        if self.changes.len() >= MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((self.count, tag, is_revoked));
        self.count += 1;
    }
}

// === impl Gate ===

impl Gate {
    /// What this book says, as long as it is no older.
    #[must_use]
    pub fn new(max_stale: Duration, book: Option<Arc<Book>>) -> Gate {
        Gate { max_stale, book }
    }

    /// The number of a revocation of one of these, if any of them is revoked.
    ///
    /// # Errors
    /// It is not known.
    pub fn revoked(&self, tags: &[Tag]) -> Result<Option<i64>, NotKnown> {
        self.check()?;
        let Some(book) = &self.book else { return Err(NotKnown::NoDatabase) };
        let standing = book.standing.load();
        Ok(tags.iter().find_map(|tag| standing.get(tag).copied()))
    }

    /// # Errors
    /// It is not known what is revoked.
    pub fn check(&self) -> Result<(), NotKnown> {
        let age = self.book.as_ref().ok_or(NotKnown::NoDatabase)?.age()?;
        if age > self.max_stale {
            return Err(NotKnown::Stale(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        }
        Ok(())
    }

    /// The book.
    #[must_use]
    pub fn book(&self) -> Option<&Arc<Book>> {
        self.book.as_ref()
    }
}
