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

    /// Stores a secret in place of an earlier one, and returns its version.
    ///
    /// # Errors
    /// It cannot be sealed, or the database does not answer.
    pub async fn put(&self, path: &str, value: &[u8]) -> Result<i64, SealError> {
        let sealed = self.sealer.seal(place(path), value).await?;
        let version = sqlx::query(
            "INSERT INTO secrets (path, version, key_id, sealed, changed_ms) VALUES ($1, 1, $2, $3, $4) \
             ON CONFLICT (path) DO UPDATE SET version = secrets.version + 1, key_id = excluded.key_id, \
             sealed = excluded.sealed, changed_ms = excluded.changed_ms RETURNING version",
        )
        .bind(path)
        .bind(&sealed.key_id)
        .bind(&sealed.text)
        .bind(unix_ms(SystemTime::now()))
        .fetch_one(self.database.pool())
        .await
        .and_then(|row| row.try_get(0))
        .map_err(|error| failed("store a secret", &error))?;
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
    use super::*;
    use crate::database::DatabaseShared;
    use crate::seal::LocalKey;

    #[tokio::test]
    async fn a_deletion_is_told_to_every_replica_or_does_not_happen() {
        let database = Database::open("sqlite::memory:", 1).await.unwrap();
        let key = LocalKey::parse(b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
        let sealer = Arc::new(Sealer::new(database.clone(), vec![Arc::new(key)]).unwrap());
        let secrets = DatabaseSecrets::new(database.clone(), sealer.clone());
        let replica = DatabaseShared::new(database.clone(), sealer).unwrap();
        secrets.put("team/key", b"a value").await.unwrap();
        let (at, _) = replica.poll(None).await.unwrap();

        let rename = async |from: &str, to: &str| {
            let statement = format!("ALTER TABLE {from} RENAME TO {to}");
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(database.pool()).await.unwrap();
        };
        rename("invalidations", "away").await;
        assert!(secrets.delete("team/key").await.is_err());
        assert!(secrets.get("team/key").await.unwrap().is_some(), "it was deleted and nobody was told");
        rename("away", "invalidations").await;
        assert!(secrets.delete("team/key").await.unwrap());
        assert!(secrets.get("team/key").await.unwrap().is_none());
        let (newest, topics) = replica.poll(Some(at)).await.unwrap();
        assert_eq!((newest, topics), (at + 1, vec![Topic::Secret { path: "team/key".into() }]));
    }
}
