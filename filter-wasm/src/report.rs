//! Reports to the server what happened after a decision, without waiting for an answer.

use std::time::Duration;

use keyward_contract::report::{METHOD, SERVICE};

use crate::ask::Facts;
use crate::gateway::Shared;
use crate::host;
use crate::statistics::Counter;
use crate::wire::Message;

/// How many reports one worker may send between two ticks (100 ms). More are dropped and counted.
pub(crate) const REPORTS_PER_TICK: u32 = 32;

const TIMEOUT: Duration = Duration::from_secs(2);

/// One report; see `keyward_contract::report::ReportRequest` for the fields.
#[derive(Clone, Copy, Default)]
pub(crate) struct Report<'a> {
    pub(crate) decision_id: &'a str,
    pub(crate) server: &'a [u8],
    pub(crate) event: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) redactions: u64,
    pub(crate) carriers: &'a str,
    pub(crate) http_status: u16,
    pub(crate) rules: &'a str,
}

// === impl Report ===

impl<'a> Report<'a> {
    /// An empty report on a request.
    pub(crate) fn of(facts: &'a Facts) -> Report<'a> {
        Report { decision_id: &facts.decision_id, server: &facts.server, ..Report::default() }
    }

    /// Sends the report, or counts it as dropped.
    pub(crate) fn send(&self, shared: &Shared) {
        let left = shared.reports_left.get();
        let sent = left > 0 && {
            shared.reports_left.set(left - 1);
            let message = self.message();
            host::grpc_send(&shared.configuration.cluster, SERVICE, METHOD, message.as_bytes(), TIMEOUT).is_ok()
        };
        if !sent {
            shared.statistics.add(Counter::ReportsDropped, 1);
        }
    }

    fn message(&self) -> Message {
        let mut message = Message::default();
        message.bytes(1, self.decision_id.as_bytes()).text(2, self.server).bytes(3, self.event.as_bytes());
        message.bytes(4, self.reason.as_bytes()).integer(5, self.redactions).bytes(6, self.carriers.as_bytes());
        message.integer(7, u64::from(self.http_status)).bytes(8, self.rules.as_bytes());
        message
    }
}
