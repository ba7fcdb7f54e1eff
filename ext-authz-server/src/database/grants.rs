//! Grants in the database, each sealed for its tenant and its row.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::any::AnyRow;
use zeroize::Zeroizing;

use super::leases::Leases;
use super::shared::tell;
use super::{Database, Topic, digest, failed, from_unix_ms, unix_ms};
use crate::grants::{Grant, GrantCard, GrantError, GrantKey, Grants, MAX_PART_BYTES, Replaced, Turns, Version};
use crate::plan::Pending;
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};
use crate::secret::SecretBytes;

/// The most grants that a list shows.
const MAX_LISTED: i64 = 10_000;

/// The grants of a database.
#[derive(Clone)]
pub struct DatabaseGrants {
    database: Database,
    sealer: Arc<Sealer>,
    leases: Leases,
    turns: Arc<Turns>,
}

/// A grant as it is sealed; wiped when dropped.
#[derive(Serialize, Deserialize)]
struct Content {
    secret: Vec<u8>,
    scopes: Vec<String>,
    account: Option<String>,
    given_secs: u64,
}

// === impl DatabaseGrants ===

impl DatabaseGrants {
    /// The grants of this database.
    ///
    /// # Errors
    /// The system has no randomness to name this replica.
    pub fn new(database: Database, sealer: Arc<Sealer>) -> Result<DatabaseGrants, SealError> {
        let leases = Leases::new(database.clone())?;
        Ok(DatabaseGrants { database, sealer, leases, turns: Arc::default() })
    }

    async fn read(&self, key: &GrantKey) -> Result<Option<(Grant, Version)>, GrantError> {
        check(key)?;
        let found = sqlx::query(
            "SELECT key_id, sealed, version, expires_ms FROM grants WHERE tenant = $1 AND principal = $2 \
             AND provider = $3 AND (expires_ms IS NULL OR expires_ms > $4)",
        )
        .bind(&key.tenant)
        .bind(&key.principal)
        .bind(&key.provider)
        .bind(unix_ms(SystemTime::now()))
        .fetch_optional(self.database.pool())
        .await
        .map_err(|error| refused(failed("load a grant", &error)))?;
        let Some(row) = found else { return Ok(None) };
        let sealed = Sealed { key_id: column(&row, 0)?, text: column(&row, 1)? };
        let content = self.open(key, &sealed).await?;
        let expires: Option<i64> = column(&row, 3)?;
        let grant = Grant {
            secret: Arc::new(SecretBytes::new(content.secret.clone())),
            scopes: content.scopes.clone(),
            account: content.account.clone(),
            given: UNIX_EPOCH + Duration::from_secs(content.given_secs),
            expires: expires.map(from_unix_ms),
        };
        Ok(Some((grant, Version(column(&row, 2)?))))
    }

