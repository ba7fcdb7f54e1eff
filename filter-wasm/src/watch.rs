//! Ends requests that wait for something that will never come: a body that does not arrive, a lost answer.
//!
//! Time is counted in ticks of the root context, so that a request costs no clock call.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::exchange::Exchange;

/// The time between two ticks.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// All requests that wait, by their context.
#[derive(Default)]
pub(crate) struct Watch {
    now: Cell<u64>,
    waiting: RefCell<BTreeMap<u32, (u64, Exchange)>>,
}

/// The number of ticks after which a `wait` that begins now is surely over.
pub(crate) fn ticks(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(TICK.as_millis())).unwrap_or(u64::MAX).saturating_add(1)
}

// === impl Watch ===

impl Watch {
    /// Expects a request to get on within `wait`; replaces what was expected of it before.
    pub(crate) fn expect(&self, exchange: &Exchange, wait: Duration) {
        let deadline = self.now.get().saturating_add(ticks(wait));
        self.waiting.borrow_mut().insert(exchange.context(), (deadline, exchange.clone()));
    }

    /// The request of `context` no longer waits.
    pub(crate) fn forget(&self, context: u32) {
        self.waiting.borrow_mut().remove(&context);
    }

    /// Advances the time by one tick and takes out the requests that are overdue.
    pub(crate) fn tick(&self) -> Vec<Exchange> {
        self.now.set(self.now.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        let overdue: Vec<u32> =
            waiting.iter().filter(|(_, (deadline, _))| *deadline <= self.now.get()).map(|(id, _)| *id).collect();
        overdue.into_iter().filter_map(|id| waiting.remove(&id).map(|(_, exchange)| exchange)).collect()
    }
}
