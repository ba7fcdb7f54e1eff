//! What outlives a decision: the plan that serves, the audit writer, the metrics, the bounds, and whether all is well.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, Semaphore};

use crate::audit::{Event, Record, Writer};
use crate::freshness::Origin;
use crate::metrics::{Metrics, Readings};
use crate::plan::Plan;

/// Decisions under way at once; more are refused as overloaded.
pub const MAX_DECISIONS: usize = 1024;

/// Of how many decisions it is remembered what their credentials came from.
const MAX_HANDED_OUT: usize = 8192;

/// Everything that decisions share.
pub struct Engine {
    plan: ArcSwap<Plan>,
    audit: Writer,
    metrics: Metrics,
    permits: Semaphore,
    bound: usize,
    used: RwLock<HashMap<String, SystemTime>>,
    handed_out: Mutex<HandedOut>,
    draining: AtomicBool,
    drain: Notify,
    max_policy_age: Option<Duration>,
}

/// What the credentials of recent decisions came from, by decision id, the oldest first to go.
#[derive(Default)]
struct HandedOut {
    origins: HashMap<String, Vec<Origin>>,
    order: VecDeque<String>,
}

// === impl Engine ===

impl Engine {
    /// An engine that serves `plan`, with at most `max_decisions` under way at once.
    #[must_use]
    pub fn new(plan: Plan, audit: Writer, max_decisions: usize) -> Engine {
        Engine {
            plan: ArcSwap::from_pointee(plan),
            audit,
            metrics: Metrics::new(),
            permits: Semaphore::new(max_decisions),
            bound: max_decisions,
            used: RwLock::default(),
            handed_out: Mutex::default(),
            draining: AtomicBool::new(false),
            drain: Notify::new(),
            max_policy_age: None,
        }
    }

    /// Counts as not ready once the plan has not been renewed or confirmed for this long.
    #[must_use]
    pub fn with_max_policy_age(mut self, age: Duration) -> Engine {
        self.max_policy_age = Some(age);
        self
    }

    /// The plan that serves now.
    #[must_use]
    pub fn plan(&self) -> Guard<Arc<Plan>> {
        self.plan.load()
    }

    /// Serves `plan` from the next decision on, and says so in the audit trail.
    pub fn replace(&self, plan: Plan) {
        let record = Record::new(Event::ConfigReloaded, plan.environment(), plan.revision());
        if let Ok(mut used) = self.used.write() {
            used.retain(|id, _| plan.catalogue().bindings().iter().any(|binding| binding.id == *id));
        }
        let plan = plan.continuing(&self.plan.load());
        self.plan.store(Arc::new(plan));
        self.metrics.reloaded(true);
        self.record(record);
    }

    /// Notes that a new configuration or policy was refused; the plan stays. `detail` says why and holds no secret.
    pub fn refused(&self, detail: &str) {
        self.metrics.reloaded(false);
        let plan = self.plan();
        let detail = crate::audit::record::bounded(detail);
        self.record(Record { detail, ..Record::new(Event::ConfigRefused, plan.environment(), plan.revision()) });
    }

    /// Writes a record that no request waits for.
    #[expect(clippy::needless_pass_by_value, reason = "the record is spent")]
    pub fn record(&self, record: Record) {
        if let Err(error) = self.audit.accept(&record) {
            tracing::error!(%error, event = ?record.event, "audit record lost");
        }
    }

    /// The audit writer.
    #[must_use]
    pub fn audit(&self) -> &Writer {
        &self.audit
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The bound on decisions under way.
    pub(crate) fn permits(&self) -> &Semaphore {
        &self.permits
    }

    /// Notes that a binding's credential was handed out.
    pub(crate) fn note_use(&self, binding: &str) {
        self.metrics.injected(binding);
        let now = SystemTime::now();
        if let Ok(mut used) = self.used.write() {
            match used.get_mut(binding) {
                Some(time) => *time = now,
                None => drop(used.insert(binding.to_owned(), now)),
            }
        }
    }

    /// Remembers what the credentials of a decision came from, where that can be had anew.
    pub(crate) fn note_origins(&self, decision_id: &str, origins: &[Origin]) {
        if origins.is_empty() {
            return;
        }
        let mut handed_out = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
        if handed_out.order.len() >= MAX_HANDED_OUT
            && let Some(oldest) = handed_out.order.pop_front()
        {
            handed_out.origins.remove(&oldest);
        }
        if handed_out.origins.insert(decision_id.to_owned(), origins.to_vec()).is_none() {
            handed_out.order.push_back(decision_id.to_owned());
        }
    }

    /// The upstream did not take the credentials of this decision, or showed them: those that can be had anew are, at the next
    /// call.
    pub(crate) fn renew(&self, decision_id: &str) {
        let origins = {
            let mut handed_out = self.handed_out.lock().unwrap_or_else(PoisonError::into_inner);
            handed_out.origins.get_mut(decision_id).map(std::mem::take).unwrap_or_default()
        };
        let plan = self.plan();
        for origin in &origins {
            if plan.sources().freshness().refused(origin) {
                tracing::info!(
                    decision_id,
                    "an upstream refused or showed a credential; it is had anew at the next call"
                );
            }
        }
    }

    /// When a binding's credential was last handed out by this process.
    #[must_use]
    pub fn last_used(&self, binding: &str) -> Option<SystemTime> {
        self.used.read().ok().and_then(|used| used.get(binding).copied())
    }

    /// Why no traffic should come; empty when ready.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.is_draining() {
            problems.push("draining".to_owned());
        }
        if self.audit.is_failed() {
            problems.push("the audit writer cannot write".to_owned());
        }
        if self.audit.is_full() {
            problems.push("the audit queue is full".to_owned());
        }
        let plan = self.plan();
        problems.extend(plan.identity().problems());
        if let Some(error) = plan.catalogue().gate().and_then(|gate| gate.check().err()) {
            problems.push(error.to_string());
        }
        if let Some(error) = plan.revocation().and_then(|gate| gate.check().err()) {
            problems.push(error.to_string());
        }
        let age = plan.loaded().elapsed();
        if let Some(max) = self.max_policy_age
            && age > max
        {
            problems.push(format!("the policy is {} s old, more than {} s", age.as_secs(), max.as_secs()));
        }
        problems
    }

    /// Gauges for metrics and readiness.
    #[must_use]
    pub fn readings(&self) -> Readings {
        let in_flight = self.bound.saturating_sub(self.permits.available_permits());
        let plan = self.plan();
        let freshness = plan.sources().freshness();
        let counts = freshness.counts();
        Readings {
            materials: freshness.len() as u64,
            mints: [&counts.minted, &counts.failed, &counts.refused].map(|count| count.load(Ordering::Relaxed)),
            mint_waits: counts.waited.load(Ordering::Relaxed),
            audit_queued: self.audit.queued(),
            audit_refused: self.audit.refused(),
            policy_age: plan.loaded().elapsed(),
            throttle_counters: plan.throttle().counters() as u64,
            in_flight: u64::try_from(in_flight).unwrap_or(u64::MAX),
        }
    }

    /// Begins to end: readiness and health say no, requests are still served.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.drain.notify_waiters();
    }

    /// Whether [`Engine::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Ends when the drain begins.
    pub async fn draining(&self) {
        let begun = self.drain.notified();
        if !self.is_draining() {
            begun.await;
        }
    }
}
