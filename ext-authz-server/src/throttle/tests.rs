use super::*;
use crate::database::Database;

fn rules(text: &str) -> Throttle {
    let configured: Throttles = serde_saphyr::from_str(text).unwrap();
    Throttle::new(&configured, "test")
}

fn principal(tenant: &str, subject: &str, agent: Option<&str>) -> Principal {
    let agent = agent.map(str::to_owned);
    Principal { tenant: tenant.into(), subject: subject.into(), agent, issuer: "main".into(), ..Principal::nobody() }
}

fn call(tool: &str) -> Operation<'_> {
    Operation { kind: "request", method: "tools/call", target: Some(tool), arguments: None, params: None }
}

fn facts<'a>(principal: &'a Principal, operations: &'a [Operation<'a>]) -> Facts<'a> {
    Facts { principal, host: "mcp.example", server: "demo", operations }
}

async fn passes(throttle: &Throttle, facts: &Facts<'_>) -> bool {
    throttle.take(facts, None).await.is_ok()
}

#[tokio::test]
async fn each_combination_has_a_counter_of_its_own() {
    let (alice, bob) = (principal("acme", "alice", Some("bot")), principal("acme", "bob", Some("bot")));
    let (other, alone) = (principal("other", "alice", Some("bot")), principal("acme", "carol", None));
    let echo = [call("echo")];
    let one = facts(&alice, &echo);
    let elsewhere = principal("acme", "alice", Some("other-bot"));
    let cases: [(&str, Facts<'_>, bool); 11] = [
        ("principal", facts(&elsewhere, &echo), false),
        ("principal, agent", facts(&elsewhere, &echo), true),
        ("principal", facts(&bob, &echo), true),
        ("principal", facts(&other, &echo), true),
        ("agent", facts(&bob, &echo), false),
        ("agent", facts(&other, &echo), true),
        ("agent", facts(&alone, &echo), true),
        ("tenant", facts(&bob, &echo), false),
        ("tenant", facts(&other, &echo), true),
        ("host", Facts { host: "other.example", ..one }, true),
        ("server", Facts { server: "other", ..one }, true),
    ];
    for (per, two, has_own) in cases {
        let text = format!("rules: [{{name: a, per: [{per}], limit: 1, window_secs: 60}}]");
        let throttle = rules(&text);
        assert!(passes(&throttle, &one).await && !passes(&throttle, &one).await, "{per}");
        assert_eq!(passes(&throttle, &two).await, has_own, "{per} {:?}", two.principal);
    }
}

#[tokio::test]
async fn no_two_callers_spell_one_counter() {
    let throttle = rules("rules: [{name: a, per: [tenant, principal, server], limit: 1, window_secs: 60}]");
    let echo = [call("echo")];
    for (tenant, subject) in [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", "")] {
        let who = principal(tenant, subject, None);
        assert!(passes(&throttle, &facts(&who, &echo)).await, "{tenant} {subject}");
    }
}

#[tokio::test]
async fn a_tool_counts_under_the_entry_that_names_it() {
    let throttle = rules("rules: [{name: a, per: [tool], limit: 1, window_secs: 60, tools: [delete_all, 'delete_*']}]");
    let who = principal("acme", "alice", None);
    let mut outcomes = Vec::new();
    let long = format!("x{}", "y".repeat(300));
    for tool in ["echo", "echo", "delete_all", "delete_all", "delete_a", "delete_b", &long] {
        outcomes.push(passes(&throttle, &facts(&who, &[call(tool)])).await);
    }
    // A name that is too long for any pattern is one of the first.
    assert_eq!(outcomes, [true, true, true, false, true, false, false]);
    let list = Operation { kind: "request", method: "tools/list", target: None, arguments: None, params: None };
    assert!(passes(&throttle, &facts(&who, &[list])).await);
}

#[tokio::test]
async fn each_element_of_a_batch_counts() {
    let throttle = rules("rules: [{name: a, per: [principal], limit: 3, window_secs: 60}]");
    let who = principal("acme", "alice", None);
    let (two, one) = ([call("echo"), call("other")], [call("echo")]);
    assert!(passes(&throttle, &facts(&who, &two)).await);
    let refused = throttle.take(&facts(&who, &two), None).await.unwrap_err().denial();
    assert_eq!(refused.reason, Reason::Throttled);
    assert_eq!(refused.headers, [("retry-after", "20".to_owned())]);
    assert_eq!(refused.incident, Some(Incident::Throttled("a".into(), "limit")));
    assert_eq!(refused.cause, "throttle rule `a`: more than 3 in 60 s; 2 of this request pass in 20 s");
    assert!(passes(&throttle, &facts(&who, &one)).await, "a batch that was denied used up nothing");
    assert!(!passes(&throttle, &facts(&who, &one)).await);
}

#[tokio::test]
async fn a_principal_over_its_own_limit_leaves_that_of_the_tenant_alone() {
    let throttle = rules(
        "rules: [{name: tenant, per: [tenant], limit: 4, window_secs: 60}, {name: own, per: [principal], limit: 2, \
         window_secs: 60}]",
    );
    let (alice, bob) = (principal("acme", "alice", None), principal("acme", "bob", None));
    let echo = [call("echo")];
    for expected in [true, true, false, false, false, false] {
        assert_eq!(passes(&throttle, &facts(&alice, &echo)).await, expected);
    }
    for expected in [true, true, false] {
        assert_eq!(passes(&throttle, &facts(&bob, &echo)).await, expected);
    }
}

#[tokio::test]
async fn counters_outlive_the_rules() {
    let text = "rules: [{name: a, per: [principal], limit: 1, window_secs: 60}]";
    let (before, who, echo) = (rules(text), principal("acme", "alice", None), [call("echo")]);
    assert!(passes(&before, &facts(&who, &echo)).await);
    let after = rules(text).continuing(&before);
    assert!(!passes(&after, &facts(&who, &echo)).await);
    assert_eq!(after.counters(), 1);
}

#[tokio::test]
async fn two_servers_count_together_and_a_database_that_is_away_denies_unless_told_otherwise() {
    let rule = "name: a, per: [principal], limit: 3, window_secs: 60, scope: shared";
    let text = format!(
        "rules: [{{{rule}}}, {{name: b, per: [tenant], limit: 1, window_secs: 60, servers: [other], scope: shared}}]"
    );
    let database = Database::open("sqlite::memory:", 1).await.unwrap();
    let shared = DatabaseThrottles::new(database.clone());
    let (one, two) = (rules(&text), rules(&text));
    let (alice, bob) = (principal("acme", "alice", None), principal("acme", "bob", None));
    let echo = [call("echo")];
    let mut outcomes = Vec::new();
    for server in [&one, &two, &one, &two, &one, &two] {
        outcomes.push(server.take(&facts(&alice, &echo), Some(&shared)).await.is_ok());
    }
    assert_eq!(outcomes, [true, true, true, false, false, false]);
    assert!(two.take(&facts(&bob, &echo), Some(&shared)).await.is_ok());

    // What another rule denies is taken back.
    let dave = principal("zeta", "dave", None);
    let elsewhere = Facts { server: "other", ..facts(&dave, &echo) };
    assert!(one.take(&elsewhere, Some(&shared)).await.is_ok());
    assert!(one.take(&elsewhere, Some(&shared)).await.is_err());
    assert!(two.take(&elsewhere, Some(&shared)).await.is_err());
    for expected in [true, true, false] {
        assert_eq!(one.take(&facts(&dave, &echo), Some(&shared)).await.is_ok(), expected);
    }

    database.close().await;
    for gone in [Some(&shared), None] {
        let carol = principal("acme", "carol", None);
        let denial = one.take(&facts(&carol, &echo), gone).await.unwrap_err().denial();
        assert_eq!((denial.reason, denial.headers.len()), (Reason::DecisionUnavailable, 0));
        assert_eq!(denial.incident, Some(Incident::Throttled("a".into(), "unavailable")));
    }
    let local = rules(&format!("rules: [{{{rule}}}]\nwhen_unavailable: local"));
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(local.take(&facts(&alice, &echo), Some(&shared)).await.is_ok());
    }
    assert_eq!(outcomes, [true, true, true, false]);
}

#[tokio::test]
async fn a_counter_for_which_there_is_no_place_denies_unless_told_otherwise() {
    let echo = [call("echo")];
    for (when_full, expected) in [("deny", Some(Reason::Overloaded)), ("allow", None)] {
        let throttle = rules(&format!(
            "rules: [{{name: a, per: [principal], limit: 1, window_secs: 60}}]\nmax_counters: 16\nwhen_full: {when_full}"
        ));
        for number in 0..16 {
            let who = principal("acme", &number.to_string(), None);
            assert!(passes(&throttle, &facts(&who, &echo)).await);
        }
        let late = principal("acme", "late", None);
        let refused = throttle.take(&facts(&late, &echo), None).await.err().map(|refused| refused.denial().reason);
        assert_eq!(refused, expected);
        let early = principal("acme", "3", None);
        assert!(!passes(&throttle, &facts(&early, &echo)).await, "who is counted stays so");
    }
}
