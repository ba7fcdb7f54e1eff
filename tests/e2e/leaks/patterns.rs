//! What looks like a credential that nobody told Keyward of: blocked, masked or noted, in arguments and in answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_contract::reason::Reason;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

use crate::{expect, scripted};

const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "all", "explanation": "a test"}
"#;

/// Credentials that belong to nobody, in parts so that no scanner takes them for anybody's.
fn stripe() -> String {
    ["sk_live_", "4eC39HqLyjWDarjtT1zdp7dcQ2x"].concat()
}

fn github() -> String {
    ["ghp_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat()
}

async fn with_arguments(name: &str, guard: Value) -> Stack {
    let builder = Stack::builder(name).policy(POLICY);
    builder.config(|config| config["servers"]["demo"]["leak_guard"] = guard).start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_is_blocked_masked_or_noted_by_rule() {
    let guard = json!({"arguments": "block", "rules": {"github_token": "mask", "jwt": "off", "npm_token": "log"}});
    let stack = with_arguments("leaks-arguments", guard).await;
    let answer = stack.call_tool("echo", json!({"message": format!("key: {}", stripe())})).await.unwrap();
    let decision = expect::denied(&stack, &answer, Reason::SecretInRequest, 1).await;
    let record = stack.server.decision(&decision).await.unwrap();
    assert!(record["explanation"].as_str().unwrap_or_default().contains("stripe_key"), "{record}");
    assert!(!record.to_string().contains(&stripe()), "{record}");

    let answer = stack.call_tool("echo", json!({"message": format!("key: {}.", github())})).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, format!("key: {}.", &"REDACTED".repeat(5)));
    assert!(!stack.upstream.last().await.unwrap().to_string().contains(&github()));
    let record = stack.server.audit_record(|record| record["patterns"] == json!(["github_token"])).await.unwrap();
    assert_eq!(record["decision"], "allow", "{record}");

    // Behind escapes it cannot be masked, only refused.
    stack.upstream.reset().await.unwrap();
    let mut hidden = keyward_tests::agent::tool_call(1, "echo", json!({"message": github()}));
    let keyward_tests::client::RequestBody::Whole(body) = &hidden.body else { panic!("a body") };
    let text = String::from_utf8_lossy(body).replace("ghp_", r"gh\u0070_");
    hidden.body = keyward_tests::client::RequestBody::Whole(text.into());
    let answer = stack.send(hidden).await.unwrap();
    expect::denied(&stack, &answer, Reason::SecretInRequest, 1).await;

    // Ordinary text, and a rule that is off.
    for text in ["sk_live_ is how the keys of that service begin", "AKIAIOSFODNN7EXAMPLE", "a b c"] {
        stack.upstream.reset().await.unwrap();
        let answer = stack.call_tool("echo", json!({"message": text})).await.unwrap();
        assert_eq!(expect::allowed(&stack, &answer).await, text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_argument_s_mirror_in_a_header_is_looked_at_and_never_masked() {
    let guard = json!({"arguments": "block", "rules": {"github_token": "mask", "npm_token": "log"}});
    let stack = with_arguments("leaks-mirrors", guard).await;
    let call = |message: &str, mirror: &str| {
        let call = keyward_tests::agent::tool_call(1, "echo", json!({"message": message}));
        call.header("mcp-param-message", mirror)
    };
    let encoded = format!("=?base64?{}?=", STANDARD.encode(format!("key: {}", stripe())));
    // Only in the header, as it is and encoded; and where the body's would be masked.
    for (message, mirror) in [("x", stripe()), ("x", encoded), ("x", github()), (github().as_str(), github())] {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(call(message, &mirror)).await.unwrap();
        let decision = expect::denied(&stack, &answer, Reason::SecretInRequest, 1).await;
        let record = stack.server.decision(&decision).await.unwrap();
        assert!(!record.to_string().contains(&stripe()) && !record.to_string().contains(&github()), "{record}");
    }
    stack.upstream.reset().await.unwrap();
    let answer = stack.send(call("ordinary", "ordinary")).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "ordinary");
}

/// An upstream that answers with a credential, in two pieces and with text around it.
async fn answering(name: &str, guard: Value, content_type: &'static str, pieces: Vec<String>) -> Stack {
    let length: usize = pieces.iter().map(String::len).sum();
    let address = scripted::start_in_pieces(move |_| {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        std::iter::once(head.into_bytes()).chain(pieces.iter().map(|piece| piece.clone().into_bytes())).collect()
    })
    .await;
    let builder = scripted::route(Stack::builder(name).policy(POLICY), address, "http");
    builder.config(|config| config["servers"]["scripted"]["leak_guard"] = guard).start().await.unwrap()
}

fn pieces(credential: &str) -> Vec<String> {
    let (one, two) = credential.split_at(credential.len() / 2);
    // Longer than what waits whole, so that it streams.
    vec![format!("{}\nkey={one}", "ordinary text. ".repeat(4000)), format!("{two}\nand the rest\n")]
}

async fn get(stack: &Stack) -> keyward_tests::client::Answer {
    stack.send(keyward_tests::client::Request::new(http::Method::GET, scripted::PATH)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_masked_while_it_streams() {
    let guard = json!({"responses": "mask"});
    let stack = answering("leaks-answer-mask", guard, "text/plain", pieces(&github())).await;
    let answer = get(&stack).await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(
        text.ends_with(&format!("\nkey={}\nand the rest\n", "REDACTED".repeat(5))),
        "{}",
        &text[text.len() - 100..]
    );
    let record = stack.server.audit_record(|record| record["event"] == "pattern_found").await.unwrap();
    assert_eq!((&record["rules"], &record["redactions"]), (&json!(["github_token"]), &json!(1)), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_answer_ends_before_the_credential() {
    let guard = json!({"responses": "log", "rules": {"stripe_key": "block"}});
    let stack = answering("leaks-answer-block", guard, "text/plain", pieces(&stripe())).await;
    let answer = get(&stack).await;
    assert!(answer.broken.is_some(), "the answer is whole");
    assert!(!answer.text().contains("sk_live_") && !answer.text().contains("and the rest"));
    let record = stack.server.audit_record(|record| record["event"] == "pattern_found").await.unwrap();
    assert_eq!(record["rules"], json!(["stripe_key"]), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_noted_answer_passes_and_one_that_nobody_guards_too() {
    let guard = json!({"responses": "log"});
    let stack = answering("leaks-answer-log", guard, "text/plain", pieces(&stripe())).await;
    let answer = get(&stack).await;
    assert!(answer.text().contains(&stripe()));
    stack.server.audit_record(|record| record["rules"] == json!(["stripe_key"])).await.unwrap();

    drop(stack);
    let stack = answering("leaks-answer-off", json!({}), "text/plain", pieces(&stripe())).await;
    assert!(get(&stack).await.text().contains(&stripe()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_key_in_an_event_is_masked() {
    let key = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\\nq83vEjRWeJASNFZ4kBI0VniQEjRWeJA=\\n-----END PRIVATE KEY-----\\n";
    let event = format!("data: {{\"text\":\"{key}\"}}\n\ndata: {{\"next\":true}}\n\n");
    let (one, two) = event.split_at(60);
    let guard = json!({"responses": "mask"});
    let stack = answering("leaks-answer-key", guard, "text/event-stream", vec![one.to_owned(), two.to_owned()]).await;
    let text = get(&stack).await.text();
    assert!(
        text.contains("-----BEGIN PRIVATE KEY-----\\n") && text.contains("\\n-----END PRIVATE KEY-----\\n"),
        "{text}"
    );
    assert!(!text.contains("MIIEvQ") && !text.contains("q83vEj") && text.contains("REDACTED"), "{text}");
    assert!(text.ends_with("data: {\"next\":true}\n\n"), "{text}");
}
