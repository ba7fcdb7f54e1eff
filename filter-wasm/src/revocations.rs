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
            // The request has no field: an empty message. The server answers when it knows that no other follows.
            let opened = host::open_stream(cluster, SERVICE, METHOD)
                .and_then(|token| host::send_on_stream(token, &[], true).map(|()| token));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn update(reset: bool, revoked: &[Tag], lifted: &[Tag], complete: bool) -> Vec<u8> {
        Update { reset, revoked: revoked.concat(), lifted: lifted.concat(), complete }.encode_to_vec()
    }

    fn contexts(exchanges: &[Exchange]) -> Vec<u32> {
        exchanges.iter().map(Exchange::context).collect()
    }

    #[test]
    fn what_becomes_revoked_ends_what_rests_on_it_and_nothing_else() {
        let own = Revocations::new(Duration::from_secs(1));
        let [a, b, c] = [[1; 16], [2; 16], [3; 16]];
        own.hold(&Exchange::new(10, None), vec![a, b]);
        own.hold(&Exchange::new(11, None), vec![c]);
        own.hold(&Exchange::new(12, None), Vec::new());
        assert!(own.heard(&update(true, &[], &[], true)).is_empty());
        assert_eq!(contexts(&own.heard(&update(false, &[b], &[], true))), [10]);
        assert!(own.is_revoked(&[a, b]) && !own.is_revoked(&[a]) && !own.is_revoked(&[]));
        // One that has ended is not ended again.
        own.forget(10);
        assert!(own.heard(&update(false, &[a], &[b], true)).is_empty());
        assert!(own.is_revoked(&[a]) && !own.is_revoked(&[b]));
        // After a break everything is said anew, what was revoked meanwhile too.
        assert_eq!(contexts(&own.heard(&update(true, &[c], &[], true))), [11]);
        assert!(!own.is_revoked(&[a]) && own.is_revoked(&[c]));
    }

    #[test]
    fn only_a_complete_word_ends_the_silence() {
        let own = Revocations::new(Duration::from_secs(1));
        let wait = |ticks| (0..ticks).for_each(|_| own.tick());
        let bound = watch::ticks(Duration::from_secs(1));
        wait(bound);
        assert!(!own.is_silent());
        wait(1);
        assert!(own.is_silent());
        let mut torn = update(true, &[[1; 16]], &[], true);
        torn.pop();
        let odd = Update { revoked: vec![0; 15], complete: true, ..Update::default() }.encode_to_vec();
        for message in [update(true, &[[1; 16]], &[], false), torn, odd, b"\xff\xff".to_vec()] {
            own.heard(&message);
            assert!(own.is_silent(), "{message:?}");
        }
        own.heard(&update(false, &[], &[], true));
        assert!(!own.is_silent());
    }
}
