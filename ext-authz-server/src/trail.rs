//! What a decision found out on its way, kept even where it ends early: the material of the audit record, the metrics and
//! `keyward explain`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward_contract::mcp::Refusal;
use keyward_contract::mcp::elicitation::Asking;
use keyward_contract::reason::Reason;
use keyward_contract::revocation::Tag;

use crate::answer::Shape;
use crate::audit::record::{BindingRecord, DecisionRecord, MAX_OPERATIONS, OperationRecord, PrincipalRecord, bounded};
use crate::binding::Choice;
use crate::connect::Attempt;
use crate::decision::{Denial, Stage};
use crate::plan::{Mode, Principal, Server};
use crate::request::Request;
use crate::session::Passage;
use crate::tenancy::Place;
use crate::verdict::Verdicts;

/// The trail of one decision.
pub struct Trail {
    began: Instant,
    last: Instant,
    /// Each stage that ran, how long it took and whether the request went on.
    pub stages: Vec<(Stage, Duration, bool)>,
    /// The server entry.
    pub server: Option<String>,
    /// How its requests are read.
    pub mode: Option<Mode>,
    /// The shape of the answer.
    pub shape: Shape,
    /// The answer that the contract prescribes for a malformed message.
    pub prescribed: Option<Refusal>,
    /// The MCP revision.
    pub revision: Option<&'static str>,
    /// How the client can be asked to open an address.
    pub asking: Asking,
    /// What of the request belongs to Keyward's own conversation with the client, and what to the upstream's.
    pub attempt: Attempt,
    /// A digest of what is asked, where a person has to be asked first.
    pub request_digest: String,
    /// Who asked.
    pub principal: Option<Arc<Principal>>,
    /// The tags of what can be revoked that it rests on.
    pub subjects: Vec<Tag>,
    /// What was asked.
    pub operations: Vec<OperationRecord>,
    /// How many operations were asked.
    pub operation_count: usize,
    /// The destination that matched.
    pub destination: Option<String>,
    /// The session of the request, and what becomes of the one in the answer.
    pub session: Passage,
    /// The authority that the upstream reads.
    pub authority: Option<String>,
    /// What policy said.
    pub verdicts: Verdicts,
    /// The bindings.
    pub choice: Option<Choice>,
    /// The place among the decisions of the tenant.
    pub place: Option<Place>,
    /// Whether this only shows how a request would be decided: nothing is counted.
    pub is_trial: bool,
    /// The kinds of credentials that the request seemed to hold.
    pub patterns: Vec<&'static str>,
}

// === impl Trail ===

impl Default for Trail {
    fn default() -> Trail {
        Trail::new()
    }
}

impl Trail {
    /// A trail that begins now.
    #[must_use]
    pub fn new() -> Trail {
        let now = Instant::now();
        Trail {
            began: now,
            last: now,
            stages: Vec::with_capacity(8),
            server: None,
            mode: None,
            shape: Shape::Plain,
            prescribed: None,
            revision: None,
            asking: Asking::Plainly,
            attempt: Attempt::default(),
            request_digest: String::new(),
            principal: None,
            subjects: Vec::new(),
            operations: Vec::new(),
            operation_count: 0,
            destination: None,
            session: Passage::default(),
            authority: None,
            verdicts: Verdicts::default(),
            choice: None,
            place: None,
            is_trial: false,
            patterns: Vec::new(),
        }
    }

    /// Notes that `stage` ended like this, and hands the result on.
    ///
    /// # Errors
    /// The result's own.
    pub fn note<T, E>(&mut self, stage: Stage, result: Result<T, E>) -> Result<T, E> {
        let now = Instant::now();
        self.stages.push((stage, now.duration_since(self.last), result.is_ok()));
        self.last = now;
        result
    }

    /// Notes the server entry.
    pub fn at(&mut self, server: &Server) {
        self.server = Some(server.name.clone());
        self.mode = Some(server.mode);
    }

    /// The stage that is under way, for a decision that was cut off.
    #[must_use]
    pub fn under_way(&self) -> Stage {
        let done = self.stages.last().map(|(stage, ..)| *stage);
        Stage::ALL.into_iter().find(|stage| Some(*stage) > done).unwrap_or(Stage::Audit)
    }

    /// How long the decision has taken.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// The reasons of the answer: each element's own, where policy gave them and is what denied.
    #[must_use]
    pub fn elements(&self, denial: &Denial) -> &[Reason] {
        if denial.stage == Stage::Policy { &self.verdicts.reasons } else { &[] }
    }

    /// The audit record's decision.
    #[must_use]
    pub fn record(&self, request: &Request<'_>, denial: Option<&Denial>) -> DecisionRecord {
        let reasons = denial.map(|denial| self.elements(denial)).unwrap_or_default();
        let mut operations = self.operations.clone();
        for (operation, reason) in operations.iter_mut().zip(reasons) {
            operation.reason = Some(reason.code());
        }
        operations.truncate(MAX_OPERATIONS);
        let telling = self.verdicts.telling();
        let cause = denial.map(|denial| bounded(&denial.cause));
        DecisionRecord {
            decision_id: request.decision_id.clone(),
            request_id: bounded(request.request_id),
            server: self.server.clone(),
            mode: self.mode.map(Mode::name),
            principal: self.principal.as_ref().map(|principal| PrincipalRecord {
                key: bounded(&principal.key),
                kind: principal.kind.as_str().to_owned(),
                subject: bounded(&principal.subject),
                agent: principal.agent.as_deref().map(bounded),
                issuer: bounded(&principal.issuer),
                tenant: bounded(&principal.tenant),
                actors: principal.actors.iter().map(|actor| bounded(&actor.subject)).collect(),
            }),
            operations,
            operation_count: self.operation_count,
            decision: if denial.is_some() { "deny" } else { "allow" },
            stage: denial.map(|denial| denial.stage.name()),
            reason: denial.map(|denial| denial.reason.code()),
            rule: telling.and_then(|verdict| verdict.rule.as_deref()).map(bounded),
            explanation: cause.or_else(|| telling.and_then(|verdict| verdict.explanation.as_deref()).map(bounded)),
            bindings: self
                .choice
                .iter()
                .flat_map(|choice| &choice.bindings)
                .map(|binding| BindingRecord {
                    id: binding.id.clone(),
                    mode: binding.mode.name().to_owned(),
                    references: binding.credentials.iter().flat_map(|credential| credential.references()).collect(),
                })
                .collect(),
            destination: self.authority.clone(),
            cluster: request.cluster.map(bounded),
            source: request.source.as_deref().map(bounded),
            protocol_revision: self.revision,
            session: self.session.id.clone(),
            patterns: self.patterns.clone(),
            latency_us: u64::try_from(self.took().as_micros()).unwrap_or(u64::MAX),
        }
    }
}
