//! The answer of a token endpoint (RFC 6749, 5.1), and calls that carry such a token.

use std::future::Future;
use std::time::Duration;

use keyward_contract::json::Value;

use super::{Answer, Call, Grant, Remote, Session, StoreError, StoreErrorKind};

/// The token of a token endpoint's answer.
///
/// # Errors
/// The endpoint refused, with `remedy`, or answered something else.
pub(crate) fn token(answer: &Answer, remedy: &'static str) -> Result<Grant, StoreError> {
    if answer.status() != 200 {
        return Err(answer.error(StoreErrorKind::Refused, remedy));
    }
    let value = answer.json()?;
    let token = value.pointer("/access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| answer.malformed("there is no `access_token`"))?;
    let seconds = value.pointer("/expires_in").and_then(|seconds| match seconds {
        Value::Number(number) => number.as_u64(),
        // Azure's metadata service writes the number as a text.
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    let seconds = seconds.ok_or_else(|| answer.malformed("there is no `expires_in`"))?;
    Ok(Grant::new(token, Some(Duration::from_secs(seconds)), false))
}

/// Sends a call with the session's token. Where the answer is 401 there is one new login and one more attempt.
///
/// # Errors
/// No login, or no answer.
pub(crate) async fn with_token<F>(
    remote: &Remote,
    session: &Session,
    call: Call,
    login: impl Fn() -> F,
) -> Result<Answer, StoreError>
where
    F: Future<Output = Result<Grant, StoreError>>,
{
    let grant = session.grant(&login).await?;
    let call = call.bearer(&grant.token);
    let answer = remote.send(&call).await?;
    if answer.status() != 401 {
        return Ok(answer);
    }
    session.forget(&grant).await;
    let grant = session.grant(&login).await?;
    remote.send(&call.bearer(&grant.token)).await
}
