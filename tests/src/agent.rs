//! What an agent sends: MCP requests of each revision, with the headers that go with them.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Request};

/// The newest revision, which knows no sessions. Requests are of this one unless said otherwise.
pub const NEWEST: &str = "2026-07-28";
/// The revisions with sessions, oldest first.
pub const WITH_SESSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];

/// A session of an earlier revision, opened by `initialize`.
#[derive(Clone, Debug)]
pub struct Session {
    /// The revision.
    pub revision: String,
    /// The `Mcp-Session-Id`; none where the server keeps no sessions.
    pub id: Option<String>,
    agents: SocketAddr,
    token: String,
}

/// A request of the newest revision with every header and `_meta` field it demands.
#[must_use]
pub fn request(id: impl Into<Value>, method: &str, params: Value) -> Request {
    let mut params = if params.is_object() { params } else { json!({}) };
    if let Some(params) = params.as_object_mut() {
        let meta = params.entry("_meta").or_insert_with(|| json!({}));
        if let Some(meta) = meta.as_object_mut() {
            meta.entry("io.modelcontextprotocol/protocolVersion").or_insert_with(|| json!(NEWEST));
            meta.entry("io.modelcontextprotocol/clientCapabilities").or_insert_with(|| json!({}));
        }
    }
    let target = ["name", "uri", "taskId"].iter().find_map(|key| params.get(*key)?.as_str()).map(str::to_owned);
    let message = json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params});
    let request = Request::post("/mcp", &message).header("mcp-protocol-version", NEWEST).header("mcp-method", method);
    match target {
        Some(target) => request.header("mcp-name", mirrored(&target)),
        None => request,
    }
}

/// A `tools/call` of the newest revision.
#[must_use]
pub fn tool_call(id: impl Into<Value>, tool: &str, arguments: Value) -> Request {
    request(id, "tools/call", json!({"name": tool, "arguments": arguments}))
}

/// A message of an earlier revision, outside a session.
#[must_use]
pub fn earlier_request(revision: &str, message: &Value) -> Request {
    let request = Request::post("/mcp", message);
    // 2025-03-26 has no such header.
    if revision == "2025-03-26" { request } else { request.header("mcp-protocol-version", revision) }
}

/// Standard base64, padded.
#[must_use]
pub fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

/// A value as it travels in a mirrored header: as it is, or in base64 where it is not plain ASCII.
#[must_use]
pub fn mirrored(value: &str) -> String {
    let plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && value.trim() == value;
    if plain && !value.starts_with("=?base64?") {
        return value.to_owned();
    }
    format!("=?base64?{}?=", STANDARD.encode(value))
}

// === impl Session ===

impl Session {
    /// Opens a session: `initialize`, then `notifications/initialized`.
    ///
    /// # Errors
    /// Shows the answer where the server refuses.
    pub async fn open(agents: SocketAddr, revision: &str, token: &str) -> Result<Self> {
        let params = json!({
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": {"name": "keyward-tests", "version": "1"},
        });
        let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answer = Request::post("/mcp", &message).bearer(token).send(agents).await?;
        let result = answer.result().context("initialize")?;
        if result["protocolVersion"] != revision {
            bail!("asked for revision `{revision}`, got `{}`", result["protocolVersion"]);
        }
        let id = Some(answer.header("mcp-session-id").to_owned()).filter(|id| !id.is_empty());
        let session = Self { revision: revision.to_owned(), id, agents, token: token.to_owned() };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let answer = session.send(&initialized).await?;
        if answer.status != http::StatusCode::ACCEPTED {
            bail!("notifications/initialized: {} with `{}`", answer.status, answer.text());
        }
        Ok(session)
    }

    /// A request with this message in the session, not yet sent.
    #[must_use]
    pub fn request(&self, message: &Value) -> Request {
        let mut request = earlier_request(&self.revision, message).bearer(&self.token);
        if let Some(id) = &self.id {
            request = request.header("mcp-session-id", id);
        }
        request
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn send(&self, message: &Value) -> Result<Answer> {
        self.request(message).send(self.agents).await
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn call_tool(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Result<Answer> {
        let params = json!({"name": tool, "arguments": arguments});
        self.send(&json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params})).await
    }

    /// The request that opens the stream of server messages, not yet sent.
    #[must_use]
    pub fn stream(&self) -> Request {
        let mut request = self.request(&Value::Null).without_header("content-type").without_header("accept");
        request.method = Method::GET;
        request.body = crate::client::RequestBody::Empty;
        request.header("accept", "text/event-stream")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_revision_mirrors_method_and_name() {
        let request = tool_call(1, "größe", json!({}));
        let header = |name: &str| {
            let found = request.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
            String::from_utf8(found.unwrap()).unwrap()
        };
        assert_eq!(header("mcp-method"), "tools/call");
        assert_eq!(header("mcp-name"), "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(header("mcp-protocol-version"), NEWEST);
    }

    #[test]
    fn a_literal_that_looks_encoded_is_encoded() {
        assert_eq!(mirrored("echo"), "echo");
        assert!(mirrored("=?base64?x?=").starts_with("=?base64?PT9"));
    }
}
