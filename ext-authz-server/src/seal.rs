//! Envelope encryption of everything that is kept: AES-256-GCM under data keys, one series for each tenant, which are
//! themselves wrapped by the operator's key-encryption key. There is no way to store a value unsealed.
//!
//! What is sealed is bound to its place: tenant, table, row and data key are authenticated with it, so that a value that
//! was moved to another row of the database cannot be opened there. A new key-encryption key wraps the data keys anew
//! and leaves the data alone.

mod key;
mod kms;
#[cfg(test)]
mod tests;
mod wrapping;

pub use key::{LocalKey, WrapKey};
pub use kms::{KMS_SCHEME, KmsKey, region_of};
pub use wrapping::Wrapping;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::Row as _;
use zeroize::Zeroizing;

use crate::database::{Database, DatabaseError, failed, from_unix_ms, unix_ms};
use key::Aead;

/// How long a data key seals new values. Far fewer than 2^32 values are sealed in that time, the bound for random nonces.
const DATA_KEY_SERVES: Duration = Duration::from_secs(30 * 86_400);

/// Whose data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope<'a> {
    /// A tenant's.
    Tenant(&'a str),
    /// Keyward's own: states, operators' secrets.
    Server,
}

/// Where a sealed value lies; it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Whose.
    pub scope: Scope<'a>,
    /// The table or use.
    pub table: &'a str,
    /// The row, spelled so that no two rows have one spelling.
    pub row: &'a str,
}

/// A sealed value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The data key.
    pub key_id: String,
    /// Nonce, ciphertext and tag, base64url.
    pub text: String,
}

/// Why nothing was sealed or opened. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It was changed, moved, or sealed under another key.
    #[error("the sealed value cannot be opened")]
    Refused,
    /// The data key is wrapped by a key that is not configured.
    #[error("a data key is wrapped by the key-encryption key `{0}`, which is not configured")]
    UnknownWrapping(String),
    /// There is no key-encryption key.
    #[error("no key-encryption key is configured")]
    NoKey,
    /// The key-encryption key is not one.
    #[error("a key-encryption key is 32 bytes in base64")]
    Key,
    /// The service that wraps does not.
    #[error("the key-encryption key cannot be used: {0}")]
    Wrap(String),
    /// The database.
    #[error("data keys: {0}")]
    Database(#[from] DatabaseError),
}

/// Seals and opens.
pub struct Sealer {
    database: Database,
    /// The first one of a scope wraps; the others open what is not wrapped anew yet.
    wrapping: ArcSwap<Wrapping>,
    opened: Mutex<HashMap<String, Arc<DataKey>>>,
    current: Mutex<HashMap<String, (String, SystemTime)>>,
}

struct DataKey {
    scope: String,
    aead: Aead,
}

// === impl Scope ===

impl Scope<'_> {
    fn name(&self) -> String {
        match self {
            Scope::Tenant(tenant) => format!("tenant:{tenant}"),
            Scope::Server => "server".to_owned(),
        }
    }
}

// === impl Sealer ===

impl Sealer {
    /// A sealer with these key-encryption keys, the newest first.
    ///
    /// # Errors
    /// There is none.
    pub fn new(database: Database, wrapping: Vec<Arc<dyn WrapKey>>) -> Result<Sealer, SealError> {
        Sealer::of(database, wrapping.into())
    }

    /// A sealer with these key-encryption keys for all, and for tenants that have their own.
    ///
    /// # Errors
    /// There is none for somebody.
    pub fn of(database: Database, wrapping: Wrapping) -> Result<Sealer, SealError> {
        if wrapping.is_incomplete() {
            return Err(SealError::NoKey);
        }
        let wrapping = ArcSwap::from_pointee(wrapping);
        Ok(Sealer { database, wrapping, opened: Mutex::default(), current: Mutex::default() })
    }

    /// Uses these key-encryption keys from now on. What is wrapped stays as it is.
    ///
    /// # Errors
    /// There is none, or a data key is wrapped under one that is not among them; those before stay in use.
    pub async fn replace(&self, wrapping: impl Into<Wrapping>) -> Result<(), SealError> {
        let wrapping = wrapping.into();
        if wrapping.is_incomplete() {
            return Err(SealError::NoKey);
        }
        let reading = |error: sqlx::Error| failed("read which keys wrap", &error);
        let rows = sqlx::query("SELECT DISTINCT scope, wrapping FROM data_keys").fetch_all(self.database.pool()).await;
        for row in rows.map_err(reading)? {
            let (scope, id): (String, String) = (row.try_get(0).map_err(reading)?, row.try_get(1).map_err(reading)?);
            if wrapping.find(&scope, &id).is_none() {
                return Err(SealError::UnknownWrapping(id));
            }
        }
        self.wrapping.store(Arc::new(wrapping));
        Ok(())
    }

