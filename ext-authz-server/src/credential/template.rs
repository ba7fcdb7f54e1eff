//! Text with parts of the outgoing request in braces: what a signature covers, and where it goes.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_contract::check::{INTERNAL_HEADER_PREFIX, PARTIAL_HEADERS};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{CredentialError, Outgoing};
use crate::audit::record::rfc3339;
use crate::config::{QueryOrder, TimestampFormat};
use crate::hex::hex;

/// The longest template, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 4096;

/// A template, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

/// What may stand in braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// When it was signed.
    Timestamp,
    /// 128 random bits in hexadecimal digits, other ones for each request.
    Nonce,
    /// The configured id of the key.
    KeyId,
    /// The HTTP method.
    Method,
    /// `http` or `https`.
    Scheme,
    /// The host that the upstream reads.
    Host,
    /// The path as it leaves.
    Path,
    /// The query as it leaves; empty without one.
    Query,
    /// Path, question mark and query.
    Target,
    /// The body.
    Body,
    /// Its SHA-256 in hexadecimal digits.
    BodySha256Hex,
    /// Its SHA-256 in base64.
    BodySha256Base64,
    /// A header as it leaves.
    Header(String),
    /// The signature.
    Signature,
}

/// What the request does not hold itself.
pub struct Stamp {
    /// The time, as it is written.
    pub timestamp: String,
    /// The nonce.
    pub nonce: String,
    /// The id of the key.
    pub key_id: String,
    /// The order of the query's parameters.
    pub query_order: QueryOrder,
}

/// A template that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no such variable.
    #[error("`{{{0}}}` is no variable")]
    Unknown(String),
    /// What would be signed is not what leaves.
    #[error("the header `{0}` does not leave as the client sent it, so no signature can cover it")]
    Changed(String),
    /// A brace without its partner.
    #[error("a brace has no partner; a brace itself is written twice")]
    Unbalanced,
    /// Empty or too long.
    #[error("empty, or longer than {MAX_TEMPLATE_BYTES} bytes")]
    Length,
}

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// Unknown variables and unbalanced braces.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.is_empty() || text.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::Length);
        }
        let (mut pieces, mut literal) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            rest = if let Some(after) = brace.strip_prefix("{{") {
                literal.push('{');
                after
            } else if let Some(after) = brace.strip_prefix("}}") {
                literal.push('}');
                after
            } else {
                let (name, after) =
                    brace.strip_prefix('{').and_then(|inner| inner.split_once('}')).ok_or(TemplateError::Unbalanced)?;
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal)));
                }
                pieces.push(Piece::Variable(Variable::parse(name)?));
                after
            };
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Template(pieces))
    }

    /// Whether this variable stands in it.
    #[must_use]
    pub fn holds(&self, variable: &Variable) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Variable(own) if own == variable))
    }

    /// Whether it is the same for every request.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_) | Piece::Variable(Variable::KeyId)))
    }

    /// The template filled in for this request.
    ///
    /// # Errors
    /// A header that the request lacks, or a signature where there is none yet.
    pub fn fill(
        &self,
        outgoing: &Outgoing<'_>,
        stamp: &Stamp,
        signature: Option<&str>,
    ) -> Result<Zeroizing<Vec<u8>>, CredentialError> {
        let mut filled = Zeroizing::new(Vec::with_capacity(256 + outgoing.body().len()));
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.extend_from_slice(text.as_bytes()),
                Piece::Variable(variable) => variable.write(outgoing, stamp, signature, &mut filled)?,
            }
        }
        Ok(filled)
    }
}

// === impl Variable ===

