//! The answers the filter gives by itself, in the form the client expects: JSON-RPC where there is a request to answer.

use keyward_contract::mcp::{self, Body, Call, ErrorFacts, IdText, Refusal};
use keyward_contract::reason::Reason;

use crate::configuration::Mode;
use crate::host;

/// Whom to answer.
pub(crate) struct Callers {
    /// How the request is read.
    pub(crate) mode: Mode,
    /// The ids of the JSON-RPC requests, as the client wrote them.
    ids: Vec<IdText>,
    /// Whether they came as a batch.
    batch: bool,
}

// === impl Callers ===

impl Callers {
    /// Nobody yet: the body is not read.
    pub(crate) fn none(mode: Mode) -> Callers {
        Callers { mode, ids: Vec::new(), batch: false }
    }

    /// The requests in an MCP call.
    pub(crate) fn of(call: &Call<'_>) -> Callers {
        let ids = call.messages().iter().filter_map(|message| message.request_id()).map(|id| id.to_text()).collect();
        Callers { mode: Mode::Mcp, ids, batch: matches!(call.body, Body::Batch(_)) }
    }

    /// Answers with `reason` and returns the HTTP status.
    pub(crate) fn refuse(&self, reason: Reason, decision_id: &str) -> u16 {
        let facts = ErrorFacts { decision_id: Some(decision_id), ..ErrorFacts::default() };
        let (status, body) = match (self.mode, self.ids.as_slice()) {
            (Mode::Http, _) => (reason.plain_status(), mcp::plain_body(reason, &facts)),
            // Not read, or nothing in it to answer: the status says it all, the body only explains.
            (Mode::Mcp, []) => (reason.plain_status(), mcp::error_body(reason, None, &facts)),
            (Mode::Mcp, ids) if self.batch => {
                (reason.http_status(), mcp::batch_body(ids.iter().map(|id| (reason, id)), &facts))
            }
            (Mode::Mcp, ids) => (reason.http_status(), mcp::error_body(reason, ids.first(), &facts)),
        };
        send(status, reason, &[("content-type", "application/json")], &body);
        status
    }
}

/// Answers a request that is not valid MCP and returns the HTTP status.
pub(crate) fn malformed(refusal: &Refusal, decision_id: &str) -> u16 {
    let status = refusal.http_status();
    send(status, refusal.reason, &refusal.headers(), &refusal.body(Some(decision_id)));
    status
}

fn send(status: u16, reason: Reason, headers: &[(&str, &str)], body: &[u8]) {
    let mut headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
    headers.push(("cache-control", b"no-store"));
    let details = ["keyward_", reason.code()].concat();
    // When the answer cannot be sent the request stays paused, and Envoy's stream timeout ends it.
    let _ = host::answer(u32::from(status), &details, &headers, body);
}
