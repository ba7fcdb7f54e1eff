//! Too many calls are told to wait, before anything is spent on them; nobody else waits for it, and replicas can count together.

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Answer, Request};
use keyward_tests::issuer::Token;
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, ROLE, Stack};
use serde_json::{Value, json};

use crate::expect;
use crate::replica::Replica;

const OTHER_HOST: &str = "other.example";

fn with_rules(builder: Builder, rules: Value) -> Builder {
    builder.config(|config| {
        config["throttles"] = json!({"rules": rules});
        config["identity"]["issuers"][0]["tenant_claim"] = json!("org");
        if let Some(destinations) = config["servers"]["demo"]["destinations"].as_array_mut() {
            destinations.push(json!({"host": OTHER_HOST, "path": "/mcp"}));
        }
    })
}

/// A token of this subject, through this agent, of this tenant.
fn token(stack: &Stack, (subject, agent, tenant): (&str, &str, &str)) -> String {
    let token = Token::new(subject, &[ROLE]).claim("client_id", agent).claim("org", tenant);
    stack.issuer.sign(&token).unwrap()
}

fn call(tool: &str) -> Request {
    let arguments = if tool == "leak" { json!({"carrier": "text"}) } else { json!({"message": "hello"}) };
    agent::tool_call(1, tool, arguments)
}

async fn passes(stack: &Stack, request: Request, token: &str) {
    stack.upstream.reset().await.unwrap();
    let answer = request.bearer(token).send(stack.agents).await.unwrap();
    expect::allowed(stack, &answer).await;
}

/// The call is told to wait, in HTTP and in JSON-RPC, and the upstream received nothing. For how many seconds, and the decision.
async fn waits(stack: &Stack, request: Request, token: &str) -> (u64, String) {
    stack.upstream.reset().await.unwrap();
    let answer = request.bearer(token).send(stack.agents).await.unwrap();
    expect::denied(stack, &answer, Reason::Throttled, 1).await;
    assert_eq!(answer.status.as_u16(), 429);
    (retry_after(&answer), answer.json().unwrap()["error"]["data"]["decision_id"].as_str().unwrap().to_owned())
}

/// Whole seconds, at least one (RFC 9110, 10.2.3).
fn retry_after(answer: &Answer) -> u64 {
    let secs: u64 = answer.header("retry-after").parse().unwrap();
    assert!(secs >= 1, "{secs}");
    secs
}

