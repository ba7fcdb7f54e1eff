//! A CheckRequest as the stages see it: the filter's and stock ext_authz's messages in one typed form.
//!
//! Reading never fails. What is wrong is kept beside the rest, so that the stages deny in their order and every denial
//! has a well-formed answer and a full audit record.

use std::borrow::Cow;

use envoy_types::pb::envoy::config::core::v3::address::Address as PeerAddress;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use keyward_contract::check::{CONTRACT_VERSION, extension};

use crate::perimeter::authority::{Authority, AuthorityError};
use crate::perimeter::path::{self, Target, TargetError};

/// The most headers that are read.
const MAX_HEADERS: usize = 256;
/// Set by stock ext_authz with a body: whether it is a part only. A client's own may stand before it.
const PARTIAL_BODY_HEADER: &str = "x-envoy-auth-partial-body";

/// One request.
#[derive(Debug)]
pub struct Request<'a> {
    /// 32 lower-case hexadecimal digits: the filter's, else fresh.
    pub decision_id: String,
    /// Envoy's request id.
    pub request_id: &'a str,
    /// Whether the caller speaks Keyward's contract and keeps scrub values to itself.
    pub from_filter: bool,
    /// The server entry that Envoy's configuration names.
    pub server: Option<&'a str>,
    /// The cluster that Envoy's configuration names.
    pub cluster: Option<&'a str>,
    /// The address of Envoy's peer.
    pub source: Option<String>,
    /// The client certificate of the connection to Envoy.
    pub peer: Peer<'a>,
    /// The HTTP method.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The authority with the scheme's port.
    pub authority: Result<Authority, AuthorityError>,
    /// The target.
    pub target: Result<Target<'a>, TargetError>,
    /// The target, byte for byte.
    pub raw_target: &'a str,
    /// The authority, byte for byte.
    pub raw_authority: &'a str,
    /// Headers by lower-case name, repeated ones joined with a comma.
    pub headers: Headers<'a>,
    /// The body.
    pub body: &'a [u8],
}

/// The client certificate with which Envoy's peer connected, as Envoy or the filter says; empty without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its SHA-256 in lower-case hex.
    pub certificate_sha256: Option<&'a str>,
    /// Its first URI name.
    pub uri_san: Option<&'a str>,
}

/// Request headers. No `Debug` that shows values.
#[derive(Default)]
pub struct Headers<'a> {
    list: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    too_many: bool,
}

/// Why the body cannot be decided on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Longer than the server entry allows, sent in part only, or under more headers than are read.
    #[error("the body or the number of headers is larger than the limit")]
    TooLarge,
    /// The length that the client announced is another.
    #[error("content-length and body disagree")]
    Length,
}

// === impl Headers ===

impl Headers<'_> {
    /// Whether there were more headers than are read: some are missing here.
    #[must_use]
    pub fn too_many(&self) -> bool {
        self.too_many
    }

    /// Every name and value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.list.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// The value of the header with this lower-case name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_ref())
    }
}

// === impl Request ===

impl Request<'_> {
    /// The access token: what follows the scheme in the `authorization` header.
    #[must_use]
    pub fn access_token(&self) -> Option<&str> {
        let (_, token) = self.headers.find("authorization")?.split_once(' ')?;
        Some(token.trim_start())
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|(name, _)| name)).finish()
    }
}

// === impl Request ===

