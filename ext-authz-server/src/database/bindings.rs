//! The lifecycle of bindings in the database: a history to which steps are added, each sealed for its place. Who can write to
//! the database and has no key-encryption key can forge no step; whoever can delete rows can undo the newest ones.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::shared::tell;
use super::{Database, DatabaseError, Topic, failed};
use crate::lifecycle::Entry;
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};

/// The most steps of one binding that are read at once.
const MAX_ENTRIES: i64 = 10_000;

/// Why the history cannot be read or added to.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A step cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A step has no known form.
    #[error("a step of the history has no known form")]
    Form,
}

/// The newest step of one binding.
pub struct Newest {
    /// The environment.
    pub environment: String,
    /// The binding.
    pub id: String,
    /// The number of steps.
    pub version: i64,
    /// The step; an error where this one row cannot be opened.
    pub entry: Result<Entry, HistoryError>,
}

/// The history of a database.
#[derive(Clone)]
pub struct DatabaseBindings {
    database: Database,
    sealer: Arc<Sealer>,
}

// === impl DatabaseBindings ===

impl DatabaseBindings {
    /// The history of this database.
    #[must_use]
    pub fn new(database: Database, sealer: Arc<Sealer>) -> DatabaseBindings {
        DatabaseBindings { database, sealer }
    }

    /// The newest step of every binding.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn newest(&self) -> Result<Vec<Newest>, HistoryError> {
        let rows = sqlx::query(
            "SELECT environment, id, version, key_id, sealed FROM binding_history AS newest WHERE version = \
             (SELECT MAX(version) FROM binding_history AS other WHERE other.environment = newest.environment \
             AND other.id = newest.id) ORDER BY environment, id",
        )
        .fetch_all(self.database.pool())
        .await
        .map_err(read)?;
        let mut all = Vec::with_capacity(rows.len());
        for row in &rows {
            let (environment, id, version) = (column(row, 0)?, column(row, 1)?, column(row, 2)?);
            let entry = match self.open(row).await {
                // The database went away meanwhile: that says nothing about this binding.
                Err(HistoryError::Seal(SealError::Database(error))) => return Err(error.into()),
                other => other,
            };
            all.push(Newest { environment, id, version, entry });
        }
        Ok(all)
    }

    /// The steps of one binding after this version, oldest first.
    ///
    /// # Errors
    /// The database does not answer, or a step cannot be opened.
    pub async fn history(&self, environment: &str, id: &str, after: i64) -> Result<Vec<Entry>, HistoryError> {
        let rows = sqlx::query(
            "SELECT environment, id, version, key_id, sealed FROM binding_history \
             WHERE environment = $1 AND id = $2 AND version > $3 ORDER BY version LIMIT $4",
        )
        .bind(environment)
        .bind(id)
        .bind(after)
        .bind(MAX_ENTRIES)
        .fetch_all(self.database.pool())
        .await
        .map_err(read)?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in &rows {
            entries.push(self.open(row).await?);
        }
        Ok(entries)
    }

    /// Adds a step, where there is none of its version yet, and tells every replica; false where somebody was faster. Both
    /// happen or neither does.
    ///
    /// # Errors
    /// The database does not answer. Whether the step was added is then unknown.
    pub async fn add(&self, entry: &Entry) -> Result<bool, HistoryError> {
        let text = serde_json::to_vec(entry).map_err(|_| HistoryError::Form)?;
        let row = row_name(&entry.environment, &entry.id, entry.version);
        let sealed = self.sealer.seal(place(&row), &text).await?;
        let topic = Topic::Binding { environment: entry.environment.clone(), id: entry.id.clone() };
        let doing = |error: sqlx::Error| failed("add a step to a binding's history", &error);
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        tell(&mut transaction, &topic).await.map_err(doing)?;
        let added = sqlx::query(
            "INSERT INTO binding_history (environment, id, version, key_id, sealed, created_ms) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (environment, id, version) DO NOTHING",
        )
        .bind(&entry.environment)
        .bind(&entry.id)
        .bind(entry.version)
        .bind(&sealed.key_id)
        .bind(&sealed.text)
        .bind(entry.at_ms)
        .execute(&mut *transaction)
        .await
        .map_err(doing)?;
        if added.rows_affected() == 0 {
            transaction.rollback().await.map_err(doing)?;
            return Ok(false);
        }
        transaction.commit().await.map_err(doing)?;
        Ok(true)
    }

    /// Deletes material that replicas share, by its keys' digests.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn drop_material(&self, digests: &[String]) -> Result<(), DatabaseError> {
        for digest in digests {
            let done = sqlx::query("DELETE FROM material WHERE id = $1").bind(digest).execute(self.database.pool());
            done.await.map_err(|error| failed("drop a material", &error))?;
        }
        Ok(())
    }

    async fn open(&self, row: &AnyRow) -> Result<Entry, HistoryError> {
        let (environment, id): (String, String) = (column(row, 0)?, column(row, 1)?);
        let version: i64 = column(row, 2)?;
        let sealed = Sealed { key_id: column(row, 3)?, text: column(row, 4)? };
        let text = self.sealer.open(place(&row_name(&environment, &id, version)), &sealed).await?;
        serde_json::from_slice(&text).map_err(|_| HistoryError::Form)
    }
}

fn row_name(environment: &str, id: &str, version: i64) -> String {
    format!("{}:{environment}/{}:{id}/{version}", environment.len(), id.len())
}

fn place(row: &str) -> Place<'_> {
    Place { scope: Scope::Server, table: "binding_history", row }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn read(error: sqlx::Error) -> HistoryError {
    failed("read the history of bindings", &error).into()
}

fn column<T>(row: &AnyRow, at: usize) -> Result<T, HistoryError>
where
    for<'r> T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(at).map_err(read)
}
