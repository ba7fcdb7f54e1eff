//! The policy stage: every operation of a request is asked about, and a batch goes on only as a whole.

use keyward_contract::reason::Reason;

use crate::binding::Asker;
use crate::decision::{Denial, Stage};
use crate::operation::{Content, Operation};
use crate::perimeter::Passage;
use crate::plan::{Plan, Principal, Question, Server, Verdict};
use crate::request::Request;
use crate::resource;

/// What policy said about each operation, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// Each operation's verdict.
    pub each: Vec<Verdict>,
    /// Each operation's reason, where any was denied.
    pub reasons: Vec<Reason>,
}

/// Asks about every operation.
pub fn ask(
    plan: &Plan,
    request: &Request<'_>,
    content: &Content<'_>,
    operations: &[Operation<'_>],
    server: &Server,
    passage: &Passage<'_>,
    principal: &Principal,
) -> Verdicts {
    let authority = request.authority.as_ref().map(ToString::to_string).unwrap_or_default();
    let bindings = plan.catalogue().candidates(&server.name, &Asker::from(principal), operations);
    let each: Vec<Verdict> = operations
        .iter()
        .map(|operation| {
            let question = Question {
                revision: content.revision(),
                environment: plan.environment(),
                server: &server.name,
                mode: server.mode,
                principal,
                kind: operation.kind,
                method: operation.method,
                target: operation.target,
                arguments: operation.arguments,
                params: operation.params,
                http_method: request.method,
                http_path: request.target.map(|target| target.path).unwrap_or_default(),
                http_authority: &authority,
                class: passage.class,
                bindings: bindings.as_deref(),
                source: request.source.as_deref(),
            };
            let mut verdict = plan.policy().decide(&question).unwrap_or_else(|cause| Verdict {
                explanation: Some(format!("policy: {cause}")),
                ..Verdict::default()
            });
            for scope in server.resource.iter().flat_map(|resource| resource.scopes.needed(operation)) {
                if !verdict.required_scopes.contains(&scope) {
                    verdict.required_scopes.push(scope);
                }
            }
            verdict
        })
        .collect();
    let reason = |verdict: &Verdict| match lacks(verdict, principal) {
        true => Reason::InsufficientScope,
        false if verdict.allow => Reason::BatchMemberDenied,
        false => Reason::NotAllowed,
    };
    let reasons: Vec<Reason> = each.iter().map(reason).collect();
    let is_allowed = reasons.iter().all(|reason| *reason == Reason::BatchMemberDenied);
    Verdicts { each, reasons: if is_allowed { Vec::new() } else { reasons } }
}

/// Whether the caller's token lacks a scope that this takes.
fn lacks(verdict: &Verdict, principal: &Principal) -> bool {
    verdict.required_scopes.iter().any(|scope| !principal.scopes.contains(scope))
}

// === impl Verdicts ===

impl Verdicts {
    /// The denial, where any operation was denied or there was none to ask about. What more scopes would not help is not
    /// allowed; else it is said which are needed for all.
    #[must_use]
    pub fn denial(&self, server: &Server, principal: &Principal) -> Option<Denial> {
        let refused = |cause| Some(Denial::new(Stage::Policy, Reason::NotAllowed, cause));
        let because = |verdict: &Verdict| verdict.explanation.clone();
        if self.each.is_empty() {
            return refused("there was no operation to decide on".to_owned());
        }
        if let Some(verdict) = self.each.iter().find(|verdict| !verdict.allow && !lacks(verdict, principal)) {
            return refused(because(verdict).unwrap_or_else(|| "no rule allows it".to_owned()));
        }
        if !self.each.iter().any(|verdict| lacks(verdict, principal)) {
            return None;
        }
        let mut needed: Vec<String> = Vec::new();
        for scope in self.each.iter().flat_map(|verdict| &verdict.required_scopes) {
            if !needed.contains(scope) {
                needed.push(scope.clone());
            }
        }
        let missing: Vec<&str> =
            needed.iter().filter(|scope| !principal.scopes.contains(scope)).map(String::as_str).collect();
        let cause = format!("the token lacks the scopes `{}`", missing.join("`, `"));
        Some(resource::lacking(&needed, server, principal, cause))
    }

    /// The bindings that policy named for each operation.
    #[must_use]
    pub fn named(&self) -> Vec<Vec<String>> {
        self.each.iter().map(|verdict| verdict.bindings.clone()).collect()
    }

    /// The verdict that the audit trail names: the first denied one, else the first.
    #[must_use]
    pub fn telling(&self) -> Option<&Verdict> {
        self.each.iter().find(|verdict| !verdict.allow).or_else(|| self.each.first())
    }
}
