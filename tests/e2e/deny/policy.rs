//! What the policy does not allow, does not happen; nor does what no policy can be asked about.

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::Request;
use keyward_tests::stack::{ROLE, Stack};
use serde_json::json;

use crate::expect;

/// Allows `echo` only where the message is short, and names no binding.
const ARGUMENT_POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "short_message"} if {
    input.operation.method == "tools/call"
    input.operation.target == "echo"
    is_string(input.operation.arguments.message)
    count(input.operation.arguments.message) < 10
}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_outside_the_policy_reads_like_an_unknown_one() {
    let stack = Stack::builder("deny-tool").start().await.unwrap();
    let mut messages = Vec::new();
    for tool in ["delete_everything", "no_such_tool", "Echo", "echo ", ""] {
        let answer = stack.call_tool(tool, json!({})).await.unwrap();
        let decision = expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
        let record = stack.server.decision(&decision).await.unwrap();
        assert_eq!(record["decision"], "deny", "{record}");
        assert_eq!(record["reason"], "not_allowed", "{record}");
        assert_eq!(record["operations"][0]["target"], tool, "{record}");
        messages.push(answer.text().replace(&decision, ""));
    }
    messages.dedup();
    assert_eq!(messages.len(), 1, "the answers tell the cases apart: {messages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_outside_the_policy_is_denied() {
    let stack = Stack::builder("deny-argument").policy(ARGUMENT_POLICY).start().await.unwrap();
    for message in [json!("longer than ten characters"), json!(7), json!(null), json!({"a": 1})] {
        let answer = stack.call_tool("echo", json!({"message": message})).await.unwrap();
        expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
    }
    let answer = stack.call_tool("echo", json!({})).await.unwrap();
    expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;

    let answer = stack.call_tool("echo", json!({"message": "short"})).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "short");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_without_the_role_is_denied() {
    let stack = Stack::builder("deny-role").start().await.unwrap();
    let upper = ROLE.to_uppercase();
    for roles in [&[][..], &["admin"], &[upper.as_str()]] {
        let token = stack.token_for("bob", roles).unwrap();
        let call = agent::tool_call(1, "echo", json!({"message": "hello"})).bearer(&token);
        let answer = stack.send_bare(call).await.unwrap();
        expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_decides_nothing_sensible_denies() {
    let policies = [
        ("undefined", "package keyward\n\ndecision := {\"allow\": true} if { false }\n"),
        ("not an object", "package keyward\n\ndecision := true\n"),
        ("allow is text", "package keyward\n\ndecision := {\"allow\": \"true\", \"rule\": \"x\"}\n"),
        (
            "unknown obligation",
            "package keyward\n\ndecision := {\"allow\": true, \"rule\": \"x\", \"obligations\": [{\"type\": \"pray\"}]}\n",
        ),
        ("fails at run time", "package keyward\n\ndecision := {\"allow\": to_number(input.environment) > 0}\n"),
    ];
    let mut stack = Stack::builder("deny-senseless-policy").policy(policies[0].1).start().await.unwrap();
    for (case, policy) in policies {
        stack.change_file("policies/keyward.rego", policy).unwrap();
        stack.restart_server().unwrap();
        let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
        eprintln!("{case}: {} {}", answer.status, answer.text());
        expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_never_ends_is_cut_off() {
    let endless = "package keyward\n\ndecision := {\"allow\": true, \"rule\": \"x\"} if {\n    \
                   some a in numbers.range(1, 100000)\n    some b in numbers.range(1, 100000)\n    a * b == -1\n}\n";
    let stack = Stack::builder("deny-endless-policy").policy(endless).start().await.unwrap();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    let body = answer.json().unwrap();
    let reason = body["error"]["data"]["reason"].as_str().and_then(Reason::from_code);
    assert!(matches!(reason, Some(Reason::NotAllowed | Reason::DecisionUnavailable)), "{body}");
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_does_not_compile_keeps_the_server_from_starting() {
    let started = Stack::builder("deny-broken-policy").policy("package keyward\n\ndecision := {").start().await;
    let error = format!("{:#}", started.err().expect("the server started with a broken policy"));
    assert!(error.contains("keyward.rego"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_a_denial() {
    let stack = Stack::builder("deny-missing-secret").start().await.unwrap();
    std::fs::remove_file(stack.folder.join("secrets/demo")).unwrap();
    let started = std::time::Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
        if answer.result().is_err() {
            expect::denied(&stack, &answer, Reason::CredentialUnavailable, 1).await;
            assert!(!answer.text().contains("secrets/demo"), "the answer names the file: {}", answer.text());
            return;
        }
        assert!(started.elapsed().as_secs() < 10, "the server still serves a secret that is gone");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unregistered_destination_is_denied() {
    let stack = Stack::builder("deny-destination").start().await.unwrap();
    let call = |authority: &str| agent::tool_call(1, "echo", json!({"message": "hello"})).authority(authority);
    for authority in ["evil.example", "127.0.0.1.evil.example", "localhost", "127.0.0.1:1@evil.example", "127.1"] {
        let answer = stack.send(call(authority)).await.unwrap();
        if answer.status == 400 {
            expect::envoy_refused(&stack, &answer).await;
        } else {
            expect::denied(&stack, &answer, Reason::DestinationDenied, 1).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_bound_to_another_host_stays_here() {
    let stack = Stack::builder("deny-wrong-host")
        .config(|config| config["bindings"][0]["hosts"] = json!(["other.internal:9000"]))
        .start()
        .await
        .unwrap();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    let decision = expect::denied(&stack, &answer, Reason::DestinationDenied, 1).await;
    assert_eq!(stack.server.decision(&decision).await.unwrap()["decision"], "deny");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_to_another_cluster_than_registered_is_denied() {
    let stack = Stack::builder("deny-wrong-cluster")
        .config(|config| config["servers"]["demo"]["cluster"] = json!("another_cluster"))
        .start()
        .await
        .unwrap();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    expect::denied(&stack, &answer, Reason::DestinationDenied, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_notification_gets_a_plain_error() {
    let stack = Stack::builder("deny-notification").start().await.unwrap();
    let message = json!({"jsonrpc": "2.0", "method": "notifications/no_such_thing"});
    let answer = stack.send(agent::earlier_request("2025-06-18", &message)).await.unwrap();
    expect::plainly_denied(&stack, &answer, Reason::NotAllowed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_denied_element_keeps_the_whole_batch_here() {
    let stack = Stack::builder("deny-batch").start().await.unwrap();
    let call = |id: u32, tool: &str| {
        let params = json!({"name": tool, "arguments": {"message": "hello"}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let batch = json!([call(1, "echo"), call(2, "delete_everything")]);
    let answer = stack.send(Request::post("/mcp", &batch)).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json().unwrap();
    let reason_of = |id: u32| {
        let found = body.as_array().unwrap().iter().find(|element| element["id"] == id).unwrap();
        found["error"]["data"]["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!((reason_of(1).as_str(), reason_of(2).as_str()), ("batch_member_denied", "not_allowed"));
}