impl<'a> Request<'a> {
    /// Reads a message. Absent parts read as empty and are denied by the stage that needs them.
    #[must_use]
    pub fn read(message: &'a CheckRequest) -> Request<'a> {
        let attributes = message.attributes.as_ref();
        let fact = |key: &str| {
            let value = attributes.and_then(|attributes| attributes.context_extensions.get(key));
            value.map(String::as_str).filter(|value| !value.is_empty())
        };
        let http = attributes.and_then(|attributes| attributes.request.as_ref()?.http.as_ref());
        let text = |field: fn(&HttpRequest) -> &str| http.map(field).unwrap_or_default();
        let from_filter = fact(extension::CONTRACT) == Some(CONTRACT_VERSION);
        let asked_id = fact(extension::DECISION_ID).filter(|id| from_filter && is_decision_id(id));
        let headers = http.map(Headers::read).unwrap_or_default();
        let scheme = text(|http| &http.scheme);
        let host = text(|http| &http.host);
        Request {
            decision_id: asked_id.map_or_else(mint_decision_id, str::to_owned),
            request_id: text(|http| &http.id),
            from_filter,
            server: fact(extension::SERVER),
            cluster: fact(extension::CLUSTER),
            source: attributes.and_then(|attributes| {
                match attributes.source.as_ref()?.address.as_ref()?.address.as_ref()? {
                    PeerAddress::SocketAddress(socket) => Some(socket.address.clone()),
                    _ => None,
                }
            }),
            peer: Peer {
                certificate_sha256: fact(extension::PEER_CERTIFICATE),
                uri_san: fact(extension::PEER_URI_SAN),
            },
            method: text(|http| &http.method),
            scheme,
            authority: Authority::parse(host).map(|authority| authority.with_default_port(scheme)),
            target: path::read(text(|http| &http.path)),
            raw_target: text(|http| &http.path),
            raw_authority: host,
            headers,
            body: http.map(HttpRequest::body_bytes).unwrap_or_default(),
        }
    }

    /// Checks that the whole body is there and within `max_bytes`.
    ///
    /// # Errors
    /// It is longer, or only a part of it came.
    pub fn check_body(&self, max_bytes: usize) -> Result<(), BodyError> {
        if self.body.len() > max_bytes
            || self.headers.too_many
            || self.headers.find(PARTIAL_BODY_HEADER).is_some_and(|marks| marks.split(',').any(|mark| mark != "false"))
        {
            return Err(BodyError::TooLarge);
        }
        let announced = self.headers.find("content-length");
        if announced.is_some_and(|length| length.parse() != Ok(self.body.len())) {
            return Err(BodyError::Length);
        }
        // Stock ext_authz that is not told to send bodies. The filter waits for the end.
        if !self.from_filter && self.body.is_empty() && self.headers.find("transfer-encoding").is_some() {
            return Err(BodyError::Length);
        }
        Ok(())
    }
}

trait Body {
    fn body_bytes(&self) -> &[u8];
}

impl Body for HttpRequest {
    /// Stock ext_authz sends the body as text or, with `pack_as_bytes`, as bytes.
    fn body_bytes(&self) -> &[u8] {
        if self.raw_body.is_empty() { self.body.as_bytes() } else { &self.raw_body }
    }
}

impl<'a> Headers<'a> {
    fn read(http: &'a HttpRequest) -> Headers<'a> {
        let mut headers: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(http.headers.len());
        let listed = http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
            let value = if header.raw_value.is_empty() {
                Cow::Borrowed(header.value.as_str())
            } else {
                String::from_utf8_lossy(&header.raw_value)
            };
            (header.key.as_str(), value)
        });
        let mapped = http.headers.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str())));
        let mut too_many = false;
        for (name, value) in mapped.chain(listed) {
            let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                Cow::Owned(name.to_ascii_lowercase())
            } else {
                Cow::Borrowed(name)
            };
            let full = headers.len() == MAX_HEADERS;
            match headers.iter_mut().find(|(own, _)| *own == name) {
                Some((_, joined)) => {
                    let joined = joined.to_mut();
                    joined.push(',');
                    joined.push_str(&value);
                }
                None if full => too_many = true,
                None => headers.push((name, value)),
            }
        }
        Headers { list: headers, too_many }
    }
}

