//! The way in: no browser, no foreign name, no anonymous request, nobody without a role; and a record of each that came.

use std::sync::Arc;

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::access::Operator;
use super::problem::Problem;
use super::{Api, TIMEOUT};
use crate::audit::record::{OperatorRecord, bounded};
use crate::audit::{Event, Record};
use crate::identity::IdentityError;
use crate::perimeter::authority::Authority;

/// What only browsers send: the fetch metadata headers (W3C), the origin (RFC 6454) and what a server made them keep.
const BROWSER_HEADERS: [&str; 5] = ["origin", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "cookie"];

/// Lets an operator in, and leaves a record of whatever came.
pub(super) async fn enter(Extract(api): Extract<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let asked = bounded(&format!("{} {}", request.method(), request.uri().path()));
    let Ok(_permit) = api.permits.try_acquire() else {
        return finished(Problem::unavailable("too many requests are under way").into_response());
    };
    let recognised = tokio::time::timeout(TIMEOUT, api.recognise(request.headers())).await;
    let recognised =
        recognised.unwrap_or_else(|_| Err(Problem::unavailable("the token could not be verified in time")));
    let operator = match recognised {
        Ok(operator) => Arc::new(operator),
        Err(problem) => {
            let record = api.request_record(None, format!("{asked}: refused: {}", problem.code));
            // Who is nobody learns nothing more, whether or not this could be written.
            api.engine.record(record);
            return finished(problem.into_response());
        }
    };
    // Before anything is done: what cannot be recorded is not.
    if api.engine.audit().accept(&api.request_record(Some(&operator), asked.clone())).is_err() {
        return finished(Problem::unavailable("the audit trail takes nothing; nothing was done").into_response());
    }
    request.extensions_mut().insert(operator.clone());
    let response = match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::unavailable("it took too long; look whether it was done").into_response(),
    };
    if !response.status().is_success() {
        let detail = format!("{asked}: answered {}", response.status().as_u16());
        api.engine.record(api.request_record(Some(&operator), detail));
    }
    finished(response)
}

impl Api {
    /// Who asks.
    async fn recognise(&self, headers: &HeaderMap) -> Result<Operator, Problem> {
        if BROWSER_HEADERS.iter().any(|name| headers.contains_key(*name)) {
            let detail = "this is for programs: a request from a web page is refused";
            return Err(Problem::new(StatusCode::FORBIDDEN, "browser_refused", detail));
        }
        let snapshot = self.snapshots.current();
        let (Some(config), Some(identity)) = (&snapshot.config.api, &snapshot.operators) else {
            return Err(Problem::not_found("there is no operator API"));
        };
        self.check_host(headers, &config.hosts)?;
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let authorization = match (values.next(), values.next()) {
            (None, _) => None,
            (Some(value), None) => Some(value.to_str().map_err(|_| unauthenticated("the token is not text"))?),
            (Some(_), Some(_)) => return Err(unauthenticated("there is more than one token")),
        };
        let principal = identity.verify(authorization).await.map_err(|error| match error {
            // The cause stays here: it may say where keys are.
            IdentityError::Keys { .. } => {
                tracing::warn!(%error, "an operator's token cannot be verified");
                Problem::unavailable("the token cannot be verified now")
            }
            error => unauthenticated(error.to_string()),
        })?;
        if !principal.actors.is_empty() {
            return Err(unauthenticated("the token was given to somebody who acts for another"));
        }
        if principal.token.confirmation.is_some() || principal.token.bootstrap {
            // Nothing here asks for the proof, so that a stolen one would do.
            return Err(unauthenticated("the token is bound to a key, or only good to begin with"));
        }
        Operator::of(&principal, config).ok_or_else(|| Problem::forbidden("no role is assigned to you"))
    }

    /// Refuses a request that came for another name: a page could have made a browser send it here.
    fn check_host(&self, headers: &HeaderMap, named: &[String]) -> Result<(), Problem> {
        if self.own_hosts.is_empty() && named.is_empty() {
            // A Unix socket has no name that could lead here.
            return Ok(());
        }
        let asked = headers.get(header::HOST).and_then(|value| value.to_str().ok()).map(Authority::parse);
        let hosts = self.own_hosts.iter().chain(named).filter_map(|host| Authority::parse(host).ok());
        match asked {
            Some(Ok(asked)) if hosts.into_iter().any(|host| host == asked) => Ok(()),
            _ => {
                let detail = "this API is not reached under that name; see `api.hosts`";
                Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail))
            }
        }
    }

    fn request_record(&self, operator: Option<&Operator>, detail: String) -> Record {
        let plan = self.engine.plan();
        let operator = operator.map(|own| OperatorRecord { issuer: own.issuer.clone(), subject: own.subject.clone() });
        Record { operator, detail, ..Record::new(Event::OperatorRequest, plan.environment(), plan.revision()) }
    }
}

fn unauthenticated(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
}

/// Nothing of an answer is kept or guessed at.
fn finished(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
