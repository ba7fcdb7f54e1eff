//! Protected-resource metadata (RFC 9728 section 3): a public document, answered in place of the upstream and without a token.

use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse};
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::rpc::Status;
use keyward_contract::check::is_for_resource_metadata;
use serde_json::json;

use super::algorithms;
use crate::config;
use crate::identity::jwks::check_url;
use crate::plan::Plan;
use crate::request::Request;

/// gRPC `PERMISSION_DENIED`: whatever is answered here, the request does not go on.
const PERMISSION_DENIED: i32 = 7;
/// How long a client may keep the document, in seconds.
const MAX_AGE: &str = "public, max-age=300";

/// How a request for metadata was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// With the document.
    Found,
    /// There is no such resource.
    Unknown,
    /// The method is not one for reading.
    Method,
}

/// The document of one resource.
pub(super) fn document(config: &config::Resource, issuers: &[&str], scopes: &[String]) -> String {
    // An issuer that is no address, or not one a client may ask, helps nobody.
    let servers: Vec<&str> = issuers.iter().copied().filter(|issuer| check_url(issuer).is_ok()).collect();
    let mut document = json!({
        "resource": config.url,
        "authorization_servers": servers,
        "bearer_methods_supported": ["header"],
        "tls_client_certificate_bound_access_tokens": config.certificate_required,
        "dpop_bound_access_tokens_required": config.dpop.as_ref().is_some_and(|dpop| dpop.required),
    });
    if !scopes.is_empty() {
        document["scopes_supported"] = json!(scopes);
    }
    if let Some(dpop) = &config.dpop {
        document["dpop_signing_alg_values_supported"] = json!(algorithms(&dpop.algorithms));
    }
    if let Some(page) = &config.documentation {
        document["resource_documentation"] = json!(page);
    }
    document.to_string()
}

/// The answer to a request for metadata at the authority of a resource; `None` for every other request, which is decided on.
#[must_use]
pub fn answer(plan: &Plan, request: &Request<'_>) -> Option<(CheckResponse, Answered)> {
    let path = request.target.as_ref().ok()?.path;
    if !is_for_resource_metadata(path) {
        return None;
    }
    let mut here = plan.resources().filter(|resource| resource.address.is_at(request.raw_authority)).peekable();
    // Where no resource is, the well-known address may be an upstream's own.
    here.peek()?;
    let found = here.find(|resource| resource.address.metadata_path() == path);
    let (status, answered, body) = match (request.method, found) {
        ("OPTIONS", Some(_)) => (204, Answered::Found, ""),
        (_, None) => (404, Answered::Unknown, ""),
        ("GET" | "HEAD", Some(resource)) => (200, Answered::Found, resource.metadata()),
        _ => (405, Answered::Method, ""),
    };
    // Public, and for pages of every origin: without it a client in a browser finds no authorization server.
    let mut headers = vec![
        ("access-control-allow-origin", "*"),
        ("cache-control", if status == 200 { MAX_AGE } else { "no-store" }),
        ("x-content-type-options", "nosniff"),
    ];
    match status {
        200 => headers.push(("content-type", "application/json")),
        204 => headers.extend([
            ("access-control-allow-methods", "GET, HEAD"),
            ("access-control-allow-headers", "mcp-protocol-version"),
            ("access-control-max-age", "300"),
        ]),
        405 => headers.push(("allow", "GET, HEAD, OPTIONS")),
        _ => {}
    }
    Some((response(status, &headers, body), answered))
}

fn response(status: i32, headers: &[(&str, &str)], body: &str) -> CheckResponse {
    let header = |(name, value): &(&str, &str)| HeaderValueOption {
        header: Some(HeaderValue { key: (*name).to_owned(), value: (*value).to_owned(), raw_value: Vec::new() }),
        ..HeaderValueOption::default()
    };
    CheckResponse {
        status: Some(Status { code: PERMISSION_DENIED, ..Status::default() }),
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: status }),
            headers: headers.iter().map(header).collect(),
            body: body.to_owned(),
        })),
        ..CheckResponse::default()
    }
}

// === impl Answered ===

impl Answered {
    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Answered::Found => "found",
            Answered::Unknown => "unknown",
            Answered::Method => "method",
        }
    }
}
