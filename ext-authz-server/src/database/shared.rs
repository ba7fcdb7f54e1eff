//! What the replicas of one deployment share: leases, sealed material that one of them minted for all, and invalidations.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sqlx::Row as _;
use zeroize::Zeroizing;

use super::{Database, DatabaseError, failed, from_unix_ms, unix_ms};
use crate::plan::Pending;
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};

/// The most invalidations that one poll returns.
const MAX_POLLED: i64 = 1000;

/// Why the replicas cannot agree now. A replica then works for itself; it never waits for the others.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Material cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// What the replicas of one deployment share. Keys are digests: they name a material and tell nothing about it.
pub trait Shared: Send + Sync {
    /// Takes or extends the lease of `key` for `holder`; false while another holder has it.
    ///
    /// # Errors
    /// The replicas cannot agree.
    fn lease<'a>(&'a self, key: &'a str, holder: &'a str, ttl: Duration) -> Pending<'a, Result<bool, SharedError>>;

    /// Gives up the lease, where `holder` still has it.
    ///
    /// # Errors
    /// The replicas cannot agree.
    fn release<'a>(&'a self, key: &'a str, holder: &'a str) -> Pending<'a, Result<(), SharedError>>;

    /// Keeps a material for all replicas until `expires`, sealed; it replaces an earlier one.
    ///
    /// # Errors
    /// The replicas cannot agree.
    fn put<'a>(&'a self, key: &'a str, material: &'a [u8], expires: SystemTime)
    -> Pending<'a, Result<(), SharedError>>;

    /// The material that any replica kept and when it ends; `None` where there is none or it has ended.
    ///
    /// # Errors
    /// The replicas cannot agree.
    #[expect(clippy::type_complexity, reason = "an answer, an end, perhaps neither, behind a future")]
    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<(Zeroizing<Vec<u8>>, SystemTime)>, SharedError>>;

    /// Tells every replica that `topic` is no longer valid, and forgets the material of that key.
    ///
    /// # Errors
    /// The replicas cannot agree.
    fn publish<'a>(&'a self, topic: &'a str) -> Pending<'a, Result<(), SharedError>>;

    /// The topics that were published after number `after`, oldest first, and the newest number among them (or `after`).
    /// `None` asks where the count stands, for a replica that begins.
    ///
    /// # Errors
    /// The replicas cannot agree.
    fn poll(&self, after: Option<i64>) -> Pending<'_, Result<(i64, Vec<String>), SharedError>>;
}

/// [`Shared`] through a database.
#[derive(Clone)]
pub struct DatabaseShared {
    database: Database,
    sealer: Arc<Sealer>,
}

// === impl DatabaseShared ===

impl DatabaseShared {
    /// What is shared through this database.
    #[must_use]
    pub fn new(database: Database, sealer: Arc<Sealer>) -> DatabaseShared {
        DatabaseShared { database, sealer }
    }

    async fn take_lease(&self, key: &str, holder: &str, ttl: Duration) -> Result<bool, SharedError> {
        let now = SystemTime::now();
        let taken = sqlx::query(
            "INSERT INTO leases (id, holder, expires_ms) VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET \
             holder = excluded.holder, expires_ms = excluded.expires_ms \
             WHERE leases.expires_ms <= $4 OR leases.holder = $2 RETURNING id",
        )
        .bind(key)
        .bind(holder)
        .bind(unix_ms(now + ttl))
        .bind(unix_ms(now))
        .fetch_optional(self.database.pool())
        .await
        .map_err(|error| failed("take a lease", &error))?;
        Ok(taken.is_some())
    }

    async fn end_lease(&self, key: &str, holder: &str) -> Result<(), SharedError> {
        sqlx::query("DELETE FROM leases WHERE id = $1 AND holder = $2")
            .bind(key)
            .bind(holder)
            .execute(self.database.pool())
            .await
            .map_err(|error| failed("end a lease", &error))?;
        Ok(())
    }

    async fn keep(&self, key: &str, material: &[u8], expires: SystemTime) -> Result<(), SharedError> {
        let sealed = self.sealer.seal(place(key), material).await?;
        sqlx::query(
            "INSERT INTO material (id, key_id, sealed, expires_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (id) \
             DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed, expires_ms = excluded.expires_ms",
        )
        .bind(key)
        .bind(&sealed.key_id)
        .bind(&sealed.text)
        .bind(unix_ms(expires))
        .execute(self.database.pool())
        .await
        .map_err(|error| failed("keep a material", &error))?;
        Ok(())
    }

