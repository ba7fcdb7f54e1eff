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
        risk: None,
        environment: "test".into(),
        tenants: None,
        servers: vec!["demo".into()],
        tools: None,
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

fn call(tool: &str) -> Operation<'_> {
    Operation { kind: "request", method: "tools/call", target: Some(tool), arguments: None, params: None }
}

fn message<'a>(kind: &'static str, method: &'a str) -> Operation<'a> {
    Operation { kind, method, target: None, arguments: None, params: None }
}

/// The ids of the bindings that serve, or why none does.
fn ids(choice: Result<Choice, Denial>) -> Result<Vec<String>, Denial> {
    choice.map(|choice| choice.bindings.iter().map(|binding| binding.id.clone()).collect())
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
    let asker = Asker { key: &key, tenant: "acme", subject, is_user: true, agent, roles: &roles };
    let named: Vec<Vec<String>> = named.iter().map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()).collect();
    let authority = Authority::parse(authority).unwrap();
    ids(Catalogue::new(catalogue, "test", true).choose("demo", &asker, &[call("echo")], &named, &authority))
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
    let asker = Asker { key: "key", tenant: "acme", subject: "bob", is_user: true, agent: None, roles: &roles };
    let named: Vec<Vec<String>> = named.iter().map(|ids| ids.iter().map(|id| (*id).to_owned()).collect()).collect();
    let authority = Authority::parse("api.example:443").unwrap();
    let catalogue = Catalogue::new(catalogue(), "test", true).with_lifecycle(Some(gate));
    let choice = catalogue.choose("demo", &asker, &[call("echo")], &named, &authority)?;
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

/// Who asks: a name, whether a person does, and the agent.
const ASKERS: [(&str, bool, Option<&str>); 4] = [
    ("a user", true, None),
    ("a user with an agent", true, Some("bot")),
    ("an agent alone", false, Some("bot")),
    ("a service without either", false, None),
];

#[test]
fn a_mode_serves_whom_it_is_for_and_nobody_else_whether_the_policy_names_it_or_not() {
    let modes = [
        (Mode::ServiceAccount, [true, true, true, true]),
        (Mode::User, [true, true, false, false]),
        (Mode::Agent, [false, true, true, false]),
        (Mode::None, [true, true, true, true]),
        (Mode::Passthrough, [true, true, true, true]),
    ];
    // For everybody, and for each of them by name.
    let nobody: &[&str] = &[];
    let principals = [None, Some((&["key-of-it"][..], &["bot"][..], nobody)), Some((nobody, nobody, &["reader"][..]))];
    let (authority, roles) = (Authority::parse("api.example:443").unwrap(), ["reader".to_owned()]);
    for (mode, fits) in modes {
        for ((who, is_user, agent), fits) in ASKERS.into_iter().zip(fits) {
            for principals in principals {
                let asker = Asker { key: "key-of-it", tenant: "acme", subject: "it", is_user, agent, roles: &roles };
                let catalogue = Catalogue::new(vec![Binding { mode, ..binding("one", principals) }], "test", true);
                let choose =
                    |named: &[Vec<String>]| ids(catalogue.choose("demo", &asker, &[call("echo")], named, &authority));
                let (left, named) = (choose(&[vec![]]), choose(&[vec!["one".into()]]));
                let shown = catalogue.candidates("demo", &asker, &[call("echo")]).unwrap();
                let case = format!("{} for {who}", mode.name());
                if fits {
                    assert_eq!((left, named), (Ok(vec!["one".into()]), Ok(vec!["one".into()])), "{case}");
                    assert_eq!(shown, [Candidate { id: "one", mode, owner: "team", risk: None }], "{case}");
                } else {
                    let cause = |result: Result<Vec<String>, Denial>| {
                        let denial = result.expect_err(&case);
                        assert_eq!(denial.reason, Reason::CredentialUnavailable, "{case}");
                        denial.cause
                    };
                    assert_eq!(cause(left), NO_BINDING, "{case}");
                    assert_eq!(
                        cause(named),
                        "the policy names binding `one`, which is not for this principal",
                        "{case}"
                    );
                    assert!(shown.is_empty(), "{case}");
                }
            }
        }
    }
}

