//! Being logged in at a store: one login for however many ask, kept until shortly before it ends.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::StoreError;

/// The longest that a login is given up before its end, so that it does not end on the way.
const MAX_MARGIN: Duration = Duration::from_secs(30);

/// What a login gave.
pub(crate) struct Grant {
    /// The token to present.
    pub(crate) token: Zeroizing<String>,
    /// How long it is good; none: without end.
    pub(crate) lifetime: Option<Duration>,
    /// Whether the store extends it on request.
    pub(crate) renewable: bool,
    /// When it was given.
    pub(crate) given: Instant,
    number: u64,
}

/// The login of one store.
#[derive(Default)]
pub(crate) struct Session {
    current: Mutex<Option<Arc<Grant>>>,
    numbers: AtomicU64,
}

// === impl Grant ===

impl Grant {
    /// A token that is good for `lifetime` from now on.
    pub(crate) fn new(token: &str, lifetime: Option<Duration>, renewable: bool) -> Grant {
        Grant { token: Zeroizing::new(token.to_owned()), lifetime, renewable, given: Instant::now(), number: 0 }
    }

    /// When it is no longer used; none: never.
    fn last_use(&self) -> Option<Instant> {
        let lifetime = self.lifetime?;
        Some(self.given + lifetime - MAX_MARGIN.min(lifetime / 5))
    }

    /// What is left of it; none: without end.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        self.lifetime.map(|lifetime| lifetime.saturating_sub(self.given.elapsed()))
    }

    /// Whether it may be used now.
    pub(crate) fn is_usable(&self) -> bool {
        self.last_use().is_none_or(|last| Instant::now() < last)
    }

    /// Whether two thirds of it have passed.
    pub(crate) fn is_due(&self) -> bool {
        self.lifetime.is_some_and(|lifetime| self.given.elapsed() >= lifetime * 2 / 3)
    }

    /// Tells logins of one session apart.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

// === impl Session ===

impl Session {
    /// The grant at hand while it is usable, else that of `login`. Whoever comes meanwhile waits for it.
    ///
    /// # Errors
    /// That of `login`.
    pub(crate) async fn grant<F>(&self, login: impl FnOnce() -> F) -> Result<Arc<Grant>, StoreError>
    where
        F: Future<Output = Result<Grant, StoreError>>,
    {
        let mut current = self.current.lock().await;
        if let Some(grant) = current.as_ref().filter(|grant| grant.is_usable()) {
            return Ok(grant.clone());
        }
        *current = None;
        let grant = Grant { number: self.numbers.fetch_add(1, Ordering::Relaxed) + 1, ..login().await? };
        let grant = Arc::new(grant);
        *current = Some(grant.clone());
        Ok(grant)
    }

    /// The store no longer takes this grant: the next call logs in.
    pub(crate) async fn forget(&self, grant: &Grant) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| current.number == grant.number) {
            *current = None;
        }
    }

    /// The store extended this grant; it stays the same login.
    pub(crate) async fn extend(&self, grant: &Grant, lifetime: Option<Duration>, renewable: bool) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| current.number == grant.number) {
            let extended = Grant { number: grant.number, ..Grant::new(&grant.token, lifetime, renewable) };
            *current = Some(Arc::new(extended));
        }
    }

    /// The grant at hand, which is given up.
    pub(crate) async fn take(&self) -> Option<Arc<Grant>> {
        self.current.lock().await.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn login(logins: &AtomicU64, lifetime: Duration) -> Result<Grant, StoreError> {
        logins.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(Grant::new("token", Some(lifetime), true))
    }

    #[tokio::test]
    async fn however_many_ask_there_is_one_login() {
        let (session, logins) = (Session::default(), AtomicU64::new(0));
        let ask = || session.grant(|| login(&logins, Duration::from_secs(60)));
        let (one, two, three) = tokio::join!(ask(), ask(), ask());
        assert_eq!(logins.load(Ordering::Relaxed), 1);
        let numbers = [one, two, three].map(|grant| grant.map(|grant| grant.number()).unwrap_or_default());
        assert_eq!(numbers, [1, 1, 1]);
    }

    #[tokio::test]
    async fn a_grant_that_was_refused_or_ends_is_not_used_again() {
        let (session, logins) = (Session::default(), AtomicU64::new(0));
        let first = session.grant(|| login(&logins, Duration::from_secs(60))).await.unwrap();
        session.forget(&first).await;
        let second = session.grant(|| login(&logins, Duration::ZERO)).await.unwrap();
        // Forgetting an old one does not take away its successor.
        session.forget(&first).await;
        assert_ne!(first.number(), second.number());
        let third = session.grant(|| login(&logins, Duration::from_secs(60))).await.unwrap();
        assert_ne!(second.number(), third.number());
        session.extend(&third, Some(Duration::from_secs(90)), false).await;
        let extended = session.grant(|| login(&logins, Duration::ZERO)).await.unwrap();
        assert_eq!((extended.number(), extended.lifetime), (third.number(), Some(Duration::from_secs(90))));
    }
}
