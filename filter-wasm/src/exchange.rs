//! The way of one request through the filter: receive it whole, ask, apply the decision, scrub the answer.
//!
//! Nothing is let through before [`Phase::Forwarded`]. Each callback that finds the request in a phase where it has
//! nothing to do keeps it paused.

use std::cell::RefCell;
use std::rc::Rc;

use keyward_contract::check::{CheckResponse, HttpResponse, is_for_resource_metadata};
use keyward_contract::json::Limits;
use keyward_contract::mcp::{self, HttpView};
use keyward_contract::reason::Reason;
use keyward_contract::report::event;
use prost::Message;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, LogLevel, MapType};
use zeroize::Zeroize;

use crate::answer::{self, Callers};
use crate::apply::{self, Applied};
use crate::ask::{self, Facts};
use crate::configuration::Mode;
use crate::gateway::Shared;
use crate::headers::HeaderList;
use crate::host;
use crate::report::Report;
use crate::response::Response;
use crate::statistics::Counter;

/// One request and its response. A clone is the same exchange: the proxy, the watch and the line share it.
#[derive(Clone)]
pub(crate) struct Exchange {
    context: u32,
    /// Absent in a filter without a configuration: nothing gets through.
    shared: Option<Rc<Shared>>,
    state: Rc<RefCell<State>>,
}

struct State {
    phase: Phase,
    facts: Facts,
    callers: Callers,
    request: HeaderList,
    response: Option<Response>,
    /// Whether the answer's headers have gone on.
    is_answering: bool,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Headers and body are arriving.
    Receiving,
    /// The server was asked.
    Asking(Way),
    /// The request was allowed and went on.
    Forwarded,
    /// The filter answered it.
    Answered,
}

/// How the server was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// On the line, as this question.
    Line(u64),
    /// By a unary call, under this token.
    Call(u32),
}

// === impl Exchange ===

impl Exchange {
    /// A new request.
    pub(crate) fn new(context: u32, shared: Option<Rc<Shared>>) -> Exchange {
        let mode = shared.as_ref().map_or(Mode::Http, |shared| shared.configuration.mode);
        let state = State {
            phase: Phase::Receiving,
            facts: Facts::default(),
            callers: Callers::none(mode),
            request: HeaderList::default(),
            response: None,
            is_answering: false,
        };
        Exchange { context, shared, state: Rc::new(RefCell::new(state)) }
    }

    /// The id of the request's context.
    pub(crate) fn context(&self) -> u32 {
        self.context
    }

    /// The server's answer is here: an encoded `CheckResponse`.
    pub(crate) fn decided(&self, shared: &Shared, check_response: &[u8]) {
        let state = &mut *self.state.borrow_mut();
        if !matches!(state.phase, Phase::Asking(_)) {
            return;
        }
        trap(state, "decision");
        let Ok(CheckResponse { status, http_response }) = CheckResponse::decode(check_response) else {
            return self.refuse(shared, state, Reason::DecisionUnavailable);
        };
        match (status.map(|status| status.code), http_response) {
            (Some(0), Some(HttpResponse::Ok(ok))) => match apply::allow(&state.request, ok) {
                Ok(Applied { subjects, .. }) if shared.revocations.is_revoked(&subjects) => {
                    // Another replica knew what this one did not.
                    self.refuse(shared, state, state.revoked());
                }
                Ok(Applied { subjects, .. }) if !subjects.is_empty() && shared.revocations.is_silent() => {
                    host::log(
                        LogLevel::Error,
                        "keyward: the server has not said what is revoked for longer than `max_silence_ms`",
                    );
                    self.refuse(shared, state, Reason::DecisionUnavailable);
                }
                Ok(Applied { scrubber, guard, session, may_reroute, subjects }) => {
                    shared.watch.forget(self.context);
                    shared.revocations.hold(self, subjects);
                    shared.statistics.add(Counter::Allowed, 1);
                    state.phase = Phase::Forwarded;
                    let cluster = may_reroute.then(|| state.facts.cluster.clone());
                    state.response = Some(Response::new(scrubber, guard, session, cluster));
                    if host::resume_request().is_err() {
                        self.refuse(shared, state, Reason::DecisionUnavailable);
                    }
                }
                Err(error) => {
                    host::log(LogLevel::Error, &format!("keyward: the decision could not be applied: {error}"));
                    self.refuse(shared, state, Reason::DecisionUnavailable);
                }
            },
            (Some(code), Some(HttpResponse::Denied(denied))) if code != 0 => {
                shared.watch.forget(self.context);
                shared.statistics.add(Counter::Denied, 1);
                state.phase = Phase::Answered;
                apply::deny(&denied);
            }
            // Allowed without instructions, denied without an answer, or no status at all: not this contract.
            _ => self.refuse(shared, state, Reason::DecisionUnavailable),
        }
    }

