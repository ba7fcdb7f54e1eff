//! Which bindings serve a request, and whether their credentials may go to this host.
//!
//! Bindings that the policy names win, in its order. Else the catalogue decides: of the bindings of this server and
//! environment whose principals match, one that names the user beats one that names the agent, then a role, then one for
//! everybody. Two of the same rank are an error, none is a denial.
//!
//! Where bindings have a lifecycle, only an active one serves. One that does not keeps its rank: nothing that is meant for more
//! people takes its place. Among those of one rank, the one that is active serves.

use std::sync::Arc;

use keyward_contract::reason::Reason;

use crate::credential::{Credential, SlotName};
use crate::decision::{Denial, Stage};
use crate::lifecycle::{Gate, State};
use crate::perimeter::authority::{Authority, HostPattern};

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
    /// The environment it belongs to; empty for every one.
    pub environment: String,
    /// The server entries it serves.
    pub servers: Vec<String>,
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
    /// The subject.
    pub subject: &'a str,
    /// Whether a person acts, not an agent for itself.
    pub is_user: bool,
    /// The agent acting.
    pub agent: Option<&'a str>,
    /// The roles.
    pub roles: &'a [String],
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

// === impl Binding ===

impl Binding {
    fn serves(&self, server: &str, environment: &str) -> bool {
        (self.environment.is_empty() || self.environment == environment)
            && self.servers.iter().any(|name| name == server)
    }