/// Whether `text` is 32 lower-case hexadecimal digits.
#[must_use]
pub fn is_decision_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// 128 random bits in lower-case hexadecimal digits.
#[must_use]
pub fn mint_decision_id() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // An id names a decision in the audit trail and is no secret: the clock will do where there is no randomness.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = now.as_nanos().to_be_bytes();
    }
    format!("{:032x}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
    use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, attribute_context};

    use super::*;

    fn message(http: HttpRequest, extensions: &[(&str, &str)]) -> CheckRequest {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        CheckRequest {
            attributes: Some(AttributeContext {
                request: Some(attribute_context::Request { http: Some(http), ..Default::default() }),
                context_extensions: extensions.iter().map(own).collect(),
                ..Default::default()
            }),
        }
    }

    fn raw(name: &str, value: &[u8]) -> HeaderValue {
        HeaderValue { key: name.into(), value: String::new(), raw_value: value.to_vec() }
    }

    #[test]
    fn headers_of_both_forms_read_alike() {
        let mapped = HashMap::from([("X-One".to_owned(), "a,b".to_owned())]);
        let listed = HeaderMap { headers: vec![raw("x-one", b"a"), raw("X-ONE", b"b"), raw("x-two", b"\xff")] };
        let one = message(HttpRequest { headers: mapped, ..Default::default() }, &[]);
        let two = message(HttpRequest { header_map: Some(listed), ..Default::default() }, &[]);
        assert_eq!(Request::read(&one).headers.find("x-one"), Some("a,b"));
        assert_eq!(Request::read(&two).headers.find("x-one"), Some("a,b"));
        assert_eq!(Request::read(&two).headers.find("x-two"), Some("\u{fffd}"));
    }

    #[test]
    fn more_headers_than_are_read_are_noticed() {
        let headers = (0..=MAX_HEADERS).map(|n| (format!("x-{n}"), String::new())).collect();
        let message = message(HttpRequest { headers, ..Default::default() }, &[]);
        let request = Request::read(&message);
        assert!(request.headers.too_many());
        assert_eq!(request.check_body(10), Err(BodyError::TooLarge));
    }

    #[test]
    fn a_part_of_a_body_is_no_body() {
        let cases = [
            (vec![], Ok(())),
            (vec![("content-length", "4")], Ok(())),
            (vec![("content-length", "5")], Err(BodyError::Length)),
            (vec![("content-length", "4,4")], Err(BodyError::Length)),
            (vec![("x-envoy-auth-partial-body", "true")], Err(BodyError::TooLarge)),
            (vec![("x-envoy-auth-partial-body", "false")], Ok(())),
            (vec![("x-envoy-auth-partial-body", "false,true")], Err(BodyError::TooLarge)),
        ];
        for (headers, expected) in cases {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let http =
                HttpRequest { headers: headers.iter().map(own).collect(), body: "null".into(), ..Default::default() };
            assert_eq!(Request::read(&message(http, &[])).check_body(4), expected, "{headers:?}");
        }
        let headers = HashMap::from([("transfer-encoding".to_owned(), "chunked".to_owned())]);
        let chunked = HttpRequest { headers, ..Default::default() };
        assert_eq!(Request::read(&message(chunked.clone(), &[])).check_body(4), Err(BodyError::Length));
        assert_eq!(Request::read(&message(chunked, &[("keyward.contract", "1")])).check_body(4), Ok(()));
    }

    #[test]
    fn only_the_filter_chooses_the_decision_id() {
        let id = "0123456789abcdef0123456789abcdef";
        let cases = [
            (vec![("keyward.contract", "1"), ("keyward.decision_id", id)], true),
            (vec![("keyward.decision_id", id)], false),
            (vec![("keyward.contract", "2"), ("keyward.decision_id", id)], false),
            (vec![("keyward.contract", "1"), ("keyward.decision_id", "0123456789ABCDEF0123456789ABCDEF")], false),
            (vec![("keyward.contract", "1"), ("keyward.decision_id", "../../etc/passwd")], false),
        ];
        for (extensions, kept) in cases {
            let message = message(HttpRequest::default(), &extensions);
            let request = Request::read(&message);
            assert_eq!(request.decision_id == id, kept, "{extensions:?}");
            assert!(is_decision_id(&request.decision_id));
        }
    }

    #[test]
    fn an_empty_message_reads_as_nothing() {
        let message = CheckRequest::default();
        let request = Request::read(&message);
        assert!(request.authority.is_err() && request.target.is_err() && request.server.is_none());
    }

    #[test]
    fn debug_shows_no_header_value() {
        let headers = HashMap::from([("authorization".to_owned(), "Bearer canary".to_owned())]);
        let message = message(HttpRequest { headers, ..Default::default() }, &[]);
        let text = format!("{:?}", Request::read(&message).headers);
        assert!(text.contains("authorization") && !text.contains("canary"), "{text}");
    }
}
