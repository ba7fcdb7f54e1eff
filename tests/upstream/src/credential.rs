//! The API key that a request must bring: where it is looked for, and what was found.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use http::request::Parts;

/// Where the key is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// A header of its own.
    Header,
    /// A query parameter.
    Query,
    /// `Authorization: Basic`.
    Basic,
    /// Any of the three; each one present must be right.
    Any,
}

/// The check that each request must pass.
pub(crate) struct KeyCheck {
    /// Where to look.
    pub(crate) variant: Variant,
    /// Name of the header.
    pub(crate) header_name: http::HeaderName,
    /// Name of the query parameter.
    pub(crate) query_name: String,
    /// The user that belongs to the key.
    pub(crate) username: String,
    /// The keys, of which a request brings one: several while they are rotated.
    pub(crate) keys: Vec<String>,
}

/// The credential that a request brought. It is no Debug on purpose.
#[derive(Clone)]
pub(crate) struct Presented {
    /// The key.
    pub(crate) secret: String,
    /// The user that belongs to it.
    pub(crate) username: String,
}

// === impl KeyCheck ===

impl KeyCheck {
    /// The credential of this request, if every one it brings is right and there is at least one.
    pub(crate) fn presented(&self, parts: &Parts) -> Option<Presented> {
        let key = self.keys.iter().find(|key| self.is_presented(key, parts))?;
        Some(Presented { secret: key.clone(), username: self.username.clone() })
    }

    fn is_presented(&self, key: &str, parts: &Parts) -> bool {
        let is_key = |candidate: &[u8]| candidate == key.as_bytes();
        let wants = |variant| self.variant == variant || self.variant == Variant::Any;
        let mut found = Vec::new();
        if wants(Variant::Header) {
            found.extend(parts.headers.get_all(&self.header_name).iter().map(|value| is_key(value.as_bytes())));
        }
        if wants(Variant::Query) {
            let values = parameters(parts.uri.query().unwrap_or_default())
                .filter(|(name, _)| decoded(name, false) == self.query_name.as_bytes());
            found.extend(values.map(|(_, value)| is_key(&decoded(value, false)) || is_key(&decoded(value, true))));
        }
        if wants(Variant::Basic) {
            let values = parts.headers.get_all(http::header::AUTHORIZATION).iter();
            found.extend(values.filter_map(|value| self.basic(key, value.as_bytes())));
        }
        let once_each = self.variant == Variant::Any || found.len() == 1;
        !found.is_empty() && once_each && found.iter().all(|right| *right)
    }

    fn basic(&self, key: &str, value: &[u8]) -> Option<bool> {
        let (scheme, encoded) = value.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let decoded = STANDARD.decode(encoded.trim_ascii()).unwrap_or_default();
        Some(decoded == format!("{}:{key}", self.username).as_bytes())
    }
}

/// Name and value of each query parameter, as they came.
pub(crate) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// A percent-decoded text; wrong escapes stay as they are.
pub(crate) fn decoded(text: &str, plus_is_space: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let escape = (*first == b'%').then(|| tail.split_at_checked(2)).flatten();
        let value = escape.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        match value {
            Some((byte, after)) => {
                out.push(byte);
                rest = after;
            }
            None if *first == b'+' && plus_is_space => out.push(b' '),
            None => out.push(*first),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(variant: Variant, uri: &str, headers: &[(&str, &str)]) -> bool {
        let key_check = KeyCheck {
            variant,
            header_name: http::HeaderName::from_static("x-api-key"),
            query_name: "apiKey".to_owned(),
            username: "svc".to_owned(),
            keys: vec!["the one before".to_owned(), "k+/ 1".to_owned()],
        };
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        key_check.presented(&request.body(()).unwrap().into_parts().0).is_some()
    }

    #[test]
    fn the_key_is_taken_from_the_place_of_the_variant_only() {
        let header: &[(&str, &str)] = &[("x-api-key", "k+/ 1")];
        let basic: &[(&str, &str)] = &[("authorization", "Basic c3ZjOmsrLyAx")];
        let query = "/mcp?a=b&apiKey=k%2B%2f%201";
        let cases = [
            (Variant::Header, "/mcp", header, true),
            (Variant::Header, query, basic, false),
            (Variant::Query, query, &[], true),
            (Variant::Query, "/mcp?apiKey=k%2B/+1", &[], true),
            (Variant::Query, "/mcp?apikey=k%2B%2F%201", &[], false),
            (Variant::Query, "/mcp", header, false),
            (Variant::Basic, "/mcp", basic, true),
            (Variant::Basic, query, header, false),
            (Variant::Any, "/mcp", header, true),
            (Variant::Any, "/mcp", basic, true),
            (Variant::Any, query, header, true),
        ];
        for (variant, uri, headers, expected) in cases {
            assert_eq!(check(variant, uri, headers), expected, "{variant:?} {uri} {headers:?}");
        }
    }

    #[test]
    fn missing_wrong_and_repeated_keys_are_refused() {
        for variant in [Variant::Header, Variant::Query, Variant::Basic, Variant::Any] {
            assert!(!check(variant, "/mcp", &[]));
            assert!(!check(variant, "/mcp?apiKey=x", &[("x-api-key", "x"), ("authorization", "Basic eDp5")]));
        }
        assert!(!check(Variant::Header, "/mcp", &[("x-api-key", "k+/ 1"), ("x-api-key", "k+/ 1")]));
        assert!(!check(Variant::Any, "/mcp?apiKey=wrong", &[("x-api-key", "k+/ 1")]));
        assert!(!check(Variant::Basic, "/mcp", &[("authorization", "Bearer c3ZjOmsrLyAx")]));
    }
}
