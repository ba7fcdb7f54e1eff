//! The part of `envoy.service.auth.v3` that the filter speaks, and Keyward's keys inside it.
//!
//! `envoy-types` does not build for wasm32-wasip1 (it brings tonic's transport), so the messages in use are written here
//! with their field numbers from Envoy's API. `tests/wire.rs` proves them equal on the wire to `envoy-types`, which the
//! server uses. Fields that Keyward does not read are left out; protobuf skips them.

use std::collections::HashMap;

/// The gRPC service that the filter calls.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// The gRPC method that the filter calls.
pub const METHOD: &str = "Check";
/// The version of this contract. The server sends scrub values only to a caller that names it.
pub const CONTRACT_VERSION: &str = "1";

/// Keys of `context_extensions`. Only Envoy's own configuration or the filter can set them, never a client.
pub mod extension {
    /// The contract version; present only when the filter asks. Absent behind Envoy's native `ext_authz`.
    pub const CONTRACT: &str = "keyward.contract";
    /// The name of the server entry in `keyward.yaml` that this route belongs to.
    pub const SERVER: &str = "keyward.server";
    /// The id under which the filter will answer if no decision comes; the server uses it for the decision.
    pub const DECISION_ID: &str = "keyward.decision_id";
    /// The Envoy cluster to which the route sends the request.
    pub const CLUSTER: &str = "keyward.cluster";
    /// The SHA-256 of the client certificate of the connection, in lower-case hex; absent where there is none.
    pub const PEER_CERTIFICATE: &str = "keyward.peer_certificate_sha256";
    /// The first URI name of the client certificate of the connection, for example a SPIFFE id; absent where there is none.
    pub const PEER_URI_SAN: &str = "keyward.peer_uri_san";
}

/// Where clients find the metadata of a protected resource (RFC 9728, 3.1): the path of the resource follows.
pub const RESOURCE_METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// Whether a request target is one for the metadata of a protected resource.
#[must_use]
pub fn is_for_resource_metadata(target: &str) -> bool {
    let rest = target.strip_prefix(RESOURCE_METADATA_PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
}

/// Headers that begin with this are Keyward's own: the filter removes them from every client's request.
pub const INTERNAL_HEADER_PREFIX: &str = "x-keyward-";
/// A header in `OkHttpResponse.headers` that the filter keeps for itself: its `raw_value` is a value to scrub from the
/// response. It is repeated once per value and never forwarded. Sent only to a caller that names the contract version.
pub const SCRUB_HEADER: &str = "x-keyward-scrub";
/// A header in `OkHttpResponse.headers` that the filter keeps for itself: which credentials of known shape it looks for in
/// the answer, as `patterns::Guard::to_text` writes it. A filter that cannot read it denies.
pub const GUARD_HEADER: &str = "x-keyward-guard";

/// A header in `OkHttpResponse.headers` that the filter keeps for itself: its `raw_value` is the whole body that the
/// upstream gets in place of the client's. At most one. Sent only to a caller that names the contract version.
pub const BODY_HEADER: &str = "x-keyward-body";
/// A header in `OkHttpResponse.headers` that the filter keeps for itself: what becomes of the `Mcp-Session-Id` of the answer,
/// as `session::Directive::to_text` writes it. At most one. A filter that cannot read it denies. Sent only to a caller that
/// names the contract version.
pub const SESSION_HEADER: &str = "x-keyward-session";

/// Client headers that never reach an upstream, whatever the policy says: those that identify the client, and those that
/// make some frameworks run another method, path or host than the one that was decided on.
pub const STRIPPED_HEADERS: [&str; 13] = [
    "authorization",
    "proxy-authorization",
    "x-authorization",
    "x-forwarded-authorization",
    "cookie",
    "dpop",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-forwarded-prefix",
    "x-forwarded-host",
];

/// Request headers that would make the answer impossible to scrub, and are removed where it is: a part of a body hides the
/// secret that it cuts through, and so does an encoding of text that is not ASCII with more.
pub const PARTIAL_HEADERS: [&str; 6] = ["range", "if-range", "request-range", "x-ms-range", "a-im", "accept-charset"];

/// `envoy.service.auth.v3.CheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckRequest {
    /// What is to be decided.
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributeContext>,
}

