//! The state that outlives a process: one set of queries over SQLite (an embedded file) or PostgreSQL.
//!
//! Values that are worth stealing are sealed before they come here; see [`seal`](crate::seal). All replicas of one
//! deployment share one database, and their clocks must agree to within a few seconds.

mod address;
mod ages;
mod bindings;
mod connections;
mod grants;
mod leases;
mod revocations;
mod secrets;
mod sessions;
mod shared;
mod states;
#[cfg(test)]
mod tests;
mod throttles;

pub use ages::DatabaseAges;
pub use bindings::{DatabaseBindings, HistoryError, Newest};
pub use grants::DatabaseGrants;
pub use revocations::{DatabaseRevocations, LogError, Seen};
pub use secrets::{DatabaseSecrets, SecretCard};
pub use sessions::{DatabaseSessions, SessionCard, SessionFilter, SessionRow, ended_detail};
pub use shared::{DatabaseShared, SharedError, Topic};
pub use states::{States, StatesError};
pub(crate) use states::{digest, random_name};
pub use throttles::{DatabaseThrottles, Taken};

use std::path::Path;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{ConnectOptions as _, Executor as _, SqlSafeStr as _};
use zeroize::Zeroizing;

use connections::{Connections, is_good};

/// The version of the tables that this program needs.
pub const LATEST_VERSION: i64 = 6;
/// How often it is tried to bring the tables up to date.
const MIGRATION_ATTEMPTS: usize = 5;
/// How long to wait for a connection, the making of one included.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one try to bring the tables up to date may take.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How many invalidations are kept for replicas that were away.
const INVALIDATIONS_KEPT: i64 = 10_000;
/// Each database file's settings: readers do not wait for a writer, a committed grant survives a loss of power, and what
/// is deleted is overwritten.
const SQLITE_SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 2500; \
                               PRAGMA secure_delete = ON;";

/// Each session's settings: no statement waits longer than the one who asked, what a replica that was cut off holds is free
/// again soon, and a lost connection is noticed within half a minute. The queries count on `read committed`.
const POSTGRES_SETTINGS: &str = "SET statement_timeout = 2500; SET idle_in_transaction_session_timeout = 5000; \
                                 SET default_transaction_isolation = 'read committed'; SET tcp_user_timeout = 10000; \
                                 SET tcp_keepalives_idle = 15; SET tcp_keepalives_interval = 5; \
                                 SET tcp_keepalives_count = 3;";

/// A database that is open and has Keyward's tables.
#[derive(Clone)]
pub struct Database {
    connections: Connections,
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An embedded file.
    Sqlite,
    /// A PostgreSQL server.
    Postgres,
}

/// Why the database does not serve. Never holds the address, which may hold a password, nor a value.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The address is not one.
    #[error("the address is neither `sqlite://FILE` nor `postgres://…`")]
    Url,
    /// It holds something that is not understood; which is not said, for it may be a part of a password.
    #[error(
        "the address has a parameter twice, or one that is not known; write `@`, `/`, `?`, `&` and `#` in a password as \
         `%40`, `%2F`, `%3F`, `%26` and `%23`"
    )]
    Parameter,
    /// Another machine could pretend to be the database.
    #[error("to another machine, `sslmode` has to be `verify-full` (the default there) or `verify-ca`")]
    NotVerified,
    /// The file cannot be made or protected.
    #[error("the file cannot be opened: {0}")]
    File(std::io::Error),
    /// It cannot be reached or refuses.
    #[error("{doing}: {cause}")]
    Query {
        /// What was tried.
        doing: &'static str,
        /// What the driver said.
        cause: String,
    },
}

/// Whether a database says that it has no such table, and not that this user may not see it.
fn is_missing_table(error: &dyn sqlx::error::DatabaseError) -> bool {
    // PostgreSQL has a code of its own for it (undefined_table), SQLite only the message.
    error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
}

// === impl Database ===

