//! The admin listener: health, readiness, metrics and the binding cards, over plain HTTP, without any secret.

use std::future::Future;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::audit::record::rfc3339;
use crate::check::Engine;
use crate::config::Risk;
use crate::lifecycle::State;
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

/// A binding without its secret: who may use what, where, and when it was last used.
#[derive(Debug, Serialize)]
struct Card {
    id: String,
    mode: &'static str,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk: Option<&'static str>,
    environment: String,
    /// Absent where it is for every tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenants: Option<Vec<String>>,
    servers: Vec<String>,
    /// Absent where it is for every tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<Vec<String>>,
    principals: Option<CardPrincipals>,
    hosts: Vec<String>,
    credentials: Vec<CardCredential>,
    passthrough: Vec<String>,
    last_used: Option<String>,
    /// Absent where bindings have no lifecycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifecycle: Option<CardLifecycle>,
}

#[derive(Debug, Serialize)]
struct CardLifecycle {
    state: &'static str,
    version: i64,
    definition: String,
}

#[derive(Debug, Serialize)]
struct CardPrincipals {
    users: Vec<String>,
    agents: Vec<String>,
    roles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CardCredential {
    kind: &'static str,
    places: Vec<String>,
    references: Vec<String>,
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
        .route("/v1/bindings", get(bindings))
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

async fn bindings(Shared(engine): Shared<Arc<Engine>>) -> Json<Vec<Card>> {
    let plan = engine.plan();
    let cards = plan.catalogue().bindings().iter().map(|binding| Card {
        id: binding.id.clone(),
        mode: binding.mode.name(),
        owner: binding.owner.clone(),
        risk: binding.risk.map(Risk::as_str),
        environment: binding.environment.clone(),
        tenants: binding.tenants.clone(),
        servers: binding.servers.clone(),
        tools: binding.tools.as_ref().map(|tools| tools.patterns().to_vec()),
        principals: binding.principals.as_ref().map(|principals| CardPrincipals {
            users: principals.users.clone(),
            agents: principals.agents.clone(),
            roles: principals.roles.clone(),
        }),
        hosts: binding.hosts.iter().map(ToString::to_string).collect(),
        credentials: binding
            .credentials
            .iter()
            .map(|credential| CardCredential {
                kind: credential.kind(),
                places: credential.places().iter().map(ToString::to_string).collect(),
                references: credential.references(),
            })
            .collect(),
        passthrough: binding.passthrough.clone(),
        last_used: engine.last_used(&binding.id).map(rfc3339),
        lifecycle: plan.catalogue().gate().map(|gate| CardLifecycle {
            state: gate.state(&binding.id, &binding.definition).map_or("unknown", State::as_str),
            version: gate.version(&binding.id),
            definition: binding.definition.clone(),
        }),
    });
    Json(cards.collect())
}
