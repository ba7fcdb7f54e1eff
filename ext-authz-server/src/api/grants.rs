//! Grants over the API: what people have connected, without its value, and the end of it.

use std::sync::Arc;

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
use crate::grants::{self, GrantCard, GrantError, GrantKey, Revoked, Told};

/// Of which tenant; of each where it is absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTenant {
    pub(super) tenant: Option<String>,
}

/// Which grant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    tenant: String,
    principal: String,
    provider: String,
}

/// `GET /v1/grants?tenant=`.
pub(super) async fn list(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    query: Result<Query<OfTenant>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(OfTenant { tenant }) = query.map_err(|error| Problem::invalid(error.body_text()))?;
    operator.require(Permission::Read, tenant.as_deref())?;
    let cards = api.state()?.grants.list(tenant.as_deref()).await.map_err(|error| refused(&error))?;
    let cards = cards.iter().map(|GrantCard { key, scopes, account, given, changed, expires }| {
        json!({
            "tenant": key.tenant, "principal": key.principal, "provider": key.provider, "scopes": scopes,
            "account": account, "given": rfc3339(*given), "changed": rfc3339(*changed),
            "expires": expires.map(rfc3339),
        })
    });
    Ok(Json(cards.collect()))
}

/// `POST /v1/grants/revoke`: deletes a grant here and, where it can be told, at the provider.
pub(super) async fn revoke(
    Extract(api): Extract<Arc<Api>>,
    Extension(operator): Extension<Arc<Operator>>,
    body: Result<Json<Which>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    let Json(Which { tenant, principal, provider }) = body.map_err(|error| Problem::invalid(error.body_text()))?;
    operator.require(Permission::Stop, Some(&tenant))?;
    let key = GrantKey::new(&tenant, &principal, &provider);
    let snapshot = api.snapshots.current();
    let revoked = grants::revoke(&key, api.state()?, &snapshot).await.map_err(|error| refused(&error))?;
    let Revoked { grant, told } = revoked.ok_or_else(|| Problem::not_found("there is no such grant"))?;
    if let Told::Failed(cause) = &told {
        tracing::warn!(provider, cause, "a provider could not be told that a grant was revoked");
    }
    let record = Record::new(Event::GrantRevoked, &snapshot.config.environment, &snapshot.revision);
    api.record(&Record { grant: Some(grant), detail: told.to_string(), ..record })?;
    Ok(Json(json!({"deleted": true, "provider": told.to_string()})))
}

fn refused(error: &GrantError) -> Problem {
    tracing::warn!(%error, "the grants");
    Problem::unavailable("the grants cannot be had now, and may still be in use; see the log")
}
