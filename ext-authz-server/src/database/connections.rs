//! The connections to the database, on which no statement waits without end.
//!
//! A database that is cut off answers nothing, not even that it is away: neither the driver nor the database can notice
//! that in time, so that the bound is kept here. What was under way is then unknown, as for any broken connection.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use sqlx::any::{Any, AnyQueryResult, AnyRow, AnyStatement, AnyTypeInfo};
use sqlx::{AnyConnection, AnyPool, Connection as _, Either, Error, Execute, Executor, SqlStr, Transaction};
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt as _};

/// How long a statement may take, the wait for a connection and the way there and back included.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection that was used may take to say that it is still good.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections of one process.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: AnyPool,
}

type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;
type Steps<'a> = Pin<Box<dyn Stream<Item = Result<Either<AnyQueryResult, AnyRow>, Error>> + Send + 'a>>;

// === impl Connections ===

impl Connections {
    pub(super) fn new(pool: AnyPool) -> Connections {
        Connections { pool }
    }

    /// The pool itself, for what has a bound of its own.
    pub(super) fn unbounded(&self) -> &AnyPool {
        &self.pool
    }

    /// Begins a transaction. Its statements are bounded by the database's own timeout; whoever waits for one while the network
    /// may be cut needs a bound of its own, see [`bounded`].
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>, Error> {
        bounded(STATEMENT_TIMEOUT, self.pool.begin()).await
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connections")
    }
}

impl<'c> Executor<'c> for &'c Connections {
    type Database = Any;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Steps<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        let steps = self.pool.fetch_many(query).timeout(STATEMENT_TIMEOUT);
        Box::pin(steps.map(|step| step.unwrap_or(Err(Error::PoolTimedOut))))
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> Later<'e, Option<AnyRow>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Any>,
    {
        Box::pin(bounded(STATEMENT_TIMEOUT, self.pool.fetch_optional(query)))
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [AnyTypeInfo]) -> Later<'e, AnyStatement>
    where
        'c: 'e,
    {
        Box::pin(bounded(STATEMENT_TIMEOUT, self.pool.prepare_with(sql, parameters)))
    }
}

/// The outcome of some work on the database, or that it did not come in time.
pub(super) async fn bounded<T>(limit: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(limit, work).await.unwrap_or(Err(Error::PoolTimedOut))
}

/// Whether a connection that was used can be used again. One that was left in the middle of a statement by somebody who
/// waited long enough may never answer again: it is closed, and its place in the pool is free.
pub(super) async fn is_good(connection: &mut AnyConnection) -> Result<bool, Error> {
    bounded(RELEASE_TIMEOUT, connection.ping()).await.map(|()| true)
}
