//! Which names may stand where.

/// Headers that a credential or a passthrough must not touch: they frame the message (RFC 9110, 7.6.1), belong to a proxy
/// or to MCP, or carry who is asking.
const RESERVED_HEADERS: [&str; 30] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "accept",
    "accept-encoding",
    "expect",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-client-cert",
    "x-real-ip",
    "x-request-id",
    "traceparent",
    "tracestate",
    "mcp-protocol-version",
    "mcp-session-id",
    "mcp-method",
    "mcp-name",
    "last-event-id",
    "origin",
];

/// Whether this can name a server, a binding, an issuer or an environment.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

/// What is wrong with a header name in configuration, if anything.
pub(crate) fn header_problem(name: &str) -> Option<&'static str> {
    if name.starts_with(':') {
        return Some("a pseudo header cannot be set");
    }
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        return Some("not a header name (RFC 9110, 5.6.2)");
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some("header names are written in lower case here");
    }
    if name.starts_with(keyward_contract::check::INTERNAL_HEADER_PREFIX) || name.starts_with("x-envoy-") {
        return Some("the header is internal to Keyward or Envoy");
    }
    RESERVED_HEADERS.contains(&name).then_some("the header frames or routes the message")
}
