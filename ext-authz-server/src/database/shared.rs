//! What the replicas of one deployment share: leases, sealed material that one of them minted for all, and invalidations.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use zeroize::Zeroizing;

use super::leases::Leases;
use super::{Database, DatabaseError, failed, from_unix_ms, unix_ms};
use crate::credential::Material;
use crate::credential::probed::KIND as PROBED;
use crate::freshness::{Digest, Freshness, Key, Shared};
use crate::grants::GrantKey;
use crate::plan::Pending;
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};
use crate::secret::BUILTIN_SCHEME;

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
    /// What lies there has no known form.
    #[error("a shared material has no known form")]
    Form,
}

/// What is no longer valid, told to every replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Everything that was made of a person's grant.
    Grant {
        /// The tenant.
        tenant: String,
        /// The principal's key.
        principal: String,
        /// The provider.
        provider: String,
    },
    /// More than this replica can tell: it was away too long.
    Everything,
    /// A secret of the built-in store that was deleted.
    Secret {
        /// Its path.
        path: String,
    },
    /// A secret of the built-in store that was put: what is kept of it serves only where the new one cannot be had.
    NewSecret {
        /// Its path.
        path: String,
    },
    /// A binding took a step in its lifecycle; nothing that is kept is dropped by this alone.
    Binding {
        /// The environment.
        environment: String,
        /// Its id.
        id: String,
    },
    /// Sessions were ended: what is known of any is looked up anew.
    Sessions,
}

/// What is shared through a database.
#[derive(Clone)]
pub struct DatabaseShared {
    database: Database,
    sealer: Arc<Sealer>,
    leases: Leases,
}

/// A material as it is sealed; wiped when dropped.
#[derive(Serialize, Deserialize)]
struct Content {
    fields: Vec<(String, Vec<u8>, bool)>,
    expires_ms: Option<i64>,
}

// === impl DatabaseShared ===

impl DatabaseShared {
    /// What is shared through this database.
    ///
    /// # Errors
    /// The system has no randomness to name this replica.
    pub fn new(database: Database, sealer: Arc<Sealer>) -> Result<DatabaseShared, SealError> {
        let leases = Leases::new(database.clone())?;
        Ok(DatabaseShared { database, sealer, leases })
    }

    /// Keeps a material unless its topic was published after number `mark`. The counter's row is locked meanwhile, as by
    /// [`tell`], so that one of the two sees the other. Whether nothing was published.
    async fn keep(&self, key: &Key, material: &Material, mark: i64) -> Result<bool, SharedError> {
        let Some(expires) = material.expires() else { return Ok(true) };
        let id = key.digest().to_string();
        let fields = material.fields().iter();
        let content = Content {
            fields: fields.map(|field| (field.name.clone(), field.value.expose().to_vec(), field.is_secret)).collect(),
            expires_ms: Some(unix_ms(expires)),
        };
        let text = Zeroizing::new(serde_json::to_vec(&content).map_err(|_| SharedError::Form)?);
        let sealed = self.sealer.seal(place(key.tenant(), &id), &text).await?;
        let topic = Topic::of(key).map(|topic| topic.text()).unwrap_or_default();
        let doing = |error: sqlx::Error| failed("keep a material", &error);
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        sqlx::query("UPDATE counters SET value = value WHERE name = 'invalidations'")
            .execute(&mut *transaction)
            .await
            .map_err(doing)?;
        let published: i64 = sqlx::query("SELECT COUNT(*) FROM invalidations WHERE number > $1 AND topic = $2")
            .bind(mark)
            .bind(&topic)
            .fetch_one(&mut *transaction)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(doing)?;
        if published > 0 {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO material (id, topic, key_id, sealed, expires_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) \
             DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed, expires_ms = excluded.expires_ms",
        )
        .bind(&id)
        .bind(&topic)
        .bind(&sealed.key_id)
        .bind(&sealed.text)
        .bind(unix_ms(expires))
        .execute(&mut *transaction)
        .await
        .map_err(doing)?;
        transaction.commit().await.map_err(doing)?;
        Ok(true)
    }