impl Variable {
    fn parse(name: &str) -> Result<Variable, TemplateError> {
        Ok(match name {
            "timestamp" => Variable::Timestamp,
            "nonce" => Variable::Nonce,
            "key_id" => Variable::KeyId,
            "method" => Variable::Method,
            "scheme" => Variable::Scheme,
            "host" => Variable::Host,
            "path" => Variable::Path,
            "query" => Variable::Query,
            "target" => Variable::Target,
            "body" => Variable::Body,
            "body_sha256_hex" => Variable::BodySha256Hex,
            "body_sha256_base64" => Variable::BodySha256Base64,
            "signature" => Variable::Signature,
            other => match other.strip_prefix("header:") {
                Some(name) if leaves_otherwise(&name.to_ascii_lowercase()) => {
                    return Err(TemplateError::Changed(name.to_owned()));
                }
                Some(name) if !name.is_empty() => Variable::Header(name.to_ascii_lowercase()),
                _ => return Err(TemplateError::Unknown(other.to_owned())),
            },
        })
    }

    fn write(
        &self,
        outgoing: &Outgoing<'_>,
        stamp: &Stamp,
        signature: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), CredentialError> {
        let query = || match stamp.query_order {
            QueryOrder::AsIs => outgoing.query().unwrap_or_default().to_owned(),
            QueryOrder::Sorted => sorted(outgoing.query().unwrap_or_default()),
        };
        match self {
            Variable::Timestamp => out.extend_from_slice(stamp.timestamp.as_bytes()),
            Variable::Nonce => out.extend_from_slice(stamp.nonce.as_bytes()),
            Variable::KeyId => out.extend_from_slice(stamp.key_id.as_bytes()),
            Variable::Method => out.extend_from_slice(outgoing.method().as_bytes()),
            Variable::Scheme => out.extend_from_slice(outgoing.scheme().as_bytes()),
            Variable::Host => out.extend_from_slice(outgoing.authority().as_bytes()),
            Variable::Path => out.extend_from_slice(outgoing.path().as_bytes()),
            Variable::Query => out.extend_from_slice(query().as_bytes()),
            Variable::Target => {
                out.extend_from_slice(outgoing.path().as_bytes());
                if outgoing.query().is_some() {
                    out.push(b'?');
                    out.extend_from_slice(query().as_bytes());
                }
            }
            Variable::Body => out.extend_from_slice(outgoing.body()),
            Variable::BodySha256Hex => out.extend_from_slice(hex(&Sha256::digest(outgoing.body())).as_bytes()),
            Variable::BodySha256Base64 => {
                out.extend_from_slice(STANDARD.encode(Sha256::digest(outgoing.body())).as_bytes());
            }
            Variable::Header(name) => {
                let value = outgoing.header(name);
                let value =
                    value.ok_or_else(|| CredentialError::Request(format!("the request has no header `{name}`")))?;
                out.extend_from_slice(value.as_bytes());
            }
            Variable::Signature => {
                out.extend_from_slice(signature.ok_or(CredentialError::Missing("signature"))?.as_bytes());
            }
        }
        Ok(())
    }
}

/// Whether a header does not leave as it is here: the filter or Envoy sets or removes it behind the decision.
fn leaves_otherwise(name: &str) -> bool {
    const SET_BEHIND: [&str; 11] = [
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    name.starts_with(':')
        || name.starts_with("x-envoy-")
        || name.starts_with(INTERNAL_HEADER_PREFIX)
        || SET_BEHIND.contains(&name)
        || PARTIAL_HEADERS.contains(&name)
}

/// A time in one of the formats.
#[must_use]
pub fn written(time: SystemTime, format: TimestampFormat) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    match format {
        TimestampFormat::Unix => since.as_secs().to_string(),
        TimestampFormat::UnixMs => since.as_millis().to_string(),
        TimestampFormat::Rfc3339 => {
            let text = rfc3339(time);
            text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
        }
        TimestampFormat::HttpDate => http_date(&rfc3339(time), since.as_secs()),
    }
}