    /// The key that wraps in this scope.
    fn wraps(&self, scope: &str) -> Result<Arc<dyn WrapKey>, SealError> {
        self.wrapping.load().newest(scope).cloned().ok_or(SealError::NoKey)
    }

    /// Seals a value for its place.
    ///
    /// # Errors
    /// The data key cannot be had.
    pub async fn seal(&self, place: Place<'_>, value: &[u8]) -> Result<Sealed, SealError> {
        let key_id = self.current_key(&place.scope.name()).await?;
        let key = self.data_key(&key_id).await?;
        let sealed = key.aead.seal(&associated(&place, &key_id), value)?;
        Ok(Sealed { key_id, text: URL_SAFE_NO_PAD.encode(sealed) })
    }

    /// Opens what [`seal`](Self::seal) made for this place.
    ///
    /// # Errors
    /// It was changed or moved, or its key cannot be had.
    pub async fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let key = self.data_key(&sealed.key_id).await?;
        if key.scope != place.scope.name() {
            return Err(SealError::Refused);
        }
        let bytes = URL_SAFE_NO_PAD.decode(&sealed.text).map_err(|_| SealError::Refused)?;
        key.aead.open(&associated(&place, &sealed.key_id), bytes)
    }

    /// Seals a value into one text that is safe in a URL: a ticket, a request state.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub async fn token(&self, table: &str, value: &[u8]) -> Result<String, SealError> {
        let sealed = self.seal(Place { scope: Scope::Server, table, row: "" }, value).await?;
        Ok(format!("{}.{}", sealed.key_id, sealed.text))
    }

    /// Opens what [`token`](Self::token) made.
    ///
    /// # Errors
    /// It is not such a text, was changed, or made for another use.
    pub async fn open_token(&self, table: &str, token: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (key_id, text) = token.split_once('.').ok_or(SealError::Refused)?;
        // What is no key id of ours is not looked up: tokens come from anybody.
        if key_id.len() != 22 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
            return Err(SealError::Refused);
        }
        let sealed = Sealed { key_id: key_id.to_owned(), text: text.to_owned() };
        self.open(Place { scope: Scope::Server, table, row: "" }, &sealed).await
    }

    /// Wraps every data key under the first key-encryption key of its scope that is not wrapped under it yet, and says how
    /// many that were. Sealed values stay as they are.
    ///
    /// # Errors
    /// A data key is wrapped under a key that is not configured; those before it are done.
    pub async fn rewrap(&self) -> Result<usize, SealError> {
        let rows = sqlx::query("SELECT id, scope, wrapping, wrapped FROM data_keys ORDER BY id")
            .fetch_all(self.database.pool())
            .await
            .map_err(|error| failed("read the data keys", &error))?;
        let mut count = 0;
        for row in rows {
            let (id, scope, wrapping, wrapped) = key_row(&row)?;
            let newest = self.wraps(&scope)?;
            if newest.id() == wrapping {
                continue;
            }
            let key = self.unwrap(&id, &scope, &wrapping, &wrapped).await?;
            let anew = newest.wrap(&key, &bound(&id, &scope, newest.id())).await?;
            let done = sqlx::query("UPDATE data_keys SET wrapping = $1, wrapped = $2 WHERE id = $3 AND wrapping = $4")
                .bind(newest.id())
                .bind(URL_SAFE_NO_PAD.encode(anew))
                .bind(&id)
                .bind(&wrapping)
                .execute(self.database.pool())
                .await
                .map_err(|error| failed("wrap a data key anew", &error))?;
            count += usize::from(done.rows_affected() > 0);
        }
        Ok(count)
    }

    /// Opens every data key, changes nothing, and says how many there are and how many are not wrapped under the first
    /// key-encryption key of their scope.
    ///
    /// # Errors
    /// A data key that cannot be opened: whatever is sealed under it cannot be either.
    pub async fn look(&self) -> Result<(usize, usize), SealError> {
        let rows = sqlx::query("SELECT id, scope, wrapping, wrapped FROM data_keys ORDER BY id")
            .fetch_all(self.database.pool())
            .await
            .map_err(|error| failed("read the data keys", &error))?;
        let mut behind = 0;
        for row in &rows {
            let (id, scope, wrapping, wrapped) = key_row(row)?;
            self.unwrap(&id, &scope, &wrapping, &wrapped).await?;
            behind += usize::from(wrapping != self.wraps(&scope)?.id());
        }
        Ok((rows.len(), behind))
    }

    /// How many data keys there are.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn count(&self) -> Result<i64, SealError> {
        let count = sqlx::query("SELECT COUNT(*) FROM data_keys").fetch_one(self.database.pool()).await;
        Ok(count.and_then(|row| row.try_get(0)).map_err(|error| failed("count the data keys", &error))?)
    }

    /// The id of the data key that seals now; makes one where there is none, or none that is young enough.
    async fn current_key(&self, scope: &str) -> Result<String, SealError> {
        let now = SystemTime::now();
        let is_young = |made: SystemTime| now.duration_since(made).unwrap_or_default() < DATA_KEY_SERVES;
        if let Some((id, made)) = self.current.lock().unwrap_or_else(PoisonError::into_inner).get(scope)
            && is_young(*made)
        {
            return Ok(id.clone());
        }
        let mut newest = self.newest(scope).await?;
        if newest.as_ref().is_none_or(|(_, _, made)| !is_young(*made)) {
            let generation = newest.map_or(1, |(_, generation, _)| generation + 1);
            self.make(scope, generation).await?;
            newest = self.newest(scope).await?;
        }
        let (id, _, made) = newest.ok_or(SealError::Refused)?;
        self.current.lock().unwrap_or_else(PoisonError::into_inner).insert(scope.to_owned(), (id.clone(), made));
        Ok(id)
    }

    async fn newest(&self, scope: &str) -> Result<Option<(String, i64, SystemTime)>, SealError> {
        let found = sqlx::query(
            "SELECT id, generation, created_ms FROM data_keys WHERE scope = $1 ORDER BY generation DESC LIMIT 1",
        )
        .bind(scope)
        .fetch_optional(self.database.pool())
        .await
        .map_err(|error| failed("read the newest data key", &error))?;
        let Some(row) = found else { return Ok(None) };
        let read = |error: sqlx::Error| failed("read the newest data key", &error);
        let made = from_unix_ms(row.try_get(2).map_err(read)?);
        Ok(Some((row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?, made)))
    }

    /// Makes a data key. Where another replica made one of the same generation first, that one holds.
    async fn make(&self, scope: &str, generation: i64) -> Result<(), SealError> {
        let newest = self.wraps(scope)?;
        let mut bytes = Zeroizing::new([0; 32]);
        let mut id = [0; 16];
        getrandom::fill(&mut *bytes).and_then(|()| getrandom::fill(&mut id)).map_err(|_| SealError::Refused)?;
        let id = URL_SAFE_NO_PAD.encode(id);
        let wrapped = newest.wrap(&*bytes, &bound(&id, scope, newest.id())).await?;
        sqlx::query(
            "INSERT INTO data_keys (id, scope, generation, wrapping, wrapped, created_ms) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (scope, generation) DO NOTHING",
        )
        .bind(&id)
        .bind(scope)
        .bind(generation)
        .bind(newest.id())
        .bind(URL_SAFE_NO_PAD.encode(wrapped))
        .bind(unix_ms(SystemTime::now()))
        .execute(self.database.pool())
        .await
        .map_err(|error| failed("store a data key", &error))?;
        Ok(())
    }

    async fn data_key(&self, id: &str) -> Result<Arc<DataKey>, SealError> {
        if let Some(key) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(key.clone());
        }
        let found = sqlx::query("SELECT id, scope, wrapping, wrapped FROM data_keys WHERE id = $1")
            .bind(id)
            .fetch_optional(self.database.pool())
            .await
            .map_err(|error| failed("read a data key", &error))?;
        let (id, scope, wrapping, wrapped) = key_row(&found.ok_or(SealError::Refused)?)?;
        let key = self.unwrap(&id, &scope, &wrapping, &wrapped).await?;
        let key = Arc::new(DataKey { scope, aead: Aead::new(&key)? });
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(id, key.clone());
        Ok(key)
    }

    async fn unwrap(
        &self,
        id: &str,
        scope: &str,
        wrapping: &str,
        wrapped: &str,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let key = self.wrapping.load().find(scope, wrapping).cloned();
        let key = key.ok_or_else(|| SealError::UnknownWrapping(wrapping.to_owned()))?;
        let wrapped = URL_SAFE_NO_PAD.decode(wrapped).map_err(|_| SealError::Refused)?;
        key.unwrap(&wrapped, &bound(id, scope, wrapping)).await
    }
}

fn key_row(row: &sqlx::any::AnyRow) -> Result<(String, String, String, String), SealError> {
    let read = |at: usize| row.try_get::<String, _>(at).map_err(|error| failed("read a data key", &error));
    Ok((read(0)?, read(1)?, read(2)?, read(3)?))
}

/// The associated data of a value.
fn associated(place: &Place<'_>, key_id: &str) -> Vec<u8> {
    joined(&["keyward value 1", &place.scope.name(), place.table, place.row, key_id])
}

/// The associated data of a wrapped data key.
fn bound(id: &str, scope: &str, wrapping: &str) -> Vec<u8> {
    joined(&["keyward data key 1", id, scope, wrapping])
}

/// Each part with its length in front, so that no other parts give the same bytes.
fn joined(parts: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        out.extend_from_slice(part.as_bytes());
    }
    out
}
