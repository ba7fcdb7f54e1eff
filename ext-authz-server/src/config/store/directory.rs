//! `type: directory`.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::Kind;
use crate::config::check::Checker;

/// A folder of secret files; no reference leads out of it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DirectoryStore {
    /// The folder, relative to the configuration file. `NAME://a/b` is the file `a/b` in it.
    pub path: PathBuf,
}

impl Kind for DirectoryStore {
    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        if self.path.as_os_str().is_empty() {
            checker.add(format!("{key}.path"), "the path is empty", "name a folder");
        }
    }

    fn resolve_paths(&mut self, base: &Path) {
        self.path = base.join(&self.path);
    }
}
