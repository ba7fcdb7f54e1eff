//! Prometheus metrics. Every label comes from configuration or from a fixed list: no principal, tool, path or value.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::ages::Age;
use crate::decision::{Incident, Stage};
use crate::resource::metadata::Answered;

/// The upper bounds of the latency histograms, in seconds: 10 µs to 5 s.
const LATENCY_BOUNDS_SECS: [f64; 16] = [
    0.000_010, 0.000_025, 0.000_050, 0.000_100, 0.000_250, 0.000_500, 0.001, 0.0025, 0.005, 0.010, 0.025, 0.050, 0.100,
    0.500, 1.0, 5.0,
];

/// Every metric of the server.
pub struct Metrics {
    registry: Registry,
    decisions: Family<DecisionLabels, Counter>,
    decision_secs: Histogram,
    stage_secs: Family<StageLabels, Histogram, fn() -> Histogram>,
    injections: Family<BindingLabels, Counter>,
    reports: Family<ReportLabels, Counter>,
    redactions: Family<ServerLabels, Counter>,
    reloads: Family<ReloadLabels, Counter>,
    signals: Family<SignalLabels, Counter>,
    metadata: Family<ResultLabels, Counter>,
    panics: Counter,
    in_flight: Gauge,
    audit_queued: Gauge,
    audit_refused: Gauge,
    materials: Gauge,
    mints: Family<MintLabels, Gauge>,
    mint_waits: Gauge,
    policy_age_secs: Gauge,
    secret_age_secs: Family<AgeLabels, Gauge>,
    certificate_ends: Family<CertificateLabels, Gauge>,
    certificate_loads: Family<CertificateLoadLabels, Counter>,
    throttled: Family<ThrottleLabels, Counter>,
    throttle_counters: Gauge,
    cross_tenant: Family<ServerLabels, Counter>,
    cross_environment: Family<ServerLabels, Counter>,
}

