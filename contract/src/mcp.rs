//! One HTTP request of the Model Context Protocol: its revision, its messages, and whether headers and body agree.
//!
//! The filter and the server both read requests with [`read`]. What it accepts is one meaning only; what it refuses it
//! refuses with the error that the revision prescribes. It judges form, never permission: a method that it does not know
//! passes, and the policy denies it.

pub mod elicitation;
mod envelope;
mod headers;
mod message;
mod names;
mod refusal;
mod revision;

pub use headers::{Headers, mirrored};
pub use message::{Id, IdText, Message, Notification, Operation, OperationKind, Request, Response};
pub use refusal::{ErrorFacts, Refusal, batch_body, error_body, plain_body};
pub use revision::Revision;

use crate::json::{self, Limits, Value};
use crate::reason::Reason;

/// How many elements a batch may have.
pub const BATCH_ELEMENTS_MAX: usize = 64;

/// The parts of an HTTP request that carry MCP.
#[derive(Clone, Copy)]
pub struct HttpView<'a> {
    /// The HTTP method, for example `POST`.
    pub method: &'a str,
    /// The request headers.
    pub headers: &'a dyn Headers,
    /// The whole body.
    pub body: &'a [u8],
}

/// A request that is well-formed for its revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<'a> {
    /// The revision that governs the request. For `initialize` it is the one that the client proposes, where Keyward
    /// speaks it and it has that handshake.
    pub revision: Revision,
    /// What is asked.
    pub body: Body<'a>,
}

/// What a request asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Body<'a> {
    /// A GET that opens the server's stream; earlier revisions only.
    StreamOpen,
    /// A DELETE that ends the session; earlier revisions only.
    SessionEnd,
    /// One message.
    Single(Message<'a>),
    /// 1 to [`BATCH_ELEMENTS_MAX`] messages; 2025-03-26 only.
    Batch(Vec<Message<'a>>),
}

/// Reads one request.
///
/// # Errors
/// The [`Refusal`] to answer, which carries the request's id where one could be read.
pub fn read<'a>(view: &HttpView<'a>, limits: &Limits) -> Result<Call<'a>, Refusal> {
    match view.method {
        "POST" => read_post(view, limits),
        "GET" => read_bodiless(view, Body::StreamOpen),
        "DELETE" => read_bodiless(view, Body::SessionEnd),
        _ => {
            let revision = headers::declared(view.headers).unwrap_or_default().unwrap_or_default();
            Err(Refusal::method_not_allowed(revision))
        }
    }
}

// === impl Call ===

impl<'a> Call<'a> {
    /// The messages, in order; none for a stream or the end of a session.
    #[must_use]
    pub fn messages(&self) -> &[Message<'a>] {
        match &self.body {
            Body::StreamOpen | Body::SessionEnd => &[],
            Body::Single(message) => std::slice::from_ref(message),
            Body::Batch(messages) => messages,
        }
    }

    /// What the policy is to decide: one operation per message, or the one of the stream or session.
    pub fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        let bodiless = match self.body {
            Body::StreamOpen => Some(Operation::bodiless(OperationKind::StreamOpen)),
            Body::SessionEnd => Some(Operation::bodiless(OperationKind::SessionEnd)),
            Body::Single(_) | Body::Batch(_) => None,
        };
        bodiless.into_iter().chain(self.messages().iter().map(Message::operation))
    }
}

// === reading ===

/// GET and DELETE, which exist up to 2025-11-25 and carry no body.
fn read_bodiless<'a>(view: &HttpView<'a>, body: Body<'a>) -> Result<Call<'a>, Refusal> {
    let revision = headers::declared(view.headers).map_err(Refusal::into_plain)?.unwrap_or_default();
    if revision.is_stateless() {
        return Err(Refusal::method_not_allowed(revision));
    }
    headers::refuse_mirrors(view.headers).map_err(Refusal::into_plain)?;
    if !view.body.is_empty() {
        return Err(Refusal::new(Reason::InvalidRequest, "this HTTP method carries no body").into_plain());
    }
    Ok(Call { revision, body })
}

fn read_post<'a>(view: &HttpView<'a>, limits: &Limits) -> Result<Call<'a>, Refusal> {
    headers::check_content(view.headers)?;
    match json::parse(view.body, limits).map_err(Refusal::json)? {
        Value::Array(elements) => read_batch(view, elements),
        Value::Object(object) => {
            // The id is written out only where an answer needs it, so that accepted requests allocate nothing for it.
            let id = object.get("method").and(object.get("id")).cloned();
            read_single(view, object).map_err(|refusal| refusal.with_id(id.and_then(Id::read)))
        }
        _ => Err(Refusal::new(Reason::InvalidRequest, "the body is neither an object nor an array")),
    }
}

fn read_single<'a>(view: &HttpView<'a>, object: json::Object<'a>) -> Result<Call<'a>, Refusal> {
    let declared = headers::declared_text(view.headers);
    let revision = envelope::revision(&object, declared.as_deref())?;
    let message = Message::read(object, revision)?;
    envelope::check(&message, revision, view.headers)?;
    Ok(Call { revision, body: Body::Single(message) })
}

fn read_batch<'a>(view: &HttpView<'a>, elements: Vec<Value<'a>>) -> Result<Call<'a>, Refusal> {
    let revision = headers::declared(view.headers)?.unwrap_or_default();
    if revision != Revision::R2025_03_26 {
        return Err(Refusal::new(Reason::InvalidRequest, "this revision has no batches"));
    }
    headers::refuse_mirrors(view.headers)?;
    if elements.is_empty() {
        return Err(Refusal::new(Reason::InvalidRequest, "the batch is empty"));
    }
    if elements.len() > BATCH_ELEMENTS_MAX {
        return Err(Refusal::new(Reason::RequestTooLarge, "the batch has more than 64 elements"));
    }
    let declared = headers::declared_text(view.headers);
    let mut messages: Vec<Message<'a>> = Vec::with_capacity(elements.len());
    for element in elements {
        let Value::Object(object) = element else {
            return Err(Refusal::new(Reason::InvalidRequest, "an element of the batch is not an object"));
        };
        envelope::revision(&object, declared.as_deref())?;
        let message = Message::read(object, revision)?;
        if message.method() == Some("initialize") {
            return Err(Refusal::new(Reason::InvalidRequest, "`initialize` cannot be part of a batch"));
        }
        if messages.iter().any(|earlier| earlier.has_id_of(&message)) {
            return Err(Refusal::new(Reason::InvalidRequest, "two elements of the batch have the same id"));
        }
        messages.push(message);
    }
    Ok(Call { revision, body: Body::Batch(messages) })
}

#[cfg(test)]
mod tests;
