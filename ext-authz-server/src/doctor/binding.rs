//! Bindings: where each stands, and what keeps one from serving although a server starts with it. The latter needs
//! nothing that runs, so that `check-config` says it as well.

use std::collections::BTreeSet;

use super::{Finding, Findings, Outcome, Seen, Wrong};
use crate::config::{Binding, BindingMode, Config, EVERY_TENANT, Lifecycle, Principals, Server};
use crate::lifecycle::{Book, Record, Standing, State};
use crate::perimeter::authority::{Authority, HostPattern};
use crate::policy::PolicySource;

/// The most upstreams of one server that are shown.
const MAX_SHOWN: usize = 4;

/// What keeps a binding from serving.
pub(crate) struct Hint<'a> {
    /// Its position in the configuration.
    pub(crate) index: usize,
    /// Its id.
    pub(crate) id: &'a str,
    /// The key in it that is to be looked at.
    pub(crate) key: &'static str,
    /// What was seen.
    pub(crate) seen: String,
    /// What to do.
    pub(crate) remedy: &'static str,
    /// Whether nothing but another configuration helps.
    pub(crate) is_certain: bool,
}

/// Where a binding stands.
struct Stand {
    state: State,
    version: i64,
    /// How many people approved this definition.
    approvals: usize,
}

/// Adds where each binding stands, and what keeps one from serving. `book` is absent where that could not be read.
pub(super) fn examine(config: &Config, book: Option<&Book>, findings: &mut Findings) {
    let mut active = BTreeSet::new();
    for (_, binding) in own(config) {
        let Some(rule) = config.lifecycle else {
            active.insert(&binding.id);
            continue;
        };
        let stand = book.and_then(|book| Stand::of(binding, config, rule, book));
        if stand.as_ref().is_some_and(|stand| stand.state == State::Active) {
            active.insert(&binding.id);
        }
        let seen = match stand {
            Some(stand) => stand.seen(&binding.id, rule.approvals),
            None => Err(Wrong::Unknown("where it stands is not known".to_owned())),
        };
        findings.note(&format!("binding `{}`, lifecycle", binding.id), seen);
    }
    for hint in hints(config, |binding| active.contains(&binding.id)) {
        findings.all.push(Finding {
            outcome: if hint.is_certain { Outcome::Fail } else { Outcome::Warn },
            check: format!("binding `{}`, {}", hint.id, hint.key),
            seen: hint.seen,
            remedy: Some(hint.remedy.to_owned()),
        });
    }
}

/// What keeps bindings of this environment from serving. `is_active` says whether a binding's lifecycle lets it serve:
/// of several that fit equally, the one that is active does.
pub(crate) fn hints(config: &Config, is_active: impl Fn(&Binding) -> bool) -> Vec<Hint<'_>> {
    let own_policies = config.tenants.iter().flatten().filter_map(|(_, tenant)| tenant.policy_directory.as_ref());
    let directories = std::iter::once(&config.policy.directory).chain(own_policies);
    let policies: Vec<Option<PolicySource>> = directories.map(|own| PolicySource::read(own).ok()).collect();
    // What the policy may name is chosen by it, however many fit.
    let names = |policy: &PolicySource, id: &str| policy.holds_text(id) || policy.reads_bindings();
    let is_named = |binding: &Binding| {
        policies.iter().any(|policy| policy.as_ref().is_none_or(|policy| names(policy, &binding.id)))
    };
    let mut hints = Vec::new();
    let mut before: Vec<&Binding> = Vec::new();
    for (index, binding) in own(config) {
        let missed: Vec<String> = binding.servers.iter().filter_map(|name| missed(binding, name, config)).collect();
        if !missed.is_empty() {
            let seen = format!("none is an upstream of {}, so that it serves no call there", missed.join(" and "));
            let remedy = "name that upstream as `servers` does, with the port where it has one, or take the server out \
                          of the binding's `servers`";
            hints.push(Hint { index, id: &binding.id, key: "hosts", seen, remedy, is_certain: true });
        }
        if !is_active(binding) || is_named(binding) {
            continue;
        }
        if let Some(other) = before.iter().find(|other| fits_equally(binding, other)) {
            let shared: Vec<&str> = shared_servers(binding, other).collect();
            let seen = format!(
                "`{}` fits the same callers of `{}`, whatever `hosts` says, and the policy names neither, so that \
                 their calls are denied (`ambiguous_binding`)",
                other.id,
                shared.join("`, `")
            );
            let remedy = "give one of the two other `principals`, have the policy name one, or take one away";
            hints.push(Hint { index, id: &binding.id, key: "principals", seen, remedy, is_certain: false });
        }
        before.push(binding);
    }
    hints
}