#[test]
fn the_name_of_a_person_is_no_agents_of_the_same_name() {
    let of_alice = || Catalogue::new(vec![binding("alice", Some((&["alice"], &[], &[])))], "test", true);
    let authority = Authority::parse("api.example:443").unwrap();
    for (is_user, serves) in [(true, true), (false, false)] {
        let asker = Asker { key: "key", tenant: "acme", subject: "alice", is_user, agent: Some("alice"), roles: &[] };
        let choice = of_alice().choose("demo", &asker, &[call("echo")], &[vec![]], &authority);
        assert_eq!(choice.is_ok(), serves, "{is_user}");
    }
}

fn for_tools(id: &str, tools: &[&str]) -> Binding {
    Binding { tools: Some(Tools::new(tools.iter().map(|tool| (*tool).to_owned()).collect())), ..binding(id, None) }
}

/// Who serves a request of bob's.
fn serves(catalogue: &[Binding], operations: &[Operation<'_>], named: &[&str]) -> Result<Vec<String>, Denial> {
    let asker = Asker { key: "key", tenant: "acme", subject: "bob", is_user: true, agent: None, roles: &[] };
    let named: Vec<String> = named.iter().map(|id| (*id).to_owned()).collect();
    let authority = Authority::parse("api.example:443").unwrap();
    ids(Catalogue::new(catalogue.to_vec(), "test", true).choose("demo", &asker, operations, &[named], &authority))
}

#[test]
fn a_tool_that_a_binding_does_not_list_never_gets_its_credential() {
    let listed = [for_tools("listed", &["echo", "get_*"])];
    let one = Ok(vec!["listed".to_owned()]);
    for named in [&[][..], &["listed"]] {
        for served in [
            call("echo"),
            call("get_weather"),
            message("request", "initialize"),
            message("request", "tools/list"),
            message("notification", "notifications/initialized"),
            message("stream_open", ""),
        ] {
            assert_eq!(serves(&listed, &[served], named), one, "{}", served.method);
        }
        for refused in
            [call("delete_everything"), call("Echo"), message("request", "resources/read"), message("http", "GET")]
        {
            let denial = serves(&listed, &[refused], named).unwrap_err();
            let cause = match named {
                [] => NO_BINDING,
                _ => "the policy names binding `listed`, which is not for this tool or message",
            };
            assert_eq!((denial.reason, denial.cause.as_str()), (Reason::CredentialUnavailable, cause));
        }
    }
}

/// All of a batch leaves in one request, with the credentials of all of it.
#[test]
fn a_batch_is_served_only_by_what_serves_all_of_it() {
    let both = [for_tools("echo", &["echo"]), for_tools("delete", &["delete_*"])];
    let batch = [call("echo"), call("delete_everything")];
    for named in [&[][..], &["echo"], &["echo", "delete"]] {
        assert_eq!(serves(&both, &batch, named).unwrap_err().reason, Reason::CredentialUnavailable, "{named:?}");
    }
    let all = [for_tools("echo", &["echo"]), for_tools("both", &["echo", "delete_*"])];
    assert_eq!(serves(&all, &batch, &[]), Ok(vec!["both".to_owned()]));
    let with_a_notification = [call("echo"), message("notification", "notifications/cancelled")];
    assert_eq!(serves(&both, &with_a_notification, &[]), Ok(vec!["echo".to_owned()]));
}

#[test]
fn one_that_lists_the_tool_is_closer_and_what_calls_no_tool_goes_to_one_for_every_tool() {
    let catalogue = [binding("every", None), for_tools("listed", &["echo"]), for_tools("other", &["delete_*"])];
    for (operation, expected) in [
        (call("echo"), "listed"),
        (call("delete_everything"), "other"),
        (call("leak"), "every"),
        (message("request", "initialize"), "every"),
        (message("request", "prompts/get"), "every"),
    ] {
        assert_eq!(serves(&catalogue, &[operation], &[]), Ok(vec![expected.to_owned()]), "{}", operation.method);
    }
    let denial = serves(&catalogue[1..], &[message("request", "initialize")], &[]).unwrap_err();
    assert_eq!(denial.cause, "ambiguous_binding: `listed` and `other` fit equally");
    // Who is named counts for more than what is asked for.
    let of_bob = [binding("bob", Some((&["bob"], &[], &[]))), for_tools("listed", &["echo"])];
    assert_eq!(serves(&of_bob, &[call("echo")], &[]), Ok(vec!["bob".to_owned()]));
}

#[test]
fn policy_is_shown_what_could_serve_or_nothing_where_that_is_too_much() {
    let asker = Asker { key: "key", tenant: "acme", subject: "bob", is_user: true, agent: Some("bot"), roles: &[] };
    let mut bindings = catalogue();
    bindings[0].risk = Some(Risk::High);
    bindings.push(Binding { owner: "other-team".into(), mode: Mode::Agent, ..for_tools("listed", &["echo"]) });
    bindings.push(for_tools("unlisted", &["delete_*"]));
    let catalogue = Catalogue::new(bindings, "test", true);
    let shown = catalogue.candidates("demo", &asker, &[call("echo")]).unwrap();
    let expected = [
        Candidate { id: "everybody", mode: Mode::ServiceAccount, owner: "team", risk: Some(Risk::High) },
        Candidate { id: "agent", mode: Mode::ServiceAccount, owner: "team", risk: None },
        Candidate { id: "listed", mode: Mode::Agent, owner: "other-team", risk: None },
    ];
    assert_eq!(shown, expected);
    let many = |count: usize| {
        let all = (0..count).map(|index| binding(&format!("b{index}"), None)).collect();
        Catalogue::new(all, "test", true).candidates("demo", &asker, &[call("echo")]).map(|shown| shown.len())
    };
    assert_eq!((many(MAX_CANDIDATES), many(MAX_CANDIDATES + 1)), (Some(MAX_CANDIDATES), None));
}

/// The binding that serves, or the border that was in the way and the cause.
type Outcome = Result<&'static str, (Option<Incident>, String)>;

#[test]
fn nothing_crosses_to_another_tenant_or_environment_and_each_try_is_told_apart() {
    let of = |id: &str, tenants: &[&str]| Binding {
        tenants: Some(tenants.iter().map(|name| (*name).to_owned()).collect()),
        ..binding(id, None)
    };
    let elsewhere = |id: &str| Binding { environment: "production".into(), ..binding(id, None) };
    let both = || vec![of("own", &["zeta", "acme"]), of("theirs", &["zeta"]), elsewhere("production")];
    let not_here = "which does not belong to this server and environment";
    let cases: [(Vec<Binding>, &[&str], Outcome); 8] = [
        (both(), &[], Ok("own")),
        (both(), &["own"], Ok("own")),
        (
            both(),
            &["own", "theirs"],
            Err((
                Some(Incident::CrossTenant),
                "the policy names binding `theirs`, which is another tenant's".to_owned(),
            )),
        ),
        (
            both(),
            &["production"],
            Err((Some(Incident::CrossEnvironment), format!("the policy names binding `production`, {not_here}"))),
        ),
        (
            vec![of("theirs", &["zeta"])],
            &[],
            Err((Some(Incident::CrossTenant), format!("{NO_BINDING}; `theirs` is another tenant's"))),
        ),
        (
            vec![elsewhere("production")],
            &[],
            Err((
                Some(Incident::CrossEnvironment),
                format!("{NO_BINDING}; `production` is of environment `production`"),
            )),
        ),
        // What is for others anyway is nothing that the call was after.
        (
            vec![Binding { environment: "production".into(), ..binding("zoe", Some((&["zoe"], &[], &[]))) }],
            &[],
            Err((None, NO_BINDING.to_owned())),
        ),
        (
            vec![Binding { servers: vec!["other".into()], ..elsewhere("other") }],
            &["other"],
            Err((None, format!("the policy names binding `other`, {not_here}"))),
        ),
    ];
    for (catalogue, named, expected) in cases {
        let chosen = choose(catalogue, ("bob", None, &[]), &[named], "api.example:443");
        match (chosen, expected) {
            (Ok(ids), Ok(id)) => assert_eq!(ids, [id]),
            (Err(denial), Err(expected)) => {
                assert_eq!(denial.reason, Reason::CredentialUnavailable);
                assert_eq!((denial.incident, denial.cause), expected);
            }
            (chosen, expected) => panic!("{chosen:?} for {expected:?}"),
        }
    }
}

#[test]
fn policy_is_shown_no_binding_beyond_a_border() {
    let theirs = Binding { tenants: Some(vec!["zeta".into()]), ..binding("theirs", None) };
    let elsewhere = Binding { environment: "production".into(), ..binding("elsewhere", None) };
    let catalogue = Catalogue::new(vec![theirs, binding("own", None), elsewhere], "test", true);
    let asker = Asker { key: "key", tenant: "acme", subject: "bob", is_user: true, agent: None, roles: &[] };
    let shown = catalogue.candidates("demo", &asker, &[call("echo")]).unwrap();
    assert_eq!(shown.iter().map(|candidate| candidate.id).collect::<Vec<_>>(), ["own"]);
}