    /// The line broke before the answer came: the same question, by a unary call.
    pub(crate) fn ask_again(&self, shared: &Shared) {
        let state = &mut *self.state.borrow_mut();
        if let Phase::Asking(Way::Line(_)) = state.phase {
            self.call(shared, state, ask::check_request(&state.request, &state.facts, &request_body()).as_bytes());
            if let Phase::Asking(Way::Call(token)) = state.phase {
                shared.line.expect_call(token, self);
            }
        }
    }

    /// A unary call was answered. The effective context is the request's.
    pub(crate) fn call_answered(&self, shared: &Shared, token: u32, status: u32, size: usize) {
        if self.state.borrow().phase != Phase::Asking(Way::Call(token)) {
            return;
        }
        let answer = if status == 0 { host::buffer(BufferType::GrpcReceiveBuffer, 0, size) } else { Ok(None) };
        if let Ok(Some(mut check_response)) = answer {
            self.decided(shared, &check_response);
            check_response.zeroize();
        } else {
            host::log(LogLevel::Warn, &format!("keyward: no decision, gRPC status {status}"));
            self.refuse(shared, &mut self.state.borrow_mut(), Reason::DecisionUnavailable);
        }
    }

    /// Answers a request that waited too long.
    pub(crate) fn overdue(&self, shared: &Shared) {
        let state = &mut *self.state.borrow_mut();
        let reason = match state.phase {
            Phase::Receiving if !shared.body_seen.get() => {
                host::log(
                    LogLevel::Critical,
                    "keyward: no request body was ever shown to this worker: set \
                     `allow_on_headers_stop_iteration: true` in the filter's PluginConfig",
                );
                Reason::FilterMisconfigured
            }
            Phase::Receiving => Reason::RequestTimeout,
            Phase::Asking(_) => Reason::DecisionUnavailable,
            Phase::Forwarded | Phase::Answered => return,
        };
        self.refuse(shared, state, reason);
    }

    /// What the request rests on was revoked. The effective context is the request's.
    pub(crate) fn end(&self, shared: &Shared) {
        {
            let state = &mut *self.state.borrow_mut();
            if state.phase != Phase::Forwarded {
                return;
            }
            shared.statistics.add(Counter::Ended, 1);
            let reason = state.revoked();
            let http_status = if state.is_answering { 0 } else { reason.http_status() };
            let event = event::STREAM_ENDED;
            Report { event, reason: reason.code(), http_status, ..Report::of(&state.facts) }.send(shared);
            self.forget(shared, state);
            state.phase = Phase::Answered;
            if !state.is_answering {
                state.response = None;
                state.callers.refuse(reason, &state.facts.decision_id);
                return;
            }
        }
        // Nothing is borrowed any more: Envoy may tell at once that the request is done.
        if host::reset_response().is_err() {
            host::log(LogLevel::Error, "keyward: an answer could not be ended although what it rests on was revoked");
        }
    }

