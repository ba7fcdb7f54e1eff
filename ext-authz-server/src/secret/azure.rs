//! Azure Key Vault: `NAME` is the newest version of a secret, `NAME/VERSION` one version.
//!
//! Before the first token is sent, the vault is asked without one: the resource that its challenge names must be the one
//! the token is for, and the vault's own host must belong to it, so that no token goes to a look-alike.

mod challenge;
mod login;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyward_contract::json::Value;

use super::local::Local;
use super::remote::{Answer, Call, Given, Remote, RemoteStore, Session, StoreError, StoreErrorKind, with_token};
use super::{SecretBytes, Secrets};
use crate::config::{AzureStore, Caching};
use crate::outbound::Outbound;

/// The version of the API.
const API_VERSION: &str = "7.4";

/// One vault.
pub(super) struct Azure {
    name: String,
    config: AzureStore,
    remote: Remote,
    local: Local,
    session: Session,
    /// Whether the vault's challenge was as it should be.
    verified: AtomicBool,
}

// === impl Azure ===

impl Azure {
    pub(super) fn new(name: &str, config: &AzureStore, secrets: &Arc<Secrets>, outbound: &Outbound) -> Azure {
        let remote = Remote::new(&config.address, None, outbound);
        let (local, session, verified) = (Local::new(secrets), Session::default(), AtomicBool::new(false));
        Azure { name: name.to_owned(), config: config.clone(), remote, local, session, verified }
    }

    async fn verify(&self) -> Result<(), StoreError> {
        if self.verified.load(Ordering::Acquire) {
            return Ok(());
        }
        let call = Call::get(["secrets"], "ask the vault whose tokens it takes").query("api-version", API_VERSION);
        let answer = self.remote.send(&call).await?;
        let header = answer.header("www-authenticate").filter(|_| answer.status() == 401);
        let header = header.ok_or_else(|| answer.malformed("there is no challenge: this is no Key Vault"))?;
        challenge::check(header, &self.config.resource, self.remote.address()).map_err(|cause| {
            let remedy = "correct `address` and `resource`; no token was sent";
            answer.error_because(StoreErrorKind::Refused, cause, remedy)
        })?;
        self.verified.store(true, Ordering::Release);
        Ok(())
    }

    async fn ask(&self, call: Call) -> Result<Answer, StoreError> {
        self.verify().await?;
        with_token(&self.remote, &self.session, call.query("api-version", API_VERSION), || self.login()).await
    }
}

fn read_reference(rest: &str) -> Result<(&str, Option<&str>), &'static str> {
    let (name, version) = rest.split_once('/').map_or((rest, None), |(name, version)| (name, Some(version)));
    // Placeholders and what fills them in (percent-encoded) may stand in the name.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_{}%~".contains(&byte);
    if name.is_empty() || name.len() > 127 || !name.bytes().all(allowed) {
        return Err("the name of a secret holds letters, digits and `-`");
    }
    let is_version = |version: &str| version.len() == 32 && version.bytes().all(|byte| byte.is_ascii_hexdigit());
    if version.is_none_or(is_version) {
        return Ok((name, version));
    }
    Err("a version is 32 hexadecimal digits")
}

impl RemoteStore for Azure {
    fn name(&self) -> &str {
        &self.name
    }

    fn caching(&self) -> Caching {
        self.config.caching
    }

    fn check_form(&self, rest: &str) -> Result<(), &'static str> {
        read_reference(rest).map(drop)
    }

    /// The identifiers of objects are compared without case (Azure, "keys, secrets and certificates overview").
    fn folds_case(&self) -> bool {
        true
    }

    async fn read(&self, rest: &str) -> Result<Given, StoreError> {
        let setup = |cause: &str| StoreError::new(StoreErrorKind::Setup, &self.name, cause, "correct the reference");
        let (name, version) = read_reference(rest).map_err(setup)?;
        let call = Call::get(["secrets", name].into_iter().chain(version), format!("read secret `{name}`"));
        let answer = self.ask(call).await?;
        match answer.status() {
            200 => {}
            401 => return Err(answer.error(StoreErrorKind::Refused, "check `auth`: its tokens are not accepted")),
            403 => {
                let remedy =
                    "give the identity the role Key Vault Secrets User, and look whether the secret is enabled";
                return Err(answer.error(StoreErrorKind::Refused, remedy));
            }
            404 => return Err(answer.error(StoreErrorKind::Missing, "create it, or correct name and version")),
            _ => return Err(answer.error(StoreErrorKind::Refused, "correct the reference")),
        }
        let value = answer.json()?;
        let secret = value.pointer("/value").and_then(Value::as_str);
        let secret = secret.ok_or_else(|| answer.malformed("there is no `value`"))?;
        Ok((Arc::new(SecretBytes::new(secret.as_bytes().to_vec())), None))
    }

    async fn try_login(&self) -> Result<String, StoreError> {
        self.verify().await?;
        let grant = self.session.grant(|| self.login()).await?;
        let left = grant.remaining().unwrap_or_default().as_secs();
        Ok(format!(
            "{} takes tokens for `{}`; the one at hand is good for {left} s",
            self.remote.address(),
            self.config.resource
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let version = "0123456789abcdef0123456789abcdef";
        assert_eq!(read_reference("jira-key"), Ok(("jira-key", None)));
        assert_eq!(read_reference(&format!("jira/{version}")), Ok(("jira", Some(version))));
        assert!(read_reference("key-{user}").is_ok());
        for bad in ["", "a/b", "a/", "../keys/k", "a?b", "a b", "a.b", &"x".repeat(128), &format!("a/{version}/c")] {
            assert!(read_reference(bad).is_err(), "{bad}");
        }
    }
}
