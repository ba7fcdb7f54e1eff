//! The line to the server: one gRPC stream per worker that carries the questions of all its requests.
//!
//! A unary gRPC call from Wasm costs Envoy more than its whole native `ext_authz` filter does; a message on a stream that
//! is open already costs a fraction. The line is only ever a shorter way to the same decision: a question that does not
//! fit on it, or is on it when it breaks, is asked by a unary Check.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use keyward_contract::decisions::{METHOD, QUESTION_BYTES_MAX, QUESTIONS_UNDER_WAY_MAX, SERVICE};

use crate::exchange::Exchange;
use crate::host;
use crate::watch;
use crate::wire::Message;

/// How long to wait after a break before the line is opened again.
const PAUSE: Duration = Duration::from_millis(500);
/// How long to wait where the server does not know the service.
const PAUSE_UNIMPLEMENTED: Duration = Duration::from_secs(60);
const GRPC_UNIMPLEMENTED: u32 = 12;

/// The line of one worker. Only its root context may open and use it.
pub(crate) struct Line {
    root: u32,
    token: Cell<Option<u32>>,
    next_id: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, Exchange>>,
    /// Requests that were asked again by a unary call, by its token. The root context makes that call, so the SDK hands the
    /// answer to it.
    called_again: RefCell<BTreeMap<u32, Exchange>>,
    ticks_to_open: Cell<u64>,
}

// === impl Line ===

impl Line {
    /// A line that is not open yet.
    pub(crate) fn new(root: u32) -> Line {
        Line {
            root,
            token: Cell::new(None),
            next_id: Cell::new(1),
            waiting: RefCell::default(),
            called_again: RefCell::default(),
            ticks_to_open: Cell::new(0),
        }
    }

    /// Opens the line unless it is open or has to wait. Call it from the root context, at the start and on each tick.
    pub(crate) fn keep_open(&self, cluster: &str) {
        let left = self.ticks_to_open.get();
        if left > 0 {
            self.ticks_to_open.set(left - 1);
        } else if self.token.get().is_none() {
            match host::open_stream(cluster, SERVICE, METHOD) {
                Ok(token) => self.token.set(Some(token)),
                Err(_) => self.ticks_to_open.set(watch::ticks(PAUSE)),
            }
        }
    }

    /// Asks on the line and returns the question's id; `None` where the question has to go another way. The effective
    /// context is that of the request, before and after.
    pub(crate) fn ask(&self, exchange: &Exchange, check_request: &[u8]) -> Option<u64> {
        let token = self.token.get()?;
        let fits = check_request.len() <= QUESTION_BYTES_MAX;
        if !fits || self.waiting.borrow().len() >= QUESTIONS_UNDER_WAY_MAX {
            return None;
        }
        let id = self.next_id.get();
        let mut question = Message::with_capacity(check_request.len() + 24);
        question.integer(1, id).bytes(2, check_request);
        host::act_as(self.root).ok()?;
        let sent = host::send_on_stream(token, question.as_bytes(), false);
        host::act_as(exchange.context()).ok()?;
        sent.ok()?;
        self.next_id.set(id + 1);
        self.waiting.borrow_mut().insert(id, exchange.clone());
        Some(id)
    }

    /// The request that asked this question, if it still waits.
    pub(crate) fn answered(&self, id: u64) -> Option<Exchange> {
        self.waiting.borrow_mut().remove(&id)
    }

    /// Nobody waits for this answer any more.
    pub(crate) fn forget(&self, id: u64) {
        self.waiting.borrow_mut().remove(&id);
    }

    /// The request waits for the answer to a call that the root context made.
    pub(crate) fn expect_call(&self, token: u32, exchange: &Exchange) {
        self.called_again.borrow_mut().insert(token, exchange.clone());
    }

    /// The request that waits for this call of the root context, if it still does.
    pub(crate) fn call_answered(&self, token: u32) -> Option<Exchange> {
        self.called_again.borrow_mut().remove(&token)
    }

    /// Nobody waits for this call any more.
    pub(crate) fn forget_call(&self, token: u32) {
        self.called_again.borrow_mut().remove(&token);
    }

    /// The stream ended. Returns the requests that still wait.
    pub(crate) fn broke(&self, token: u32, status: u32) -> Vec<Exchange> {
        if self.token.get() != Some(token) {
            return Vec::new();
        }
        self.token.set(None);
        let pause = if status == GRPC_UNIMPLEMENTED { PAUSE_UNIMPLEMENTED } else { PAUSE };
        self.ticks_to_open.set(watch::ticks(pause));
        std::mem::take(&mut *self.waiting.borrow_mut()).into_values().collect()
    }
}
