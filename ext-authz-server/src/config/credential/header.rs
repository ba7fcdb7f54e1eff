//! `type: header`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Kind, default_template};
use crate::config::SecretSource;
use crate::config::check::{Checker, names};

/// A static credential in a header.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderCredential {
    /// The header's name, lower case.
    pub name: String,
    /// The value, with exactly one `{secret}`. Default `{secret}`.
    #[serde(default = "default_template")]
    pub template: String,
    /// Where the secret is.
    pub secret: SecretSource,
}

impl Kind for HeaderCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        vec![("secret", &self.secret)]
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        if let Some(problem) = names::header_problem(&self.name) {
            checker.add(format!("{key}.name"), format!("`{}`: {problem}", self.name), "name an end-to-end header");
        }
        checker.template(key, &self.template);
    }
}