/// The bindings of this environment; others are never used.
fn own(config: &Config) -> impl Iterator<Item = (usize, &Binding)> {
    config.bindings.iter().enumerate().filter(|(_, binding)| binding.environment == config.environment)
}

/// A server of a binding to whose upstream the binding may never go, with that upstream.
fn missed(binding: &Binding, name: &str, config: &Config) -> Option<String> {
    let Server { upstream_authority, destinations, .. } = config.servers.get(name)?;
    let hosts: Vec<HostPattern> = binding.hosts.iter().filter_map(|host| HostPattern::parse(host, None).ok()).collect();
    if hosts.is_empty() {
        // It carries nothing, and goes anywhere.
        return None;
    }
    let (is_met, upstreams) = match upstream_authority {
        Some(text) => {
            let authority = Authority::parse(text).ok()?;
            (hosts.iter().any(|host| host.matches(&authority).is_some()), vec![authority.to_string()])
        }
        // The request's own authority, which one of these names.
        None => {
            let named = destinations.iter().filter_map(|own| HostPattern::parse(&own.host, own.port).ok());
            let named: Vec<HostPattern> = named.collect();
            let is_met = named.iter().any(|own| hosts.iter().any(|host| host.meets(own)));
            (is_met, named.iter().take(MAX_SHOWN).map(ToString::to_string).collect())
        }
    };
    (!is_met).then(|| format!("`{name}` (`{}`)", upstreams.join("`, `")))
}

/// Whether all whom one of the two serves are served by the other one as well, and as closely.
fn fits_equally(one: &Binding, other: &Binding) -> bool {
    // A person without an agent and an agent without a person tell these two apart.
    let is_apart = matches!(
        (one.mode, other.mode),
        (BindingMode::User, BindingMode::Agent) | (BindingMode::Agent, BindingMode::User)
    );
    !is_apart
        && is_same(&one.principals, &other.principals)
        // One with tools and one without are never as close, and two lists may have no tool in common.
        && one.tools.as_deref().map(all) == other.tools.as_deref().map(all)
        && shared_servers(one, other).next().is_some()
        && share_a_tenant(one, other)
}

fn share_a_tenant(one: &Binding, other: &Binding) -> bool {
    let (Some(one), Some(other)) = (&one.tenants, &other.tenants) else { return true };
    let is_every = |tenants: &[String]| tenants.iter().any(|name| name == EVERY_TENANT);
    is_every(one) || is_every(other) || one.iter().any(|name| other.contains(name))
}

fn shared_servers<'a>(one: &'a Binding, other: &'a Binding) -> impl Iterator<Item = &'a str> {
    one.servers.iter().filter(|name| other.servers.contains(name)).map(String::as_str)
}

fn all(names: &[String]) -> BTreeSet<&String> {
    names.iter().collect()
}

fn is_same(one: &Principals, other: &Principals) -> bool {
    all(&one.users) == all(&other.users)
        && all(&one.agents) == all(&other.agents)
        && all(&one.roles) == all(&other.roles)
}

// === impl Stand ===

