//! `type: onepassword`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Caching, Kind};
use crate::config::SecretSource;
use crate::config::check::Checker;

/// A 1Password Connect server: `NAME://vault/item/field` or `NAME://vault/item/section/field`, by name or id.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnePasswordStore {
    /// `https://host:port`; `http` on loopback only.
    pub address: String,
    /// A PEM file with the authorities to trust instead of the system's, relative to the configuration file.
    pub ca_file: Option<PathBuf>,
    /// The access token of the Connect server.
    pub token: SecretSource,
    /// How long values are used.
    #[serde(default)]
    pub caching: Caching,
}

impl Kind for OnePasswordStore {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        vec![("token", &self.token)]
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        super::check_address(key, "address", &self.address, checker);
        self.caching.check(key, checker);
    }

    fn resolve_paths(&mut self, base: &Path) {
        self.ca_file.iter_mut().for_each(|file| *file = base.join(&*file));
    }
}
