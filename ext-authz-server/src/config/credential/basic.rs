//! `type: basic`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Kind;
use crate::config::SecretSource;
use crate::config::check::Checker;

/// HTTP Basic authentication (RFC 7617).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicCredential {
    /// The user name, without a colon. Exactly one of `username` and `username_secret` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub username: Option<String>,
    /// Where the user name is, for stores that make both; had in one step with the password where both are in one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretSource")]
    pub username_secret: Option<SecretSource>,
    /// Where the password is.
    pub secret: SecretSource,
}

impl Kind for BasicCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        let names = self.username_secret.iter().map(|source| ("username_secret", source));
        std::iter::once(("secret", &self.secret)).chain(names).collect()
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        match (&self.username, &self.username_secret) {
            (Some(name), None) => {
                if name.contains(':') || name.len() > 256 || name.chars().any(char::is_control) {
                    let message = "a user name holds no colon and no control character (RFC 7617, 2)";
                    checker.add(format!("{key}.username"), message, "write the plain user name");
                }
            }
            (None, Some(_)) => {}
            (None, None) => checker.add(key, "`username` is missing", "add it, or `username_secret`"),
            (Some(_), Some(_)) => {
                let message = "the user name is given twice";
                checker.add(format!("{key}.username_secret"), message, "keep `username` or `username_secret`");
            }
        }
    }
}