impl Database {
    /// Opens the database and brings its tables up to date. `url` is `sqlite://FILE`, `sqlite::memory:` or `postgres://…`.
    ///
    /// # Errors
    /// It cannot be reached, or its tables are those of a later version.
    pub async fn open(url: &str, max_connections: u32) -> Result<Database, DatabaseError> {
        if let Some(file) = file_of(url) {
            make_file(file).map_err(DatabaseError::File)?;
        }
        let database = Database::connect(url, max_connections).await?;
        let migrator = Migrator::with_migrations(migrations());
        let mut attempt = 1;
        // A file has no lock for this: of several processes that make the tables at once, all but one have to look again.
        while let Err(error) = database.migrate(&migrator).await {
            if attempt == MIGRATION_ATTEMPTS || matches!(error, MigrateError::VersionMissing(_)) {
                let cause = error.to_string();
                return Err(DatabaseError::Query { doing: "bring the tables up to date", cause });
            }
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(database)
    }

    /// Opens the database as it is, with the version of its tables, 0 for one without; `None` where there is no file.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn look(url: &str) -> Result<Option<(Database, i64)>, DatabaseError> {
        if let Some(file) = file_of(url)
            && !file.try_exists().map_err(DatabaseError::File)?
        {
            // A directory that is not there, either, is a wrong address and no database to come.
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            return folder
                .map_or(Ok(()), |folder| folder.metadata().map(drop))
                .map_err(DatabaseError::File)
                .map(|()| None);
        }
        let database = Database::connect(url, 1).await?;
        let is_there = sqlx::query("SELECT COUNT(*) FROM _sqlx_migrations").execute(database.pool()).await;
        match is_there {
            Err(sqlx::Error::Database(error)) if is_missing_table(&*error) => return Ok(Some((database, 0))),
            other => other.map_err(|error| failed("look for the version of the tables", &error))?,
        };
        let version = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
            .fetch_one(database.pool())
            .await
            .and_then(|row| sqlx::Row::try_get(&row, 0))
            .map_err(|error| failed("read the version of the tables", &error))?;
        Ok(Some((database, version)))
    }

    async fn migrate(&self, migrator: &Migrator) -> Result<(), MigrateError> {
        let running = migrator.run(self.connections.unbounded());
        let late = || MigrateError::Execute(sqlx::Error::PoolTimedOut);
        tokio::time::timeout(MIGRATION_TIMEOUT, running).await.unwrap_or_else(|_| Err(late()))
    }

