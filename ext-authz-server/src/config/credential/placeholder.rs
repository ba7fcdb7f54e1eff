//! `type: placeholder`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Kind;
use crate::config::SecretSource;
use crate::config::check::Checker;

/// The shortest placeholder, in bytes.
pub(crate) const MIN_PLACEHOLDER_BYTES: usize = 4;
/// The longest one.
pub(crate) const MAX_PLACEHOLDER_BYTES: usize = 128;

/// A secret that takes the place of a text which the client writes, where the upstream wants it neither in a header nor in a
/// parameter of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceholderCredential {
    /// What the client writes, for example `__STOCKS_KEY__`: 4 to 128 letters, digits, `-`, `.`, `_` and `~`. No placeholder
    /// is a part of another one. A request that holds it where this credential does not serve is refused.
    pub placeholder: String,
    /// Where it is replaced. Anywhere else it is refused.
    #[serde(rename = "in")]
    #[schemars(length(min = 1, max = 4))]
    pub surfaces: Vec<Surface>,
    /// Where the secret is.
    pub secret: SecretSource,
}

/// A part of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// The path.
    Path,
    /// Values of query parameters.
    Query,
    /// String values of a JSON body that is no JSON-RPC message, and values of a form.
    Body,
    /// String values among the arguments of MCP tool calls.
    Arguments,
}

impl Kind for PlaceholderCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        vec![("secret", &self.secret)]
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let length = MIN_PLACEHOLDER_BYTES..=MAX_PLACEHOLDER_BYTES;
        if !length.contains(&self.placeholder.len()) || !self.placeholder.bytes().all(allowed) {
            let message =
                format!("not {} to {} characters that stand for themselves everywhere", length.start(), length.end());
            checker.add(format!("{key}.placeholder"), message, "write letters, digits, `-`, `.`, `_` and `~`");
        }
        let surfaces = format!("{key}.in");
        checker.not_empty(&surfaces, &self.surfaces, 4, "name `path`, `query`, `body` or `arguments`");
        checker.distinct(&surfaces, &self.surfaces);
    }
}
