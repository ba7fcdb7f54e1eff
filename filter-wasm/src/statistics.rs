//! The filter's counters, `wasmcustom.keyward.*` in Envoy's statistics.

use crate::host;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counter {
    /// Requests the server allowed.
    Allowed,
    /// Requests the server denied.
    Denied,
    /// Requests the filter refused by itself, a missing decision included.
    Refused,
    /// Forms of a secret replaced in responses.
    Redactions,
    /// Responses withheld because they could not be scrubbed.
    Withheld,
    /// Requests that were ended because what they rest on was revoked.
    Ended,
    /// Reports to the server that were dropped because too many were under way, or failed.
    ReportsDropped,
}

/// The counters' ids in this VM.
pub(crate) struct Statistics {
    ids: [Option<u32>; Counter::ALL.len()],
}

// === impl Counter ===

impl Counter {
    const ALL: [Counter; 7] = [
        Counter::Allowed,
        Counter::Denied,
        Counter::Refused,
        Counter::Redactions,
        Counter::Withheld,
        Counter::Ended,
        Counter::ReportsDropped,
    ];

    fn name(self) -> &'static str {
        match self {
            Counter::Allowed => "keyward.allowed",
            Counter::Denied => "keyward.denied",
            Counter::Refused => "keyward.refused",
            Counter::Redactions => "keyward.redactions",
            Counter::Withheld => "keyward.withheld",
            Counter::Ended => "keyward.ended",
            Counter::ReportsDropped => "keyward.reports_dropped",
        }
    }
}

// === impl Statistics ===

impl Statistics {
    /// Defines the counters. One that cannot be defined is not counted; nothing else depends on it.
    pub(crate) fn define() -> Statistics {
        Statistics { ids: Counter::ALL.map(|counter| host::define_counter(counter.name()).ok()) }
    }

    /// Adds to a counter.
    pub(crate) fn add(&self, counter: Counter, by: u64) {
        if let Some(Some(id)) = self.ids.get(counter as usize) {
            host::increment(*id, by);
        }
    }
}