    async fn connect(url: &str, max_connections: u32) -> Result<Database, DatabaseError> {
        static DRIVERS: std::sync::Once = std::sync::Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let kind = Kind::of(url).ok_or(DatabaseError::Url)?;
        let is_memory = url == "sqlite::memory:";
        let is_sqlite = kind == Kind::Sqlite;
        let url = if is_sqlite { Zeroizing::new(url.to_owned()) } else { address::postgres(url)? };
        let options = AnyConnectOptions::from_str(&url).map_err(|_| DatabaseError::Url)?;
        // Statements are not logged: their text is known, and their values are nobody's business.
        let options = options.disable_statement_logging();
        let pool = AnyPoolOptions::new()
            .max_connections(if is_memory { 1 } else { max_connections })
            .idle_timeout(if is_memory { None } else { Some(Duration::from_secs(600)) })
            .max_lifetime(if is_memory { None } else { Some(Duration::from_secs(1800)) })
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    let settings = if is_sqlite { SQLITE_SETTINGS } else { POSTGRES_SETTINGS };
                    connection.execute(settings).await.map(drop)
                })
            })
            .after_release(|connection, _| Box::pin(is_good(connection)))
            .connect_with(options)
            .await
            .map_err(|error| failed("connect", &error))?;
        Ok(Database { connections: Connections::new(pool) })
    }

    /// Whether it answers.
    ///
    /// # Errors
    /// Why not.
    pub async fn probe(&self) -> Result<(), DatabaseError> {
        sqlx::query("SELECT 1").execute(self.pool()).await.map(drop).map_err(|error| failed("probe", &error))
    }

    /// How many grants of a provider had ended at this time and are not deleted yet.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn ended_grants(&self, provider: &str, now_ms: i64) -> Result<i64, DatabaseError> {
        sqlx::query("SELECT COUNT(*) FROM grants WHERE provider = $1 AND expires_ms <= $2")
            .bind(provider)
            .bind(now_ms)
            .fetch_one(self.pool())
            .await
            .and_then(|row| sqlx::Row::try_get(&row, 0))
            .map_err(|error| failed("count the grants", &error))
    }

    /// Deletes what has ended. Nothing that has ended is used whether or not this runs.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn tidy(&self) -> Result<u64, DatabaseError> {
        let now = unix_ms(SystemTime::now());
        let mut deleted = 0;
        for statement in [
            "DELETE FROM states WHERE expires_ms <= $1",
            "DELETE FROM used WHERE expires_ms <= $1",
            "DELETE FROM material WHERE expires_ms <= $1",
            "DELETE FROM leases WHERE expires_ms <= $1",
            "DELETE FROM grants WHERE expires_ms <= $1",
            "DELETE FROM sessions WHERE expires_ms <= $1",
            "DELETE FROM throttles WHERE arrival_ns <= $1 * 1000000",
        ] {
            let done = sqlx::query(statement).bind(now).execute(self.pool()).await;
            deleted += done.map_err(|error| failed("tidy", &error))?.rows_affected();
        }
        let old =
            "DELETE FROM invalidations WHERE number <= (SELECT value FROM counters WHERE name = 'invalidations') - $1";
        let done = sqlx::query(old).bind(INVALIDATIONS_KEPT).execute(self.pool()).await;
        Ok(deleted + done.map_err(|error| failed("tidy", &error))?.rows_affected())
    }

    /// Ends all connections.
    pub async fn close(&self) {
        // A connection that is cut off would be waited for.
        let _ = tokio::time::timeout(ACQUIRE_TIMEOUT, self.connections.unbounded().close()).await;
    }

    /// The connections.
    pub(crate) fn pool(&self) -> &Connections {
        &self.connections
    }
}

/// The tables, version by version; one that was released never changes.
fn migrations() -> Vec<Migration> {
    let migration = |version, name: &'static str, tables: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, tables.into_sql_str(), false)
    };
    vec![
        migration(1, "state", include_str!("database/schema_1.sql")),
        migration(2, "bindings, ages, owners of states", include_str!("database/schema_2.sql")),
        migration(3, "revocations", include_str!("database/schema_3.sql")),
        migration(4, "sessions", include_str!("database/schema_4.sql")),
        migration(5, "who used what serves once", include_str!("database/schema_5.sql")),
        migration(6, "throttles", include_str!("database/schema_6.sql")),
    ]
}

// === impl Kind ===

impl Kind {
    /// The kind that an address names.
    #[must_use]
    pub fn of(url: &str) -> Option<Kind> {
        if url == "sqlite::memory:" || url.strip_prefix("sqlite://").is_some_and(|file| !file.is_empty()) {
            return Some(Kind::Sqlite);
        }
        (url.starts_with("postgres://") || url.starts_with("postgresql://")).then_some(Kind::Postgres)
    }
}

/// What the driver said, without the parts that could hold an address.
pub(crate) fn failed(doing: &'static str, error: &sqlx::Error) -> DatabaseError {
    let cause = match error {
        sqlx::Error::Configuration(_) => "the address cannot be used".to_owned(),
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::PoolTimedOut => "no connection in time".to_owned(),
        other => other.to_string(),
    };
    DatabaseError::Query { doing, cause }
}

/// The file of an address that names one.
fn file_of(url: &str) -> Option<&Path> {
    (Kind::of(url)? == Kind::Sqlite && url != "sqlite::memory:").then(|| Path::new(url.trim_start_matches("sqlite://")))
}

/// Makes the file, for its owner only, where there is none: SQLite itself would make one that others can read.
fn make_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The time of milliseconds since 1970.
pub(crate) fn from_unix_ms(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
