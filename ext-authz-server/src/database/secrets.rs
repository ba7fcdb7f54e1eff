//! Operators' secrets in the database: put once, never shown again, referenced as `keyward://PATH`.

use std::sync::Arc;
use std::time::SystemTime;

use sqlx::Row as _;
use zeroize::Zeroizing;

use super::shared::tell;
use super::{Database, DatabaseError, Topic, failed, from_unix_ms, unix_ms};
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};

/// The secrets of a database.
#[derive(Clone)]
pub struct DatabaseSecrets {
    database: Database,
    sealer: Arc<Sealer>,
}

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretCard {
    /// The path.
    pub path: String,
    /// How many times it was put.
    pub version: i64,
    /// When it was last put.
    pub changed: SystemTime,
}

// === impl DatabaseSecrets ===

impl DatabaseSecrets {
    /// The secrets of this database.
    #[must_use]
    pub fn new(database: Database, sealer: Arc<Sealer>) -> DatabaseSecrets {
        DatabaseSecrets { database, sealer }
    }

    /// Stores a secret in place of an earlier one, tells every replica, and returns its version. Both happen or neither does.
    ///
    /// # Errors
    /// It cannot be sealed, or the database does not answer. Whether the secret was stored is then unknown.
    pub async fn put(&self, path: &str, value: &[u8]) -> Result<i64, SealError> {
        let sealed = self.sealer.seal(place(path), value).await?;
        let doing = |error: sqlx::Error| failed("store a secret", &error);
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        tell(&mut transaction, &Topic::NewSecret { path: path.to_owned() }).await.map_err(doing)?;
        let version = sqlx::query(
            "INSERT INTO secrets (path, version, key_id, sealed, changed_ms) VALUES ($1, 1, $2, $3, $4) \
             ON CONFLICT (path) DO UPDATE SET version = secrets.version + 1, key_id = excluded.key_id, \
             sealed = excluded.sealed, changed_ms = excluded.changed_ms RETURNING version",
        )
        .bind(path)
        .bind(&sealed.key_id)
        .bind(&sealed.text)
        .bind(unix_ms(SystemTime::now()))
        .fetch_one(&mut *transaction)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(doing)?;
        transaction.commit().await.map_err(doing)?;
        Ok(version)
    }

    /// The secret; `None` where there is none.
    ///
    /// # Errors
    /// It cannot be opened, or the database does not answer.
    pub async fn get(&self, path: &str) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
        let read = |error: sqlx::Error| failed("read a secret", &error);
        let found = sqlx::query("SELECT key_id, sealed FROM secrets WHERE path = $1")
            .bind(path)
            .fetch_optional(self.database.pool())
            .await
            .map_err(read)?;
        let Some(row) = found else { return Ok(None) };
        let sealed = Sealed { key_id: row.try_get(0).map_err(read)?, text: row.try_get(1).map_err(read)? };
        self.sealer.open(place(path), &sealed).await.map(Some)
    }

    /// When a secret was last put; `None` where there is none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn changed(&self, path: &str) -> Result<Option<SystemTime>, DatabaseError> {
        let read = |error: sqlx::Error| failed("read the age of a secret", &error);
        let found = sqlx::query("SELECT changed_ms FROM secrets WHERE path = $1")
            .bind(path)
            .fetch_optional(self.database.pool())
            .await
            .map_err(read)?;
        found.map(|row| row.try_get(0).map(from_unix_ms)).transpose().map_err(read)
    }

    /// Deletes a secret, and tells every replica; false where there was none. Both happen or neither does.
    ///
    /// # Errors
    /// The database does not answer. Whether the secret was deleted is then unknown.
    pub async fn delete(&self, path: &str) -> Result<bool, DatabaseError> {
        let doing = |error: sqlx::Error| failed("delete a secret", &error);
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        tell(&mut transaction, &Topic::Secret { path: path.to_owned() }).await.map_err(doing)?;
        let done = sqlx::query("DELETE FROM secrets WHERE path = $1").bind(path).execute(&mut *transaction).await;
        let done = done.map_err(doing)?;
        transaction.commit().await.map_err(doing)?;
        Ok(done.rows_affected() > 0)
    }

    /// All secrets in order, without their values.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn list(&self) -> Result<Vec<SecretCard>, DatabaseError> {
        let read = |error: sqlx::Error| failed("list secrets", &error);
        let rows = sqlx::query("SELECT path, version, changed_ms FROM secrets ORDER BY path LIMIT 10000")
            .fetch_all(self.database.pool())
            .await
            .map_err(read)?;
        let card = |row: &sqlx::any::AnyRow| -> Result<SecretCard, sqlx::Error> {
            Ok(SecretCard { path: row.try_get(0)?, version: row.try_get(1)?, changed: from_unix_ms(row.try_get(2)?) })
        };
        rows.iter().map(card).collect::<Result<_, _>>().map_err(read)
    }
}

