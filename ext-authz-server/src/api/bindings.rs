//! Bindings over the API: their cards, their steps, their histories.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State as Extract};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{Operator, Permission};
use super::problem::Problem;
use super::{Api, USER};
use crate::audit::record::rfc3339;
use crate::audit::{Event, Record};
use crate::config::Risk;
use crate::database::HistoryError;
use crate::lifecycle::{Action, Outcome, State as Stands, StepError, Wish, WishError};

/// A binding without its secret: who may use what, where, and when it was last used.
#[derive(Debug, Serialize)]
pub(super) struct Card {
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

/// What a step takes besides its name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepBody {
    #[serde(default)]
    reason: String,
    version: Option<i64>,
}

/// `GET /v1/bindings`.
pub(super) async fn list(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
) -> Result<Json<Vec<Card>>, Problem> {
    operator.require(Permission::Read, None)?;
    let engine = &api.engine;
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
            state: gate.state(&binding.id, &binding.definition).map_or("unknown", Stands::as_str),
            version: gate.version(&binding.id),
            definition: binding.definition.clone(),
        }),
    });
    Ok(Json(cards.collect()))
}

/// `GET /v1/bindings/{id}/history`: every step, oldest first.
pub(super) async fn history(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    operator.require(Permission::Read, None)?;
    let environment = api.engine.plan().environment().to_owned();
    let steps = api.state()?.bindings.history(&environment, &id, 0).await.map_err(|error| refused(&error))?;
    let steps: Vec<_> = steps.iter().map(crate::lifecycle::Entry::to_record).collect();
    Ok(Json(json!(steps)))
}

/// `POST /v1/bindings/{id}/{action}`: takes a step, where it can be taken.
pub(super) async fn step(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    Path((id, action)): Path<(String, String)>,
    body: Result<Json<StepBody>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let actions = [Action::Approve, Action::Activate, Action::Disable, Action::Revoke];
    let known = actions.into_iter().find(|known| known.as_str() == action);
    let action = known.ok_or_else(|| Problem::not_found("there is no such resource"))?;
    let needed = match action {
        Action::Approve => Permission::Approve,
        Action::Activate => Permission::Allow,
        Action::Disable | Action::Revoke => Permission::Stop,
    };
    operator.require(needed, None)?;
    let Json(StepBody { reason, version }) = body.map_err(|error| Problem::invalid(error.body_text()))?;
    let snapshot = api.snapshots.current();
    let by = operator.name();
    let wish = Wish { id: &id, action, by: &by, user: USER, reason: &reason, version };
    match wish.fulfil(api.state()?, &snapshot.config).await.map_err(|error| not_taken(&error))? {
        Outcome::Taken(entry) => {
            let record = Record::new(Event::BindingChanged, &snapshot.config.environment, &snapshot.revision);
            api.record(&Record { binding: Some(entry.to_record()), ..record })?;
            Ok(Json(json!({"id": id, "changed": true, "state": entry.to, "version": entry.version})))
        }
        Outcome::Nothing(state, version) => {
            Ok(Json(json!({"id": id, "changed": false, "state": state, "version": version})))
        }
    }
}

fn not_taken(error: &WishError) -> Problem {
    match error {
        WishError::NotDeclared => Problem::not_found(error.to_string()),
        WishError::Reason | WishError::Step(StepError::Name(_)) => Problem::invalid(error.to_string()),
        WishError::History(error) => refused(error),
        WishError::NoLifecycle | WishError::Version { .. } | WishError::Step(_) | WishError::Contended => {
            Problem::conflict(error.to_string())
        }
    }
}

fn refused(error: &HistoryError) -> Problem {
    tracing::warn!(%error, "the history of bindings");
    Problem::unavailable("the history of bindings cannot be had now; see the log")
}
