//! Logging in at Vault, and keeping the token alive.

use std::time::Duration;

use keyward_contract::json::Value;
use zeroize::Zeroizing;

use super::Vault;
use crate::config::VaultAuth;
use crate::secret::remote::{Answer, Call, Grant, StoreError, StoreErrorKind};

const LOGIN_REMEDY: &str = "compare `auth` with the role at the store, and renew what it logs in with";

impl Vault {
    /// A token by the configured method.
    ///
    /// # Errors
    /// What the method needs cannot be had, or the store does not accept it.
    pub(super) async fn login(&self) -> Result<Grant, StoreError> {
        let (mount, fields) = match &self.config.auth {
            VaultAuth::Token { token } => return self.look_up(&self.local.text(token).await?).await,
            VaultAuth::Approle { mount, role_id, secret_id } => {
                let secret_id = self.local.text(secret_id).await?;
                (mount, vec![("role_id", Zeroizing::new(role_id.clone())), ("secret_id", secret_id)])
            }
            VaultAuth::Kubernetes { mount, role, jwt } | VaultAuth::Jwt { mount, role, jwt } => {
                (mount, vec![("role", Zeroizing::new(role.clone())), ("jwt", self.local.text(jwt).await?)])
            }
        };
        let segments = ["v1", "auth"].into_iter().chain(mount.split('/')).chain(["login"]);
        let body: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let call = self.call(Call::post(segments, format!("log in with `{mount}`")).json(&body)).once();
        let answer = self.remote.send(&call).await?;
        if answer.status() != 200 {
            return Err(answer.error(StoreErrorKind::Refused, LOGIN_REMEDY));
        }
        tracing::debug!(store = self.name, mount, "logged in");
        grant(&answer, "/auth/client_token", "/auth/lease_duration", "/auth/renewable", None)
    }

    /// A token that is there already, with what the store knows about it.
    async fn look_up(&self, token: &str) -> Result<Grant, StoreError> {
        let call = Call::get(["v1", "auth", "token", "lookup-self"], "look up the token");
        let answer = self.remote.send(&self.call(call).header("x-vault-token", token)).await?;
        match answer.status() {
            200 => grant(&answer, "/data/id", "/data/ttl", "/data/renewable", Some(token)),
            403 => Err(answer.error(StoreErrorKind::Refused, "make a new token and put it where `auth.token` points")),
            _ => Err(answer.error(StoreErrorKind::Refused, LOGIN_REMEDY)),
        }
    }

    /// Asks the store to extend a login of which two thirds have passed. Failing is no error: there is a new login in time.
    pub(super) async fn keep_alive(&self, grant: &Grant) {
        let Ok(_renewing) = self.renewing.try_lock() else { return };
        let call = Call::post(["v1", "auth", "token", "renew-self"], "renew the login").json(&[]);
        let renewed = match self.remote.send(&self.call(call).header("x-vault-token", &grant.token)).await {
            Ok(answer) if answer.status() == 200 => self::grant(
                &answer,
                "/auth/client_token",
                "/auth/lease_duration",
                "/auth/renewable",
                Some(&grant.token),
            ),
            Ok(answer) => Err(answer.error(StoreErrorKind::Refused, LOGIN_REMEDY)),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(renewed) => {
                // Near the most that the role allows, the store extends by ever less: it is left to end.
                let worth_it = renewed.lifetime >= grant.lifetime.map(|lifetime| lifetime / 2);
                let lifetime = if worth_it { renewed.lifetime } else { grant.remaining() };
                tracing::debug!(store = self.name, ?lifetime, worth_it, "renewed the login");
                self.session.extend(grant, lifetime, worth_it && renewed.renewable).await;
            }
            Err(error) => {
                tracing::warn!(store = self.name, %error, "the login could not be renewed");
                if error.kind() != StoreErrorKind::Outage {
                    self.session.extend(grant, grant.remaining(), false).await;
                }
            }
        }
    }
}

/// The token of an answer. `token`: what it was asked for with, which the answer need not repeat.
fn grant(
    answer: &Answer,
    token_at: &str,
    lifetime_at: &str,
    renewable_at: &str,
    token: Option<&str>,
) -> Result<Grant, StoreError> {
    let value = answer.json()?;
    let found = value.pointer(token_at).and_then(Value::as_str);
    let token = token.or(found).filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| answer.malformed(format!("there is no token at `{token_at}`")))?;
    let seconds = value.pointer(lifetime_at).and_then(Value::as_number).and_then(|number| number.as_u64());
    let seconds = seconds.ok_or_else(|| answer.malformed(format!("there is no number at `{lifetime_at}`")))?;
    let renewable = value.pointer(renewable_at).and_then(Value::as_bool).unwrap_or(false);
    // Zero means a token without an end, as a root token is.
    Ok(Grant::new(token, (seconds > 0).then(|| Duration::from_secs(seconds)), renewable))
}