    async fn kept(&self, key: &Key) -> Result<Option<Material>, SharedError> {
        let read = |error: sqlx::Error| failed("read a material", &error);
        let id = key.digest().to_string();
        let found = sqlx::query("SELECT key_id, sealed FROM material WHERE id = $1 AND expires_ms > $2")
            .bind(&id)
            .bind(unix_ms(SystemTime::now()))
            .fetch_optional(self.database.pool())
            .await
            .map_err(read)?;
        let Some(row) = found else { return Ok(None) };
        let sealed = Sealed { key_id: row.try_get(0).map_err(read)?, text: row.try_get(1).map_err(read)? };
        let text = self.sealer.open(place(key.tenant(), &id), &sealed).await?;
        let mut content: Content = serde_json::from_slice(&text).map_err(|_| SharedError::Form)?;
        let mut material = Material::new();
        for (name, value, is_secret) in content.fields.drain(..) {
            material = if is_secret { material.secret(&name, value) } else { material.plain(&name, value) };
        }
        Ok(Some(match content.expires_ms {
            Some(ms) => material.until(from_unix_ms(ms)),
            None => material,
        }))
    }

    /// Tells every replica, this one too, that something is no longer valid, and forgets the material made of it.
    ///
    /// # Errors
    /// The replicas cannot be told.
    pub async fn publish(&self, topic: &Topic) -> Result<(), SharedError> {
        let doing = |error: sqlx::Error| failed("publish an invalidation", &error);
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        tell(&mut transaction, topic).await.map_err(doing)?;
        transaction.commit().await.map_err(doing)?;
        Ok(())
    }

    /// What was published after number `after`, oldest first, and the newest number (or `after`). `None` asks where the
    /// count stands, for a replica that begins.
    ///
    /// # Errors
    /// The replicas cannot be asked.
    pub async fn poll(&self, after: Option<i64>) -> Result<(i64, Vec<Topic>), SharedError> {
        let (newest, topics) = self.announced(after).await?;
        Ok((newest, topics.iter().filter_map(|text| serde_json::from_str(text).ok()).collect()))
    }

    async fn count(&self) -> Result<i64, SharedError> {
        let count = sqlx::query("SELECT value FROM counters WHERE name = 'invalidations'")
            .fetch_one(self.database.pool())
            .await
            .and_then(|row| row.try_get(0));
        Ok(count.map_err(|error| failed("count invalidations", &error))?)
    }

    async fn announced(&self, after: Option<i64>) -> Result<(i64, Vec<String>), SharedError> {
        let read = |error: sqlx::Error| failed("poll invalidations", &error);
        let Some(after) = after else { return Ok((self.count().await?, Vec::new())) };
        let rows = sqlx::query("SELECT number, topic FROM invalidations WHERE number > $1 ORDER BY number LIMIT $2")
            .bind(after)
            .bind(MAX_POLLED)
            .fetch_all(self.database.pool())
            .await
            .map_err(read)?;
        let mut newest = after;
        let mut topics = Vec::with_capacity(rows.len());
        // Numbers have no gaps: where the first one is not the next, this replica was away for longer than they are kept.
        if let Some(first) = rows.first()
            && first.try_get::<i64, _>(0).map_err(read)? > after + 1
        {
            topics.push(Topic::Everything.text());
        }
        for row in rows {
            newest = row.try_get(0).map_err(read)?;
            topics.push(row.try_get(1).map_err(read)?);
        }
        Ok((newest, topics))
    }
}

impl Shared for DatabaseShared {
    fn take<'a>(&'a self, key: &'a Key) -> Pending<'a, Result<Option<Material>, String>> {
        Box::pin(async { self.kept(key).await.map_err(|error| error.to_string()) })
    }