/// A label value that is shared or static.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Arc<str>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    server: Name,
    decision: &'static str,
    stage: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BindingLabels {
    binding: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgeLabels {
    binding: Name,
    reference: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabels {
    server: Name,
    event: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabels {
    server: Name,
    event: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MintLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    role: &'static str,
    name: Name,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLoadLabels {
    role: &'static str,
    name: Name,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThrottleLabels {
    rule: Name,
    because: &'static str,
}

/// Gauges that are read when somebody asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readings {
    /// Records in the audit queue.
    pub audit_queued: u64,
    /// Records that the audit queue refused.
    pub audit_refused: u64,
    /// Credentials and contents of stores that are kept.
    pub materials: u64,
    /// Mints and fetches that were made, that failed, and values that were had anew because an upstream refused or showed
    /// them.
    pub mints: [u64; 3],
    /// Times that a call waited for one of them.
    pub mint_waits: u64,
    /// How long the serving snapshot has served.
    pub policy_age: Duration,
    /// Counters of throttle rules that are kept.
    pub throttle_counters: u64,
    /// Decisions under way.
    pub in_flight: u64,
}

// === impl Name ===

impl From<&str> for Name {
    fn from(name: &str) -> Name {
        Name(name.into())
    }
}

impl prometheus_client::encoding::EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        prometheus_client::encoding::EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Metrics at zero.
    #[must_use]
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("keyward");
        let decisions = Family::<DecisionLabels, Counter>::default();
        registry.register("decisions", "Decisions by server, outcome, stage and reason", decisions.clone());
        let decision_secs = latency();
        registry.register_with_unit("decision", "Time to a decision", Unit::Seconds, decision_secs.clone());
        let stage_secs: Family<StageLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(latency);
        registry.register_with_unit("stage", "Time in one stage", Unit::Seconds, stage_secs.clone());
        let injections = Family::<BindingLabels, Counter>::default();
        registry.register("injections", "Credentials handed out, by binding", injections.clone());
        let reports = Family::<ReportLabels, Counter>::default();
        registry.register("reports", "Reports of the filter", reports.clone());
        let redactions = Family::<ServerLabels, Counter>::default();
        registry.register("redactions", "Forms of a secret replaced in answers", redactions.clone());
        let reloads = Family::<ReloadLabels, Counter>::default();
        registry.register("reloads", "Configuration and policy reloads", reloads.clone());
        let signals = Family::<SignalLabels, Counter>::default();
        registry.register(
            "security_events",
            "Refused replays, proofs, and tokens beyond their scope or audience",
            signals.clone(),
        );
        let metadata = Family::<ResultLabels, Counter>::default();
        registry.register("resource_metadata_requests", "Requests for protected-resource metadata", metadata.clone());
        let panics = Counter::default();
        registry.register("panics", "Decisions that ended by a panic and were denied", panics.clone());
        let (in_flight, audit_queued, audit_refused, policy_age_secs) =
            (Gauge::default(), Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("decisions_in_flight", "Decisions under way", in_flight.clone());
        registry.register("audit_queued_records", "Records in the audit queue", audit_queued.clone());
        registry.register(
            "audit_refused_records",
            "Records the audit writer refused since the start",
            audit_refused.clone(),
        );
        registry.register_with_unit(
            "policy_age",
            "Age of the serving snapshot",
            Unit::Seconds,
            policy_age_secs.clone(),
        );
        let (materials, mints) = (Gauge::default(), Family::<MintLabels, Gauge>::default());
        registry.register(
            "kept_materials",
            "Minted credentials and contents of stores that are kept",
            materials.clone(),
        );
        registry.register("mints", "Mints and fetches since the start, by result", mints.clone());
        let mint_waits = Gauge::default();
        registry.register(
            "mint_waits",
            "Times that a call waited for a mint or fetch, since the start",
            mint_waits.clone(),
        );
        let secret_age_secs = Family::<AgeLabels, Gauge>::default();
        registry.register_with_unit(
            "secret_age",
            "Age of a stored secret, for bindings with `max_age_days`",
            Unit::Seconds,
            secret_age_secs.clone(),
        );
        let certificate_ends = Family::<CertificateLabels, Gauge>::default();
        registry.register_with_unit(
            "certificate_expiration_timestamp",
            "Unix time at which a certificate in use ends",
            Unit::Seconds,
            certificate_ends.clone(),
        );
        let certificate_loads = Family::<CertificateLoadLabels, Counter>::default();
        registry.register("certificate_loads", "New certificates, by what became of them", certificate_loads.clone());
        let (throttled, throttle_counters) = (Family::<ThrottleLabels, Counter>::default(), Gauge::default());
        registry.register("throttled", "Requests that a throttle rule did not let pass", throttled.clone());
        registry.register("throttle_counters", "Counters of throttle rules that are kept", throttle_counters.clone());
        let (cross_tenant, cross_environment) = (Family::<ServerLabels, Counter>::default(), Family::default());
        registry.register(
            "cross_tenant_attempts",
            "Requests that were to cross from one tenant to another",
            cross_tenant.clone(),
        );
        registry.register(
            "cross_environment_attempts",
            "Requests that were to cross from one environment to another",
            Family::<ServerLabels, Counter>::clone(&cross_environment),
        );
        Metrics {
            registry,
            decisions,
            decision_secs,
            stage_secs,
            injections,
            reports,
            redactions,
            reloads,
            signals,
            metadata,
            panics,
            in_flight,
            audit_queued,
            audit_refused,
            materials,
            mints,
            mint_waits,
            policy_age_secs,
            secret_age_secs,
            certificate_ends,
            certificate_loads,
            throttled,
            throttle_counters,
            cross_tenant,
            cross_environment,
        }
    }

    /// Counts an allowed request. `server` must be the name of a server entry.
    pub fn allowed(&self, server: &str, took: Duration) {
        let labels = DecisionLabels { server: server.into(), decision: "allow", stage: "", reason: "" };
        self.decisions.get_or_create(&labels).inc();
        self.decision_secs.observe(took.as_secs_f64());
    }

    /// Counts a denied request. `server` must be the name of a server entry, or `None`.
    pub fn denied(&self, server: Option<&str>, stage: Stage, reason: &'static str, took: Duration) {
        let server = server.unwrap_or("unknown").into();
        let labels = DecisionLabels { server, decision: "deny", stage: stage.name(), reason };
        self.decisions.get_or_create(&labels).inc();
        self.decision_secs.observe(took.as_secs_f64());
    }

    /// Counts what a denial is besides. `server` must be the name of a server entry, or `None`.
    pub fn incident(&self, server: Option<&str>, incident: &Incident) {
        let labels = ServerLabels { server: server.unwrap_or("unknown").into() };
        match incident {
            Incident::CrossTenant => {
                self.cross_tenant.get_or_create(&labels).inc();
            }
            Incident::CrossEnvironment => {
                self.cross_environment.get_or_create(&labels).inc();
            }
            Incident::Throttled(rule, because) => {
                self.throttled.get_or_create(&ThrottleLabels { rule: Name(rule.clone()), because }).inc();
            }
            Incident::Token(signal) => {
                let labels = SignalLabels { server: labels.server, event: signal.name() };
                self.signals.get_or_create(&labels).inc();
            }
        }
    }

    /// Notes how long a stage took.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stage_secs.get_or_create(&StageLabels { stage: stage.name() }).observe(took.as_secs_f64());
    }

    /// Counts a credential handed out.
    pub fn injected(&self, binding: &str) {
        self.injections.get_or_create(&BindingLabels { binding: binding.into() }).inc();
    }

    /// Counts a report of the filter.
    pub fn reported(&self, server: Option<&str>, event: &'static str, reason: &'static str, redactions: u64) {
        let server: Name = server.unwrap_or("unknown").into();
        self.reports.get_or_create(&ReportLabels { server: server.clone(), event, reason }).inc();
        if redactions > 0 {
            self.redactions.get_or_create(&ServerLabels { server }).inc_by(redactions);
        }
    }

    /// Counts a request for metadata.
    pub fn metadata(&self, answered: Answered) {
        self.metadata.get_or_create(&ResultLabels { result: answered.name() }).inc();
    }

    /// Counts a reload.
    pub fn reloaded(&self, accepted: bool) {
        let result = if accepted { "accepted" } else { "refused" };
        self.reloads.get_or_create(&ReloadLabels { result }).inc();
    }

    /// Notes how old stored secrets are, in place of what was noted before; what is not known is left out.
    pub fn secret_ages(&self, ages: &[Age]) {
        self.secret_age_secs.clear();
        for own in ages {
            if let Ok(age) = &own.age {
                let labels =
                    AgeLabels { binding: own.binding.as_str().into(), reference: own.reference.as_str().into() };
                self.secret_age_secs.get_or_create(&labels).set(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
            }
        }
    }

    /// Notes when a certificate in use ends. `role` is `server` or `client`.
    pub fn certificate_ends(&self, role: &'static str, name: &str, ends: SystemTime) {
        let secs = ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let labels = CertificateLabels { role, name: name.into() };
        self.certificate_ends.get_or_create(&labels).set(i64::try_from(secs).unwrap_or(i64::MAX));
    }

    /// Counts a new certificate: `accepted`, `refused`, or `refused_by_envoy`.
    pub fn certificate_loaded(&self, role: &'static str, name: &str, result: &'static str) {
        self.certificate_loads.get_or_create(&CertificateLoadLabels { role, name: name.into(), result }).inc();
    }

    /// Drops a certificate that is not in use any more.
    pub fn certificate_gone(&self, role: &'static str, name: &str) {
        self.certificate_ends.remove(&CertificateLabels { role, name: name.into() });
    }

    /// Counts a decision that ended by a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// The text exposition (OpenMetrics 1.0).
    #[must_use]
    pub fn text(&self, readings: Readings) -> String {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.audit_queued.set(signed(readings.audit_queued));
        self.audit_refused.set(signed(readings.audit_refused));
        self.policy_age_secs.set(signed(readings.policy_age.as_secs()));
        self.in_flight.set(signed(readings.in_flight));
        self.throttle_counters.set(signed(readings.throttle_counters));
        self.materials.set(signed(readings.materials));
        self.mint_waits.set(signed(readings.mint_waits));
        for (result, count) in ["made", "failed", "refused_or_shown"].into_iter().zip(readings.mints) {
            self.mints.get_or_create(&MintLabels { result }).set(signed(count));
        }
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            // Writing to a string does not fail; half a page would be worse than none.
            Err(_) => String::new(),
        }
    }
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BOUNDS_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_configured_names_only() {
        let metrics = Metrics::new();
        metrics.allowed("demo", Duration::from_micros(60));
        metrics.denied(None, Stage::Perimeter, "destination_denied", Duration::from_micros(30));
        metrics.stage(Stage::Identity, Duration::from_micros(20));
        metrics.injected("demo-api-key");
        metrics.reported(Some("demo"), "secret_echoed", "", 3);
        let text = metrics.text(Readings { audit_queued: 2, ..Readings::default() });
        for line in [
            r#"keyward_decisions_total{server="demo",decision="allow",stage="",reason=""} 1"#,
            r#"keyward_decisions_total{server="unknown",decision="deny",stage="perimeter",reason="destination_denied"} 1"#,
            r#"keyward_stage_seconds_count{stage="identity"} 1"#,
            r#"keyward_injections_total{binding="demo-api-key"} 1"#,
            r#"keyward_redactions_total{server="demo"} 3"#,
            "keyward_audit_queued_records 2",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
