//! One cache beneath every minted credential and every remote store: what is there is used for less than its real life,
//! renewed ahead of time, had once for however many ask, and never a reason to allow what could not be had.
//!
//! - A value is used until some time before it ends (clock skew), and renewed in the background from a random moment
//!   before that, so that no call waits for the renewal and no two replicas renew at once.
//! - What a store holds may be another value by now, or gone: where its refresh is overdue, a call waits for it, and the
//!   value before serves only where the store cannot be had.
//! - However many ask for one key, one mint is under way, in this process and, through [`Shared`], among replicas.
//! - A failure is remembered for a time that doubles; meanwhile a value that is still usable serves, else the answer is
//!   the failure.
//! - A value that an upstream refused is had anew, at most so often that refusals cannot be used to cause mints.
//! - A replaced value stays among those to scrub while an upstream may still show it.

mod entry;
mod error;
mod flights;
mod key;
mod shared;
mod times;

pub use error::{MintError, MintErrorKind};
pub use key::{Digest, Key};
pub use shared::Shared;
pub use times::Terms;

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::credential::Material;
use entry::{Entry, Landed, Step};
use flights::Flights;

/// The most values that are kept; the least recently used ones go.
pub const CAPACITY: usize = 8192;
/// How long one mint may take.
pub const MINT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one call waits for a mint. Less than a decision may take, so that the denial says what was missing.
const WAIT: Duration = Duration::from_secs(4);
/// How long one call waits for what a store holds where the value before can serve, and how long a look keeps calls waiting at
/// all: a decision may need several values, and Envoy waits a second for it.
const STALE_WAIT: Duration = Duration::from_millis(200);
/// How long a replaced value stays among those to scrub.
pub const OVERLAP: Duration = Duration::from_secs(600);
/// After an upstream refused a value, how long its successor is kept whatever the upstream says; doubled each time.
const REFUSAL_HOLD: Duration = Duration::from_secs(5);
/// The most doublings of [`REFUSAL_HOLD`]; a key without refusals for as long as that begins anew.
const MAX_REFUSALS: u32 = 6;

/// A mint under way.
pub type Minting = Pin<Box<dyn Future<Output = Result<Material, MintError>> + Send>>;

/// Where a value came from: told to [`Freshness::refused`] when an upstream does not take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    digest: Digest,
    version: u64,
}

/// The cache.
pub struct Freshness {
    entries: Mutex<HashMap<Digest, Entry>>,
    flights: Flights,
    shared: OnceLock<Arc<dyn Shared>>,
    clock: AtomicU64,
    counts: Counts,
}

/// What happened since the start.
#[derive(Default)]
pub struct Counts {
    /// Mints that were made.
    pub minted: AtomicU64,
    /// Mints that failed.
    pub failed: AtomicU64,
    /// Values that another replica had made.
    pub taken_over: AtomicU64,
    /// Values that were had anew because an upstream refused them.
    pub refused: AtomicU64,
    /// Calls that waited for a mint, their own or another's.
    pub waited: AtomicU64,
}

// === impl Freshness ===

impl Default for Freshness {
    fn default() -> Freshness {
        Freshness {
            entries: Mutex::default(),
            flights: Flights::default(),
            shared: OnceLock::new(),
            clock: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }
}

impl Freshness {
    /// What several replicas have in common; set once, before the first use.
    pub fn share(&self, shared: Arc<dyn Shared>) {
        let _ = self.shared.set(shared);
    }

