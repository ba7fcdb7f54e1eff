//! Turns at a grant: while one is under way, nobody else sends its refresh token, in this process or at another replica.
//! A server that rotates refresh tokens takes one that comes twice for stolen, and ends the grant.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::{GrantError, GrantKey, Grants};

/// How long after a replica died in its turn another one has its own. Who lives asks for more time.
const LEASE: Duration = Duration::from_secs(6);
/// How often it is asked for: what is left of [`LEASE`] then, clocks of replicas may differ by.
const RENEWAL: Duration = Duration::from_secs(2);
/// How often a waiting replica looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long a turn is waited for: longer than a replica that died has its own, and less than a mint may take.
const WAIT: Duration = Duration::from_secs(8);
/// How much longer the last look may take.
const HANG: Duration = Duration::from_millis(500);

/// The turns that this process has at the grants of one store, or waits for.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<GrantKey, Weak<Place>>>);

/// Held by whose turn it is in this process.
type Place = tokio::sync::Mutex<()>;

/// A turn; it ends when this is dropped, and the next one begins when the store knows that.
pub struct Turn {
    /// Nothing is ever sent: it is dropped.
    _end: oneshot::Sender<()>,
}

// === impl Turn ===

impl Turn {
    /// Waits for a turn at this grant.
    ///
    /// # Errors
    /// The store cannot be reached, or other turns do not end in time.
    pub async fn take(grants: &Arc<dyn Grants>, key: &GrantKey) -> Result<Turn, GrantError> {
        let deadline = Instant::now() + WAIT;
        let late = || GrantError(format!("another refresh of this grant has not ended within {} s", WAIT.as_secs()));
        let place = timeout_at(deadline, grants.turns().place(key).lock_owned()).await.map_err(|_| late())?;
        // A look is cut off only where the store hangs: one that is cut off may have taken the turn, and leaves its
        // connection in the middle of a statement.
        while !timeout_at(deadline + HANG, grants.lease(key, LEASE)).await.map_err(|_| late())?? {
            if Instant::now() + LOOK >= deadline {
                return Err(late());
            }
            tokio::time::sleep(LOOK).await;
        }
        let (end, ended) = oneshot::channel();
        let (grants, key) = (Arc::clone(grants), key.clone());
        tokio::spawn(async move {
            keep(&*grants, &key, ended).await;
            drop(place);
        });
        Ok(Turn { _end: end })
    }
}

/// Asks for more time until the turn has ended, then gives the right back.
async fn keep(grants: &dyn Grants, key: &GrantKey, mut ended: oneshot::Receiver<()>) {
    let provider = &key.provider;
    while tokio::time::timeout(RENEWAL, &mut ended).await.is_err() {
        match grants.lease(key, LEASE).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(provider, "another replica began a turn at a grant before this one had ended"),
            Err(error) => tracing::warn!(provider, %error, "a turn at a grant could not be made longer"),
        }
    }
    if let Err(error) = grants.release(key).await {
        tracing::warn!(provider, %error, "a turn at a grant could not be given back; it ends by itself");
    }
}

// === impl Turns ===

impl Turns {
    fn place(&self, key: &GrantKey) -> Arc<Place> {
        let mut places = self.lock();
        if let Some(place) = places.get(key).and_then(Weak::upgrade) {
            return place;
        }
        places.retain(|_, place| place.strong_count() > 0);
        let place = Arc::new(Place::default());
        places.insert(key.clone(), Arc::downgrade(&place));
        place
    }

    /// Waits until the turns have ended that there are now.
    pub async fn ended(&self) {
        let places: Vec<Arc<Place>> = self.lock().values().filter_map(Weak::upgrade).collect();
        for place in places {
            drop(place.lock().await);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GrantKey, Weak<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::{Database, DatabaseGrants};
    use crate::seal::{LocalKey, Sealer};

    /// Two replicas on one database.
    async fn replicas() -> [Arc<dyn Grants>; 2] {
        let database = Database::open("sqlite::memory:", 1).await.unwrap();
        let key = LocalKey::parse(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let sealer = Arc::new(Sealer::new(database.clone(), vec![Arc::new(key)]).unwrap());
        let replica = || Arc::new(DatabaseGrants::new(database.clone(), sealer.clone()).unwrap());
        [replica(), replica()]
    }

    fn key() -> GrantKey {
        GrantKey::new("tenant", "alice", "calendar")
    }

    #[tokio::test]
    async fn a_turn_lasts_for_as_long_as_it_takes_and_is_then_given_back() {
        let [here, there] = replicas().await;
        let turn = Turn::take(&here, &key()).await.unwrap();
        assert!(there.lease(&GrantKey::new("tenant", "bob", "calendar"), LEASE).await.unwrap(), "another grant");
        tokio::time::sleep(LEASE + Duration::from_secs(1)).await;
        assert!(!there.lease(&key(), LEASE).await.unwrap());
        drop(turn);
        here.turns().ended().await;
        assert!(there.lease(&key(), LEASE).await.unwrap());
    }

    #[tokio::test]
    async fn a_replica_that_died_in_its_turn_is_outlasted() {
        let [here, there] = replicas().await;
        let began = Instant::now();
        assert!(there.lease(&key(), Duration::from_secs(1)).await.unwrap());
        drop(there);
        let _turn = Turn::take(&here, &key()).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_turn_is_not_waited_for_without_end() {
        let [here, there] = replicas().await;
        assert!(there.lease(&key(), Duration::from_secs(60)).await.unwrap());
        let error = Turn::take(&here, &key()).await.err().unwrap();
        assert!(error.to_string().contains("another refresh of this grant"), "{error}");
        // Nothing is left of the attempt.
        there.release(&key()).await.unwrap();
        assert!(Turn::take(&here, &key()).await.is_ok());
    }
}
