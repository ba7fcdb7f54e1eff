//! How many mints are under way at once, in all and at one source: a source that hangs keeps nobody from the others, nor do
//! seven. A source is an issuer where a credential names one, and its configuration otherwise.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most mints under way at once.
pub(super) const MAX: usize = 512;
/// The most of them at one source.
pub(super) const MAX_AT_ONE: usize = 64;

/// The places of mints under way.
pub(super) struct Flights {
    all: Arc<Semaphore>,
    /// Of the sources that are asked now.
    sources: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// One mint's place; it is free again once this is dropped.
pub(super) struct Place {
    /// `None` where the places are closed, which nobody does.
    _permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
    /// Keeps the source among those that are asked.
    _source: Arc<Semaphore>,
}

// === impl Flights ===

impl Default for Flights {
    fn default() -> Flights {
        Flights { all: Arc::new(Semaphore::new(MAX)), sources: Mutex::default() }
    }
}

impl Flights {
    /// Waits for a place at this source, then for one among all: who waits for its source takes nobody's place.
    pub(super) async fn place(&self, source: String) -> Place {
        let source = self.source(source);
        let permits = async {
            let own = source.clone().acquire_owned().await.ok()?;
            Some((own, self.all.clone().acquire_owned().await.ok()?))
        };
        Place { _permits: permits.await, _source: source }
    }

    fn source(&self, name: String) -> Arc<Semaphore> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(&name).and_then(Weak::upgrade) {
            return source;
        }
        sources.retain(|_, source| source.strong_count() > 0);
        let source = Arc::new(Semaphore::new(MAX_AT_ONE));
        sources.insert(name, Arc::downgrade(&source));
        source
    }
}
