//! Leases: which of several replicas does what only one of them may do at a time, and until when it may.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::states::random_name;
use super::{Database, DatabaseError, failed, unix_ms};
use crate::seal::SealError;

/// How long a lease may be held by a replica that died, at most.
const MAX_LEASE: Duration = Duration::from_secs(60);

/// The leases of one holder.
#[derive(Clone)]
pub(super) struct Leases {
    database: Database,
    holder: Arc<str>,
}

// === impl Leases ===

impl Leases {
    /// A holder that has none.
    ///
    /// # Errors
    /// The system has no randomness to name it.
    pub(super) fn new(database: Database) -> Result<Leases, SealError> {
        Ok(Leases { database, holder: random_name()?.into() })
    }

    /// Takes the lease with this id, or has it for longer; false while another holder has it.
    ///
    /// # Errors
    /// The database does not answer.
    pub(super) async fn take(&self, id: &str, duration: Duration) -> Result<bool, DatabaseError> {
        let now = SystemTime::now();
        let taken = sqlx::query(
            "INSERT INTO leases (id, holder, expires_ms) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET \
             holder = excluded.holder, expires_ms = excluded.expires_ms \
             WHERE leases.expires_ms <= $4 OR leases.holder = $2 RETURNING id",
        )
        .bind(id)
        .bind(&*self.holder)
        .bind(unix_ms(now + duration.min(MAX_LEASE)))
        .bind(unix_ms(now))
        .fetch_optional(self.database.pool())
        .await
        .map_err(|error| failed("take a lease", &error))?;
        Ok(taken.is_some())
    }

    /// Gives it back, where this holder has it.
    ///
    /// # Errors
    /// The database does not answer.
    pub(super) async fn release(&self, id: &str) -> Result<(), DatabaseError> {
        sqlx::query("DELETE FROM leases WHERE id = $1 AND holder = $2")
            .bind(id)
            .bind(&*self.holder)
            .execute(self.database.pool())
            .await
            .map_err(|error| failed("end a lease", &error))?;
        Ok(())
    }
}
