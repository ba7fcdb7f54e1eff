//! Which bindings serve a request, and whether their credentials may go to this host.
//!
//! Bindings that the policy names win, in its order. Else the catalogue decides: of the bindings of this server and
//! environment whose principals and tools match, one that names the user beats one that names the agent, then a role, then
//! one for everybody. Of those that name the asker as closely, one that lists the tool beats one for every tool; for what
//! calls no tool it is the other way round. Two of the same rank are an error, none is a denial.
//!
//! Where bindings have a lifecycle, only an active one serves. One that does not keeps its rank: nothing that is meant for more
//! people takes its place. Among those of one rank, the one that is active serves.

mod tools;

pub use tools::{MAX_TOOL_BYTES, Tools};

use std::sync::Arc;

use keyward_contract::reason::Reason;

use crate::config::{Risk, SecretSource};
use crate::credential::{Credential, SlotName};
use crate::decision::{Denial, Incident, Stage};
use crate::identity::{Principal, PrincipalKind};
use crate::lifecycle::{Gate, State};
use crate::operation::Operation;
use crate::perimeter::authority::{Authority, HostPattern};

/// The most bindings that policy is shown for one request.
pub const MAX_CANDIDATES: usize = 128;

const NO_BINDING: &str = "no_binding: no binding of this server is for this principal and what it asks for";

/// Whose credential a binding holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// One credential for the service.
    ServiceAccount,
    /// The user's own.
    User,
    /// The agent's own.
    Agent,
    /// No credential; an explicit choice.
    None,
    /// The client's own headers, the listed ones; never one that identifies the client to Keyward.
    Passthrough,
}

/// A binding, ready to choose from.
#[derive(Clone)]
pub struct Binding {
    /// The id.
    pub id: String,
    /// Whose credential.
    pub mode: Mode,
    /// Who answers for it.
    pub owner: String,
    /// How much harm can be done with it; `None` where nobody has said.
    pub risk: Option<Risk>,
    /// The environment it belongs to; empty for every one.
    pub environment: String,
    /// The tenants it is for; `None` for every one.
    pub tenants: Option<Vec<String>>,
    /// The server entries it serves.
    pub servers: Vec<String>,
    /// For which tools; `None` for every one, and for every other message.
    pub tools: Option<Tools>,
    /// For whom; `None` for everybody whom the policy allowed.
    pub principals: Option<Principals>,
    /// Where the credential may go.
    pub hosts: Vec<HostPattern>,
    /// In the order in which they are applied.
    pub credentials: Vec<Arc<dyn Credential>>,
    /// Client headers that mode [`Mode::Passthrough`] lets through.
    pub passthrough: Vec<String>,
    /// What tells its definition from any other.
    pub definition: String,
    /// Secrets on this machine that credentials are made of, the same for everybody.
    pub local_secrets: Vec<SecretSource>,
}

/// For whom a binding is.
#[derive(Clone, Debug, Default)]
pub struct Principals {
    /// Principal keys; subjects too where there is one issuer only.
    pub users: Vec<String>,
    /// Agents.
    pub agents: Vec<String>,
    /// Roles.
    pub roles: Vec<String>,
}

/// Every binding of a configuration.
#[derive(Clone, Default)]
pub struct Catalogue {
    bindings: Vec<Arc<Binding>>,
    environment: String,
    one_issuer: bool,
    gate: Option<Gate>,
}

/// Who asks, as far as bindings care.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The principal key.
    pub key: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// Whether a person acts, not an agent for itself.
    pub is_user: bool,
    /// The agent acting.
    pub agent: Option<&'a str>,
    /// The roles.
    pub roles: &'a [String],
}

/// A binding that could serve a request, as policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The id.
    pub id: &'a str,
    /// Whose credential.
    pub mode: Mode,
    /// Who answers for it.
    pub owner: &'a str,
    /// How much harm can be done with it.
    pub risk: Option<Risk>,
}

/// How closely a binding names the asker; greater is closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Everybody,
    Role,
    Agent,
    User,
}

