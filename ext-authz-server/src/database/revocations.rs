//! The log of revocations: lines that are only added, each sealed for its place in it. Who can write to the database and has no
//! key-encryption key can lift nothing; whoever can delete rows can undo the newest ones for processes that start then.

use std::sync::Arc;

use keyward_contract::revocation::REVOKED_MAX;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::{Database, DatabaseError, failed};
use crate::revocation::Entry;
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};

/// The most lines that are read at once.
const PAGE: i64 = 1000;
/// How often a line is added that others are faster than.
const ATTEMPTS: usize = 16;

/// Why the log cannot be read or added to.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A line cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A line has no known form.
    #[error("a line of the log of revocations has no known form")]
    Form,
    /// Others are adding lines all the time.
    #[error("others are adding to the log all the time; nothing was added")]
    Contended,
    /// Too many.
    #[error("{REVOKED_MAX} revocations stand already: lift some, or let them end by themselves")]
    Full,
}

/// Up to where a process has read, and what stood there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    number: i64,
    sealed: String,
}

/// Some lines.
pub struct Page {
    /// Oldest first; `None` for one that cannot be opened.
    pub entries: Vec<Option<Entry>>,
    /// Up to where it was read.
    pub seen: Option<Seen>,
    /// Whether there are no further ones now.
    pub is_last: bool,
    /// Whether the log is not the one that was read before, so that it was read from its beginning.
    pub restarted: bool,
}

/// The log of a database.
#[derive(Clone)]
pub struct DatabaseRevocations {
    database: Database,
    sealer: Arc<Sealer>,
}

// === impl DatabaseRevocations ===

impl DatabaseRevocations {
    /// The log of this database.
    #[must_use]
    pub fn new(database: Database, sealer: Arc<Sealer>) -> DatabaseRevocations {
        DatabaseRevocations { database, sealer }
    }

    /// What follows after what was seen.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn after(&self, seen: Option<&Seen>) -> Result<Page, LogError> {
        let from = seen.map_or(1, |seen| seen.number);
        let mut rows = self.rows(from).await?;
        let mut restarted = false;
        if let Some(seen) = seen {
            let same =
                rows.first().map(|row| Ok::<_, LogError>(Seen { number: column(row, 0)?, sealed: column(row, 3)? }));
            if same.transpose()?.as_ref() == Some(seen) {
                rows.remove(0);
            } else {
                restarted = true;
                rows = self.rows(1).await?;
            }
        }
        let is_last = i64::try_from(rows.len()).unwrap_or(i64::MAX) < PAGE - 1;
        let mut page = Page { entries: Vec::with_capacity(rows.len()), seen: seen.cloned(), is_last, restarted };
        for row in &rows {
            let entry = match self.open(row).await {
                // The database went away meanwhile: that says nothing about this line.
                Err(LogError::Seal(SealError::Database(error))) => return Err(error.into()),
                // So can a key be that is had later: then the line is read again.
                Err(LogError::Seal(
                    error @ (SealError::Wrap(_) | SealError::UnknownWrapping(_) | SealError::NoKey),
                )) => return Err(error.into()),
                other => other,
            };
            let number: i64 = column(row, 0)?;
            page.seen = Some(Seen { number, sealed: column(row, 3)? });
            page.entries.push(
                entry
                    .inspect_err(
                        |error| tracing::error!(%error, number, "a revocation cannot be opened: every call is denied"),
                    )
                    .ok(),
            );
        }
        Ok(page)
    }

    /// Adds a line behind all others; its number is set here.
    ///
    /// # Errors
    /// The database does not answer. Whether the line was added is then unknown.
    pub async fn add(&self, mut entry: Entry) -> Result<Entry, LogError> {
        for _ in 0..ATTEMPTS {
            let newest =
                sqlx::query("SELECT COALESCE(MAX(number), 0) FROM revocations").fetch_one(self.database.pool());
            let newest: i64 = column(&newest.await.map_err(read)?, 0)?;
            entry.number = newest + 1;
            let text = serde_json::to_vec(&entry).map_err(|_| LogError::Form)?;
            let row = row_name(&entry.environment, entry.number);
            let sealed = self.sealer.seal(place(&row), &text).await?;
            let added = sqlx::query(
                "INSERT INTO revocations (number, environment, key_id, sealed, created_ms) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (number) DO NOTHING",
            )
            .bind(entry.number)
            .bind(&entry.environment)
            .bind(&sealed.key_id)
            .bind(&sealed.text)
            .bind(entry.at_ms)
            .execute(self.database.pool())
            .await
            .map_err(|error| failed("add to the log of revocations", &error))?;
            if added.rows_affected() > 0 {
                return Ok(entry);
            }
        }
        Err(LogError::Contended)
    }

    async fn rows(&self, from: i64) -> Result<Vec<AnyRow>, LogError> {
        sqlx::query(
            "SELECT number, environment, key_id, sealed FROM revocations WHERE number >= $1 ORDER BY number LIMIT $2",
        )
        .bind(from)
        .bind(PAGE)
        .fetch_all(self.database.pool())
        .await
        .map_err(read)
    }

    async fn open(&self, row: &AnyRow) -> Result<Entry, LogError> {
        let (number, environment): (i64, String) = (column(row, 0)?, column(row, 1)?);
        let sealed = Sealed { key_id: column(row, 2)?, text: column(row, 3)? };
        let text = self.sealer.open(place(&row_name(&environment, number)), &sealed).await?;
        serde_json::from_slice(&text).map_err(|_| LogError::Form)
    }
}

fn row_name(environment: &str, number: i64) -> String {
    format!("{}:{environment}/{number}", environment.len())
}

fn place(row: &str) -> Place<'_> {
    Place { scope: Scope::Server, table: "revocations", row }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
fn read(error: sqlx::Error) -> LogError {
    failed("read the log of revocations", &error).into()
}

fn column<T>(row: &AnyRow, at: usize) -> Result<T, LogError>
where
    for<'r> T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(at).map_err(read)
}
