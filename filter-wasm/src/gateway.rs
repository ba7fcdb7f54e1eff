//! The root context: one per worker thread. Reads the plugin configuration, starts an [`Exchange`] for each request, keeps
//! the line to the server, and ends requests that wait too long.

use std::cell::Cell;
use std::rc::Rc;

use keyward_contract::decisions::Answer;
use prost::Message;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};
use zeroize::Zeroize;

use crate::configuration::Configuration;
use crate::exchange::Exchange;
use crate::host;
use crate::line::Line;
use crate::report::REPORTS_PER_TICK;
use crate::revocations::Revocations;
use crate::statistics::Statistics;
use crate::watch::{TICK, Watch};

/// The root context of the filter.
pub struct Gateway {
    id: u32,
    shared: Option<Rc<Shared>>,
}

/// What all requests of one worker share.
pub(crate) struct Shared {
    /// The plugin configuration.
    pub(crate) configuration: Configuration,
    /// The counters.
    pub(crate) statistics: Statistics,
    /// The requests that wait.
    pub(crate) watch: Watch,
    /// The stream to the server.
    pub(crate) line: Line,
    /// What is revoked.
    pub(crate) revocations: Revocations,
    /// Whether this worker was ever shown a request body. Where it never was, Envoy is not set up to show any.
    pub(crate) body_seen: Cell<bool>,
    /// How many reports may still be sent before the next tick.
    pub(crate) reports_left: Cell<u32>,
}

// === impl Gateway ===

impl Gateway {
    /// A root context without a configuration: until one is accepted nothing gets through, and Envoy, which got `false`
    /// from `on_configure`, does not start.
    #[must_use]
    pub fn new(id: u32) -> Gateway {
        Gateway { id, shared: None }
    }

    #[cfg(test)]
    pub(crate) fn configured(id: u32, shared: Rc<Shared>) -> Gateway {
        Gateway { id, shared: Some(shared) }
    }

    /// Does something for a request. Whatever fails in it is ended by the watch or by Envoy's own stream timeouts.
    fn on_behalf(&self, exchange: &Exchange, act: impl FnOnce(&Exchange)) {
        if host::act_as(exchange.context()).is_ok() {
            act(exchange);
        }
        let _ = host::act_as(self.id);
    }
}

impl Context for Gateway {
    fn on_grpc_call_response(&mut self, token: u32, status: u32, size: usize) {
        let Some(shared) = &self.shared else { return };
        // A call made while the root context was at work; answers to reports nobody waits for.
        if let Some(exchange) = shared.line.call_answered(token) {
            self.on_behalf(&exchange, |exchange| exchange.call_answered(shared, token, status, size));
        }
    }

    fn on_grpc_stream_message(&mut self, token: u32, size: usize) {
        let Some(shared) = &self.shared else { return };
        // Of a message without a byte there is no buffer.
        let message = host::buffer(BufferType::GrpcReceiveBuffer, 0, size).ok().flatten();
        if shared.revocations.is_stream(token) {
            for exchange in shared.revocations.heard(&message.unwrap_or_default()) {
                self.on_behalf(&exchange, |exchange| exchange.end(shared));
            }
            return;
        }
        let Some(mut message) = message else { return };
        let answer = Answer::decode(message.as_slice());
        message.zeroize();
        // An answer that cannot be read, or that nobody waits for, is dropped; the watch ends whoever waited for it.
        let Ok(Answer { id, mut check_response }) = answer else { return };
        if let Some(exchange) = shared.line.answered(id) {
            self.on_behalf(&exchange, |exchange| exchange.decided(shared, &check_response));
        }
        check_response.zeroize();
    }

    fn on_grpc_stream_close(&mut self, token: u32, status: u32) {
        let Some(shared) = &self.shared else { return };
        if shared.revocations.is_stream(token) {
            return shared.revocations.broke();
        }
        for exchange in shared.line.broke(token, status) {
            self.on_behalf(&exchange, |exchange| exchange.ask_again(shared));
        }
    }
}

impl RootContext for Gateway {
    fn on_configure(&mut self, size: usize) -> bool {
        let json = host::buffer(BufferType::PluginConfiguration, 0, size).ok().flatten().unwrap_or_default();
        let configuration = match Configuration::parse(&json) {
            Ok(configuration) => configuration,
            Err(error) => {
                host::log(LogLevel::Critical, &format!("keyward: {error}"));
                return false;
            }
        };
        if host::logs_headers() {
            let warning = "keyward: Envoy logs at debug or trace level, which prints the headers of each request, \
                           injected credentials included: use `info` or above in production";
            host::log(LogLevel::Warn, warning);
        }
        let shared = Shared {
            revocations: Revocations::new(configuration.max_silence()),
            configuration,
            statistics: Statistics::define(),
            watch: Watch::default(),
            line: Line::new(self.id),
            body_seen: Cell::new(false),
            reports_left: Cell::new(REPORTS_PER_TICK),
        };
        shared.line.keep_open(&shared.configuration.cluster);
        shared.revocations.keep_open(&shared.configuration.cluster);
        self.shared = Some(Rc::new(shared));
        host::set_tick_period(TICK).is_ok()
    }

    fn on_tick(&mut self) {
        let Some(shared) = &self.shared else { return };
        shared.reports_left.set(REPORTS_PER_TICK);
        shared.line.keep_open(&shared.configuration.cluster);
        shared.revocations.tick();
        shared.revocations.keep_open(&shared.configuration.cluster);
        for exchange in shared.watch.tick() {
            self.on_behalf(&exchange, |exchange| exchange.overdue(shared));
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Exchange::new(id, self.shared.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
