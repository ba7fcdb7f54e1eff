//! Sessions in the database: what replicas share of when they were used, and that somebody ended them.

use std::time::SystemTime;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::shared::tell;
use super::{Database, DatabaseError, Topic, failed, from_unix_ms};
use crate::session::Use;

/// The most sessions that are listed.
const MAX_LISTED: i64 = 10_000;

/// The sessions of a database.
#[derive(Clone)]
pub struct DatabaseSessions {
    database: Database,
}

/// What the database says of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// When it was last used, to within the interval in which uses are written.
    pub seen_ms: i64,
    /// Whether somebody ended it.
    pub ended: bool,
}

/// A session, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCard {
    /// Its name.
    pub id: String,
    /// The environment.
    pub environment: String,
    /// The tenant.
    pub tenant: String,
    /// The principal's key.
    pub principal: String,
    /// The server entry.
    pub server: String,
    /// When its id was sealed.
    pub issued: SystemTime,
    /// When it was last used.
    pub seen: SystemTime,
    /// When it ends, however much it is used.
    pub expires: SystemTime,
    /// When somebody ended it.
    pub ended: Option<SystemTime>,
}

/// Which sessions; an absent part is any.
#[derive(Clone, Debug, Default)]
pub struct SessionFilter {
    /// The name.
    pub id: Option<String>,
    /// The environment.
    pub environment: Option<String>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The principal's key.
    pub principal: Option<String>,
    /// The server entry.
    pub server: Option<String>,
}

/// A statement over what a filter holds; it binds the filter's five parts, then the time.
macro_rules! filtered {
    ($what:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM sessions WHERE ($1 = '' OR id = $1) AND ($2 = '' OR environment = $2) AND ($3 = '' OR tenant = $3) \
             AND ($4 = '' OR principal = $4) AND ($5 = '' OR server = $5) AND expires_ms > $6 ",
            $rest
        )
    };
}

/// The most names that one audit record lists.
const MAX_RECORDED: usize = 64;

/// What an audit record says of sessions that were ended.
#[must_use]
pub fn ended_detail(ended: &[String], filter: &SessionFilter) -> String {
    let part = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!(" {name}={value}"));
    let parts = [("tenant", &filter.tenant), ("principal", &filter.principal), ("server", &filter.server)];
    let asked: String = parts.into_iter().filter_map(|(name, value)| part(name, value)).collect();
    let listed: Vec<&str> = ended.iter().take(MAX_RECORDED).map(String::as_str).collect();
    format!("{} sessions{asked}: {}", ended.len(), listed.join(", "))
}

// === impl SessionFilter ===

impl SessionFilter {
    /// Whether a part is empty, which in a statement would stand for any.
    #[must_use]
    pub fn names_nobody(&self) -> bool {
        let named = [&self.id, &self.tenant, &self.principal, &self.server];
        named.into_iter().flatten().any(String::is_empty)
    }
}

// === impl DatabaseSessions ===

impl DatabaseSessions {
    /// The sessions of this database.
    #[must_use]
    pub fn new(database: Database) -> DatabaseSessions {
        DatabaseSessions { database }
    }

