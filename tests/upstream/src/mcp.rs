//! The MCP endpoint: the SDK's streamable HTTP service, with batches before it and the wire work after it.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use crate::body::{self, Body};
use crate::carrier::Leak;
use crate::credential::Presented;
use crate::record::Recorder;
use crate::tools::Tools;
use crate::wire;

const MAX_BATCH: usize = 50;
const BATCH_REVISION: &str = "2025-03-26";
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The endpoint.
pub(crate) struct Mcp {
    service: StreamableHttpService<Tools, LocalSessionManager>,
    config: StreamableHttpServerConfig,
}

// === impl Mcp ===

impl Mcp {
    /// An endpoint for loopback and these authorities, with or without port.
    pub(crate) fn new(recorder: Arc<Recorder>, allowed_hosts: &[String], json_responses: bool) -> Self {
        let hosts = LOOPBACK.into_iter().chain(allowed_hosts.iter().map(String::as_str));
        let config = StreamableHttpServerConfig::default()
            .with_allowed_hosts(hosts.clone())
            .with_allowed_origins(hosts.flat_map(origins))
            .enforce_origin_validation()
            .with_json_response(json_responses);
        let factory = move || Ok(Tools { recorder: Arc::clone(&recorder) });
        let service = StreamableHttpService::new(factory, Arc::default(), config.clone());
        Self { service, config }
    }

    /// Ends every session and stream.
    pub(crate) fn stop(&self) {
        self.config.cancellation_token.cancel();
    }

    /// Answers one request.
    pub(crate) async fn serve(&self, mut parts: Parts, body: Bytes, credential: Presented) -> Response<Body> {
        parts.headers.remove(CONTENT_LENGTH);
        parts.extensions.insert(credential.clone());
        if parts.method != Method::POST {
            let response = self.service.handle(Request::from_parts(parts, Full::new(body))).await;
            return wire::escaped(response, &credential);
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Array(elements)) if may_batch(&parts) => self.batch(&parts, &elements, &credential).await,
            Ok(message) => self.message(parts, body, &message, &credential).await,
            Err(_) => self.service.handle(Request::from_parts(parts, Full::new(body))).await,
        }
    }

    async fn message(&self, parts: Parts, body: Bytes, message: &Value, credential: &Presented) -> Response<Body> {
        let response = self.service.handle(Request::from_parts(parts, Full::new(body))).await;
        match leak(message) {
            Some(leak) => wire::leaked(response, &leak, credential).await,
            None if gives_away(message) => wire::escaped(response, credential),
            None => response,
        }
    }

    // The SDK has no batches, so each element goes to it alone.
    async fn batch(&self, parts: &Parts, elements: &[Value], credential: &Presented) -> Response<Body> {
        let mut answers = Vec::new();
        if elements.is_empty() || elements.len() > MAX_BATCH {
            return status(StatusCode::BAD_REQUEST);
        }
        for element in elements {
            let body = Bytes::from(element.to_string());
            let response = self.message(parts.clone(), body, element, credential).await;
            if !response.status().is_success() {
                return response;
            }
            let (head, body) = response.into_parts();
            answers.extend(wire::messages(&head.headers, body).await.pop());
        }
        if answers.is_empty() {
            return status(StatusCode::ACCEPTED);
        }
        let mut response = Response::new(body::whole([b"[", answers.join(&b","[..]).as_slice(), b"]"].concat()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

fn may_batch(parts: &Parts) -> bool {
    parts.headers.get("mcp-protocol-version").is_none_or(|version| version.as_bytes() == BATCH_REVISION.as_bytes())
}

fn leak(message: &Value) -> Option<Leak> {
    if !is(message, "/method", "tools/call") || !is(message, "/params/name", "leak") {
        return None;
    }
    Leak::read(message.pointer("/params/arguments")?.clone()).ok()
}

fn gives_away(message: &Value) -> bool {
    is(message, "/method", "resources/read") || is(message, "/params/name", "stream")
}

fn is(message: &Value, pointer: &str, text: &str) -> bool {
    message.pointer(pointer).and_then(Value::as_str) == Some(text)
}

fn origins(host: &str) -> Vec<String> {
    let bracketed =
        if host.matches(':').count() > 1 && !host.starts_with('[') { format!("[{host}]") } else { host.into() };
    let has_port = bracketed.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = if has_port { "" } else { ":*" };
    ["http", "https"].iter().map(|scheme| format!("{scheme}://{bracketed}{port}")).collect()
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowed_host_is_an_allowed_origin() {
        assert_eq!(origins("a.example"), ["http://a.example:*", "https://a.example:*"]);
        assert_eq!(origins("a.example:90"), ["http://a.example:90", "https://a.example:90"]);
        assert_eq!(origins("::1")[0], "http://[::1]:*");
        assert_eq!(origins("[::1]:90")[0], "http://[::1]:90");
    }
}
