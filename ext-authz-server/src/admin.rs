//! The admin listener: health, readiness, metrics and public keys, over plain HTTP, without any secret.

use std::future::Future;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::check::Engine;
use crate::serve::ServeError;

/// What `/readyz` answers.
#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    problems: Vec<String>,
    policy_revision: String,
    policy_age_secs: u64,
    audit_queued_records: u64,
}

/// Serves until `end`.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    engine: Arc<Engine>,
    listener: TcpListener,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    axum::serve(listener, router(engine))
        .with_graceful_shutdown(end)
        .await
        .map_err(|error| ServeError::Transport(error.to_string()))
}

/// The routes of the admin listener.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/.well-known/jwks.json", get(keys))
        .with_state(engine)
}

async fn ready(Shared(engine): Shared<Arc<Engine>>) -> Response {
    let problems = engine.problems();
    let status = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let readings = engine.readings();
    let readiness = Readiness {
        ready: problems.is_empty(),
        problems,
        policy_revision: engine.plan().revision().to_owned(),
        policy_age_secs: readings.policy_age.as_secs(),
        audit_queued_records: readings.audit_queued,
    };
    (status, Json(readiness)).into_response()
}

async fn metrics(Shared(engine): Shared<Arc<Engine>>) -> Response {
    let text = engine.metrics().text(engine.readings());
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}

/// The public keys of everything that this server signs for upstreams (RFC 7517), good for five minutes.
async fn keys(Shared(engine): Shared<Arc<Engine>>) -> Response {
    let plan = arc_swap::Guard::into_inner(engine.plan());
    let now = std::time::SystemTime::now();
    let mut keys: Vec<serde_json::Value> = Vec::new();
    for credential in plan.catalogue().bindings().iter().flat_map(|binding| &binding.credentials) {
        match credential.clone().published_keys(plan.sources().clone(), now).await {
            Ok(own) => keys.extend(own),
            Err(cause) => {
                tracing::error!(cause, "the public keys cannot be had");
                return StatusCode::SERVICE_UNAVAILABLE.into_response();
            }
        }
    }
    keys.sort_by_key(|key| key["kid"].as_str().unwrap_or_default().to_owned());
    keys.dedup();
    let headers = [(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "public, max-age=300")];
    (headers, serde_json::json!({ "keys": keys }).to_string()).into_response()
}
