//! `type: kubernetes`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Caching, Kind, service_account_token};
use crate::config::SecretSource;
use crate::config::check::Checker;

/// Secrets of a Kubernetes cluster: `NAME://namespace/name/key` is one key, `NAME://namespace/name` all of them as JSON.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesStore {
    /// The API server, default `https://kubernetes.default.svc`.
    #[serde(default = "address")]
    pub address: String,
    /// A PEM file with the cluster's authority, relative to the configuration file. Default: the pod's own.
    #[serde(default = "ca_file")]
    pub ca_file: PathBuf,
    /// The service account's token, default the pod's own.
    #[serde(default = "service_account_token")]
    pub token: SecretSource,
    /// How long values are used.
    #[serde(default)]
    pub caching: Caching,
}

impl Kind for KubernetesStore {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        vec![("token", &self.token)]
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        super::check_address(key, "address", &self.address, checker);
        self.caching.check(key, checker);
    }

    fn resolve_paths(&mut self, base: &Path) {
        self.ca_file = base.join(&self.ca_file);
    }
}

fn address() -> String {
    "https://kubernetes.default.svc".to_owned()
}

fn ca_file() -> PathBuf {
    PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
}