    async fn kept(&self, key: &str) -> Result<Option<(Zeroizing<Vec<u8>>, SystemTime)>, SharedError> {
        let read = |error: sqlx::Error| failed("read a material", &error);
        let found = sqlx::query("SELECT key_id, sealed, expires_ms FROM material WHERE id = $1 AND expires_ms > $2")
            .bind(key)
            .bind(unix_ms(SystemTime::now()))
            .fetch_optional(self.database.pool())
            .await
            .map_err(read)?;
        let Some(row) = found else { return Ok(None) };
        let sealed = Sealed { key_id: row.try_get(0).map_err(read)?, text: row.try_get(1).map_err(read)? };
        let material = self.sealer.open(place(key), &sealed).await?;
        Ok(Some((material, from_unix_ms(row.try_get(2).map_err(read)?))))
    }

    /// The counter's row is locked until the invalidation is there, so that numbers appear in their order and a poll
    /// never passes over one that comes late.
    async fn announce(&self, topic: &str) -> Result<(), SharedError> {
        let doing = |error: sqlx::Error| failed("publish an invalidation", &error);
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        let number: i64 =
            sqlx::query("UPDATE counters SET value = value + 1 WHERE name = 'invalidations' RETURNING value")
                .fetch_one(&mut *transaction)
                .await
                .and_then(|row| row.try_get(0))
                .map_err(doing)?;
        sqlx::query("DELETE FROM material WHERE id = $1")
            .bind(topic)
            .execute(&mut *transaction)
            .await
            .map_err(doing)?;
        sqlx::query("INSERT INTO invalidations (number, topic, created_ms) VALUES ($1, $2, $3)")
            .bind(number)
            .bind(topic)
            .bind(unix_ms(SystemTime::now()))
            .execute(&mut *transaction)
            .await
            .map_err(doing)?;
        transaction.commit().await.map_err(doing)?;
        Ok(())
    }

    async fn announced(&self, after: Option<i64>) -> Result<(i64, Vec<String>), SharedError> {
        let read = |error: sqlx::Error| failed("poll invalidations", &error);
        let Some(after) = after else {
            let count = sqlx::query("SELECT value FROM counters WHERE name = 'invalidations'")
                .fetch_one(self.database.pool())
                .await
                .and_then(|row| row.try_get(0))
                .map_err(read)?;
            return Ok((count, Vec::new()));
        };
        let rows = sqlx::query("SELECT number, topic FROM invalidations WHERE number > $1 ORDER BY number LIMIT $2")
            .bind(after)
            .bind(MAX_POLLED)
            .fetch_all(self.database.pool())
            .await
            .map_err(read)?;
        let mut newest = after;
        let mut topics = Vec::with_capacity(rows.len());
        for row in rows {
            newest = row.try_get(0).map_err(read)?;
            topics.push(row.try_get(1).map_err(read)?);
        }
        Ok((newest, topics))
    }
}

impl Shared for DatabaseShared {
    fn lease<'a>(&'a self, key: &'a str, holder: &'a str, ttl: Duration) -> Pending<'a, Result<bool, SharedError>> {
        Box::pin(self.take_lease(key, holder, ttl))
    }

    fn release<'a>(&'a self, key: &'a str, holder: &'a str) -> Pending<'a, Result<(), SharedError>> {
        Box::pin(self.end_lease(key, holder))
    }

    fn put<'a>(
        &'a self,
        key: &'a str,
        material: &'a [u8],
        expires: SystemTime,
    ) -> Pending<'a, Result<(), SharedError>> {
        Box::pin(self.keep(key, material, expires))
    }

    fn get<'a>(&'a self, key: &'a str) -> Pending<'a, Result<Option<(Zeroizing<Vec<u8>>, SystemTime)>, SharedError>> {
        Box::pin(self.kept(key))
    }

    fn publish<'a>(&'a self, topic: &'a str) -> Pending<'a, Result<(), SharedError>> {
        Box::pin(self.announce(topic))
    }

    fn poll(&self, after: Option<i64>) -> Pending<'_, Result<(i64, Vec<String>), SharedError>> {
        Box::pin(self.announced(after))
    }
}

fn place(key: &str) -> Place<'_> {
    Place { scope: Scope::Server, table: "material", row: key }
}
