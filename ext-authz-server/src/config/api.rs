//! The `api` section: who may look at and change what Keyward keeps, over `listen.api`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::IdentityConfig;
use super::check::Checker;
use crate::perimeter::authority::Authority;

/// The operator API.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Api {
    /// Who vouches for operators. An issuer of agents' tokens may stand here too, with audiences that no agent's token has.
    pub identity: IdentityConfig,
    /// Who has which role, and for which tenants. Whom none fits may do nothing.
    #[schemars(length(min = 1, max = 256))]
    pub assignments: Vec<Assignment>,
    /// The authorities under which it is reached, `host` or `host:port`, at most 32. Default: the address itself, and `localhost`
    /// with its port. A request for another one is refused, so that no name of somebody else's leads here (DNS rebinding).
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub hosts: Vec<String>,
}

/// A role for some operators.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Assignment {
    /// What they may do.
    pub role: Role,
    /// For which tenants: their names, or `*` for each. What belongs to no tenant, bindings for example, takes `*`.
    #[schemars(length(min = 1, max = 256))]
    pub tenants: Vec<String>,
    /// The `name` of the issuer that vouches for them. May be left out where there is one issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub issuer: Option<String>,
    /// Who, by subject. Default: none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub subjects: Vec<String>,
    /// Whom, by what the issuer's `roles_claim` says. Default: none.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub groups: Vec<String>,
}

/// What an operator may do; each role reads everything of its tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read.
    Viewer,
    /// Approve bindings.
    Approver,
    /// Stop things: disable and revoke bindings, revoke grants and access, end sessions. Nothing that lets anything through.
    Responder,
    /// What a responder may, and let things through: activate bindings and lift revocations. Not approve them.
    Operator,
}

// === impl Api ===

impl Api {
    /// Adds what must not stand here.
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if checker.config().listen.api.is_none() {
            checker.add("api", "nobody can reach it", "add `listen.api`");
        }
        for (index, issuer) in self.identity.issuers.iter().enumerate() {
            let agents = &checker.config().identity.issuers;
            let mut same = agents.iter().filter(|agent| agent.issuer == issuer.issuer);
            if same.any(|agent| agent.audiences.iter().any(|audience| issuer.audiences.contains(audience))) {
                let message = "a token of an agent would be one of an operator: `identity` takes the same audience";
                let remedy = "name an audience that only tokens for this API have";
                checker.add(format!("api.identity.issuers[{index}].audiences"), message, remedy);
            }
        }
        checker.not_empty("api.assignments", &self.assignments, 256, "say who may do what");
        for (index, assignment) in self.assignments.iter().enumerate() {
            self.assignment(&format!("api.assignments[{index}]"), assignment, checker);
        }
        if self.hosts.len() > 32 {
            checker.add("api.hosts", "more than 32 entries", "name fewer");
        }
        for (index, host) in self.hosts.iter().enumerate() {
            if let Err(cause) = Authority::parse(host) {
                let message = format!("`{host}` is not an authority: {cause}");
                checker.add(format!("api.hosts[{index}]"), message, "write `host` or `host:port`");
            }
        }
    }

    fn assignment(&self, key: &str, assignment: &Assignment, checker: &mut Checker<'_>) {
        checker.not_empty(format!("{key}.tenants"), &assignment.tenants, 256, "name tenants, or write `*` for each");
        if assignment.subjects.is_empty() && assignment.groups.is_empty() {
            checker.add(key, "it is for nobody", "add `subjects` or `groups`");
        }
        for (list, entries) in
            [("tenants", &assignment.tenants), ("subjects", &assignment.subjects), ("groups", &assignment.groups)]
        {
            if entries.len() > 256 {
                checker.add(format!("{key}.{list}"), "more than 256 entries", "split the entry");
            }
            checker.distinct(&format!("{key}.{list}"), entries);
            for (index, entry) in entries.iter().enumerate() {
                checker.text(format!("{key}.{list}[{index}]"), entry);
            }
        }
        match &assignment.issuer {
            None if self.identity.issuers.len() > 1 => {
                let message = "one issuer could name the operators of another";
                checker.add(format!("{key}.issuer"), message, "name one of `api.identity.issuers`");
            }
            Some(name) if !self.identity.issuers.iter().any(|issuer| issuer.name == *name) => {
                let message = format!("there is no issuer `{name}` in `api.identity`");
                checker.add(format!("{key}.issuer"), message, "name one of `api.identity.issuers`");
            }
            _ => {}
        }
    }
}
