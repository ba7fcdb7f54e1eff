//! Whose credential a call gets: the policy chooses the binding and with it the mode, and none that is not for the caller
//! or for the tool ever serves.

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::Request;
use keyward_tests::issuer::Token;
use keyward_tests::stack::{ROLE, SUBJECT, Stack, UPSTREAM_AUTHORITY};
use serde_json::{Value, json};

use crate::expect;
use crate::injection::header;

/// One tool, served by the binding that its argument names.
const BY_ARGUMENT: &str = r#"package keyward

decision := {"allow": true, "rule": "by_argument", "bindings": [input.operation.arguments.message]} if {
	input.operation.method == "tools/call"
	input.operation.target == "echo"
}
"#;

/// Everything is allowed; a call that says so is served by a binding that the policy names.
const ANYTHING: &str = r#"package keyward

default decision := {"allow": true, "rule": "anything"}

decision := {"allow": true, "rule": "named", "bindings": ["demo-api-key"]} if {
	input.operation.arguments.named == true
}
"#;

/// A binding with the upstream's key, and a secret that tells it from the others.
fn binding(id: &str, mode: &str, principals: Value) -> Value {
    let secret = |name: &str, file: &str| json!({"type": "header", "name": name, "secret": {"ref": format!("file://secrets/{file}")}});
    json!({
        "id": id,
        "mode": mode,
        "owner": "platform-team",
        "environment": "development",
        "servers": ["demo"],
        "principals": principals,
        "hosts": [UPSTREAM_AUTHORITY],
        "credentials": [secret("x-api-key", "demo"), secret("x-whose", id)],
    })
}

fn echo(token: &str, message: &str) -> Request {
    agent::tool_call(1, "echo", json!({"message": message})).bearer(token)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_serves_one_tool_in_three_modes_and_only_whom_each_mode_is_for() {
    // The role alone would let each of the callers in: what keeps one out is the mode.
    let bindings = [
        binding("shared", "service_account", json!({"roles": [ROLE]})),
        binding("persons", "user", json!({"users": [SUBJECT], "roles": [ROLE]})),
        binding("agents", "agent", json!({"agents": ["demo-agent"], "roles": [ROLE]})),
    ];
    let stack = Stack::builder("modes-by-policy")
        .policy(BY_ARGUMENT)
        .config(|config| config["bindings"] = json!(bindings))
        .file("secrets/shared", "value-of-shared")
        .file("secrets/persons", "value-of-persons")
        .file("secrets/agents", "value-of-agents")
        .start()
        .await
        .unwrap();
    let sign = |token: &Token| stack.issuer.sign(token).unwrap();
    let user = Token::new(SUBJECT, &[ROLE]);
    let callers = [
        ("a user with an agent", sign(&user), [true, true, true]),
        ("a user", sign(&user.claim("client_id", Value::Null)), [true, true, false]),
        ("an agent alone", sign(&Token::new("demo-agent", &[ROLE])), [true, false, true]),
    ];
    for (caller, token, fits) in &callers {
        for ((binding, mode), fits) in
            [("shared", "service_account"), ("persons", "user"), ("agents", "agent")].iter().zip(fits)
        {
            stack.upstream.reset().await.unwrap();
            let answer = stack.send_bare(echo(token, binding)).await.unwrap();
            eprintln!("{caller}, {binding}: {}", answer.text());
            if *fits {
                assert_eq!(expect::allowed(&stack, &answer).await, *binding);
                let last = stack.upstream.last().await.unwrap();
                assert_eq!(header(&last, "x-whose"), [format!("value-of-{binding}")]);
                assert_eq!(header(&last, "x-api-key"), [stack.secret.as_str()]);
                let is_it = |record: &Value| record["bindings"][0]["id"] == *binding && record["decision"] == "allow";
                let record = stack.server.audit_record(is_it).await.unwrap();
                assert_eq!(record["bindings"][0]["mode"], *mode, "{record}");
            } else {
                let decision = expect::denied(&stack, &answer, Reason::CredentialUnavailable, 1).await;
                let record = stack.server.decision(&decision).await.unwrap();
                let cause = format!("the policy names binding `{binding}`, which is not for this principal");
                assert_eq!(record["explanation"], cause, "{record}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_the_binding_does_not_list_gets_nothing_whether_the_policy_names_it_or_not() {
    let stack = Stack::builder("modes-tools")
        .policy(ANYTHING)
        .config(|config| config["bindings"][0]["tools"] = json!(["echo", "get_*"]))
        .start()
        .await
        .unwrap();
    for named in [false, true] {
        for request in [
            agent::tool_call(1, "slow", json!({"millis": 0, "named": named})),
            agent::tool_call(1, "echoes", json!({"named": named})),
            agent::request(1, "resources/read", json!({"uri": "upstream://about", "arguments": {"named": named}})),
        ] {
            let answer = stack.send(request).await.unwrap();
            let decision = expect::denied(&stack, &answer, Reason::CredentialUnavailable, 1).await;
            let record = stack.server.decision(&decision).await.unwrap();
            let cause =
                if named { "the policy names binding `demo-api-key`, which is not for this" } else { "no_binding: " };
            assert!(record["explanation"].as_str().unwrap().starts_with(cause), "{record}");
        }
    }
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    assert_eq!(header(&stack.upstream.last().await.unwrap(), "x-api-key"), [stack.secret.as_str()]);

    // What a client needs around its calls has the credential as well, and a batch only where all of it may.
    let session = stack.session("2025-11-25").await.unwrap();
    let answer = session.call_tool(2, "echo", json!({"message": "again"})).await.unwrap();
    assert_eq!(answer.result().unwrap()["content"][0]["text"], "again");
    stack.upstream.reset().await.unwrap();
    let answer = session.call_tool(3, "slow", json!({"millis": 0})).await.unwrap();
    expect::denied(&stack, &answer, Reason::CredentialUnavailable, 3).await;
    let call = |id: u32, tool: &str| {
        let params = json!({"name": tool, "arguments": {"message": "hello"}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let answer = stack.send(Request::post("/mcp", &json!([call(1, "echo"), call(2, "slow")]))).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 0, "{}", answer.text());
    assert!(answer.text().contains(Reason::CredentialUnavailable.code()), "{}", answer.text());
    assert!(!answer.text().contains("\"result\""), "{}", answer.text());
}
