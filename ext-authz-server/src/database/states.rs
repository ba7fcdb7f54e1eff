//! One-time states: what Keyward remembers between two steps of a person in a browser, each sealed, each taken once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use zeroize::Zeroizing;

use super::{Database, DatabaseError, failed, unix_ms};
use crate::seal::{Place, Scope, SealError, Sealed, Sealer};

/// The most states under way; more are refused until some end.
const MAX_STATES: i64 = 20_000;
/// The most of them that one owner has: nobody keeps the others from connecting.
const MAX_OWN: i64 = 32;

/// Why there is no state. Each is the operator's or an attacker's concern, never the person's.
#[derive(Debug, thiserror::Error)]
pub enum StatesError {
    /// Too many people, or one with a script, are connecting.
    #[error("more than {MAX_OWN} connections of one person, or {MAX_STATES} of all, are under way")]
    Full,
    /// The content has no known form.
    #[error("a state has no known form")]
    Form,
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// It cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// The one-time states of a database.
#[derive(Clone)]
pub struct States {
    database: Database,
    sealer: Arc<Sealer>,
}

// === impl States ===

impl States {
    /// The states of this database.
    #[must_use]
    pub fn new(database: Database, sealer: Arc<Sealer>) -> States {
        States { database, sealer }
    }

    /// Keeps `content` of `owner` under a fresh unguessable name for this long; `kind` says for which step. Only digests of
    /// the owner and of the name are stored.
    ///
    /// # Errors
    /// Too many are kept, or the database does not answer.
    pub async fn put<T: Serialize + Sync>(
        &self,
        kind: &str,
        owner: &str,
        content: &T,
        ttl: Duration,
    ) -> Result<String, StatesError> {
        let owner = digest(owner);
        let counting = |error: sqlx::Error| failed("count states", &error);
        let counts =
            sqlx::query("SELECT COUNT(*), COUNT(CASE WHEN owner = $1 THEN 1 END) FROM states WHERE expires_ms > $2")
                .bind(&owner)
                .bind(unix_ms(SystemTime::now()))
                .fetch_one(self.database.pool())
                .await
                .map_err(counting)?;
        let (all, own): (i64, i64) = (counts.try_get(0).map_err(counting)?, counts.try_get(1).map_err(counting)?);
        if all >= MAX_STATES || own >= MAX_OWN {
            return Err(StatesError::Full);
        }
        let name = random_name()?;
        let id = digest(&name);
        let text = Zeroizing::new(serde_json::to_vec(content).map_err(|_| StatesError::Form)?);
        let sealed = self.sealer.seal(place(kind, &id), &text).await?;
        sqlx::query("INSERT INTO states (id, kind, owner, key_id, sealed, expires_ms) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(&id)
            .bind(kind)
            .bind(&owner)
            .bind(&sealed.key_id)
            .bind(&sealed.text)
            .bind(unix_ms(SystemTime::now() + ttl))
            .execute(self.database.pool())
            .await
            .map_err(|error| failed("keep a state", &error))?;
        Ok(name)
    }

    /// The content, which stays.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn look<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Option<T>, StatesError> {
        let statement = "SELECT key_id, sealed FROM states WHERE id = $1 AND kind = $2 AND expires_ms > $3";
        self.fetch(statement, kind, name).await
    }

    /// The content, which is gone with this: of two who take one state, one gets it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn take<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Result<Option<T>, StatesError> {
        let statement = "DELETE FROM states WHERE id = $1 AND kind = $2 AND expires_ms > $3 RETURNING key_id, sealed";
        self.fetch(statement, kind, name).await
    }

    /// Marks `id` as used until `expires`; false where it was used before.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn use_once(&self, id: &str, expires: SystemTime) -> Result<bool, StatesError> {
        let done = sqlx::query("INSERT INTO used (id, expires_ms) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
            .bind(digest(id))
            .bind(unix_ms(expires))
            .execute(self.database.pool())
            .await
            .map_err(|error| failed("use up a state", &error))?;
        Ok(done.rows_affected() > 0)
    }

    /// Marks `id` as used by `holder` until `expires`; false where another one used it before.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn use_once_by(&self, id: &str, holder: &str, expires: SystemTime) -> Result<bool, StatesError> {
        let (id, holder) = (digest(id), digest(holder));
        let insert = "INSERT INTO used (id, expires_ms, holder) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING";
        let done = sqlx::query(insert)
            .bind(&id)
            .bind(unix_ms(expires))
            .bind(&holder)
            .execute(self.database.pool())
            .await
            .map_err(|error| failed("use something up", &error))?;
        if done.rows_affected() > 0 {
            return Ok(true);
        }
        let found = sqlx::query("SELECT id FROM used WHERE id = $1 AND holder = $2")
            .bind(&id)
            .bind(&holder)
            .fetch_optional(self.database.pool())
            .await
            .map_err(|error| failed("look who used something", &error))?;
        Ok(found.is_some())
    }

    /// How many ids are marked as used.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn count_used(&self) -> Result<usize, StatesError> {
        let count: i64 = sqlx::query("SELECT COUNT(*) FROM used WHERE expires_ms > $1")
            .bind(unix_ms(SystemTime::now()))
            .fetch_one(self.database.pool())
            .await
            .and_then(|row| row.try_get(0))
            .map_err(|error| failed("count what was used", &error))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Whether `id` was used.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn is_used(&self, id: &str) -> Result<bool, StatesError> {
        let found = sqlx::query("SELECT id FROM used WHERE id = $1")
            .bind(digest(id))
            .fetch_optional(self.database.pool())
            .await
            .map_err(|error| failed("look for a used state", &error))?;
        Ok(found.is_some())
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        statement: &'static str,
        kind: &str,
        name: &str,
    ) -> Result<Option<T>, StatesError> {
        let id = digest(name);
        let read = |error: sqlx::Error| failed("fetch a state", &error);
        let found = sqlx::query(statement)
            .bind(&id)
            .bind(kind)
            .bind(unix_ms(SystemTime::now()))
            .fetch_optional(self.database.pool())
            .await
            .map_err(read)?;
        let Some(row) = found else { return Ok(None) };
        let sealed = Sealed { key_id: row.try_get(0).map_err(read)?, text: row.try_get(1).map_err(read)? };
        let text = self.sealer.open(place(kind, &id), &sealed).await?;
        serde_json::from_slice(&text).map(Some).map_err(|_| StatesError::Form)
    }
}

fn place<'a>(kind: &'a str, id: &'a str) -> Place<'a> {
    Place { scope: Scope::Server, table: kind, row: id }
}

/// 256 bits that nobody can guess, base64url.
pub(crate) fn random_name() -> Result<String, SealError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).map_err(|_| SealError::Refused)?;
    Ok(URL_SAFE_NO_PAD.encode(*bytes))
}

/// SHA-256, base64url.
pub(crate) fn digest(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}