    async fn write(&self, key: &GrantKey, expected: Option<Version>, grant: &Grant) -> Result<Replaced, GrantError> {
        check(key)?;
        let content = Content {
            secret: grant.secret.expose().to_vec(),
            scopes: grant.scopes.clone(),
            account: grant.account.clone(),
            given_secs: grant.given.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        let text = Zeroizing::new(serde_json::to_vec(&content).map_err(refused)?);
        let sealed = self.sealer.seal(place(key, &key.row()), &text).await.map_err(refused)?;
        let now = unix_ms(SystemTime::now());
        let query = match expected {
            Some(version) => sqlx::query(
                "UPDATE grants SET version = version + 1, key_id = $4, sealed = $5, changed_ms = $6, expires_ms = $7 \
                 WHERE tenant = $1 AND principal = $2 AND provider = $3 AND version = $8 RETURNING version",
            )
            .bind(&key.tenant)
            .bind(&key.principal)
            .bind(&key.provider)
            .bind(&sealed.key_id)
            .bind(&sealed.text)
            .bind(now)
            .bind(grant.expires.map(unix_ms))
            .bind(version.0),
            // One that has ended is as good as none, but its version goes on.
            None => sqlx::query(
                "INSERT INTO grants (tenant, principal, provider, version, key_id, sealed, changed_ms, expires_ms) \
                 VALUES ($1, $2, $3, $8, $4, $5, $6, $7) ON CONFLICT (tenant, principal, provider) DO UPDATE SET \
                 version = grants.version + 1, key_id = excluded.key_id, sealed = excluded.sealed, \
                 changed_ms = excluded.changed_ms, expires_ms = excluded.expires_ms \
                 WHERE grants.expires_ms <= $6 RETURNING version",
            )
            .bind(&key.tenant)
            .bind(&key.principal)
            .bind(&key.provider)
            .bind(&sealed.key_id)
            .bind(&sealed.text)
            .bind(now)
            .bind(grant.expires.map(unix_ms))
            // A grant that comes after a deleted one never has a version that somebody still holds.
            .bind(first_version()?),
        };
        let stored = query.fetch_optional(self.database.pool()).await;
        match stored.map_err(|error| refused(failed("store a grant", &error)))? {
            Some(row) => Ok(Replaced::Stored(Version(column(&row, 0)?))),
            None => Ok(Replaced::Lost),
        }
    }

    /// Deletes a grant. Without a version, somebody takes it back: every replica is told, or nothing is deleted.
    async fn remove(&self, key: &GrantKey, version: Option<Version>) -> Result<bool, GrantError> {
        let doing = |error: sqlx::Error| refused(failed("delete a grant", &error));
        let statement = match version {
            Some(_) => "DELETE FROM grants WHERE tenant = $1 AND principal = $2 AND provider = $3 AND version = $4",
            None => "DELETE FROM grants WHERE tenant = $1 AND principal = $2 AND provider = $3 AND version > $4",
        };
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        if version.is_none() {
            tell(&mut transaction, &Topic::of_grant(key)).await.map_err(doing)?;
        }
        let done = sqlx::query(statement)
            .bind(&key.tenant)
            .bind(&key.principal)
            .bind(&key.provider)
            .bind(version.map_or(0, |version| version.0))
            .execute(&mut *transaction)
            .await
            .map_err(doing)?;
        transaction.commit().await.map_err(doing)?;
        Ok(done.rows_affected() > 0)
    }

    async fn cards(&self, tenant: Option<&str>) -> Result<Vec<GrantCard>, GrantError> {
        let rows = sqlx::query(
            "SELECT key_id, sealed, tenant, principal, provider, changed_ms, expires_ms FROM grants \
             WHERE ($1 = '' OR tenant = $2) AND (expires_ms IS NULL OR expires_ms > $3) \
             ORDER BY tenant, principal, provider LIMIT $4",
        )
        .bind(if tenant.is_some() { "one" } else { "" })
        .bind(tenant.unwrap_or_default())
        .bind(unix_ms(SystemTime::now()))
        .bind(MAX_LISTED)
        .fetch_all(self.database.pool())
        .await
        .map_err(|error| refused(failed("list grants", &error)))?;
        let mut cards = Vec::with_capacity(rows.len());
        for row in &rows {
            let key = GrantKey { tenant: column(row, 2)?, principal: column(row, 3)?, provider: column(row, 4)? };
            let content = self.open(&key, &Sealed { key_id: column(row, 0)?, text: column(row, 1)? }).await?;
            let expires: Option<i64> = column(row, 6)?;
            cards.push(GrantCard {
                key,
                scopes: content.scopes.clone(),
                account: content.account.clone(),
                given: UNIX_EPOCH + Duration::from_secs(content.given_secs),
                changed: from_unix_ms(column(row, 5)?),
                expires: expires.map(from_unix_ms),
            });
        }
        Ok(cards)
    }

    async fn open(&self, key: &GrantKey, sealed: &Sealed) -> Result<Content, GrantError> {
        let text = self.sealer.open(place(key, &key.row()), sealed).await.map_err(refused)?;
        serde_json::from_slice(&text).map_err(|_| GrantError("a stored grant has no known form".to_owned()))
    }
}

impl Grants for DatabaseGrants {
    fn load<'a>(&'a self, key: &'a GrantKey) -> Pending<'a, Result<Option<(Grant, Version)>, GrantError>> {
        Box::pin(self.read(key))
    }

    fn replace<'a>(
        &'a self,
        key: &'a GrantKey,
        expected: Option<Version>,
        grant: &'a Grant,
    ) -> Pending<'a, Result<Replaced, GrantError>> {
        Box::pin(self.write(key, expected, grant))
    }

    fn delete<'a>(&'a self, key: &'a GrantKey, version: Option<Version>) -> Pending<'a, Result<bool, GrantError>> {
        Box::pin(self.remove(key, version))
    }

    fn list<'a>(&'a self, tenant: Option<&'a str>) -> Pending<'a, Result<Vec<GrantCard>, GrantError>> {
        Box::pin(self.cards(tenant))
    }

    fn turns(&self) -> &Turns {
        &self.turns
    }

    fn lease<'a>(&'a self, key: &'a GrantKey, duration: Duration) -> Pending<'a, Result<bool, GrantError>> {
        Box::pin(async move { self.leases.take(&lease(key), duration).await.map_err(refused) })
    }

    fn release<'a>(&'a self, key: &'a GrantKey) -> Pending<'a, Result<(), GrantError>> {
        Box::pin(async move { self.leases.release(&lease(key)).await.map_err(refused) })
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.secret);
    }
}

fn place<'a>(key: &'a GrantKey, row: &'a str) -> Place<'a> {
    Place { scope: Scope::Tenant(&key.tenant), table: "grants", row }
}

/// The id of the lease of a grant.
fn lease(key: &GrantKey) -> String {
    format!("grant {}", digest(&key.row()))
}

fn check(key: &GrantKey) -> Result<(), GrantError> {
    // What belongs to no tenant, such as a service's own line of refresh tokens, has an empty one; no principal has.
    let parts = [&key.tenant, &key.principal, &key.provider];
    let is_odd = |part: &&String| part.len() > MAX_PART_BYTES || part.contains('\0');
    if key.principal.is_empty() || key.provider.is_empty() || parts.iter().any(is_odd) {
        return Err(GrantError("principal or provider is empty, or a part is too long".to_owned()));
    }
    Ok(())
}

fn refused(cause: impl ToString) -> GrantError {
    GrantError(cause.to_string())
}

fn column<T>(row: &AnyRow, at: usize) -> Result<T, GrantError>
where
    for<'r> T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(at).map_err(|error| refused(failed("read a grant", &error)))
}

/// A random version to begin with, small enough to count on from.
fn first_version() -> Result<i64, GrantError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|_| refused("the system has no randomness".to_owned()))?;
    Ok(i64::from_be_bytes(bytes) & 0x3fff_ffff_ffff_ffff | 1)
}
