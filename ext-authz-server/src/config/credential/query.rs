//! `type: query`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Kind, default_template};
use crate::config::SecretSource;
use crate::config::check::Checker;

/// A static credential in a query parameter.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryCredential {
    /// The parameter's name.
    pub name: String,
    /// The value, with exactly one `{secret}`. Default `{secret}`.
    #[serde(default = "default_template")]
    pub template: String,
    /// Where the secret is.
    pub secret: SecretSource,
}

impl Kind for QueryCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        vec![("secret", &self.secret)]
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        let name = &self.name;
        if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
            let message = format!("`{name}` is not the name of a query parameter");
            checker.add(format!("{key}.name"), message, "write the plain name, not percent-encoded");
        }
        checker.template(key, &self.template);
    }
}