fn place(path: &str) -> Place<'_> {
    Place { scope: Scope::Server, table: "secrets", row: path }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credential::Material;
    use crate::database::DatabaseShared;
    use crate::freshness::{Freshness, Key, MintError, Minting, Terms};
    use crate::seal::LocalKey;

    #[tokio::test]
    async fn what_was_put_or_deleted_is_looked_at_by_the_next_call_behind_a_probe_too() {
        type Mint = fn() -> Minting;
        let terms = Terms::Stored { refresh: Duration::from_secs(3600), max_stale: Duration::from_secs(86_400) };
        let secret = || Key::new("secret", "tenant").with("store", "keyward").with("reference", "team/key");
        let probed = || Key::new("probed", "tenant").with("binding", "binding");
        let before: Mint = || Box::pin(async { Ok(Material::new().secret("secret", b"before".to_vec())) });
        let after: Mint = || Box::pin(async { Ok(Material::new().secret("secret", b"after".to_vec())) });
        let gone: Mint = || Box::pin(async { Err(MintError::rejected("it is gone")) });
        let refused: Mint = || Box::pin(async { Err(MintError::transient("the probe was answered with 401")) });
        let path = || "team/key".to_owned();
        for (topic, mint, of_secret, of_probed) in [
            (Topic::NewSecret { path: path() }, after, Some("after"), Some("after")),
            (Topic::NewSecret { path: path() }, refused, Some("before"), Some("before")),
            (Topic::NewSecret { path: "other".into() }, after, Some("before"), Some("after")),
            (Topic::Secret { path: path() }, gone, None, None),
            (Topic::Secret { path: path() }, refused, None, Some("before")),
        ] {
            let freshness = Arc::new(Freshness::default());
            for key in [secret(), probed()] {
                freshness.get(key, terms, before).await.unwrap();
            }
            topic.forget(&freshness);
            for (key, expected) in [(secret(), of_secret), (probed(), of_probed)] {
                let material = freshness.get(key, terms, mint).await.ok();
                assert_eq!(material.as_ref().and_then(|own| own.text("secret")), expected, "{topic:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_deletion_is_told_to_every_replica_or_does_not_happen() {
        let database = Database::open("sqlite::memory:", 1).await.unwrap();
        let key = LocalKey::parse(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let sealer = Arc::new(Sealer::new(database.clone(), vec![Arc::new(key)]).unwrap());
        let secrets = DatabaseSecrets::new(database.clone(), sealer.clone());
        let replica = DatabaseShared::new(database.clone(), sealer).unwrap();
        secrets.put("team/key", b"a value").await.unwrap();
        let (at, _) = replica.poll(None).await.unwrap();
        secrets.put("team/key", b"another value").await.unwrap();
        let (at, topics) = replica.poll(Some(at)).await.unwrap();
        assert_eq!(topics, [Topic::NewSecret { path: "team/key".into() }], "a new value is told, too");

        let rename = async |from: &str, to: &str| {
            let statement = format!("ALTER TABLE {from} RENAME TO {to}");
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(database.pool()).await.unwrap();
        };
        rename("invalidations", "away").await;
        assert!(secrets.delete("team/key").await.is_err());
        assert!(secrets.get("team/key").await.unwrap().is_some(), "it was deleted and nobody was told");
        assert!(secrets.put("team/key", b"a third value").await.is_err());
        let kept = secrets.get("team/key").await.unwrap().unwrap();
        assert_eq!(*kept, b"another value", "it was put and nobody was told");
        rename("away", "invalidations").await;
        assert!(secrets.delete("team/key").await.unwrap());
        assert!(secrets.get("team/key").await.unwrap().is_none());
        let (newest, topics) = replica.poll(Some(at)).await.unwrap();
        assert_eq!((newest, topics), (at + 1, vec![Topic::Secret { path: "team/key".into() }]));
    }
}