    /// The request is complete: parse it, and ask the server.
    fn ask(&self, shared: &Shared, state: &mut State) {
        trap(state, "request_body");
        let body = request_body();
        if body.len() > shared.configuration.max_body_bytes {
            return self.refuse(shared, state, Reason::RequestTooLarge);
        }
        // Whoever looks for the metadata of an MCP server speaks no MCP yet; the server answers in the upstream's place.
        let target = state.request.joined(":path").unwrap_or_default();
        let reads_mcp = state.callers.mode == Mode::Mcp && !is_for_resource_metadata(&target);
        if reads_mcp && !self.parse(shared, state, &body) {
            return;
        }
        let message = ask::check_request(&state.request, &state.facts, &body);
        match shared.line.ask(self, message.as_bytes()) {
            Some(question) => {
                state.phase = Phase::Asking(Way::Line(question));
                shared.watch.expect(self, shared.configuration.timeout());
            }
            None => self.call(shared, state, message.as_bytes()),
        }
    }

    fn call(&self, shared: &Shared, state: &mut State, check_request: &[u8]) {
        match ask::dispatch(&shared.configuration, check_request) {
            Ok(token) => {
                state.phase = Phase::Asking(Way::Call(token));
                shared.watch.expect(self, shared.configuration.timeout());
            }
            Err(error) => {
                host::log(LogLevel::Error, &format!("keyward: the server could not be asked: {error}"));
                self.refuse(shared, state, Reason::DecisionUnavailable);
            }
        }
    }

    /// Reads the body as MCP and notes whom to answer; answers at once where it is not valid.
    fn parse(&self, shared: &Shared, state: &mut State, body: &[u8]) -> bool {
        let method = state.request.joined(":method").unwrap_or_default();
        let limits = Limits { max_bytes: shared.configuration.max_body_bytes, ..Limits::default() };
        match mcp::read(&HttpView { method: &method, headers: &state.request, body }, &limits) {
            Ok(call) => {
                state.callers = Callers::of(&call);
                true
            }
            Err(refusal) => {
                let status = answer::malformed(&refusal, &state.facts.decision_id);
                self.refused(shared, state, refusal.reason, status);
                false
            }
        }
    }

    /// Answers the request with a reason of the filter's own.
    fn refuse(&self, shared: &Shared, state: &mut State, reason: Reason) {
        let status = state.callers.refuse(reason, &state.facts.decision_id);
        self.refused(shared, state, reason, status);
    }

    /// Counts and reports an answer of the filter's own.
    fn refused(&self, shared: &Shared, state: &mut State, reason: Reason, http_status: u16) {
        self.forget(shared, state);
        state.phase = Phase::Answered;
        state.response = None;
        let (counter, event) = match reason {
            Reason::ResponseWithheld => (Counter::Withheld, event::RESPONSE_WITHHELD),
            _ => (Counter::Refused, event::REQUEST_REFUSED),
        };
        shared.statistics.add(counter, 1);
        Report { event, reason: reason.code(), http_status, ..Report::of(&state.facts) }.send(shared);
    }

    /// Nothing waits for this request any more.
    fn forget(&self, shared: &Shared, state: &State) {
        shared.watch.forget(self.context);
        shared.revocations.forget(self.context);
        match state.phase {
            Phase::Asking(Way::Line(question)) => shared.line.forget(question),
            Phase::Asking(Way::Call(token)) => shared.line.forget_call(token),
            _ => {}
        }
    }
}

// === impl State ===

impl State {
    /// How the client is told that what the request rests on was revoked: its session has ended, where it has one.
    fn revoked(&self) -> Reason {
        if self.request.has("mcp-session-id") { Reason::SessionNotFound } else { Reason::AccessRevoked }
    }
}

/// Ends the VM at this moment where the tests' build is asked to.
#[cfg(feature = "trap")]
fn trap(state: &State, moment: &str) {
    if state.request.first("x-keyward-test-trap") == Some(moment.as_bytes()) {
        std::process::abort();
    }
}

#[cfg(not(feature = "trap"))]
fn trap(_state: &State, _moment: &str) {}

fn strip_trailers() -> host::Result<()> {
    let trailers = host::headers(MapType::HttpRequestTrailers)?;
    trailers.names().try_for_each(|name| host::remove_header(MapType::HttpRequestTrailers, name))
}

fn request_body() -> Vec<u8> {
    host::buffer(BufferType::HttpRequestBody, 0, usize::MAX).ok().flatten().unwrap_or_default()
}