    /// What happened since the start.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many values are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The material of `key`: the one at hand, or what `mint` makes. `mint` is called at most once, and for all who wait.
    ///
    /// # Errors
    /// There is none, and none could be had in time.
    pub async fn get(
        self: &Arc<Self>,
        key: Key,
        terms: Terms,
        mint: impl FnOnce() -> Minting,
    ) -> Result<Arc<Material>, MintError> {
        let digest = key.digest();
        let (mut landing, fallback, birth, patience) = {
            let mut entries = self.lock();
            let now = Instant::now();
            if !entries.contains_key(&digest) {
                make_room(&mut entries, now);
            }
            let entry =
                entries.entry(digest).or_insert_with(|| Entry::new(key, self.clock.fetch_add(1, Ordering::Relaxed)));
            entry.used = self.clock.fetch_add(1, Ordering::Relaxed);
            let (fallback, birth) = (entry.usable(now), entry.birth);
            let patience = if fallback.is_some() && !entry.is_suspect() { STALE_WAIT } else { WAIT };
            let landing = match entry.step(now) {
                Step::Serve(material) => return Ok(material),
                Step::Renew(material) => {
                    self.fly(entry, digest, terms, mint());
                    return Ok(material);
                }
                Step::Fail(error) => return Err(error),
                Step::Wait(landing) => landing,
                Step::Fly => self.fly(entry, digest, terms, mint()),
            };
            (landing, fallback, birth, patience)
        };
        self.counts.waited.fetch_add(1, Ordering::Relaxed);
        let landed = tokio::time::timeout(patience, landing.wait_for(Option::is_some)).await;
        let result = match landed {
            Ok(Ok(landed)) => {
                landed.clone().unwrap_or_else(|| Err(MintError::transient("the mint ended without a result")))
            }
            Ok(Err(_)) => Err(MintError::transient("the mint ended without a result")),
            Err(_) => Err(MintError::transient("it was not there in time")),
        };
        // What an upstream refused, or what is overdue, is better than nothing where nothing else can be had; what was
        // withdrawn is not.
        result.or_else(|error| {
            let serves = error.kind == MintErrorKind::Transient && self.is_there(&digest, birth);
            fallback.filter(|_| serves).ok_or(error)
        })
    }

    /// An upstream refused what came from `origin`: it is had anew at the next call. Whether that is so now; too many
    /// refusals of one key are not listened to.
    pub fn refused(&self, origin: &Origin) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&origin.digest).filter(|entry| entry.version == origin.version) else {
            return false;
        };
        let now = Instant::now();
        let hold = REFUSAL_HOLD * 2u32.pow(entry.refusals.saturating_sub(1));
        match entry.refused_at.map(|at| now.duration_since(at)) {
            Some(past) if past < hold => return false,
            Some(past) if past > REFUSAL_HOLD * 2u32.pow(MAX_REFUSALS) => entry.refusals = 0,
            _ => {}
        }
        let Some(current) = entry.current.as_mut().filter(|current| !current.suspect) else { return false };
        current.suspect = true;
        entry.failure = None;
        entry.refusals = (entry.refusals + 1).min(MAX_REFUSALS);
        entry.refused_at = Some(now);
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Drops every value whose key has all of these parts; none of them serves any more. How many there were.
    pub fn forget(&self, parts: &[(&str, &str)]) -> usize {
        let mut entries = self.lock();
        let before = entries.len();
        entries.retain(|_, entry| !entry.key.has_all(parts));
        before - entries.len()
    }

    /// Says that every value whose key has all of these parts may be another one by now: the next call waits for that, and
    /// the value before serves only where it cannot be had. How many there are.
    pub fn outdate(&self, parts: &[(&str, &str)]) -> usize {
        let now = Instant::now();
        let mut entries = self.lock();
        let mut count = 0;
        for entry in entries.values_mut().filter(|entry| entry.key.has_all(parts)) {
            entry.outdate(now);
            count += 1;
        }
        count
    }

    /// Drops what is of no use any more, so that no secret stays in memory because nobody asks for it. How many entries those
    /// were.
    pub fn sweep(&self) -> usize {
        let now = Instant::now();
        let mut entries = self.lock();
        let before = entries.len();
        entries.retain(|digest, entry| {
            entry.tidy(*digest, now);
            !entry.is_spent(now)
        });
        before - entries.len()
    }

    /// Drops the value with this digest, as another replica asked for.
    pub fn forget_digest(&self, digest: &Digest) {
        self.lock().remove(digest);
    }

    /// Starts a mint in a task of its own: a caller that goes away does not end it.
    fn fly(
        self: &Arc<Self>,
        entry: &mut Entry,
        digest: Digest,
        terms: Terms,
        minting: Minting,
    ) -> watch::Receiver<Landed> {
        let (sender, receiver) = watch::channel(None);
        entry.flight = Some(receiver.clone());
        entry.flown = Some(Instant::now());
        let (freshness, key) = (Arc::clone(self), entry.key.clone());
        let (birth, outdated) = (entry.birth, entry.outdated);
        let before = entry.current.as_ref().map(|current| current.material.clone());
        tokio::spawn(async move {
            // Declared first, dropped last: a mint that panics still ends its flight.
            let flight = Flight { freshness: &freshness, digest };
            let result = freshness.mint(&key, birth, before.as_deref(), terms, minting).await;
            let _ = sender.send(Some(flight.freshness.land(digest, (birth, outdated), terms, result)));
        });
        receiver
    }