impl Stand {
    /// Where a binding stands; `None` where its newest step cannot be opened.
    fn of(binding: &Binding, config: &Config, rule: Lifecycle, book: &Book) -> Option<Stand> {
        let (version, record) = match book.standing(&config.environment, &binding.id) {
            Some(Standing { version, entry }) => (version, entry?.record.clone()),
            // Nobody has taken a step with it.
            None => (0, Record::default()),
        };
        let approvals = record.approvers(&binding.definition).len();
        Some(Stand { state: record.state(&binding.definition, rule.approvals), version, approvals })
    }

    /// Whether it serves, and the command that lets it.
    fn seen(&self, id: &str, needed: usize) -> Seen {
        let Stand { state, version, approvals } = self;
        let activate = format!("`keyward bindings activate {id}`");
        let remedy = match state {
            State::Active => return Ok(format!("active, version {version}")),
            State::Revoked => "nothing brings it back: declare it under another id, or take it out".to_owned(),
            State::Draft | State::Disabled if *approvals < needed => {
                format!("`keyward bindings approve {id}` by each person who is still needed, then {activate}")
            }
            State::Draft | State::Approved | State::Disabled => activate,
        };
        let have = match state {
            State::Draft => format!(" with {approvals} of {needed} approvals of this definition"),
            _ => String::new(),
        };
        Err(Wrong::warned(format!("{state}{have}, version {version}: calls that choose it are denied"), remedy))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;
    use crate::scratch::Scratch;

    const CONFIGURATION: &str = r#"
version: 1
environment: test
identity:
  issuers:
    - name: demo
      issuer: https://issuer.example
      audiences: [https://mcp.example/mcp]
      algorithms: [ES256]
      jwks: { file: jwks.json }
policy: { directory: policies }
audit: { file: "-", hmac_key: { ref: "env://KEYWARD_AUDIT_KEY" } }
servers:
  fixed: { mode: http, destinations: [{ host: mcp.example }], upstream_authority: "api.internal:443" }
  bare: { mode: http, destinations: [{ host: bare.example }], upstream_authority: bare.internal }
  open: { mode: http, destinations: [{ host: "*.vendor.example", port: 443 }, { host: vendor.example }] }
  tools: { mode: mcp, destinations: [{ host: tools.example }], upstream_authority: "api.internal:443" }
bindings:
"#;

    /// A binding with this id and the keys that follow.
    fn binding(id: &str, keys: &str) -> String {
        let header = format!("{{ type: header, name: x-{id}, secret: {{ ref: \"env://SECRET\" }} }}");
        format!("  - {{ id: {id}, owner: team, credentials: [{header}], {keys} }}\n")
    }

    /// What is said of these bindings: id, key and text.
    fn said(bindings: &[String], policy: &str, is_active: impl Fn(&Binding) -> bool) -> Vec<String> {
        let folder = Scratch::new();
        folder.write("policies/main.rego", policy);
        let text = CONFIGURATION.to_owned() + &bindings.concat();
        let config = parse(&folder.path().join("keyward.yaml"), &text).unwrap();
        let hints = hints(&config, is_active).into_iter();
        hints.map(|hint| format!("{} {} {}: {}", hint.index, hint.id, hint.key, hint.seen)).collect()
    }

    #[test]
    fn hosts_have_to_be_an_upstream_of_every_server() {
        let of = |servers: &str, hosts: &str| {
            let keys = format!("mode: service_account, environment: test, servers: [{servers}], hosts: [\"{hosts}\"]");
            said(&[binding("a", &keys)], "", |_| true)
        };
        for (servers, hosts) in [
            ("fixed", "api.internal:443"),
            ("fixed", "api.internal"),
            ("fixed", "*.internal:443"),
            ("bare", "bare.internal"),
            ("open", "eu.vendor.example"),
            ("open", "*.vendor.example"),
            ("open", "vendor.example:8443"),
            ("fixed, bare", "*.internal"),
        ] {
            assert!(of(servers, hosts).is_empty(), "{servers} {hosts}");
        }
        for (servers, hosts, expected) in [
            ("fixed", "api.internal:8443", "`fixed` (`api.internal:443`)"),
            ("fixed", "mcp.example", "`fixed` (`api.internal:443`)"),
            ("bare", "bare.internal:443", "`bare` (`bare.internal`)"),
            ("open", "eu.vendor.example:80", "`open` (`*.vendor.example:443`, `vendor.example`)"),
            ("fixed, bare", "api.internal:443", "`bare` (`bare.internal`)"),
            ("fixed, bare", "elsewhere.internal", "`fixed` (`api.internal:443`) and `bare` (`bare.internal`)"),
        ] {
            let expected = format!("0 a hosts: none is an upstream of {expected}, so that it serves no call there");
            assert_eq!(of(servers, hosts), [expected], "{servers} {hosts}");
        }
        // Without anything to carry it goes anywhere.
        let nothing = "  - { id: a, owner: team, mode: none, environment: test, servers: [fixed] }\n".to_owned();
        assert!(said(&[nothing], "", |_| true).is_empty());
    }

    #[test]
    fn two_that_fit_equally_are_named_unless_something_tells_them_apart() {
        let keys = |mode: &str, environment: &str, server: &str, more: &str| {
            let host = if server == "fixed" { "api.internal:443" } else { "bare.internal" };
            format!("mode: {mode}, environment: {environment}, servers: [{server}], hosts: [\"{host}\"]{more}")
        };
        let plain = keys("service_account", "test", "fixed", "");
        let roles = |roles: &str| format!("{plain}, principals: {{ roles: [{roles}] }}");
        let of_user = plain.replace("service_account", "user") + ", principals: { users: [alice] }";
        let of_agent = plain.replace("service_account", "agent") + ", principals: { users: [alice], agents: [bot] }";
        let said = |one: &str, two: &str, policy: &str, is_active: fn(&Binding) -> bool| {
            said(&[binding("one", one), binding("two", two)], policy, is_active)
        };
        for (one, two) in [
            (plain.clone(), plain.clone()),
            (plain.clone(), plain.replace("api.internal:443", "*.internal")),
            (plain.clone(), plain.replace("[fixed]", "[bare, fixed]").replace("api.internal:443", "*.internal")),
            (roles("a, b"), roles("b, a")),
            (of_user.clone(), of_user.replace("user,", "service_account,")),
        ] {
            let found = said(&one, &two, "", |_| true);
            let expected = "1 two principals: `one` fits the same callers of `fixed`, ";
            assert!(found.len() == 1 && found[0].starts_with(expected), "{one} {two} {found:?}");
        }
        for (one, two) in [
            (plain.clone(), roles("a")),
            (roles("a"), roles("a, b")),
            (plain.clone(), keys("service_account", "production", "fixed", "")),
            (plain.clone(), keys("service_account", "test", "bare", "")),
            (of_user.replace("users: [alice]", "users: [alice], agents: [bot]"), of_agent),
        ] {
            assert!(said(&one, &two, "", |_| true).is_empty(), "{one} {two}");
        }
        assert!(said(&plain, &plain, "", |binding| binding.id == "one").is_empty(), "only one is active");
        assert!(said(&plain, &plain, "bindings := [\"two\"]", |_| true).is_empty(), "the policy names one");
        assert_eq!(said(&plain, &plain, "bindings := [\"two-others\"]", |_| true).len(), 1);
    }

    #[test]
    fn a_list_of_tools_tells_two_apart_and_so_may_a_policy_that_reads_them() {
        let said = |one: &str, two: &str, policy: &str| {
            let plain = "mode: service_account, environment: test, servers: [tools], hosts: [\"api.internal:443\"]";
            let [one, two] = [("one", one), ("two", two)].map(|(id, more)| binding(id, &format!("{plain}{more}")));
            said(&[one, two], policy, |_| true)
        };
        for (one, two) in [("", ""), (", tools: [a, b]", ", tools: [b, a]")] {
            assert_eq!(said(one, two, "").len(), 1, "{one} {two}");
        }
        for (one, two) in [(", tools: [a]", ""), (", tools: [a]", ", tools: [b]")] {
            assert!(said(one, two, "").is_empty(), "{one} {two}");
        }
        assert!(said("", "", "ids contains binding.id if some binding in input.bindings").is_empty());
    }

    #[test]
    fn bindings_of_tenants_that_are_not_the_same_are_apart() {
        let folder = Scratch::new();
        folder.write("policies/main.rego", "");
        let tenants = "tenants: { demo: { servers: [fixed] }, other: { servers: [fixed] } }\nbindings:\n";
        for (one, two, warned) in
            [("demo", "other", 0), ("demo", "demo", 1), ("demo, other", "other", 1), ("\"*\"", "other", 1)]
        {
            let keys = |of: &str| {
                format!(
                    "mode: service_account, environment: test, servers: [fixed], hosts: [\"api.internal:443\"], \
                     tenants: [{of}]"
                )
            };
            let head = CONFIGURATION.replace("bindings:\n", tenants);
            let text = head + &binding("one", &keys(one)) + &binding("two", &keys(two));
            let config = parse(&folder.path().join("keyward.yaml"), &text).unwrap();
            assert_eq!(hints(&config, |_| true).len(), warned, "{one} {two}");
        }
    }

    #[test]
    fn where_a_binding_stands_says_the_command_that_lets_it_serve() {
        let cases = [
            (State::Draft, 1, 2, "draft with 1 of 2 approvals of this definition", "bindings approve a` by each"),
            (State::Approved, 2, 2, "approved", "`keyward bindings activate a`"),
            (State::Disabled, 0, 0, "disabled", "`keyward bindings activate a`"),
            (State::Disabled, 0, 1, "disabled", "bindings approve a` by each"),
            (State::Revoked, 0, 0, "revoked", "declare it under another id"),
        ];
        for (state, approvals, needed, begins, remedied) in cases {
            let Err(Wrong::Warned { seen, remedy }) = (Stand { state, version: 3, approvals }).seen("a", needed) else {
                panic!("{state}");
            };
            assert_eq!(seen, format!("{begins}, version 3: calls that choose it are denied"));
            assert!(remedy.contains(remedied), "{remedy}");
        }
        let active = Stand { state: State::Active, version: 3, approvals: 0 };
        assert!(active.seen("a", 0).is_ok_and(|seen| seen == "active, version 3"));
    }

    #[test]
    fn what_is_not_known_is_skipped_and_nothing_is_said_of_another_environment() {
        let keys = "mode: service_account, servers: [fixed], hosts: [\"api.internal:443\"]";
        let all = [
            binding("a", &format!("environment: test, {keys}")),
            binding("b", &format!("environment: production, {keys}")),
        ];
        let sections = "database: { encryption_keys: [{ ref: \"env://KEY\" }] }\nlifecycle: { approvals: 1 }\n";
        let text = CONFIGURATION.replace("bindings:", &format!("{sections}bindings:")) + &all.concat();
        let config = parse(Path::new("keyward.yaml"), &text).unwrap();
        let outcomes = |book: Option<&Book>| -> Vec<(Outcome, String)> {
            let mut findings = Findings { all: Vec::new(), until: std::time::Instant::now() };
            examine(&config, book, &mut findings);
            findings.all.into_iter().map(|finding| (finding.outcome, finding.check)).collect()
        };
        let check = "binding `a`, lifecycle".to_owned();
        assert_eq!(outcomes(None), [(Outcome::Skip, check.clone())]);
        assert_eq!(outcomes(Some(&Book::default())), [(Outcome::Warn, check)], "nobody has approved it");
    }
}
