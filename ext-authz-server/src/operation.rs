//! What a request wants to do: the MCP messages of its body, or its HTTP method and path.

use std::borrow::Cow;

use keyward_contract::json::{Limits, Value};
use keyward_contract::mcp::elicitation::{self, Asking};
use keyward_contract::mcp::{self, Body, Call, HttpView, Refusal};
use keyward_contract::reason::Reason;

use crate::answer::Shape;
use crate::audit::Digester;
use crate::audit::record::{OperationRecord, bounded};
use crate::decision::{Denial, Stage};
use crate::plan::{Mode, Server};
use crate::request::{Headers, Request};

/// The largest body that is read where no server entry says so, in bytes.
const DEFAULT_MAX_BODY_BYTES: usize = 1024 * 1024;

/// What a request holds.
pub enum Content<'a> {
    /// MCP.
    Mcp(Call<'a>),
    /// Plain HTTP.
    Http,
}

/// A request that cannot be decided on, and how to say so.
pub struct Malformed {
    /// Why.
    pub denial: Denial,
    /// The answer's shape.
    pub shape: Shape,
    /// The answer, where the contract prescribes it.
    pub prescribed: Option<Refusal>,
}

/// One operation: what policy is asked about and the audit trail keeps.
#[derive(Clone, Copy)]
pub struct Operation<'a> {
    /// `request`, `notification`, `response`, `stream_open`, `session_end` or `http`.
    pub kind: &'static str,
    /// The MCP method or HTTP method.
    pub method: &'a str,
    /// Tool, prompt, resource, task or path.
    pub target: Option<&'a str>,
    /// The arguments.
    pub arguments: Option<&'a Value<'a>>,
    /// All parameters.
    pub params: Option<&'a Value<'a>>,
}

impl mcp::Headers for Headers<'_> {
    fn get(&self, lower_case_name: &str) -> Option<Cow<'_, str>> {
        self.find(lower_case_name).map(Cow::Borrowed)
    }

    fn visit(&self, visitor: &mut dyn FnMut(&str, &str) -> bool) {
        let _ = self.iter().all(|(name, value)| visitor(name, value));
    }
}

// === impl Content ===

impl<'a> Content<'a> {
    /// Reads a request in the mode of its server entry. Without an entry MCP is tried, so that a denial can carry the
    /// request's id; what is not MCP counts as plain HTTP then.
    ///
    /// # Errors
    /// The body is too large or not what the mode prescribes.
    pub fn read(request: &'a Request<'a>, server: Option<&Server>) -> Result<Content<'a>, Box<Malformed>> {
        let max_bytes = server.map_or(DEFAULT_MAX_BODY_BYTES, |server| server.max_body_bytes);
        let mode = server.map(|server| server.mode);
        if mode == Some(Mode::Http) {
            // Whatever looks through the body, for secrets of others at least, is to see all of it.
            let (reason, cause) = if request.headers.too_many() {
                (Reason::RequestTooLarge, "more headers than are read")
            } else if request.check_body(usize::MAX).is_err() {
                (Reason::InvalidRequest, "the body did not arrive whole")
            } else {
                return Ok(Content::Http);
            };
            let denial = Denial::new(Stage::Request, reason, cause);
            return Err(Box::new(Malformed { denial, shape: Shape::Plain, prescribed: None }));
        }
        if let Err(error) = request.check_body(max_bytes) {
            let reason = match error {
                crate::request::BodyError::TooLarge => Reason::RequestTooLarge,
                crate::request::BodyError::Length => Reason::InvalidRequest,
            };
            let denial = Denial::new(Stage::Request, reason, error);
            return Err(Box::new(Malformed { denial, shape: Shape::Rpc(None), prescribed: None }));
        }
        let view = HttpView { method: request.method, headers: &request.headers, body: request.body };
        match mcp::read(&view, &Limits { max_bytes, ..Limits::default() }) {
            Ok(call) => Ok(Content::Mcp(call)),
            Err(_) if mode.is_none() => Ok(Content::Http),
            Err(refusal) => Err(Box::new(Malformed {
                denial: Denial::new(Stage::Request, refusal.reason, &refusal.detail),
                shape: if refusal.is_plain { Shape::Plain } else { Shape::Rpc(refusal.id.clone()) },
                prescribed: Some(refusal),
            })),
        }
    }

    /// The shape of an answer to it.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match self {
            Content::Mcp(Call { body: Body::Batch(messages), .. }) => {
                Shape::Batch(messages.iter().map(|message| message.request_id().map(mcp::Id::to_text)).collect())
            }
            Content::Mcp(call) => match call.messages().first().and_then(mcp::Message::request_id) {
                Some(id) => Shape::Rpc(Some(id.to_text())),
                None => Shape::Plain,
            },
            Content::Http => Shape::Plain,
        }
    }

    /// How its client can be asked to open an address.
    #[must_use]
    pub fn asking(&self) -> Asking {
        match self {
            Content::Mcp(Call { body: Body::Single(mcp::Message::Request(request)), revision }) => {
                elicitation::asking(request, *revision)
            }
            _ => Asking::Plainly,
        }
    }

    /// The one request that it holds, if it holds one.
    #[must_use]
    pub fn single_request(&'a self) -> Option<Operation<'a>> {
        match self {
            Content::Mcp(Call { body: Body::Single(message @ mcp::Message::Request(_)), .. }) => {
                Some(message.operation().into())
            }
            _ => None,
        }
    }

    /// The MCP revision.
    #[must_use]
    pub fn revision(&self) -> Option<&'static str> {
        match self {
            Content::Mcp(call) => Some(call.revision.as_str()),
            Content::Http => None,
        }
    }

    /// Every operation, in order; never none.
    #[must_use]
    pub fn operations(&'a self, http_method: &'a str, path: &'a str) -> Vec<Operation<'a>> {
        match self {
            Content::Http => {
                let target = Some(path);
                vec![Operation { kind: "http", method: http_method, target, arguments: None, params: None }]
            }
            Content::Mcp(call) => call.operations().map(Operation::from).collect(),
        }
    }
}

// === impl Operation ===

impl<'a> From<mcp::Operation<'a>> for Operation<'a> {
    fn from(operation: mcp::Operation<'a>) -> Operation<'a> {
        let mcp::Operation { kind, method, target, arguments, params } = operation;
        Operation { kind: kind.as_str(), method, target, arguments, params }
    }
}

impl Operation<'_> {
    /// The operation as the audit trail keeps it, still without its arguments.
    #[must_use]
    pub fn record(&self) -> OperationRecord {
        OperationRecord {
            method: bounded(self.method),
            target: self.target.map(bounded),
            arguments_digest: None,
            reason: None,
        }
    }

    /// All that the audit trail keeps of the arguments: their keyed digest.
    #[must_use]
    pub fn arguments_digest(&self, digester: &Digester) -> Option<String> {
        let mut bytes = Vec::new();
        self.arguments?.write(&mut bytes);
        Some(digester.digest(&bytes))
    }
}
