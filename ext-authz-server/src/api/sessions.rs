//! MCP sessions over the API: which there are, and the end of them.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Extension, Query, State as Extract};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::access::{Operator, Permission};
use super::problem::Problem;
use crate::audit::record::rfc3339;
use crate::audit::{Event, Record};
use crate::database::{DatabaseError, SessionCard, SessionFilter, ended_detail, unix_ms};

/// Which sessions; all of the environment where everything is absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    id: Option<String>,
    tenant: Option<String>,
    principal: Option<String>,
    server: Option<String>,
}

/// `GET /v1/sessions?tenant=&principal=&server=`.
pub(super) async fn list(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(which) = query.map_err(|error| Problem::invalid(error.body_text()))?;
    operator.require(Permission::Read, which.tenant.as_deref())?;
    let filter = filter(&api, which)?;
    let cards = api.state()?.sessions.rows.list(&filter, unix_ms(SystemTime::now())).await;
    let cards = cards.map_err(|error| refused(&error))?;
    let cards =
        cards.iter().map(|SessionCard { id, tenant, principal, server, issued, seen, expires, ended, .. }| {
            json!({
                "id": id, "tenant": tenant, "principal": principal, "server": server, "began": rfc3339(*issued),
                "used": rfc3339(*seen), "ends": rfc3339(*expires), "ended": ended.map(rfc3339),
            })
        });
    Ok(Json(cards.collect()))
}

/// `POST /v1/sessions/end`: ends those that the body names; it has to name something.
pub(super) async fn end(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    body: Result<Json<Which>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let Json(which) = body.map_err(|error| Problem::invalid(error.body_text()))?;
    operator.require(Permission::Stop, which.tenant.as_deref())?;
    if [&which.id, &which.tenant, &which.principal, &which.server].into_iter().all(Option::is_none) {
        return Err(Problem::invalid("name `id`, `tenant`, `principal` or `server`"));
    }
    let filter = filter(&api, which)?;
    let ended = api.state()?.sessions.rows.end(&filter, unix_ms(SystemTime::now())).await;
    let ended = ended.map_err(|error| refused(&error))?;
    if ended.is_empty() {
        return Err(Problem::not_found("there is no such session that goes on"));
    }
    let snapshot = api.snapshots.current();
    let record = Record::new(Event::SessionsEnded, &snapshot.config.environment, &snapshot.revision);
    api.record(&Record { detail: ended_detail(&ended, &filter), ..record })?;
    Ok(Json(json!({"ended": ended})))
}

fn filter(api: &Api, which: Which) -> Result<SessionFilter, Problem> {
    let environment = Some(api.engine.plan().environment().to_owned());
    let Which { id, tenant, principal, server } = which;
    let filter = SessionFilter { id, environment, tenant, principal, server };
    if filter.names_nobody() {
        return Err(Problem::invalid("an empty text names nobody"));
    }
    Ok(filter)
}

fn refused(error: &DatabaseError) -> Problem {
    tracing::warn!(%error, "the sessions");
    Problem::unavailable("the sessions cannot be had now, and may go on; see the log")
}