    fn mark(&self) -> Pending<'_, Result<i64, String>> {
        Box::pin(async { self.count().await.map_err(|error| error.to_string()) })
    }

    fn put<'a>(&'a self, key: &'a Key, material: &'a Material, mark: i64) -> Pending<'a, Result<bool, String>> {
        Box::pin(async move { self.keep(key, material, mark).await.map_err(|error| error.to_string()) })
    }

    fn lease<'a>(&'a self, key: &'a Digest, duration: Duration) -> Pending<'a, Result<bool, String>> {
        Box::pin(async move { self.leases.take(&key.to_string(), duration).await.map_err(|error| error.to_string()) })
    }

    fn release<'a>(&'a self, key: &'a Digest) -> Pending<'a, Result<(), String>> {
        Box::pin(async move { self.leases.release(&key.to_string()).await.map_err(|error| error.to_string()) })
    }
}

// === impl Topic ===

impl Topic {
    /// The grant that a material was made of, as its key tells: `principal` and `provider` are parts of it.
    fn of(key: &Key) -> Option<Topic> {
        Some(Topic::Grant {
            tenant: key.tenant().to_owned(),
            principal: key.part("principal")?.to_owned(),
            provider: key.part("provider")?.to_owned(),
        })
    }

    /// The topic of everything that was made of a grant.
    #[must_use]
    pub fn of_grant(key: &GrantKey) -> Topic {
        let GrantKey { tenant, principal, provider } = key.clone();
        Topic::Grant { tenant, principal, provider }
    }

    /// Drops what this process keeps of it, or has it looked at anew. How many values that were.
    pub fn forget(&self, freshness: &Freshness) -> usize {
        match self {
            Topic::Grant { tenant, principal, provider } => {
                freshness.forget(&[("tenant", tenant), ("principal", principal), ("provider", provider)])
            }
            Topic::Secret { path } => {
                let dropped = freshness.forget(&[("kind", "secret"), ("store", BUILTIN_SCHEME), ("reference", path)]);
                dropped + look_again(freshness)
            }
            Topic::NewSecret { path } => {
                let kept = freshness.outdate(&[("kind", "secret"), ("store", BUILTIN_SCHEME), ("reference", path)]);
                kept + look_again(freshness)
            }
            Topic::Binding { .. } | Topic::Sessions => 0,
            Topic::Everything => freshness.forget(&[]),
        }
    }

    /// As it lies in the database.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        self.fields.iter_mut().for_each(|(_, value, _)| zeroize::Zeroize::zeroize(value));
    }
}

/// What was tried before use may be made of any secret. Each is looked at by its next call; those whose secret is the same are
/// not even tried again, and one whose new secret is not accepted keeps the one before.
fn look_again(freshness: &Freshness) -> usize {
    freshness.outdate(&[("kind", PROBED)])
}

/// Tells every replica that something is no longer valid, and forgets the material made of it, once this transaction is there.
/// It comes first in it: the counter's row is a lock for all who tell something, so that numbers appear in their order and a
/// poll never passes over one that comes late.
pub(super) async fn tell(transaction: &mut sqlx::Transaction<'_, sqlx::Any>, topic: &Topic) -> Result<(), sqlx::Error> {
    let topic = topic.text();
    let number: i64 = sqlx::query("UPDATE counters SET value = value + 1 WHERE name = 'invalidations' RETURNING value")
        .fetch_one(&mut **transaction)
        .await
        .and_then(|row| row.try_get(0))?;
    sqlx::query("DELETE FROM material WHERE topic = $1").bind(&topic).execute(&mut **transaction).await?;
    sqlx::query("INSERT INTO invalidations (number, topic, created_ms) VALUES ($1, $2, $3)")
        .bind(number)
        .bind(&topic)
        .bind(unix_ms(SystemTime::now()))
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

fn place<'a>(tenant: &'a str, id: &'a str) -> Place<'a> {
    Place { scope: Scope::Tenant(tenant), table: "material", row: id }
}
