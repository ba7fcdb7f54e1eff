//! `keyward explain`: the same stages as the data path, without a record, without an answer and without a secret.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::address::Address as PeerAddress;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest, Peer};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use keyward_contract::check::extension;
use serde::Serialize;

use crate::check::decide;
use crate::config::Risk;
use crate::credential::try_out;
use crate::decision::{Denial, Stage};
use crate::plan::{Plan, Principal};
use crate::request::Request;
use crate::trail::Trail;

/// What to explain.
pub struct ExplainRequest<'a> {
    /// The request as Envoy would send it.
    pub message: &'a CheckRequest,
    /// On whose behalf; `None` reads the token of the request.
    pub principal: Option<Principal>,
}

/// A request as a person describes it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// The server entry that the route would name.
    pub server: Option<String>,
    /// The cluster of the route.
    pub cluster: Option<String>,
    /// The IP address that the request comes from.
    pub source: Option<String>,
    /// The HTTP method.
    pub method: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The authority.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Headers by lower-case name.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a request is allowed or denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The reason code that the agent would read.
    pub reason: Option<&'static str>,
    /// Why, for the operator.
    pub cause: Option<String>,
    /// Each stage that ran.
    pub stages: Vec<ExplainedStage>,
    /// The revision that decided.
    pub policy_revision: String,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedStage {
    /// The stage.
    pub stage: &'static str,
    /// Whether the request went on.
    pub passed: bool,
    /// What the stage found, one fact a line.
    pub facts: Vec<String>,
}

/// Runs the stages and says what each found.
pub async fn explain(plan: &Plan, what: ExplainRequest<'_>) -> Explanation {
    let known = what.principal.map(|principal| plan.on_behalf_of(principal));
    let plan = known.as_ref().unwrap_or(plan);
    let request = Request::read(what.message);
    let mut trail = Trail::new();
    trail.is_trial = true;
    let result = decide(plan, &request, &mut trail).await;
    let denial = result.err();
    let mut stages = Vec::new();
    for (stage, _, passed) in &trail.stages {
        let mut facts = facts(*stage, &trail);
        if *stage == Stage::Credential {
            facts.extend(credentials(plan, &request, &trail).await);
        }
        stages.push(ExplainedStage { stage: stage.name(), passed: *passed, facts });
    }
    Explanation {
        allowed: denial.is_none(),
        reason: denial.as_ref().map(|denial| denial.reason.code()),
        cause: denial.map(|Denial { cause, .. }| cause),
        stages,
        policy_revision: plan.revision().to_owned(),
    }
}

// === impl Described ===

impl Described {
    /// The message that the filter would send.
    #[must_use]
    pub fn message(self) -> CheckRequest {
        let Described { server, cluster, source, method, scheme, authority, path, headers, body } = self;
        let http = HttpRequest { method, scheme, host: authority, path, headers, raw_body: body, ..Default::default() };
        let facts = [(extension::SERVER, server), (extension::CLUSTER, cluster)];
        let facts = facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let source = source.map(|address| {
            let socket = PeerAddress::SocketAddress(SocketAddress { address, ..Default::default() });
            Peer { address: Some(Address { address: Some(socket) }), ..Default::default() }
        });
        CheckRequest {
            attributes: Some(AttributeContext {
                source,
                request: Some(attribute_context::Request { http: Some(http), ..Default::default() }),
                context_extensions: facts.collect(),
                ..Default::default()
            }),
        }
    }
}

// === the facts ===

fn facts(stage: Stage, trail: &Trail) -> Vec<String> {
    let mut facts = Vec::new();
    let mut fact = |name: &str, value: Option<&str>| facts.extend(value.map(|value| format!("{name}: {value}")));
    match stage {
        Stage::Identity => {
            if let Some(principal) = &trail.principal {
                fact("principal", Some(&principal.key));
                fact("subject", Some(&principal.subject));
                fact("agent", principal.agent.as_deref());
                fact("issuer", Some(&principal.issuer));
                fact("tenant", Some(&principal.tenant));
                let list = |names: &[String]| Some(names.join(", ")).filter(|names| !names.is_empty());
                fact("roles", list(&principal.roles).as_deref());
                fact("scopes", list(&principal.scopes).as_deref());
            }
        }
        Stage::Request => {
            fact("server", trail.server.as_deref());
            fact("mcp revision", trail.revision);
            for operation in &trail.operations {
                fact("method", Some(&operation.method));
                fact("target", operation.target.as_deref());
            }
        }
        Stage::Perimeter => fact("destination", trail.destination.as_deref()),
        Stage::Policy => {
            for verdict in &trail.verdicts.each {
                fact("allow", Some(if verdict.allow { "yes" } else { "no" }));
                fact("rule", verdict.rule.as_deref());
                fact("explanation", verdict.explanation.as_deref());
                let needed = Some(verdict.required_scopes.join(", ")).filter(|scopes| !scopes.is_empty());
                fact("scopes needed", needed.as_deref());
                fact(
                    "bindings named",
                    Some(&verdict.bindings.join(", ")).filter(|ids| !ids.is_empty()).map(String::as_str),
                );
            }
        }
        Stage::Binding => {
            fact("upstream authority", trail.authority.as_deref());
            for binding in trail.choice.iter().flat_map(|choice| &choice.bindings) {
                fact("binding", Some(&binding.id));
                fact("mode", Some(binding.mode.name()));
                fact("owner", Some(&binding.owner));
                fact("risk", binding.risk.map(Risk::as_str));
                fact("tenants", binding.tenants.as_ref().map(|names| names.join(", ")).as_deref());
                fact("tools", binding.tools.as_ref().map(|tools| tools.patterns().join(", ")).as_deref());
                let hosts: Vec<String> = binding.hosts.iter().map(ToString::to_string).collect();
                fact("may go to", Some(&hosts.join(", ")));
            }
        }
        Stage::Revocation | Stage::Session | Stage::Throttle | Stage::Credential | Stage::Audit => {}
    }
    facts
}

/// Whether each credential can be had. It is composed and dropped, never shown.
async fn credentials(plan: &Plan, request: &Request<'_>, trail: &Trail) -> Vec<String> {
    let server = trail.server.as_deref().and_then(|name| plan.server(name));
    let (Some(server), Some(principal)) = (server, &trail.principal) else { return Vec::new() };
    let caller = Arc::new(plan.caller(request, server, principal.clone()));
    let mut facts = Vec::new();
    for binding in trail.choice.iter().flat_map(|choice| &choice.bindings) {
        for credential in &binding.credentials {
            let set = match try_out(credential, &caller, plan.sources()).await {
                Ok(()) => "set: yes".to_owned(),
                Err(error) => format!("set: no ({error})"),
            };
            let places: Vec<String> = credential.places().iter().map(ToString::to_string).collect();
            facts.push(format!("{} from `{}`, {set}", places.join(", "), credential.references().join("`, `")));
        }
    }
    facts
}

// === impl Explanation ===

impl Explanation {
    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stage in &self.stages {
            writeln!(f, "{} {}", if stage.passed { "pass" } else { "DENY" }, stage.stage)?;
            for fact in &stage.facts {
                writeln!(f, "     {fact}")?;
            }
        }
        match (&self.reason, &self.cause) {
            (None, _) => write!(f, "allowed")?,
            (Some(reason), Some(cause)) => write!(f, "denied: {reason}: {cause}")?,
            (Some(reason), None) => write!(f, "denied: {reason}")?,
        }
        writeln!(f, " (revision {})", self.policy_revision)
    }
}