/// The bindings that serve a request.
#[derive(Clone)]
pub struct Choice {
    /// In the order in which they apply.
    pub bindings: Vec<Arc<Binding>>,
    /// Every place in which any binding of this server would put a credential: whatever a client sent there is not its own.
    pub server_slots: Vec<SlotName>,
    /// Placeholders of bindings that were not chosen: they must not leave with this request.
    pub foreign_placeholders: Vec<String>,
    /// Whether these bindings have a lifecycle.
    pub gated: bool,
}

// === impl Mode ===

impl Mode {
    /// The name as configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::ServiceAccount => "service_account",
            Mode::User => "user",
            Mode::Agent => "agent",
            Mode::None => "none",
            Mode::Passthrough => "passthrough",
        }
    }
}

// === impl Asker ===

impl<'a> From<&'a Principal> for Asker<'a> {
    fn from(principal: &'a Principal) -> Asker<'a> {
        Asker {
            key: &principal.key,
            tenant: &principal.tenant,
            subject: &principal.subject,
            is_user: principal.kind == PrincipalKind::User,
            agent: principal.agent.as_deref(),
            roles: &principal.roles,
        }
    }
}

// === impl Binding ===

impl Binding {
    fn serves(&self, server: &str) -> bool {
        self.servers.iter().any(|name| name == server)
    }

    /// Which border lies between it and this environment and tenant, if one does.
    fn border(&self, environment: &str, tenant: &str) -> Option<Incident> {
        if !self.environment.is_empty() && self.environment != environment {
            return Some(Incident::CrossEnvironment);
        }
        let is_foreign = self.tenants.as_ref().is_some_and(|tenants| tenants.iter().all(|name| name != tenant));
        is_foreign.then_some(Incident::CrossTenant)
    }

    /// Whether it serves all of these. They leave in one request, so that a credential for one is there for all.
    fn covers(&self, operations: &[Operation<'_>]) -> bool {
        self.tools.as_ref().is_none_or(|tools| operations.iter().all(|operation| tools.serve(operation)))
    }

    fn rank(&self, asker: &Asker<'_>, one_issuer: bool) -> Option<Rank> {
        let fits = match self.mode {
            Mode::User => asker.is_user,
            Mode::Agent => asker.agent.is_some(),
            Mode::ServiceAccount | Mode::None | Mode::Passthrough => true,
        };
        if !fits {
            return None;
        }
        let Some(principals) = &self.principals else { return Some(Rank::Everybody) };
        let named = |list: &[String], name: &str| list.iter().any(|entry| entry == name);
        if named(&principals.users, asker.key)
            || (one_issuer && asker.is_user && named(&principals.users, asker.subject))
        {
            return Some(Rank::User);
        }
        if asker.agent.is_some_and(|agent| named(&principals.agents, agent)) {
            return Some(Rank::Agent);
        }
        asker.roles.iter().any(|role| named(&principals.roles, role)).then_some(Rank::Role)
    }

    /// Whether a credential of this binding may go to `authority`. Bindings without credentials may go anywhere unless
    /// they name hosts.
    #[must_use]
    pub fn may_go_to(&self, authority: &Authority) -> bool {
        let anywhere = self.hosts.is_empty() && self.credentials.is_empty() && self.passthrough.is_empty();
        anywhere || self.hosts.iter().any(|pattern| pattern.matches(authority).is_some())
    }
}

// === impl Catalogue ===

impl Catalogue {
    /// A catalogue. `one_issuer` lets `principals.users` hold bare subjects.
    #[must_use]
    pub fn new(bindings: Vec<Binding>, environment: &str, one_issuer: bool) -> Catalogue {
        let bindings = bindings.into_iter().map(Arc::new).collect();
        Catalogue { bindings, environment: environment.to_owned(), one_issuer, gate: None }
    }

    /// The same where bindings have a lifecycle.
    #[must_use]
    pub fn with_lifecycle(mut self, gate: Option<Gate>) -> Catalogue {
        self.gate = gate;
        self
    }

    /// The lifecycle of these bindings, where they have one.
    #[must_use]
    pub fn gate(&self) -> Option<&Gate> {
        self.gate.as_ref()
    }

    /// Whether the binding with this id is there and serves now.
    #[must_use]
    pub fn serves_now(&self, id: &str) -> bool {
        let found = self.bindings.iter().find(|binding| binding.id == id);
        found.is_some_and(|binding| self.check_active(binding).is_ok())
    }

