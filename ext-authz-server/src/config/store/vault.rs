//! `type: vault`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Caching, Kind, service_account_token};
use crate::config::SecretSource;
use crate::config::check::Checker;

/// HashiCorp Vault or OpenBao. `NAME://kv/team/app` is a secret of the KV version 2 engine at `kv` (`?version=3` one version,
/// `?mount=team/kv` a longer mount), `NAME://database/creds/app?dynamic` a credential that an engine makes, with a lease.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultStore {
    /// `https://host:port`; `http` on loopback only.
    pub address: String,
    /// The namespace, for example `team-a`. Default: the root.
    pub namespace: Option<String>,
    /// A PEM file with the authorities to trust instead of the system's, relative to the configuration file.
    pub ca_file: Option<PathBuf>,
    /// How to log in.
    pub auth: VaultAuth,
    /// How long values are used. What has a lease is used no longer than its lease.
    #[serde(default)]
    pub caching: Caching,
}

/// How to log in at Vault.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum VaultAuth {
    /// A token that is there already. It is renewed, but nothing replaces it once it ends.
    Token {
        /// The token.
        token: SecretSource,
    },
    /// AppRole.
    Approle {
        /// The mount of the method, default `approle`.
        #[serde(default = "approle")]
        mount: String,
        /// The role's id, which is no secret.
        role_id: String,
        /// The secret id.
        secret_id: SecretSource,
    },
    /// The pod's own service account.
    Kubernetes {
        /// The mount of the method, default `kubernetes`.
        #[serde(default = "kubernetes")]
        mount: String,
        /// The role.
        role: String,
        /// The service account's token, default the pod's own.
        #[serde(default = "service_account_token")]
        jwt: SecretSource,
    },
    /// A signed token of another issuer.
    Jwt {
        /// The mount of the method, default `jwt`.
        #[serde(default = "jwt")]
        mount: String,
        /// The role.
        role: String,
        /// The token.
        jwt: SecretSource,
    },
}

impl Kind for VaultStore {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match &self.auth {
            VaultAuth::Token { token } => vec![("auth.token", token)],
            VaultAuth::Approle { secret_id, .. } => vec![("auth.secret_id", secret_id)],
            VaultAuth::Kubernetes { jwt, .. } | VaultAuth::Jwt { jwt, .. } => vec![("auth.jwt", jwt)],
        }
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        super::check_address(key, "address", &self.address, checker);
        if let Some(namespace) = &self.namespace {
            checker.text(format!("{key}.namespace"), namespace);
        }
        let names = match &self.auth {
            VaultAuth::Token { .. } => Vec::new(),
            VaultAuth::Approle { mount, role_id, .. } => vec![("mount", mount), ("role_id", role_id)],
            VaultAuth::Kubernetes { mount, role, .. } | VaultAuth::Jwt { mount, role, .. } => {
                vec![("mount", mount), ("role", role)]
            }
        };
        for (name, text) in names {
            checker.text(format!("{key}.auth.{name}"), text);
        }
        self.caching.check(key, checker);
    }

    fn resolve_paths(&mut self, base: &Path) {
        self.ca_file.iter_mut().for_each(|file| *file = base.join(&*file));
    }
}

fn approle() -> String {
    "approle".to_owned()
}

fn kubernetes() -> String {
    "kubernetes".to_owned()
}

fn jwt() -> String {
    "jwt".to_owned()
}
