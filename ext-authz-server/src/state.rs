//! Everything that Keyward keeps: one database, one seal, and what lies in it. Absent where no database is configured.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::config;
use crate::database::{
    Database, DatabaseAges, DatabaseBindings, DatabaseError, DatabaseGrants, DatabaseRevocations, DatabaseSecrets,
    DatabaseSessions, DatabaseShared, LATEST_VERSION, SharedError, States, Topic, failed,
};
use crate::freshness::Freshness;
use crate::grants::Grants;
use crate::lifecycle::{Book, Entry};
use crate::revocation;
use crate::seal::{KmsKey, LocalKey, SealError, Sealer, WrapKey, Wrapping};
use crate::secret::Secrets;
use crate::session::Kept;

/// How often the other replicas' invalidations are looked at; half of the second in which they have to arrive.
const POLL: Duration = Duration::from_millis(400);
/// How often it is looked what is revoked: within a second every replica knows, and every filter.
const REVOCATIONS_POLL: Duration = Duration::from_millis(200);
/// How long such a look may take.
const REVOCATIONS_TIMEOUT: Duration = Duration::from_millis(800);
/// How often what has ended is deleted.
const TIDY: Duration = Duration::from_secs(60);

/// An open state.
pub struct State {
    /// The database.
    pub database: Database,
    /// Seals and opens.
    pub sealer: Arc<Sealer>,
    /// What people gave.
    pub grants: Arc<dyn Grants>,
    /// One-time states.
    pub states: States,
    /// Operators' secrets.
    pub secrets: DatabaseSecrets,
    /// What replicas share.
    pub shared: DatabaseShared,
    /// Since when secrets have their values.
    pub ages: DatabaseAges,
    /// The history of bindings.
    pub bindings: DatabaseBindings,
    /// Where bindings stand, as this process knows it.
    pub book: Arc<Book>,
    /// The sessions of MCP, as this process knows them.
    pub sessions: Kept,
    /// The log of revocations.
    pub revocations: DatabaseRevocations,
    /// What is revoked, as this process knows it.
    pub revoked: Arc<revocation::Book>,
}

/// Where the state will be once it is open: stores are made before that.
pub type StateDoor = Arc<OnceLock<Arc<State>>>;

/// Why there is no state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A secret that it needs cannot be had.
    #[error("database.{key}: {cause}")]
    Secret {
        /// The key in the section.
        key: String,
        /// Why.
        cause: String,
    },
    /// The database.
    #[error("database: {0}")]
    Database(#[from] DatabaseError),
    /// The seal.
    #[error("database: {0}")]
    Seal(#[from] SealError),
    /// Tables of another version, which a command that only reads leaves as they are.
    #[error(
        "database: its tables are of version {0}, and this `keyward` reads version {LATEST_VERSION}; `keyward serve` brings \
         older ones up to date"
    )]
    Version(i64),
}

// === impl StateError ===

impl StateError {
    fn secret(key: &str, cause: impl ToString) -> StateError {
        StateError::Secret { key: key.to_owned(), cause: cause.to_string() }
    }
}

// === impl State ===

impl State {
    /// Opens the database of this section, and wraps data keys anew where its first key is a new one.
    ///
    /// # Errors
    /// Names what cannot be had.
    pub async fn open(config: &config::Database, secrets: &Secrets) -> Result<Arc<State>, StateError> {
        let (wrapping, url) = State::needs(config, secrets).await?;
        let database = Database::open(&url, config.max_connections).await?;
        let sealer = Arc::new(Sealer::of(database.clone(), wrapping)?);
        let rewrapped = sealer.rewrap().await?;
        if rewrapped > 0 {
            tracing::info!(data_keys = rewrapped, "data keys were wrapped under a new key-encryption key");
        }
        State::of(database, sealer)
    }

    /// Opens the database of this section as it is, makes and changes nothing, and says of which version its tables are. `None`
    /// where there is none yet.
    ///
    /// # Errors
    /// Names what cannot be had.
    pub async fn look(config: &config::Database, secrets: &Secrets) -> Result<(Option<Arc<State>>, i64), StateError> {
        let (wrapping, url) = State::needs(config, secrets).await?;
        let Some((database, version)) = Database::look(&url).await? else { return Ok((None, 0)) };
        let sealer = Arc::new(Sealer::of(database.clone(), wrapping)?);
        Ok((Some(State::of(database, sealer)?), version))
    }

    /// The state for a command that only reads: nothing is made or changed. `None` where there is none yet.
    ///
    /// # Errors
    /// Names what cannot be had, or the tables are of another version.
    pub async fn read(config: &config::Database, secrets: &Secrets) -> Result<Option<Arc<State>>, StateError> {
        match State::look(config, secrets).await? {
            (None, _) | (Some(_), 0) => Ok(None),
            (Some(state), LATEST_VERSION) => Ok(Some(state)),
            (Some(_), version) => Err(StateError::Version(version)),
        }
    }

    fn of(database: Database, sealer: Arc<Sealer>) -> Result<Arc<State>, StateError> {
        Ok(Arc::new(State {
            grants: Arc::new(DatabaseGrants::new(database.clone(), sealer.clone())?),
            states: States::new(database.clone(), sealer.clone()),
            secrets: DatabaseSecrets::new(database.clone(), sealer.clone()),
            shared: DatabaseShared::new(database.clone(), sealer.clone())?,
            ages: DatabaseAges::new(database.clone(), sealer.clone()),
            bindings: DatabaseBindings::new(database.clone(), sealer.clone()),
            book: Arc::default(),
            sessions: Kept::new(DatabaseSessions::new(database.clone())),
            revocations: DatabaseRevocations::new(database.clone(), sealer.clone()),
            revoked: Arc::default(),
            database,
            sealer,
        }))
    }