async fn metric(stack: &Stack, line: &str) -> u64 {
    let text = stack.server.metrics().await.unwrap();
    let found = text.lines().find_map(|own| own.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_over_its_limit_waits_costs_no_policy_and_others_do_not_notice() {
    let rules = json!([{"name": "own", "per": ["principal"], "limit": 3, "window_secs": 3600}]);
    let stack = with_rules(Stack::builder("throttles-principal"), rules).start().await.unwrap();
    let (alice, bob) = (token(&stack, ("alice", "bot", "acme")), token(&stack, ("bob", "bot", "acme")));
    for _ in 0..3 {
        passes(&stack, call("echo"), &alice).await;
    }
    let policy = r#"keyward_stage_seconds_count{stage="policy"} "#;
    let before = metric(&stack, policy).await;
    let mut decision = String::new();
    for _ in 0..5 {
        let (secs, id) = waits(&stack, call("echo"), &alice).await;
        assert!((1000..=1200).contains(&secs), "one of three in an hour: {secs}");
        decision = id;
    }
    assert_eq!(metric(&stack, policy).await, before, "a call that waits costs no policy");
    assert!(before >= 3);
    assert_eq!(metric(&stack, r#"keyward_throttled_total{rule="own",because="limit"} "#).await, 5);

    let record = stack.server.decision(&decision).await.unwrap();
    assert_eq!((&record["stage"], &record["reason"]), (&json!("throttle"), &json!("throttled")), "{record}");
    assert_eq!(record["principal"]["subject"], "alice");
    let told = record["explanation"].as_str().unwrap();
    assert!(told.starts_with("throttle rule `own`: more than 3 in 3600 s; 1 of this request pass"), "{told}");

    // What is no request is told in HTTP alone.
    stack.upstream.reset().await.unwrap();
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    let answer = agent::earlier_request("2025-06-18", &notification).bearer(&alice).send(stack.agents).await.unwrap();
    expect::plainly_denied(&stack, &answer, Reason::Throttled).await;
    retry_after(&answer);

    // Of a batch each element counts, and it waits as a whole.
    let echo = |id| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"message": "hello"}}})
    };
    let batch = |count: u64| agent::earlier_request("2025-03-26", &(1..=count).map(echo).collect::<Value>());
    stack.upstream.reset().await.unwrap();
    let answer = batch(4).bearer(&bob).send(stack.agents).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    assert_eq!(answer.status.as_u16(), 429, "{}", answer.text());
    let errors = answer.json().unwrap();
    let codes: Vec<&Value> = errors.as_array().unwrap().iter().map(|error| &error["error"]["code"]).collect();
    assert_eq!(codes, vec![&json!(Reason::Throttled.json_rpc()); 4], "{errors}");
    // The upstream knows no session here, which is its own affair.
    let answer = batch(2).bearer(&bob).send(stack.agents).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 1, "{}", answer.text());
    // The whole limit was there for Bob, whatever Alice and the batch that waited asked for.
    passes(&stack, call("echo"), &bob).await;
    waits(&stack, call("echo"), &bob).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_tenant_host_and_tool_have_limits_of_their_own() {
    let mut stack = with_rules(
        Stack::builder("throttles-per"),
        json!([{"name": "start", "per": ["principal"], "limit": 1000, "window_secs": 1}]),
    )
    .start()
    .await
    .unwrap();
    let elsewhere = |tool: &str| call(tool).authority(OTHER_HOST);
    let (alice, bob) = (("alice", "bot", "acme"), ("bob", "bot", "acme"));
    // Each time: who has used the limit up, whom it is the limit of as well, and whose own is untouched.
    let cases = [
        (json!({"per": ["principal"]}), (("alice", "other-bot", "acme"), call("echo")), (bob, call("echo"))),
        (json!({"per": ["agent"]}), (bob, call("echo")), (("alice", "other-bot", "acme"), call("echo"))),
        (json!({"per": ["tenant"]}), (("carol", "x", "acme"), call("echo")), (("alice", "bot", "zeta"), call("echo"))),
        (json!({"per": ["host"]}), (("carol", "x", "zeta"), call("echo")), (alice, elsewhere("echo"))),
        (json!({"per": ["tool"], "tools": ["ec*", "leak"]}), (bob, call("echo")), (alice, call("leak"))),
        (json!({"per": ["principal", "tool"], "tools": ["echo", "leak"]}), (alice, call("echo")), (bob, call("echo"))),
    ];
    for (mut rule, (same, same_call), (own, own_call)) in cases {
        let name =
            rule["per"].as_array().unwrap().iter().map(|per| per.as_str().unwrap()).collect::<Vec<_>>().join("-");
        for (key, value) in [("name", json!(name)), ("limit", json!(1)), ("window_secs", json!(600))] {
            rule[key] = value;
        }
        let reloads = metric(&stack, r#"keyward_reloads_total{result="accepted"} "#).await;
        stack.change_config(|config| config["throttles"] = json!({"rules": [rule]})).unwrap();
        let began = Instant::now();
        while metric(&stack, r#"keyward_reloads_total{result="accepted"} "#).await == reloads {
            assert!(began.elapsed() < Duration::from_secs(10), "{}", stack.server.process.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        passes(&stack, call("echo"), &token(&stack, alice)).await;
        waits(&stack, call("echo"), &token(&stack, alice)).await;
        waits(&stack, same_call, &token(&stack, same)).await;
        passes(&stack, own_call, &token(&stack, own)).await;
    }
}

/// Whoever asks how a call of Alice's would be decided uses up nothing of hers.
fn explained(stack: &Stack) {
    let file = |name: &str| stack.folder.join(name).display().to_string();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"message": "hello"}}});
    std::fs::write(file("request.json"), body.to_string()).unwrap();
    let claims = Token::new("alice", &[ROLE]).claim("client_id", "bot").claim("org", "acme").claims.to_string();
    let (config, request) = (file("keyward.yaml"), file("request.json"));
    let arguments = ["explain", "--config", &config, "--server", "demo", "--claims", &claims, "--request", &request];
    for _ in 0..5 {
        let output = Server::run(&arguments, stack.variables()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("pass throttle"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_count_together_and_deny_where_nobody_can_count() {
    let rules = json!([
        {"name": "together", "per": ["principal"], "limit": 4, "window_secs": 600, "scope": "shared"},
        {"name": "alone", "per": ["tenant"], "limit": 8, "window_secs": 600},
    ]);
    let builder = with_rules(Stack::builder("throttles-shared"), rules);
    let builder = builder.variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let builder = builder.config(|config| {
        config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
    });
    let stack = builder.start().await.unwrap();
    let replica = Replica::start(&stack).await;
    let (alice, bob) = (token(&stack, ("alice", "bot", "acme")), token(&stack, ("bob", "bot", "zeta")));
    explained(&stack);
    let mut outcomes = Vec::new();
    stack.upstream.reset().await.unwrap();
    for agents in [stack.agents, replica.agents].repeat(4) {
        let answer = call("echo").bearer(&alice).send(agents).await.unwrap();
        let passed = answer.result().is_ok();
        if !passed {
            expect::json_rpc_error(&answer, Reason::Throttled, &json!(1));
            assert!((100..=150).contains(&retry_after(&answer)), "{}", retry_after(&answer));
        }
        outcomes.push(passed);
    }
    assert_eq!(outcomes, [true, true, true, true, false, false, false, false]);
    assert_eq!(stack.upstream.count().await.unwrap(), 4);
    passes(&stack, call("echo"), &bob).await;

    stack.change_database("ALTER TABLE throttles RENAME TO away").unwrap();
    let carol = token(&stack, ("carol", "bot", "zeta"));
    for agents in [stack.agents, replica.agents] {
        stack.upstream.reset().await.unwrap();
        let answer = call("echo").bearer(&carol).send(agents).await.unwrap();
        expect::denied(&stack, &answer, Reason::DecisionUnavailable, 1).await;
    }
    let unavailable = r#"keyward_throttled_total{rule="together",because="unavailable"} "#;
    assert_eq!(metric(&stack, unavailable).await, 1);
    stack.change_database("ALTER TABLE away RENAME TO throttles").unwrap();
    passes(&stack, call("echo"), &carol).await;
    // What the database counted is still counted there, and a server that starts anew knows it.
    let mut stack = stack;
    stack.restart_server().unwrap();
    stack.upstream.reset().await.unwrap();
    let answer = call("echo").bearer(&alice).send(stack.agents).await.unwrap();
    expect::denied(&stack, &answer, Reason::Throttled, 1).await;
}