    /// Makes the material, or takes what another replica has made.
    async fn mint(
        &self,
        key: &Key,
        birth: u64,
        before: Option<&Material>,
        terms: Terms,
        minting: Minting,
    ) -> Result<Material, MintError> {
        // Not for what stores hold: a mint under way asks for it, and must not wait for a place that such mints take.
        let _place = match terms {
            Terms::Minted => {
                let place = tokio::time::timeout(MINT_TIMEOUT, self.flights.place(key.source())).await;
                Some(place.map_err(|_| MintError::transient("too many are being had at that source already"))?)
            }
            Terms::Stored { .. } => None,
        };
        let mint = async {
            let result = minting.await;
            let count = if result.is_ok() { &self.counts.minted } else { &self.counts.failed };
            count.fetch_add(1, Ordering::Relaxed);
            result
        };
        let work = async {
            match self.shared.get().filter(|_| terms.is_shared()) {
                None => mint.await,
                Some(shared) => {
                    shared::once(
                        &**shared,
                        key,
                        before,
                        mint,
                        || self.is_there(&key.digest(), birth),
                        &self.counts.taken_over,
                    )
                    .await
                }
            }
        };
        match tokio::time::timeout(MINT_TIMEOUT, work).await {
            Ok(result) => result,
            Err(_) => Err(MintError::transient(format!("no answer within {} s", MINT_TIMEOUT.as_secs()))),
        }
    }

    /// Whether the entry is still there that had this birth: it was not forgotten meanwhile.
    fn is_there(&self, digest: &Digest, birth: u64) -> bool {
        self.lock().get(digest).is_some_and(|entry| entry.birth == birth)
    }

    /// Notes the result of a mint and says what the waiting calls get. The entry had this birth, and was outdated so often,
    /// when the mint began.
    fn land(
        &self,
        digest: Digest,
        (birth, outdated): (u64, u64),
        terms: Terms,
        result: Result<Material, MintError>,
    ) -> Result<Arc<Material>, MintError> {
        let now = Instant::now();
        let result = result.and_then(|material| match material.expires() {
            Some(end) if end <= SystemTime::now() => Err(MintError::transient("what was minted had expired already")),
            _ => Ok(material),
        });
        let mut entries = self.lock();
        // Forgotten meanwhile: whoever waits does not get it either.
        let Some(entry) = entries.get_mut(&digest).filter(|entry| entry.birth == birth) else {
            return result.and(Err(MintError::outrun()));
        };
        entry.flight = None;
        match result {
            Ok(material) => {
                let served = entry.take(digest, Arc::new(material), terms, now);
                // It may have been read before that was said: the next call looks again.
                if entry.outdated != outdated {
                    entry.outdate(now);
                }
                Ok(served)
            }
            Err(error) => {
                entry.fail(&error, terms, now);
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a flight whatever happens to its task.
struct Flight<'a> {
    freshness: &'a Freshness,
    digest: Digest,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(entry) = self.freshness.lock().get_mut(&self.digest)
        {
            entry.flight = None;
            entry.fail(&MintError::transient("the mint ended by a panic"), Terms::Minted, Instant::now());
        }
    }
}

/// Makes room for one entry: those without use first, then the least recently used.
fn make_room(entries: &mut HashMap<Digest, Entry>, now: Instant) {
    if entries.len() < CAPACITY {
        return;
    }
    entries.retain(|_, entry| entry.flight.is_some() || entry.usable(now).is_some());
    let excess = entries.len().saturating_sub(CAPACITY - CAPACITY / 16);
    let mut used: Vec<(u64, Digest)> = entries
        .iter()
        .filter(|(_, entry)| entry.flight.is_none())
        .map(|(digest, entry)| (entry.used, *digest))
        .collect();
    used.sort_unstable();
    for (_, digest) in used.into_iter().take(excess) {
        entries.remove(&digest);
    }
}

#[cfg(test)]
mod tests;