/// RFC 9110, 5.6.7, from the date and time that `rfc3339` wrote.
fn http_date(rfc3339: &str, unix_secs: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let weekday = DAYS.get((unix_secs / 86_400 % 7) as usize).copied().unwrap_or_default();
    let part = |range: std::ops::Range<usize>| rfc3339.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?).copied());
    format!("{weekday}, {} {} {} {} GMT", part(8..10), month.unwrap_or_default(), part(0..4), part(11..19))
}

/// The parameters by name, then by value, as they are encoded.
fn sorted(query: &str) -> String {
    let mut pairs: Vec<(&str, Option<&str>)> = query
        .split('&')
        .map(|pair| pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value))))
        .collect();
    pairs.sort_unstable();
    let written: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| value.map_or(name.to_owned(), |value| format!("{name}={value}")))
        .collect();
    written.join("&")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stamp(query_order: QueryOrder) -> Stamp {
        Stamp { timestamp: "1700000000".into(), nonce: "abcd".into(), key_id: "id-1".into(), query_order }
    }

    fn filled(template: &str, order: QueryOrder) -> String {
        let mut outgoing =
            Outgoing::plain("POST", "https", "api.example:443", "/a/b%20c?z=1&a=2&a=1&flag", b"{\"n\":1}");
        outgoing.set_header("X-Custom", "value").unwrap();
        let filled = Template::parse(template).unwrap().fill(&outgoing, &stamp(order), Some("5161")).unwrap();
        String::from_utf8(filled.to_vec()).unwrap()
    }

    #[test]
    fn every_variable_is_the_request_as_it_leaves() {
        let cases = [
            ("v0:{timestamp}:{body}", "v0:1700000000:{\"n\":1}"),
            ("{method}\n{path}\n{query}", "POST\n/a/b%20c\nz=1&a=2&a=1&flag"),
            ("{scheme}://{host}{target}", "https://api.example:443/a/b%20c?z=1&a=2&a=1&flag"),
            ("{key_id} {nonce} {header:x-custom}", "id-1 abcd value"),
            ("v1={signature}", "v1=5161"),
            ("{{{method}}}", "{POST}"),
        ];
        for (template, expected) in cases {
            assert_eq!(filled(template, QueryOrder::AsIs), expected);
        }
        assert_eq!(filled("{body_sha256_hex}", QueryOrder::AsIs), hex(&Sha256::digest(b"{\"n\":1}")));
        assert_eq!(filled("{query}", QueryOrder::Sorted), "a=1&a=2&flag&z=1");
        assert_eq!(filled("{target}", QueryOrder::Sorted), "/a/b%20c?a=1&a=2&flag&z=1");
    }

    #[test]
    fn a_template_that_could_not_be_filled_is_refused() {
        for bad in ["", "{", "}", "{who}", "{header:}", "{timestamp", "a}b", &"x".repeat(5000)] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        // What would be signed is not what leaves.
        for name in ["Range", "accept-encoding", "Content-Length", "host", "x-envoy-attempt-count", ":path", "te"] {
            let parsed = Template::parse(&format!("{{header:{name}}}"));
            assert_eq!(parsed.err(), Some(TemplateError::Changed(name.to_owned())));
        }
        let outgoing = Outgoing::plain("GET", "https", "a", "/", b"");
        let missing = Template::parse("{header:x-absent}").unwrap().fill(&outgoing, &stamp(QueryOrder::AsIs), None);
        assert!(matches!(missing, Err(CredentialError::Request(_))));
        assert!(Template::parse("v1 {key_id}").unwrap().is_constant());
    }

    #[test]
    fn times_are_written_as_peers_expect() {
        let time = UNIX_EPOCH + Duration::from_millis(784_111_777_250);
        let cases = [
            (TimestampFormat::Unix, "784111777"),
            (TimestampFormat::UnixMs, "784111777250"),
            (TimestampFormat::Rfc3339, "1994-11-06T08:49:37Z"),
            // The example of RFC 9110.
            (TimestampFormat::HttpDate, "Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        for (format, expected) in cases {
            assert_eq!(written(time, format), expected);
        }
    }
}
