//! Revocations over the API: those that stand, new ones, and the end of one.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State as Extract};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{Operator, Permission};
use super::grants::OfTenant;
use super::problem::Problem;
use super::{Api, USER};
use crate::audit::{Event, Record};
use crate::database::LogError;
use crate::revocation::{self, Act, ActError, Entry, Kind, Subject, Who};

/// What is revoked, for how long, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    kind: Kind,
    #[serde(default)]
    tenant: String,
    issuer: Option<String>,
    #[serde(default)]
    id: String,
    server: Option<String>,
    for_secs: Option<u64>,
    #[serde(default)]
    reason: String,
}

/// `GET /v1/revocations?tenant=`: those that stand, oldest first.
pub(super) async fn list(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    query: Result<Query<OfTenant>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(OfTenant { tenant }) = query.map_err(|error| Problem::invalid(error.body_text()))?;
    operator.require(Permission::Read, tenant.as_deref())?;
    let state = api.state()?;
    state.revoked.read(&state.revocations).await.map_err(|error| refused(&error))?;
    let standing = state.revoked.standing(api.engine.plan().environment());
    let own = |entry: &Entry| tenant.as_deref().is_none_or(|tenant| tenant_of(entry) == Some(tenant));
    let entries = standing.iter().map(|standing| &*standing.entry).filter(|entry| own(entry));
    Ok(Json(entries.map(|entry| json!(entry.to_record())).collect()))
}

/// `POST /v1/revocations`.
pub(super) async fn revoke(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    body: Result<Json<Asked>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let Json(asked) = body.map_err(|error| Problem::invalid(error.body_text()))?;
    let Asked { kind, tenant, issuer, id, server, for_secs, reason } = asked;
    let subject = Subject { kind, tenant, issuer, id, server };
    operator.require(Permission::Stop, Some(subject.tenant.as_str()).filter(|tenant| !tenant.is_empty()))?;
    let snapshot = api.snapshots.current();
    let by = operator.name();
    let who = Who { by: &by, user: USER, reason: &reason };
    let entry = revocation::revoke(subject, for_secs, who, api.state()?, &snapshot.config).await;
    changed(&api, &entry.map_err(|error| not_done(&error))?)
}

/// `POST /v1/revocations/{number}/lift`.
pub(super) async fn lift(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    Path(number): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let snapshot = api.snapshots.current();
    let state = api.state()?;
    state.revoked.read(&state.revocations).await.map_err(|error| refused(&error))?;
    let standing = state.revoked.standing(&snapshot.config.environment);
    let entry = standing.iter().map(|standing| &*standing.entry).find(|entry| entry.number == number);
    // Whose it is, is asked first: who has no role there does not learn whether there is one.
    operator.require(Permission::Allow, entry.and_then(tenant_of))?;
    let by = operator.name();
    let who = Who { by: &by, user: USER, reason: "" };
    let entry = revocation::lift(number, who, state, &snapshot.config).await;
    changed(&api, &entry.map_err(|error| not_done(&error))?)
}

/// The tenant of a revocation; none for that of a binding.
fn tenant_of(entry: &Entry) -> Option<&str> {
    match &entry.act {
        Act::Revoke { subject, .. } => Some(subject.tenant.as_str()).filter(|tenant| !tenant.is_empty()),
        Act::Lift { .. } => None,
    }
}

fn changed(api: &Api, entry: &Entry) -> Result<Json<Value>, Problem> {
    let plan = api.engine.plan();
    let record = Record::new(Event::RevocationChanged, plan.environment(), plan.revision());
    api.record(&Record { revocation: Some(entry.to_record()), ..record })?;
    Ok(Json(json!(entry.to_record())))
}

fn not_done(error: &ActError) -> Problem {
    match error {
        ActError::Subject(_) | ActError::Unknown(..) | ActError::Reason | ActError::Time => {
            Problem::invalid(error.to_string())
        }
        ActError::NotStanding(_) => Problem::not_found(error.to_string()),
        ActError::NotConfigured | ActError::Log(LogError::Full) => Problem::conflict(error.to_string()),
        ActError::Log(error) => refused(error),
    }
}

fn refused(error: &LogError) -> Problem {
    tracing::warn!(%error, "the log of revocations");
    Problem::unavailable("the log of revocations cannot be had now; look whether it was done, and see the log")
}