    /// Notes a session where it is not noted yet, as used when its id was sealed, and says what is known of it.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn enter(&self, used: &Use<'_>) -> Result<SessionRow, DatabaseError> {
        let doing = |error: sqlx::Error| failed("look for a session", &error);
        if let Some(row) = self.find(used.id).await? {
            return Ok(row);
        }
        sqlx::query(
            "INSERT INTO sessions (id, environment, tenant, principal, server, issued_ms, seen_ms, expires_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO NOTHING",
        )
        .bind(used.id)
        .bind(used.whose.environment)
        .bind(used.whose.tenant)
        .bind(used.whose.principal)
        .bind(used.whose.server)
        .bind(used.issued_ms)
        .bind(used.issued_ms)
        .bind(used.ends_ms)
        .execute(self.database.pool())
        .await
        .map_err(doing)?;
        // Another replica may have been faster, and an operator as well.
        Ok(self.find(used.id).await?.unwrap_or(SessionRow { seen_ms: used.issued_ms, ended: false }))
    }

    /// The connections, for tests.
    #[cfg(test)]
    pub(crate) fn pool(&self) -> &super::Connections {
        self.database.pool()
    }

    async fn find(&self, id: &str) -> Result<Option<SessionRow>, DatabaseError> {
        let doing = |error: sqlx::Error| failed("look for a session", &error);
        let found = sqlx::query("SELECT seen_ms, COALESCE(ended_ms, 0) FROM sessions WHERE id = $1")
            .bind(id)
            .fetch_optional(self.database.pool())
            .await
            .map_err(doing)?;
        let Some(row) = found else { return Ok(None) };
        let ended_ms: i64 = row.try_get(1).map_err(doing)?;
        Ok(Some(SessionRow { seen_ms: row.try_get(0).map_err(doing)?, ended: ended_ms != 0 }))
    }

    /// Notes when a session was used.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn seen(&self, id: &str, now_ms: i64) -> Result<(), DatabaseError> {
        let done = sqlx::query("UPDATE sessions SET seen_ms = $2 WHERE id = $1 AND seen_ms < $2")
            .bind(id)
            .bind(now_ms)
            .execute(self.database.pool());
        done.await.map(drop).map_err(|error| failed("note a use of a session", &error))
    }

    /// The sessions that have not outlived their longest time, the newest first, and at most 10000.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn list(&self, filter: &SessionFilter, now_ms: i64) -> Result<Vec<SessionCard>, DatabaseError> {
        let statement = filtered!(
            "id, environment, tenant, principal, server, issued_ms, seen_ms, expires_ms, ended_ms",
            "ORDER BY issued_ms DESC, id LIMIT $7"
        );
        let query = filter.bind(sqlx::query(statement)).bind(now_ms).bind(MAX_LISTED);
        let doing = |error: sqlx::Error| failed("list sessions", &error);
        let rows = query.fetch_all(self.database.pool()).await.map_err(doing)?;
        rows.iter().map(card).collect::<Result<_, _>>().map_err(doing)
    }

    /// Ends sessions and tells every replica; returns their names. Both happen or neither does.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn end(&self, filter: &SessionFilter, now_ms: i64) -> Result<Vec<String>, DatabaseError> {
        let doing = |error: sqlx::Error| failed("end sessions", &error);
        let mut transaction = self.database.pool().begin().await.map_err(doing)?;
        // First: it holds the counter's row, so that no other end comes between.
        tell(&mut transaction, &Topic::Sessions).await.map_err(doing)?;
        let query = filter.bind(sqlx::query(filtered!("id", "AND ended_ms IS NULL ORDER BY id"))).bind(now_ms);
        let rows = query.fetch_all(&mut *transaction).await.map_err(doing)?;
        let ids: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(doing)?;
        for id in &ids {
            sqlx::query("UPDATE sessions SET ended_ms = $2 WHERE id = $1 AND ended_ms IS NULL")
                .bind(id)
                .bind(now_ms)
                .execute(&mut *transaction)
                .await
                .map_err(doing)?;
        }
        transaction.commit().await.map_err(doing)?;
        Ok(ids)
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Any, <sqlx::Any as sqlx::Database>::Arguments>;

// === impl SessionFilter ===

impl SessionFilter {
    fn bind<'q>(&'q self, query: Query<'q>) -> Query<'q> {
        let parts = [&self.id, &self.environment, &self.tenant, &self.principal, &self.server];
        parts.into_iter().fold(query, |query, part| query.bind(part.as_deref().unwrap_or_default()))
    }
}

fn card(row: &AnyRow) -> Result<SessionCard, sqlx::Error> {
    let time = |at: usize| row.try_get(at).map(from_unix_ms);
    Ok(SessionCard {
        id: row.try_get(0)?,
        environment: row.try_get(1)?,
        tenant: row.try_get(2)?,
        principal: row.try_get(3)?,
        server: row.try_get(4)?,
        issued: time(5)?,
        seen: time(6)?,
        expires: time(7)?,
        ended: row.try_get::<Option<i64>, _>(8)?.map(from_unix_ms),
    })
}
