//! The operator API: what the commands do with bindings, grants, sessions and revocations, over HTTP, for people and programs with an access token of
//! their own and a role.
//!
//! Nothing here answers without a token, nothing sets or takes a cookie, and whatever a browser sends for a page is refused. What
//! cannot be recorded is not done. docs/api.md says what there is.

mod access;
mod bindings;
mod door;
mod grants;
mod listener;
mod problem;
mod revocations;
mod sessions;

pub use listener::{ApiListener, serve};

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::audit::Record;
use crate::check::Engine;
use crate::snapshot::Snapshots;
use crate::state::State;
use problem::Problem;

/// How the system knows who came this way.
const USER: &str = "operator-api";
/// The largest body, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many requests may be under way at once.
const MAX_REQUESTS: usize = 32;

/// Everything that the API needs.
pub struct Api {
    engine: Arc<Engine>,
    snapshots: Arc<Snapshots>,
    state: Option<Arc<State>>,
    permits: Semaphore,
    /// Its own authorities, where it listens on TCP.
    own_hosts: Vec<String>,
}

// === impl Api ===

impl Api {
    /// The API of this service.
    #[must_use]
    pub fn new(engine: Arc<Engine>, snapshots: Arc<Snapshots>, state: Option<Arc<State>>) -> Api {
        Api { engine, snapshots, state, permits: Semaphore::new(MAX_REQUESTS), own_hosts: Vec::new() }
    }

    /// What is kept.
    fn state(&self) -> Result<&State, Problem> {
        self.state.as_deref().ok_or_else(|| Problem::not_found("there is no `database` in the configuration"))
    }

    /// Leaves a record of what was done. It has to be accepted, or the answer says so.
    fn record(&self, record: &Record) -> Result<(), Problem> {
        let done = "it is done, but its audit record could not be written";
        self.engine.audit().accept(record).map_err(|_| Problem::unavailable(done))
    }
}

/// The routes.
fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/operator", get(access::me))
        .route("/v1/bindings", get(bindings::list))
        .route("/v1/bindings/{id}/history", get(bindings::history))
        .route("/v1/bindings/{id}/{action}", post(bindings::step))
        .route("/v1/grants", get(grants::list))
        .route("/v1/grants/revoke", post(grants::revoke))
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/end", post(sessions::end))
        .route("/v1/revocations", get(revocations::list).post(revocations::revoke))
        .route("/v1/revocations/{number}/lift", post(revocations::lift))
        .fallback(|| async { Problem::not_found("there is no such resource") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        // Outermost: nothing of the above runs, not even to say that there is no such resource, for nobody.
        .layer(from_fn_with_state(api.clone(), door::enter))
        .with_state(api)
}