    fn rank(&self, asker: &Asker<'_>, one_issuer: bool) -> Option<Rank> {
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

    /// Chooses the bindings of a request. `named` holds, for each operation, the bindings that the policy named.
    ///
    /// # Errors
    /// No binding, an ambiguous one, one that the policy names but that does not serve here, two credentials for one
    /// place, or a credential that may not go to `authority`.
    pub fn choose(
        &self,
        server: &str,
        asker: &Asker<'_>,
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
                add(self.named(server, asker, id)?);
            }
        }
        if named.is_empty() || named.iter().any(Vec::is_empty) {
            add(self.closest(server, asker)?);
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

    fn named(&self, server: &str, asker: &Asker<'_>, id: &str) -> Result<&Arc<Binding>, Denial> {
        let refuse = |what: &str| Err(unavailable(format!("the policy names binding `{id}`, {what}")));
        let Some(binding) = self.bindings.iter().find(|binding| binding.id == id) else {
            return refuse("which does not exist");
        };
        if !binding.serves(server, &self.environment) {
            return refuse("which does not belong to this server and environment");
        }
        if binding.rank(asker, self.one_issuer).is_none() {
            return refuse("which is not for this principal");
        }
        self.check_active(binding)?;
        Ok(binding)
    }

    fn closest(&self, server: &str, asker: &Asker<'_>) -> Result<&Arc<Binding>, Denial> {
        let ranked: Vec<_> = self
            .bindings
            .iter()
            .filter(|binding| binding.serves(server, &self.environment))
            .filter_map(|binding| binding.rank(asker, self.one_issuer).map(|rank| (rank, binding)))
            .collect();
        let Some(best) = ranked.iter().map(|(rank, _)| *rank).max() else {
            return Err(unavailable("no_binding: no binding of this server is for this principal".into()));
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
                || Err(unavailable("no_binding: no binding of this server is for this principal".into())),
                |binding| self.check_active(binding).map(|()| *binding),
            ),
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
mod tests {
    use super::*;
    use crate::config::HeaderCredential;
    use crate::config::SecretSource;
    use crate::credential::header::Header;

    fn header(name: &str) -> Arc<dyn Credential> {
        let secret = SecretSource { reference: "env://TEST".into(), json_key: None, trim_newline: false };
        Arc::new(Header(HeaderCredential { name: name.into(), template: "{secret}".into(), secret }))
    }

    fn binding(id: &str, principals: Option<(&[&str], &[&str], &[&str])>) -> Binding {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Binding {
            id: id.into(),
            mode: Mode::ServiceAccount,
            owner: "team".into(),
            environment: "test".into(),
            servers: vec!["demo".into()],
            principals: principals.map(|(users, agents, roles)| Principals {
                users: list(users),
                agents: list(agents),
                roles: list(roles),
            }),
            hosts: vec![HostPattern::parse("api.example:443", None).unwrap()],
            credentials: vec![header(&format!("x-{id}"))],
            passthrough: Vec::new(),
            definition: id.into(),
        }
    }

    fn catalogue() -> Vec<Binding> {
        vec![
            binding("everybody", None),
            binding("role", Some((&[], &[], &["reader"]))),
            binding("agent", Some((&[], &["bot"], &[]))),
            binding("user", Some((&["alice"], &[], &[]))),
            binding("also-role", Some((&[], &[], &["writer"]))),
            Binding { environment: "production".into(), ..binding("elsewhere", Some((&["zoe"], &[], &[]))) },
            Binding { servers: vec!["other".into()], ..binding("other", Some((&["zoe"], &[], &[]))) },
        ]
    }

    /// Subject, agent and roles.
    type Who<'a> = (&'a str, Option<&'a str>, &'a [&'a str]);

    fn choose(
        catalogue: Vec<Binding>,
        (subject, agent, roles): Who<'_>,
        named: &[&[&str]],
        authority: &str,
    ) -> Result<Vec<String>, Denial> {
        let roles: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let key = format!("key-of-{subject}");
        let asker = Asker { key: &key, subject, is_user: true, agent, roles: &roles };
        let named: Vec<Vec<String>> = named.iter().map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()).collect();
        let authority = Authority::parse(authority).unwrap();
        let choice = Catalogue::new(catalogue, "test", true).choose("demo", &asker, &named, &authority)?;
        Ok(choice.bindings.iter().map(|binding| binding.id.clone()).collect())
    }

    #[test]
    fn the_binding_that_names_the_principal_most_closely_serves() {
        let cases: [(Who<'_>, &str); 6] = [
            (("bob", None, &[]), "everybody"),
            (("bob", None, &["reader"]), "role"),
            (("bob", Some("bot"), &["reader"]), "agent"),
            (("alice", Some("bot"), &["reader"]), "user"),
            (("key-of-x", None, &[]), "everybody"),
            (("zoe", None, &[]), "everybody"),
        ];
        for (asker, expected) in cases {
            assert_eq!(
                choose(catalogue(), asker, &[&[]], "api.example:443"),
                Ok(vec![expected.to_owned()]),
                "{asker:?}"
            );
        }
    }

    #[test]
    fn what_is_not_clear_is_denied() {
        let bob: Who<'_> = ("bob", None, &["reader", "writer"]);
        let cases: [(&[&str], &str); 5] = [
            (&[], "ambiguous_binding: `role` and `also-role` fit equally"),
            (&["nowhere"], "the policy names binding `nowhere`, which does not exist"),
            (
                &["elsewhere"],
                "the policy names binding `elsewhere`, which does not belong to this server and environment",
            ),
            (&["other"], "the policy names binding `other`, which does not belong to this server and environment"),
            (&["user"], "the policy names binding `user`, which is not for this principal"),
        ];
        for (named, cause) in cases {
            let denial = choose(catalogue(), bob, &[named], "api.example:443").unwrap_err();
            assert_eq!((denial.reason, denial.cause.as_str()), (Reason::CredentialUnavailable, cause));
        }
        let nobody = choose(vec![binding("user", Some((&["alice"], &[], &[])))], bob, &[&[]], "api.example:443");
        assert!(nobody.unwrap_err().cause.starts_with("no_binding"));
    }

    #[test]
    fn bindings_that_policy_names_add_up_unless_they_want_one_place() {
        let asker = ("bob", Some("bot"), &["reader"][..]);
        let both = choose(catalogue(), asker, &[&["role"], &["agent", "role"]], "api.example:443");
        assert_eq!(both, Ok(vec!["role".to_owned(), "agent".to_owned()]));
        let mut one_place = catalogue();
        one_place[2].credentials = vec![header("X-ROLE")];
        let denial = choose(one_place, asker, &[&["role", "agent"]], "api.example:443").unwrap_err();
        assert_eq!(denial.cause, "conflicting_bindings: two credentials for header `X-ROLE`");
    }

    /// Who serves bob, where these bindings were disabled.
    async fn after_disabling(stopped: &[&str], named: &[&[&str]]) -> Result<String, Denial> {
        use crate::lifecycle::{Action, Book, Entry, Record};
        use crate::seal::{LocalKey, Sealer};
        const KEY: &[u8] = b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let database = crate::database::Database::open("sqlite::memory:", 1).await.unwrap();
        let sealer = Sealer::new(database.clone(), vec![Arc::new(LocalKey::parse(KEY).unwrap())]).unwrap();
        let history = crate::database::DatabaseBindings::new(database, Arc::new(sealer));
        for id in stopped {
            let record = Record::default().after(Action::Disable, id, "alice", 0).unwrap().unwrap();
            let entry = Entry {
                environment: "test".into(),
                id: (*id).into(),
                version: 1,
                action: Action::Disable,
                from: State::Active,
                to: State::Disabled,
                definition: (*id).into(),
                by: "alice".into(),
                user: "root".into(),
                reason: String::new(),
                at_ms: 0,
                record,
            };
            history.add(&entry).await.unwrap();
        }
        let book = Arc::new(Book::default());
        book.read(&history).await.unwrap();
        let gate = Gate::new(crate::config::Lifecycle { approvals: 0, max_stale_secs: 60 }, "test", Some(book));
        let roles = ["reader".to_owned(), "writer".to_owned()];
        let asker = Asker { key: "key", subject: "bob", is_user: true, agent: None, roles: &roles };
        let named: Vec<Vec<String>> = named.iter().map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()).collect();
        let authority = Authority::parse("api.example:443").unwrap();
        let catalogue = Catalogue::new(catalogue(), "test", true).with_lifecycle(Some(gate));
        let choice = catalogue.choose("demo", &asker, &named, &authority)?;
        Ok(choice.bindings.iter().map(|binding| binding.id.as_str()).collect::<Vec<_>>().join(" "))
    }

    #[tokio::test]
    async fn only_an_active_binding_serves_and_nothing_for_more_people_takes_its_place() {
        // Of two that fit equally, the one that is active; of two that are not, none.
        assert_eq!(after_disabling(&["role"], &[&[]]).await, Ok("also-role".into()));
        let cases: [(&[&str], &[&[&str]], &str); 2] = [
            (&["role", "also-role"], &[&[]], "inactive_binding: binding `role` is disabled"),
            (&["also-role"], &[&["role", "also-role"]], "inactive_binding: binding `also-role` is disabled"),
        ];
        for (stopped, named, cause) in cases {
            let denial = after_disabling(stopped, named).await.unwrap_err();
            assert_eq!((denial.reason, denial.cause.as_str()), (Reason::BindingInactive, cause));
        }
    }

    #[test]
    fn a_credential_goes_to_no_host_but_its_own() {
        for authority in ["api.example", "api.example:80", "evil.example:443", "sub.api.example:443"] {
            let denial = choose(catalogue(), ("bob", None, &[]), &[&[]], authority).unwrap_err();
            assert_eq!(denial.reason, Reason::DestinationDenied, "{authority}");
        }
        let unbound = Binding { hosts: Vec::new(), ..binding("unbound", None) };
        assert!(choose(vec![unbound], ("bob", None, &[]), &[&[]], "api.example:443").is_err());
    }
}