    /// Every binding in order of declaration.
    #[must_use]
    pub fn bindings(&self) -> &[Arc<Binding>] {
        &self.bindings
    }

    /// The bindings that could serve a request of these operations, active or not, in order of declaration. `None` where
    /// they are more than [`MAX_CANDIDATES`]: some of them would look like all.
    #[must_use]
    pub fn candidates(
        &self,
        server: &str,
        asker: &Asker<'_>,
        operations: &[Operation<'_>],
    ) -> Option<Vec<Candidate<'_>>> {
        let fitting = self.fitting(server, asker, operations).take(MAX_CANDIDATES + 1);
        let candidates = fitting.map(|(_, binding)| Candidate {
            id: &binding.id,
            mode: binding.mode,
            owner: &binding.owner,
            risk: binding.risk,
        });
        Some(candidates.collect::<Vec<_>>()).filter(|all| all.len() <= MAX_CANDIDATES)
    }

    /// Chooses the bindings of a request. `named` holds, for each operation, the bindings that the policy named.
    ///
    /// # Errors
    /// No binding, an ambiguous one, one that the policy names but that does not serve here, two credentials for one
    /// place, or a credential that may not go to `authority`.
    pub fn choose(
        &self,
        server: &str,
        asker: &Asker<'_>,
        operations: &[Operation<'_>],
        named: &[Vec<String>],
        authority: &Authority,
    ) -> Result<Choice, Denial> {
        let mut bindings: Vec<Arc<Binding>> = Vec::new();
        let mut add = |binding: &Arc<Binding>| {
            if bindings.iter().all(|chosen| chosen.id != binding.id) {
                bindings.push(binding.clone());
            }
        };
        for ids in named {
            for id in ids {
                add(self.named(server, asker, operations, id)?);
            }
        }
        if named.is_empty() || named.iter().any(Vec::is_empty) {
            add(self.closest(server, asker, operations)?);
        }
        check_places(&bindings)?;
        if let Some(binding) = bindings.iter().find(|binding| !binding.may_go_to(authority)) {
            let cause = format!("binding `{}` may not go to `{authority}`", binding.id);
            return Err(Denial::new(Stage::Binding, Reason::DestinationDenied, cause));
        }
        let foreign_placeholders = self.placeholders_beside(&bindings);
        let gated = self.gate.is_some();
        Ok(Choice { bindings, server_slots: self.slots(server), foreign_placeholders, gated })
    }

    /// The bindings for this server, asker and request, in order of declaration, and how closely each is.
    fn fitting<'a>(
        &'a self,
        server: &str,
        asker: &Asker<'_>,
        operations: &[Operation<'_>],
    ) -> impl Iterator<Item = ((Rank, bool), &'a Arc<Binding>)> {
        let calls_tool = operations.iter().any(tools::calls_tool);
        let tenant = asker.tenant.to_owned();
        let serving = move |binding: &&'a Arc<Binding>| {
            binding.serves(server) && binding.border(&self.environment, &tenant).is_none() && binding.covers(operations)
        };
        self.bindings.iter().filter(serving).filter_map(move |binding| {
            let rank = binding.rank(asker, self.one_issuer)?;
            Some(((rank, binding.tools.is_some() == calls_tool), binding))
        })
    }

