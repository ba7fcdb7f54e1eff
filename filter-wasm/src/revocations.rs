//! What is revoked, heard from the server over one gRPC stream per worker, and the requests that rest on it.
//!
//! The server denies by itself; what is known here ends requests that were allowed before, and those that a replica allowed which
//! did not know yet. A worker that has heard nothing for too long denies everything new.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use keyward_contract::revocation::{METHOD, REVOKED_MAX, SERVICE, Tag, Update, tags};
use prost::Message;

use crate::exchange::Exchange;
use crate::host;
use crate::watch;

/// How long to wait after a break before the stream is opened again.
const PAUSE: Duration = Duration::from_millis(300);

/// What one worker knows. Only its root context may open the stream.
pub(crate) struct Revocations {
    token: Cell<Option<u32>>,
    ticks_to_open: Cell<u64>,
    /// Ticks since the server was last heard to know what is revoked; from the start on, for one that was never heard.
    silent_ticks: Cell<u64>,
    max_silent_ticks: u64,
    revoked: RefCell<BTreeSet<Tag>>,
    open: RefCell<BTreeMap<u32, (Vec<Tag>, Exchange)>>,
}

// === impl Revocations ===

impl Revocations {
    /// A worker that has heard nothing yet, and may do so for `max_silence`.
    pub(crate) fn new(max_silence: Duration) -> Revocations {
        Revocations {
            token: Cell::new(None),
            ticks_to_open: Cell::new(0),
            silent_ticks: Cell::new(0),
            max_silent_ticks: watch::ticks(max_silence),
            revoked: RefCell::default(),
            open: RefCell::default(),
        }
    }

    /// Counts a tick.
    pub(crate) fn tick(&self) {
        self.silent_ticks.set(self.silent_ticks.get().saturating_add(1));
    }

    /// Opens the stream unless it is open or has to wait. Call it from the root context, at the start and on each tick.
    pub(crate) fn keep_open(&self, cluster: &str) {
        let left = self.ticks_to_open.get();
        if left > 0 {
            self.ticks_to_open.set(left - 1);
        } else if self.token.get().is_none() {
            // The request has no field: an empty message.
            let opened = host::open_stream(cluster, SERVICE, METHOD)
                .and_then(|token| host::send_on_stream(token, &[]).map(|()| token));
            match opened {
                Ok(token) => self.token.set(Some(token)),
                Err(_) => self.ticks_to_open.set(watch::ticks(PAUSE)),
            }
        }
    }

    /// Whether this is the stream.
    pub(crate) fn is_stream(&self, token: u32) -> bool {
        self.token.get() == Some(token)
    }

    /// The stream ended.
    pub(crate) fn broke(&self) {
        self.token.set(None);
        self.ticks_to_open.set(watch::ticks(PAUSE));
    }

    /// Whether it is too long ago that the server said what is revoked.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent_ticks.get() > self.max_silent_ticks
    }

    /// Takes a message of the stream. Returns the requests that rest on what is revoked now. One that cannot be read counts as
    /// silence.
    pub(crate) fn heard(&self, message: &[u8]) -> Vec<Exchange> {
        let Ok(Update { reset, revoked, lifted, complete }) = Update::decode(message) else { return Vec::new() };
        let (Some(new), Some(lifted)) = (tags(&revoked), tags(&lifted)) else { return Vec::new() };
        let new: BTreeSet<Tag> = new.collect();
        let mut revoked = self.revoked.borrow_mut();
        if reset {
            revoked.clear();
        }
        for tag in lifted {
            revoked.remove(&tag);
        }
        revoked.extend(&new);
        if revoked.len() > REVOKED_MAX {
            // More than any server says: what is not kept cannot be acted on.
            revoked.clear();
            return Vec::new();
        }
        if complete {
            self.silent_ticks.set(0);
        }
        if new.is_empty() {
            return Vec::new();
        }
        let open = self.open.borrow();
        let hit = open.values().filter(|(tags, _)| tags.iter().any(|tag| new.contains(tag)));
        hit.map(|(_, exchange)| exchange.clone()).collect()
    }

    /// Whether one of these is revoked.
    pub(crate) fn is_revoked(&self, tags: &[Tag]) -> bool {
        let revoked = self.revoked.borrow();
        !revoked.is_empty() && tags.iter().any(|tag| revoked.contains(tag))
    }

    /// The request goes on, and rests on these.
    pub(crate) fn hold(&self, exchange: &Exchange, tags: Vec<Tag>) {
        if !tags.is_empty() {
            self.open.borrow_mut().insert(exchange.context(), (tags, exchange.clone()));
        }
    }

    /// The request has ended.
    pub(crate) fn forget(&self, context: u32) {
        self.open.borrow_mut().remove(&context);
    }
}
