//! The `database` section: where Keyward keeps what outlives a process, and the keys that seal it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::SecretSource;
use super::check::Checker;
use crate::database::Kind;
use crate::seal::region_of;

/// Where grants, secrets and what replicas share are kept; always sealed.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `sqlite://FILE`, relative to the configuration file, default `sqlite://keyward.db`. For one replica, or for several on
    /// one machine.
    #[serde(default = "default_url")]
    pub url: String,
    /// Instead of `url`: where the address of a PostgreSQL database is, `postgres://user:password@host/name`. For replicas on
    /// several machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub url_secret: Option<SecretSource>,
    /// The keys that wrap the data keys: each 32 bytes in base64 in `env://` or `file://`, for example of
    /// `openssl rand -base64 32`, or a symmetric key of AWS KMS, `aws-kms://ARN`, that is used with the server's own AWS
    /// identity. The first one wraps; those after it open what is not wrapped anew yet, and can be removed after `keyward keys
    /// rotate`.
    #[schemars(length(min = 1, max = 8))]
    pub encryption_keys: Vec<SecretSource>,
    /// The same for what is kept of single tenants, by the name that their tokens say: no key of `encryption_keys` wraps their
    /// data keys any more, and each list has to open all of its tenant's. Default: none has keys of its own.
    #[serde(default)]
    pub tenant_encryption_keys: BTreeMap<String, Vec<SecretSource>>,
    /// The most connections, 1 to 256, default 8.
    #[serde(default = "default_max_connections")]
    #[schemars(range(min = 1, max = 256))]
    pub max_connections: u32,
}

// === impl Database ===

impl Database {
    /// Adds what must not stand here.
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if Kind::of(&self.url) != Some(Kind::Sqlite) {
            // Not shown: it may hold a password.
            let message = "the address is not `sqlite://FILE`";
            checker.add("database.url", message, "name a file; a PostgreSQL address goes to `database.url_secret`");
        }
        if let Some(source) = &self.url_secret {
            checker.own_secret("database.url_secret", source);
        }
        check_keys("database.encryption_keys", &self.encryption_keys, checker);
        for (tenant, sources) in &self.tenant_encryption_keys {
            let key = format!("database.tenant_encryption_keys.{tenant}");
            check_keys(&key, sources, checker);
            if checker.config().tenants.as_ref().is_some_and(|tenants| !tenants.contains_key(tenant)) {
                checker.add(&key, format!("there is no tenant `{tenant}`"), "name an entry of `tenants`");
            }
        }
        checker.range("database.max_connections", self.max_connections, 1..=256);
    }

    /// Makes a relative file relative to the folder of the configuration.
    pub(super) fn resolve_paths(&mut self, base: &std::path::Path) {
        if let Some(file) = self.url.strip_prefix("sqlite://") {
            self.url = format!("sqlite://{}", base.join(file).display());
        }
    }
}

fn check_keys(keys: &str, sources: &[SecretSource], checker: &mut Checker<'_>) {
    checker.not_empty(keys, sources, 8, "nothing is kept unsealed: name where a key is");
    checker.distinct(keys, sources);
    for (index, source) in sources.iter().enumerate() {
        let key = format!("{keys}[{index}]");
        match source.kms_key() {
            None => checker.own_secret(&key, source),
            Some(arn) if region_of(arn).is_none() => {
                let remedy =
                    "write `aws-kms://arn:aws:kms:REGION:ACCOUNT:key/ID`; an alias can come to name another key";
                checker.add(format!("{key}.ref"), "it is no ARN of a key", remedy);
            }
            Some(_) if source.json_key.is_some() || source.trim_newline => {
                checker.add(key, "a key of KMS is nothing to take something out of", "write `ref` alone");
            }
            Some(_) => {}
        }
    }
}

fn default_url() -> String {
    "sqlite://keyward.db".to_owned()
}

fn default_max_connections() -> u32 {
    8
}
