//! `type: hmac`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Kind;
use crate::config::SecretSource;
use crate::config::check::{Checker, names};
use crate::credential::template::{Template, Variable};

/// A signature over the request as it leaves Envoy, made with a shared key (RFC 2104).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacCredential {
    /// Where the key is.
    pub secret: SecretSource,
    /// How the key is written, default `raw`: its bytes as they are.
    #[serde(default)]
    pub key_encoding: KeyEncoding,
    /// The digest, default `sha256`.
    #[serde(default)]
    pub algorithm: HmacAlgorithm,
    /// What is signed, for example `"{timestamp}.{body}"`. In braces: `timestamp`, `nonce`, `key_id`, `method`, `scheme`,
    /// `host`, `path`, `query`, `target` (path and query), `body`, `body_sha256_hex`, `body_sha256_base64`, `header:NAME`.
    /// `{{` and `}}` are braces themselves.
    pub message: String,
    /// How `{timestamp}` is written, default `unix`: seconds since 1970.
    #[serde(default)]
    pub timestamp: TimestampFormat,
    /// In which order `{query}` and `{target}` hold the parameters, default `as_is`.
    #[serde(default)]
    pub query_order: QueryOrder,
    /// How `{signature}` is written, default `hex` in lower case.
    #[serde(default)]
    pub encoding: SignatureEncoding,
    /// What `{key_id}` stands for; no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub key_id: Option<String>,
    /// Headers to set, such as `{ name: x-signature, template: "v1={signature}" }`. In braces: what `message` may hold but
    /// for the body, and `signature`.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub headers: Vec<SignedPlace>,
    /// Query parameters to set, in the same way. They are not part of what is signed.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub query: Vec<SignedPlace>,
}

/// A header or a query parameter that a signature fills.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignedPlace {
    /// The name: of a header in lower case, of a parameter not encoded.
    pub name: String,
    /// The value.
    pub template: String,
}

/// How a key is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyEncoding {
    /// As it is.
    #[default]
    Raw,
    /// Hexadecimal digits.
    Hex,
    /// Base64 in either alphabet, with or without padding.
    Base64,
}

/// The digest beneath a signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HmacAlgorithm {
    /// SHA-1, for peers that know no other.
    Sha1,
    /// SHA-256.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SignatureEncoding {
    /// Hexadecimal digits in lower case.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
    /// Base64 in the alphabet of URLs, without padding.
    Base64url,
}

/// How a time is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimestampFormat {
    /// Seconds since 1970.
    #[default]
    Unix,
    /// Milliseconds since 1970.
    UnixMs,
    /// `2026-07-28T12:00:00Z`.
    Rfc3339,
    /// `Tue, 28 Jul 2026 12:00:00 GMT` (RFC 9110, 5.6.7).
    HttpDate,
}

/// In which order query parameters are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryOrder {
    /// As they leave.
    #[default]
    AsIs,
    /// By name, then by value, both as they are encoded.
    Sorted,
}

// === impl HmacCredential ===

impl HmacCredential {
    /// Whether the query is among what is signed.
    pub(crate) fn signs_query(&self) -> bool {
        Template::parse(&self.message)
            .is_ok_and(|message| message.holds(&Variable::Query) || message.holds(&Variable::Target))
    }
}

impl Kind for HmacCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        vec![("secret", &self.secret)]
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        const REMEDY: &str = "write text around `{…}` with the names that docs/signing.md lists";
        match Template::parse(&self.message) {
            Err(error) => checker.add(format!("{key}.message"), error.to_string(), REMEDY),
            Ok(message) if message.holds(&Variable::Signature) => {
                checker.add(format!("{key}.message"), "a signature cannot sign itself", "take `{signature}` out");
            }
            Ok(message) if message.is_constant() => {
                let remedy = "sign what must not be changed, for example `{timestamp}.{body}`";
                checker.add(format!("{key}.message"), "nothing of the request is signed", remedy);
            }
            Ok(_) => {}
        }
        let mut carries = false;
        for (list, places) in [("headers", &self.headers), ("query", &self.query)] {
            for (index, place) in places.iter().enumerate() {
                let key = format!("{key}.{list}[{index}]");
                let name = &place.name;
                if list == "headers"
                    && let Some(problem) = names::header_problem(name)
                {
                    checker.add(format!("{key}.name"), format!("`{name}`: {problem}"), "name an end-to-end header");
                }
                if list == "query" && (name.is_empty() || name.len() > 128 || name.chars().any(char::is_control)) {
                    let message = format!("`{name}` is not the name of a query parameter");
                    checker.add(format!("{key}.name"), message, "write the plain name, not percent-encoded");
                }
                match Template::parse(&place.template) {
                    Err(error) => checker.add(format!("{key}.template"), error.to_string(), REMEDY),
                    Ok(template) if template.holds(&Variable::Body) => {
                        checker.add(format!("{key}.template"), "a body cannot stand here", "take `{body}` out");
                    }
                    Ok(template) => carries |= template.holds(&Variable::Signature),
                }
            }
        }
        if !carries {
            checker.add(key, "the signature goes nowhere", "write `{signature}` into a header or a query parameter");
        }
        if let Some(id) = &self.key_id
            && (id.is_empty() || id.len() > 256 || id.chars().any(char::is_control))
        {
            checker.add(format!("{key}.key_id"), "empty, too long or with control characters", "write the key's id");
        }
    }
}