impl Context for Exchange {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        if let Some(shared) = &self.shared {
            self.call_answered(shared, token, status, size);
        }
    }

    fn on_done(&mut self) -> bool {
        if let Some(shared) = &self.shared {
            let state = &mut *self.state.borrow_mut();
            self.forget(shared, state);
            if let Some(response) = &mut state.response {
                response.report(shared, &state.facts);
            }
            state.phase = Phase::Answered;
        }
        true
    }
}

impl HttpContext for Exchange {
    fn on_http_request_headers(&mut self, _count: usize, end_of_stream: bool) -> Action {
        let state = &mut *self.state.borrow_mut();
        let Some(shared) = &self.shared else {
            state.phase = Phase::Answered;
            state.callers.refuse(Reason::FilterMisconfigured, "");
            return Action::Pause;
        };
        state.request = host::headers(MapType::HttpRequestHeaders).unwrap_or_default();
        trap(state, "request_headers");
        let known = state.facts.learn(&shared.configuration, &mut state.callers.mode);
        let method = state.request.first(":method");
        if !known || method.is_none() {
            self.refuse(shared, state, Reason::DecisionUnavailable);
        } else if state.request.has("upgrade") || method == Some(b"CONNECT") {
            // A tunnel can be neither read nor scrubbed.
            self.refuse(shared, state, Reason::MethodNotAllowed);
        } else if end_of_stream {
            self.ask(shared, state);
        } else {
            shared.watch.expect(self, shared.configuration.body_timeout());
        }
        Action::Pause
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let state = &mut *self.state.borrow_mut();
        match (state.phase, &self.shared) {
            (Phase::Forwarded, _) => return Action::Continue,
            (Phase::Receiving, Some(shared)) => {
                shared.body_seen.set(true);
                if size > shared.configuration.max_body_bytes {
                    self.refuse(shared, state, Reason::RequestTooLarge);
                } else if end_of_stream {
                    self.ask(shared, state);
                }
            }
            _ => {}
        }
        Action::Pause
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> Action {
        // With trailers the body callback never sees the end of the stream: the request is complete only here.
        let state = &mut *self.state.borrow_mut();
        match (state.phase, &self.shared) {
            (Phase::Forwarded, _) => return Action::Continue,
            // No decision is made on trailers, so none of the client's goes on.
            (Phase::Receiving, Some(shared)) if strip_trailers().is_err() => {
                self.refuse(shared, state, Reason::InvalidRequest);
            }
            (Phase::Receiving, Some(shared)) => self.ask(shared, state),
            _ => {}
        }
        Action::Pause
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        // Before a decision there is no credential, so an answer of Envoy's own passes as it is.
        let state = &mut *self.state.borrow_mut();
        let (Phase::Forwarded, Some(shared), Some(response)) = (state.phase, &self.shared, &mut state.response) else {
            return Action::Continue;
        };
        match response.on_headers() {
            Ok(()) => {
                state.is_answering = true;
                response.report_refusal(shared, &state.facts);
                Action::Continue
            }
            Err(cause) => {
                host::log(LogLevel::Warn, &format!("keyward: response withheld: {cause}"));
                response.report(shared, &state.facts);
                self.refuse(shared, state, Reason::ResponseWithheld);
                Action::Pause
            }
        }
    }

    fn on_http_response_body(&mut self, _size: usize, end_of_stream: bool) -> Action {
        let state = &mut *self.state.borrow_mut();
        match (state.phase, &mut state.response) {
            (Phase::Forwarded, Some(response)) => response.on_body(end_of_stream),
            // It was ended; what comes all the same goes nowhere, least of all unscrubbed.
            (Phase::Answered, _) if state.is_answering => Action::Pause,
            _ => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, _count: usize) -> Action {
        let state = &mut *self.state.borrow_mut();
        match (state.phase, &mut state.response) {
            (Phase::Forwarded, Some(response)) => response.on_trailers(),
            (Phase::Answered, _) if state.is_answering => Action::Pause,
            _ => Action::Continue,
        }
    }
}
