//! The leases that dynamic engines gave: how long each is good, and to which login it belongs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::secret::SecretBytes;
use crate::secret::remote::Grant;

/// What a dynamic engine gave.
#[derive(Clone)]
pub(super) struct Lease {
    /// The id to renew and to revoke it; empty: the engine keeps none (for example a cloud's own token).
    pub(super) id: String,
    /// The fields, as a JSON object.
    pub(super) secret: Arc<SecretBytes>,
    /// How long it is good since `given`.
    pub(super) lifetime: Duration,
    /// When it was given or last renewed.
    pub(super) given: Instant,
    /// How long it was good when it was new.
    pub(super) first_lifetime: Duration,
    /// Whether it can be renewed.
    pub(super) renewable: bool,
    /// The login it was made under; it ends with it.
    pub(super) login: u64,
}

// === impl Lease ===

impl Lease {
    /// What is left of it, at most what is left of its login.
    pub(super) fn remaining(&self, grant: &Grant) -> Duration {
        let own = self.lifetime.saturating_sub(self.given.elapsed());
        grant.remaining().map_or(own, |login| own.min(login))
    }

    /// Whether it is good under this login.
    pub(super) fn is_live(&self, grant: &Grant) -> bool {
        self.login == grant.number() && !self.remaining(grant).is_zero()
    }

    /// Whether half of it has passed, so that it is to be renewed or replaced.
    pub(super) fn is_due(&self) -> bool {
        self.given.elapsed() >= self.lifetime / 2
    }

    /// The same after the store extended it; none where that is not worth it: it nears the most that its role allows.
    pub(super) fn extended(&self, lifetime: Duration, renewable: bool) -> Option<Lease> {
        let worth_it = lifetime >= self.first_lifetime / 2;
        worth_it.then(|| Lease { lifetime, renewable, given: Instant::now(), ..self.clone() })
    }

    /// When it has ended by itself, whatever its login.
    pub(super) fn ends(&self) -> Instant {
        self.given + self.lifetime
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(lifetime_secs: u64) -> Lease {
        let lifetime = Duration::from_secs(lifetime_secs);
        Lease {
            id: "database/creds/app/1".into(),
            secret: Arc::new(SecretBytes::new(b"{}".to_vec())),
            lifetime,
            given: Instant::now(),
            first_lifetime: lifetime,
            renewable: true,
            login: 0,
        }
    }

    #[test]
    fn a_lease_ends_with_its_login() {
        let grant = Grant::new("token", Some(Duration::from_secs(10)), true);
        assert!(lease(60).remaining(&grant) <= Duration::from_secs(10));
        assert!(lease(60).is_live(&grant) && !lease(0).is_live(&grant));
        assert!(!Lease { login: 7, ..lease(60) }.is_live(&grant));
    }

    #[test]
    fn a_renewal_that_gives_little_is_not_worth_it() {
        assert!(lease(60).extended(Duration::from_secs(30), true).is_some());
        assert!(lease(60).extended(Duration::from_secs(29), true).is_none());
        assert!(!lease(60).is_due() && lease(0).is_due());
    }
}