/// `envoy.service.auth.v3.AttributeContext`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttributeContext {
    /// Who connected to Envoy.
    #[prost(message, optional, tag = "1")]
    pub source: Option<Peer>,
    /// The request.
    #[prost(message, optional, tag = "4")]
    pub request: Option<Request>,
    /// Facts from Envoy's configuration and from the filter; see [`extension`].
    #[prost(map = "string, string", tag = "10")]
    pub context_extensions: HashMap<String, String>,
}

/// `AttributeContext.Peer`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Peer {
    /// The peer's address.
    #[prost(message, optional, tag = "1")]
    pub address: Option<Address>,
}

/// `envoy.config.core.v3.Address`, socket addresses only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Address {
    /// The socket address.
    #[prost(message, optional, tag = "1")]
    pub socket_address: Option<SocketAddress>,
}

/// `envoy.config.core.v3.SocketAddress`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SocketAddress {
    /// The IP address.
    #[prost(string, tag = "2")]
    pub address: String,
    /// The port.
    #[prost(uint32, tag = "3")]
    pub port_value: u32,
}

/// `AttributeContext.Request`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// The HTTP request.
    #[prost(message, optional, tag = "2")]
    pub http: Option<HttpRequest>,
}

/// `AttributeContext.HttpRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpRequest {
    /// Envoy's request id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The HTTP method.
    #[prost(string, tag = "2")]
    pub method: String,
    /// Headers by lower-case name, pseudo headers included; values of a repeated header are joined with a comma.
    #[prost(map = "string, string", tag = "3")]
    pub headers: HashMap<String, String>,
    /// The request target: path and query.
    #[prost(string, tag = "4")]
    pub path: String,
    /// The authority.
    #[prost(string, tag = "5")]
    pub host: String,
    /// `http` or `https`.
    #[prost(string, tag = "6")]
    pub scheme: String,
    /// The length of the body in bytes, -1 where unknown.
    #[prost(int64, tag = "9")]
    pub size: i64,
    /// For example `HTTP/2`.
    #[prost(string, tag = "10")]
    pub protocol: String,
    /// The body, byte for byte.
    #[prost(bytes = "vec", tag = "12")]
    pub raw_body: Vec<u8>,
}

/// `envoy.service.auth.v3.CheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CheckResponse {
    /// Code 0 allows; every other code, and an absent status, denies.
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// What to answer, or what to change on the request.
    #[prost(oneof = "HttpResponse", tags = "2, 3")]
    pub http_response: Option<HttpResponse>,
}

/// The `http_response` of a [`CheckResponse`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum HttpResponse {
    /// What the client gets.
    #[prost(message, tag = "2")]
    Denied(DeniedHttpResponse),
    /// What the upstream gets.
    #[prost(message, tag = "3")]
    Ok(OkHttpResponse),
}

/// `google.rpc.Status`, the code only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    /// A gRPC status code.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `envoy.service.auth.v3.DeniedHttpResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeniedHttpResponse {
    /// The HTTP status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Headers of the answer.
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// The body of the answer.
    #[prost(string, tag = "3")]
    pub body: String,
}

/// `envoy.type.v3.HttpStatus`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpStatus {
    /// The status code as a number.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// `envoy.service.auth.v3.OkHttpResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OkHttpResponse {
    /// Headers to set on the upstream request, and values to scrub under [`SCRUB_HEADER`].
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<HeaderValueOption>,
    /// Headers to remove from the upstream request.
    #[prost(string, repeated, tag = "5")]
    pub headers_to_remove: Vec<String>,
    /// Query parameters to set; one that is already there is replaced.
    #[prost(message, repeated, tag = "7")]
    pub query_parameters_to_set: Vec<QueryParameter>,
    /// Query parameters to remove.
    #[prost(string, repeated, tag = "8")]
    pub query_parameters_to_remove: Vec<String>,
}

/// `envoy.config.core.v3.HeaderValueOption`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// `HeaderAppendAction`; Keyward always sends 2, overwrite or add.
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// `envoy.config.core.v3.HeaderValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderValue {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value, where it is text.
    #[prost(string, tag = "2")]
    pub value: String,
    /// The value, where it is bytes. Only one of the two is set.
    #[prost(bytes = "vec", tag = "3")]
    pub raw_value: Vec<u8>,
}

/// `envoy.config.core.v3.QueryParameter`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct QueryParameter {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}
