//! Secrets of a Kubernetes cluster, read through its API with the pod's own service account.
//!
//! `NAMESPACE/NAME/KEY` is one key of a secret; `NAMESPACE/NAME` all its keys that are text, as one JSON object.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_contract::json::{self, Value};
use zeroize::Zeroizing;

use super::local::Local;
use super::remote::{Call, Given, MAX_ANSWER_BYTES, Remote, RemoteStore, StoreError, StoreErrorKind};
use super::{SecretBytes, Secrets};
use crate::config::{Caching, KubernetesStore};
use crate::outbound::Outbound;

const ACCESS_REMEDY: &str = "bind the service account to a Role with the verb `get` on this secret (`resourceNames`)";

/// One cluster's API server.
pub(super) struct Kubernetes {
    name: String,
    config: KubernetesStore,
    remote: Remote,
    local: Local,
}

#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    namespace: &'a str,
    name: &'a str,
    key: Option<&'a str>,
}

// === impl Reference ===

impl<'a> Reference<'a> {
    fn read(rest: &'a str) -> Result<Reference<'a>, &'static str> {
        let parts: Vec<&str> = rest.split('/').collect();
        let (namespace, name, key) = match *parts.as_slice() {
            [namespace, name] => (namespace, name, None),
            [namespace, name, key] => (namespace, name, Some(key)),
            _ => return Err("what follows `://` is `NAMESPACE/NAME` or `NAMESPACE/NAME/KEY`"),
        };
        // Placeholders and what fills them in (percent-encoded) may stand in a name.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._{}%~".contains(&byte);
        let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.len() <= 253 && name.bytes().all(allowed);
        if is_name(namespace) && is_name(name) && key.is_none_or(is_name) {
            return Ok(Reference { namespace, name, key });
        }
        Err("names of Kubernetes hold letters, digits, `-`, `_` and `.`")
    }
}

// === impl Kubernetes ===

impl Kubernetes {
    pub(super) fn new(name: &str, config: &KubernetesStore, secrets: &Arc<Secrets>, outbound: &Outbound) -> Kubernetes {
        let remote = Remote::new(&config.address, Some(&config.ca_file), outbound);
        Kubernetes { name: name.to_owned(), config: config.clone(), remote, local: Local::new(secrets) }
    }

    async fn call<'a>(&self, path: impl IntoIterator<Item = &'a str>, doing: String) -> Result<Call, StoreError> {
        // Read at each use: the kubelet replaces the token long before it ends.
        let token = self.local.text(&self.config.token).await?;
        Ok(Call::get(path, doing).bearer(&token))
    }
}

impl RemoteStore for Kubernetes {
    fn name(&self) -> &str {
        &self.name
    }

    fn caching(&self) -> Caching {
        self.config.caching
    }

    fn check_form(&self, rest: &str) -> Result<(), &'static str> {
        Reference::read(rest).map(drop)
    }

    async fn read(&self, rest: &str) -> Result<Given, StoreError> {
        let setup = |cause: &str| StoreError::new(StoreErrorKind::Setup, &self.name, cause, "correct the reference");
        let Reference { namespace, name, key } = Reference::read(rest).map_err(setup)?;
        let path = ["api", "v1", "namespaces", namespace, "secrets", name];
        let answer = self
            .remote
            .send(&self.call(path, format!("read secret `{name}` of namespace `{namespace}`")).await?)
            .await?;
        match answer.status() {
            200 => {}
            401 => {
                let remedy = "look whether the token's audience is the API server's, and whether its pod still exists";
                return Err(answer.error(StoreErrorKind::Refused, remedy));
            }
            403 => return Err(answer.error(StoreErrorKind::Refused, ACCESS_REMEDY)),
            404 => return Err(answer.error(StoreErrorKind::Missing, "create it, or correct namespace and name")),
            _ => return Err(answer.error(StoreErrorKind::Refused, "correct the reference")),
        }
        let value = answer.json()?;
        let version = value.pointer("/metadata/resourceVersion").and_then(Value::as_str);
        let version = version.ok_or_else(|| answer.malformed("there is no `metadata.resourceVersion`"))?;
        tracing::debug!(store = self.name, namespace, name, version, "read a secret");
        let empty = json::Object::default();
        let data = value.pointer("/data").and_then(Value::as_object).unwrap_or(&empty);
        let decoded = |encoded: &Value<'_>| {
            let bytes = encoded.as_str().and_then(|text| STANDARD.decode(text).ok()).map(Zeroizing::new);
            bytes.ok_or_else(|| answer.malformed("a value of `data` is not base64"))
        };
        let Some(key) = key else {
            let mut object = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
            object.push(b'{');
            for (member, encoded) in data.iter() {
                let bytes = decoded(encoded)?;
                let Ok(text) = std::str::from_utf8(&bytes) else { continue };
                if object.len() > 1 {
                    object.push(b',');
                }
                json::write_string(member, &mut object);
                object.push(b':');
                json::write_string(text, &mut object);
            }
            object.push(b'}');
            return Ok((Arc::new(SecretBytes::new(std::mem::take(&mut *object))), None));
        };
        let found = data.get(key).ok_or_else(|| {
            answer.error_because(
                StoreErrorKind::Missing,
                format!("it has no key `{key}`"),
                "add it, or correct the reference",
            )
        })?;
        Ok((Arc::new(SecretBytes::new(std::mem::take(&mut *decoded(found)?))), None))
    }

    async fn try_login(&self) -> Result<String, StoreError> {
        // Any authenticated subject may ask for the API's versions; who is not is told so by 401.
        let answer = self.remote.send(&self.call(["api"], "ask for the API's versions".to_owned()).await?).await?;
        match answer.status() {
            401 => Err(answer.error(StoreErrorKind::Refused, "check `token`: the API server does not accept it")),
            _ => Ok(format!("{} accepts the service account", self.remote.address())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let read = |rest| Reference::read(rest).ok().map(|found| (found.namespace, found.name, found.key));
        assert_eq!(read("apps/jira/token"), Some(("apps", "jira", Some("token"))));
        assert_eq!(read("apps/jira"), Some(("apps", "jira", None)));
        assert_eq!(read("apps/key-{user}/tls.key"), Some(("apps", "key-{user}", Some("tls.key"))));
        for bad in [
            "",
            "apps",
            "apps/",
            "/jira",
            "apps/jira/",
            "apps/jira/a/b",
            "apps/../kube-system",
            "a/b?c",
            "a/b c",
            "a/./b",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
