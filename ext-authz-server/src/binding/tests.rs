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
        local_secrets: Vec::new(),
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
        assert_eq!(choose(catalogue(), asker, &[&[]], "api.example:443"), Ok(vec![expected.to_owned()]), "{asker:?}");
    }
}

#[test]
fn what_is_not_clear_is_denied() {
    let bob: Who<'_> = ("bob", None, &["reader", "writer"]);
    let cases: [(&[&str], &str); 5] = [
        (&[], "ambiguous_binding: `role` and `also-role` fit equally"),
        (&["nowhere"], "the policy names binding `nowhere`, which does not exist"),
        (&["elsewhere"], "the policy names binding `elsewhere`, which does not belong to this server and environment"),
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
    type Case<'a> = (&'a [&'a str], &'a [&'a [&'a str]], &'a str);
    // Of two that fit equally, the one that is active; of two that are not, none.
    assert_eq!(after_disabling(&["role"], &[&[]]).await, Ok("also-role".into()));
    let cases: [Case<'_>; 2] = [
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
