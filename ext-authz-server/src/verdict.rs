//! The policy stage: every operation of a request is asked about, and a batch goes on only as a whole.

use keyward_contract::reason::Reason;

use crate::binding::Asker;
use crate::decision::{Denial, Stage};
use crate::operation::{Content, Operation};
use crate::perimeter::Passage;
use crate::plan::{Plan, Principal, Question, Server, Verdict};
use crate::request::Request;

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
            plan.policy()
                .decide(&question)
                .unwrap_or_else(|cause| Verdict { explanation: Some(format!("policy: {cause}")), ..Verdict::default() })
        })
        .collect();
    let reasons = if each.iter().all(|verdict| verdict.allow) {
        Vec::new()
    } else {
        each.iter().map(|verdict| if verdict.allow { Reason::BatchMemberDenied } else { Reason::NotAllowed }).collect()
    };
    Verdicts { each, reasons }
}

// === impl Verdicts ===

impl Verdicts {
    /// The denial, where any operation was denied or there was none to ask about.
    #[must_use]
    pub fn denial(&self) -> Option<Denial> {
        let refused = self.each.iter().find(|verdict| !verdict.allow);
        let cause = match (refused, self.each.is_empty()) {
            (None, false) => return None,
            (None, true) => "there was no operation to decide on".to_owned(),
            (Some(verdict), _) => verdict.explanation.clone().unwrap_or_else(|| "no rule allows it".to_owned()),
        };
        Some(Denial::new(Stage::Policy, Reason::NotAllowed, cause))
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
