//! What the stages hand on: which stage, which outcome, and a denial's two faces, one for the agent and one for the operator.

use std::sync::Arc;

use keyward_contract::reason::Reason;

use crate::audit::Event;

/// A stage of the decision, in the order in which `check.rs` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Who asks.
    Identity,
    /// Whether the message has one meaning.
    Request,
    /// Whether the request may go there.
    Perimeter,
    /// Whether anything that the request rests on was revoked.
    Revocation,
    /// Whether the MCP session is the caller's own.
    Session,
    /// Whether there were too many requests.
    Throttle,
    /// Whether this principal may do this.
    Policy,
    /// Which binding serves, and whether it may go to this host.
    Binding,
    /// Having the credential.
    Credential,
    /// Leaving a record.
    Audit,
}

/// Why a request is denied. The agent reads the reason's code and fixed message only; `cause` is for the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Where.
    pub stage: Stage,
    /// What the agent reads.
    pub reason: Reason,
    /// What the operator reads. Never a secret, never an argument.
    pub cause: String,
    /// The provider at which the person has to connect an account first, where that is why.
    pub provider: Option<String>,
    /// Headers of the answer besides, by lower-case name: a challenge, a nonce, when to try again.
    pub headers: Vec<(&'static str, String)>,
    /// What has a counter, and perhaps an event, of its own.
    pub incident: Option<Incident>,
}

/// A denial that operators are told of apart from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incident {
    /// Something of one environment was to serve another.
    CrossEnvironment,
    /// Something of one tenant was to serve another.
    CrossTenant,
    /// A throttle rule, by its name, and why it let nothing pass: `limit`, `full` or `unavailable`.
    Throttled(Arc<str>, &'static str),
    /// What came with a token may be a sign of somebody else's hand.
    Token(Signal),
}

/// What a refused token may be a sign of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Something that serves once was shown again.
    Replay,
    /// A token came without what it is bound to, or with a proof that does not hold.
    Proof,
    /// A token wanted more than its scopes or its kind allow.
    Scope,
    /// A token came to a resource for which it was not made.
    Audience,
}

/// A stage that ran, for `keyward explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The stage.
    pub stage: Stage,
    /// What it found.
    pub outcome: String,
    /// Whether the request went on.
    pub passed: bool,
}

// === impl Stage ===

impl Stage {
    /// All stages in order.
    pub const ALL: [Stage; 10] = [
        Stage::Identity,
        Stage::Request,
        Stage::Perimeter,
        Stage::Revocation,
        Stage::Session,
        Stage::Throttle,
        Stage::Policy,
        Stage::Binding,
        Stage::Credential,
        Stage::Audit,
    ];

    /// The name in audit records, metrics and explanations.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Request => "request",
            Stage::Identity => "identity",
            Stage::Perimeter => "perimeter",
            Stage::Revocation => "revocation",
            Stage::Session => "session",
            Stage::Throttle => "throttle",
            Stage::Policy => "policy",
            Stage::Binding => "binding",
            Stage::Credential => "credential",
            Stage::Audit => "audit",
        }
    }
}

// === impl Incident ===

impl Incident {
    /// The event that the audit trail has of it, besides the decision.
    #[must_use]
    pub fn event(&self) -> Option<Event> {
        match self {
            Incident::CrossEnvironment => Some(Event::CrossEnvironment),
            Incident::CrossTenant => Some(Event::CrossTenant),
            Incident::Token(signal) => Some(signal.event()),
            Incident::Throttled(..) => None,
        }
    }
}

// === impl Signal ===

impl Signal {
    /// The name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Signal::Replay => "replay_refused",
            Signal::Proof => "proof_refused",
            Signal::Scope => "scope_refused",
            Signal::Audience => "audience_refused",
        }
    }

    /// The event in the audit trail.
    #[must_use]
    pub fn event(self) -> Event {
        match self {
            Signal::Replay => Event::ReplayRefused,
            Signal::Proof => Event::ProofRefused,
            Signal::Scope => Event::ScopeRefused,
            Signal::Audience => Event::AudienceRefused,
        }
    }
}

// === impl Denial ===

impl Denial {
    /// A denial at `stage`.
    #[must_use]
    pub fn new(stage: Stage, reason: Reason, cause: impl ToString) -> Denial {
        Denial { stage, reason, cause: cause.to_string(), provider: None, headers: Vec::new(), incident: None }
    }

    /// The same, and where the person has to connect an account.
    #[must_use]
    pub fn at_provider(self, provider: Option<String>) -> Denial {
        Denial { provider, ..self }
    }

    /// The same, and that it has a counter of its own.
    #[must_use]
    pub fn with_incident(self, incident: Incident) -> Denial {
        Denial { incident: Some(incident), ..self }
    }

    /// The same, as a sign of something.
    #[must_use]
    pub fn signalling(self, signal: Signal) -> Denial {
        self.with_incident(Incident::Token(signal))
    }

    /// The same with this header in the answer.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Denial {
        self.headers.push((name, value.into()));
        self
    }
}