    /// The key-encryption keys and the address.
    async fn needs(config: &config::Database, secrets: &Secrets) -> Result<(Wrapping, Zeroizing<String>), StateError> {
        let wrapping = State::wrapping(config, secrets).await?;
        let url = match &config.url_secret {
            Some(source) => {
                let url = secrets.resolve(source).await.map_err(|error| StateError::secret("url_secret", error))?;
                std::str::from_utf8(url.expose()).map_err(|_| DatabaseError::Url)?.trim().to_owned()
            }
            None => config.url.clone(),
        };
        Ok((wrapping, Zeroizing::new(url)))
    }

    /// The key-encryption keys, the newest first.
    ///
    /// # Errors
    /// Names the one that cannot be had or used.
    pub async fn wrapping(config: &config::Database, secrets: &Secrets) -> Result<Wrapping, StateError> {
        let all = State::keys("encryption_keys", &config.encryption_keys, secrets).await?;
        let mut wrapping = Wrapping::from(all);
        for (tenant, sources) in &config.tenant_encryption_keys {
            let keys = State::keys(&format!("tenant_encryption_keys.{tenant}"), sources, secrets).await?;
            wrapping = wrapping.with_tenant(tenant, keys);
        }
        Ok(wrapping)
    }

    async fn keys(
        list: &str,
        sources: &[config::SecretSource],
        secrets: &Secrets,
    ) -> Result<Vec<Arc<dyn WrapKey>>, StateError> {
        let mut wrapping: Vec<Arc<dyn WrapKey>> = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let key = format!("{list}[{index}]");
            wrapping.push(match source.kms_key() {
                Some(arn) => {
                    Arc::new(KmsKey::new(arn, secrets).await.map_err(|error| StateError::secret(&key, error))?)
                }
                None => {
                    let text = secrets.resolve(source).await.map_err(|error| StateError::secret(&key, error))?;
                    Arc::new(LocalKey::parse(text.expose()).map_err(|error| StateError::secret(&key, error))?)
                }
            });
        }
        Ok(wrapping)
    }

    /// Drops what this process keeps and others have invalidated, notices each step in the lifecycle of a binding, and deletes
    /// what has ended; without end.
    pub async fn follow(self: Arc<Self>, freshness: Arc<Freshness>, notice: impl Fn(Vec<Entry>) + Send) {
        let mut seen = None;
        // Whether bindings have to be read anew: what was told while nobody listened is unknown.
        let mut is_due = true;
        let mut tidied = tokio::time::Instant::now();
        loop {
            match self.shared.poll(seen).await {
                Ok((newest, topics)) => {
                    seen = Some(newest);
                    is_due |= topics.iter().any(|topic| matches!(topic, Topic::Binding { .. } | Topic::Everything));
                    if topics.iter().any(|topic| matches!(topic, Topic::Sessions | Topic::Everything)) {
                        self.sessions.ended();
                    }
                    self.sessions.confirm();
                    for topic in topics {
                        let dropped = topic.forget(&freshness);
                        tracing::debug!(dropped, "an invalidation arrived");
                    }
                    if is_due {
                        match self.book.read(&self.bindings).await {
                            Ok(steps) => {
                                is_due = false;
                                notice(steps);
                            }
                            Err(error) => tracing::warn!(%error, "where bindings stand cannot be read"),
                        }
                    } else {
                        self.book.confirm();
                    }
                }
                Err(error) => {
                    is_due = true;
                    tracing::warn!(%error, "invalidations cannot be looked at");
                }
            }
            if tidied.elapsed() >= TIDY {
                tidied = tokio::time::Instant::now();
                is_due = true;
                if let Err(error) = self.database.tidy().await {
                    tracing::warn!(%error, "what has ended could not be deleted");
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Follows the log of revocations without end.
    pub async fn follow_revocations(self: Arc<Self>, notice: impl Fn(Vec<revocation::Entry>) + Send) {
        let mut said = String::new();
        loop {
            let read = tokio::time::timeout(REVOCATIONS_TIMEOUT, self.revoked.read(&self.revocations)).await;
            let problem = match read {
                Ok(Ok(news)) => {
                    if !news.is_empty() {
                        notice(news);
                    }
                    String::new()
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the database does not answer in time".to_owned(),
            };
            if problem != said {
                match problem.as_str() {
                    "" => tracing::info!("what is revoked can be read again"),
                    cause => tracing::warn!(cause, "what is revoked cannot be read"),
                }
                said = problem;
            }
            self.revoked.expire();
            tokio::time::sleep(REVOCATIONS_POLL).await;
        }
    }

    /// Drops what is kept of something, here at once and at the other replicas within a second.
    ///
    /// # Errors
    /// The other replicas could not be told; here it is dropped.
    pub async fn invalidate(&self, topic: &Topic, freshness: &Freshness) -> Result<(), SharedError> {
        topic.forget(freshness);
        self.shared.publish(topic).await
    }

    /// Deletes all material that replicas share; each mints its own anew when it is next asked for.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn forget_shared(&self) -> Result<(), DatabaseError> {
        let done = sqlx::query("DELETE FROM material").execute(self.database.pool()).await;
        done.map(drop).map_err(|error| failed("drop all material", &error))
    }
}
