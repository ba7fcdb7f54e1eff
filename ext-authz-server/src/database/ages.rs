//! Since when a stored secret has its value, as far as this deployment saw: a digest of the value, sealed, and the time.

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sqlx::Row as _;

use super::{Database, failed, from_unix_ms, unix_ms};
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};

/// What was seen of secrets in a database.
#[derive(Clone)]
pub struct DatabaseAges {
    database: Database,
    sealer: Arc<Sealer>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    digest: String,
    since_ms: i64,
}

// === impl DatabaseAges ===

impl DatabaseAges {
    /// What was seen, in this database.
    #[must_use]
    pub fn new(database: Database, sealer: Arc<Sealer>) -> DatabaseAges {
        DatabaseAges { database, sealer }
    }

    /// Since when the value behind a reference has this digest; `None` where it was never seen.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn since(
        &self,
        environment: &str,
        reference: &str,
        digest: &str,
    ) -> Result<Option<SystemTime>, SealError> {
        let read = |error: sqlx::Error| failed("read the age of a secret", &error);
        let found = sqlx::query("SELECT key_id, sealed FROM secret_ages WHERE environment = $1 AND reference = $2")
            .bind(environment)
            .bind(reference)
            .fetch_optional(self.database.pool())
            .await
            .map_err(read)?;
        let Some(row) = found else { return Ok(None) };
        let sealed = Sealed { key_id: row.try_get(0).map_err(read)?, text: row.try_get(1).map_err(read)? };
        let name = row_name(environment, reference);
        let text = match self.sealer.open(place(&name), &sealed).await {
            Ok(text) => text,
            Err(SealError::Database(error)) => return Err(error.into()),
            // What cannot be opened says nothing.
            Err(_) => return Ok(None),
        };
        let content: Option<Content> = serde_json::from_slice(&text).ok();
        Ok(content.filter(|content| content.digest == digest).map(|content| from_unix_ms(content.since_ms)))
    }

    /// Notes that the value behind a reference has this digest since now.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn note(&self, environment: &str, reference: &str, digest: &str) -> Result<SystemTime, SealError> {
        let now = SystemTime::now();
        let content = Content { digest: digest.to_owned(), since_ms: unix_ms(now) };
        let text = serde_json::to_vec(&content).map_err(|_| SealError::Refused)?;
        let name = row_name(environment, reference);
        let sealed = self.sealer.seal(place(&name), &text).await?;
        sqlx::query(
            "INSERT INTO secret_ages (environment, reference, key_id, sealed, changed_ms) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (environment, reference) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed, \
             changed_ms = excluded.changed_ms",
        )
        .bind(environment)
        .bind(reference)
        .bind(&sealed.key_id)
        .bind(&sealed.text)
        .bind(unix_ms(now))
        .execute(self.database.pool())
        .await
        .map_err(|error| failed("note the age of a secret", &error))?;
        Ok(now)
    }
}

fn row_name(environment: &str, reference: &str) -> String {
    format!("{}:{environment}/{reference}", environment.len())
}

fn place(row: &str) -> Place<'_> {
    Place { scope: Scope::Server, table: "secret_ages", row }
}