    fn named(
        &self,
        server: &str,
        asker: &Asker<'_>,
        operations: &[Operation<'_>],
        id: &str,
    ) -> Result<&Arc<Binding>, Denial> {
        let refuse = |what: &str| Err(unavailable(format!("the policy names binding `{id}`, {what}")));
        let Some(binding) = self.bindings.iter().find(|binding| binding.id == id) else {
            return refuse("which does not exist");
        };
        match binding.border(&self.environment, asker.tenant) {
            _ if !binding.serves(server) => return refuse("which does not belong to this server and environment"),
            None => {}
            Some(Incident::CrossTenant) => {
                return refuse("which is another tenant's")
                    .map_err(|denial| denial.with_incident(Incident::CrossTenant));
            }
            Some(border) => {
                let refused = refuse("which does not belong to this server and environment");
                return refused.map_err(|denial| denial.with_incident(border));
            }
        }
        if binding.rank(asker, self.one_issuer).is_none() {
            return refuse("which is not for this principal");
        }
        if !binding.covers(operations) {
            return refuse("which is not for this tool or message");
        }
        self.check_active(binding)?;
        Ok(binding)
    }

    fn closest(&self, server: &str, asker: &Asker<'_>, operations: &[Operation<'_>]) -> Result<&Arc<Binding>, Denial> {
        let ranked: Vec<_> = self.fitting(server, asker, operations).collect();
        let Some(best) = ranked.iter().map(|(rank, _)| *rank).max() else {
            return Err(self.nothing(server, asker, operations));
        };
        let closest: Vec<_> = ranked.into_iter().filter(|(rank, _)| *rank == best).map(|(_, found)| found).collect();
        let mut active = closest.iter().filter(|binding| self.check_active(binding).is_ok());
        match (active.next(), active.next()) {
            (Some(only), None) => Ok(only),
            (Some(one), Some(two)) => {
                Err(unavailable(format!("ambiguous_binding: `{}` and `{}` fit equally", one.id, two.id)))
            }
            // There is one, and it does not serve.
            (None, _) => closest.first().map_or_else(
                || Err(unavailable(NO_BINDING.into())),
                |binding| self.check_active(binding).map(|()| *binding),
            ),
        }
    }

    /// No binding fits. One that would, if no border lay in between, is what the call was after.
    fn nothing(&self, server: &str, asker: &Asker<'_>, operations: &[Operation<'_>]) -> Denial {
        let serving = self.bindings.iter().filter(|binding| binding.serves(server) && binding.covers(operations));
        let mut beyond = serving.filter(|binding| binding.rank(asker, self.one_issuer).is_some());
        let border = beyond.find_map(|binding| Some((binding, binding.border(&self.environment, asker.tenant)?)));
        match border {
            None => unavailable(NO_BINDING.into()),
            Some((binding, border)) => {
                let of = match border {
                    Incident::CrossTenant => "another tenant's".to_owned(),
                    _ => format!("of environment `{}`", binding.environment),
                };
                unavailable(format!("{NO_BINDING}; `{}` is {of}", binding.id)).with_incident(border)
            }
        }
    }

    /// Whether a binding serves, as far as its lifecycle says.
    fn check_active(&self, binding: &Binding) -> Result<(), Denial> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let denial = |reason, cause: String| Denial::new(Stage::Binding, reason, cause);
        match gate.state(&binding.id, &binding.definition) {
            Ok(State::Active) => Ok(()),
            Ok(state) => {
                Err(denial(Reason::BindingInactive, format!("inactive_binding: binding `{}` is {state}", binding.id)))
            }
            Err(error) => Err(denial(Reason::DecisionUnavailable, format!("binding `{}`: {error}", binding.id))),
        }
    }

    fn placeholders_beside(&self, chosen: &[Arc<Binding>]) -> Vec<String> {
        let of = |binding: &Arc<Binding>| -> Vec<String> {
            binding.credentials.iter().flat_map(|own| own.placeholders()).map(str::to_owned).collect()
        };
        let own: Vec<String> = chosen.iter().flat_map(of).collect();
        let mut foreign: Vec<String> = self.bindings.iter().flat_map(of).filter(|text| !own.contains(text)).collect();
        foreign.dedup();
        foreign
    }

    fn slots(&self, server: &str) -> Vec<SlotName> {
        let mut slots: Vec<SlotName> = Vec::new();
        let serving = self.bindings.iter().filter(|binding| binding.servers.iter().any(|name| name == server));
        for slot in serving.flat_map(|binding| binding.credentials.iter().flat_map(|credential| credential.places())) {
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        }
        slots
    }
}

fn check_places(bindings: &[Arc<Binding>]) -> Result<(), Denial> {
    let mut taken: Vec<SlotName> = Vec::new();
    for binding in bindings {
        for slot in binding.credentials.iter().flat_map(|credential| credential.places()) {
            if taken.contains(&slot) {
                return Err(unavailable(format!("conflicting_bindings: two credentials for {slot}")));
            }
            taken.push(slot);
        }
    }
    Ok(())
}

fn unavailable(cause: String) -> Denial {
    Denial::new(Stage::Binding, Reason::CredentialUnavailable, cause)
}

#[cfg(test)]
mod tests;
