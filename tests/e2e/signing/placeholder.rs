//! Secrets in place of what an agent wrote: in the path, in bodies, in tool arguments; refused where they have no business.

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

use super::{POLICY, body_of, post, upstream};
use crate::expect;

const MARK: &str = "__STOCKS_KEY__";
const SECRET: &str = r#"pl"ace/key\42"#;

fn placeholder(surfaces: &Value) -> Value {
    json!({"type": "placeholder", "placeholder": MARK, "in": surfaces, "secret": {"ref": "file://secrets/stocks"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn path_query_and_bodies_carry_the_secret_as_the_place_demands() {
    let (builder, received) =
        upstream("signing-placeholder", json!([placeholder(&json!(["path", "query", "body"]))])).await;
    let stack = builder.file("secrets/stocks", SECRET).start().await.unwrap();
    let encoded = "pl%22ace%2Fkey%5C42";

    let answer = stack.send(post(&format!("/v1/{MARK}/quote?key={MARK}&a=1"), "text/plain", "")).await.unwrap();
    assert_eq!(answer.text(), "done");
    assert_eq!(received.last().0, format!("POST /scripted/v1/{encoded}/quote?key={encoded}&a=1"));

    let body = format!(r#"{{ "auth" : {{"key":"{MARK}"}}, "n":1.50, "list":["a {MARK} b"] }}"#);
    stack.send(post("/v1", "application/json", &body)).await.unwrap();
    assert_eq!(body_of(&received.last().1), body.replace(MARK, r#"pl\"ace/key\\42"#));

    stack.send(post("/v1", "application/x-www-form-urlencoded", &format!("a=1&key={MARK}"))).await.unwrap();
    assert_eq!(body_of(&received.last().1), format!("a=1&key={encoded}"));
    assert_eq!(received.all().len(), 3);

    // What cannot be read for certain, and places of their own.
    let refused = [
        post("/v1", "text/plain", MARK),
        post("/v1", "multipart/form-data; boundary=x", &format!("--x\r\n\r\n{MARK}\r\n--x--")),
        post("/v1", "application/json", "\u{1f}\u{8b}").header("content-encoding", "gzip"),
        post("/v1", "application/json", &format!(r#"{{"{MARK}":1}}"#)),
        post("/v1", "application/json", &format!(r#"{{"a":"{MARK}","a":2}}"#)),
        post("/v1", "application/x-www-form-urlencoded", &format!("{MARK}=1")),
        post(&format!("/v1?{MARK}=1"), "text/plain", ""),
        post("/v1", "text/plain", "").header("x-anything", MARK),
    ];
    for request in refused {
        let answer = stack.send(request).await.unwrap();
        expect::plainly_denied(&stack, &answer, Reason::InvalidRequest).await;
    }
    assert_eq!(received.all().len(), 3, "the upstream received a request that was refused");
    let written = stack.everything_written().await.unwrap();
    assert!(!written.contains(SECRET) && !written.contains(encoded), "the secret was written somewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn tool_arguments_carry_the_secret_and_the_answer_does_not() {
    let stack = Stack::builder("signing-placeholder-arguments")
        .config(|config| {
            if let Some(credentials) = config["bindings"][0]["credentials"].as_array_mut() {
                credentials.push(placeholder(&json!(["arguments"])));
            }
        })
        .file("secrets/stocks", SECRET)
        .start()
        .await
        .unwrap();
    let answer = stack.call_tool("echo", json!({"message": format!("key={MARK}")})).await.unwrap();
    let shown = expect::allowed(&stack, &answer).await;
    assert!(shown.starts_with("key=") && !shown.contains("ace/key") && !shown.contains(MARK), "{shown}");
    let body = stack.upstream.last().await.unwrap()["body"].as_str().unwrap_or_default().to_owned();
    assert!(body.contains(r#"key=pl\"ace/key\\42"#), "{body}");

    // No other member of the message, and not for a tool's name.
    stack.upstream.reset().await.unwrap();
    for spoilt in [
        json!({"jsonrpc": "2.0", "id": MARK, "method": "tools/list", "params": {}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {(MARK): "x"}}}),
    ] {
        let mut request = agent::tool_call(1, "echo", json!({}));
        request.body = keyward_tests::client::RequestBody::Whole(spoilt.to_string().into());
        let answer = stack.send(request).await.unwrap();
        assert!(answer.json().unwrap().get("error").is_some(), "{}", answer.text());
        assert_eq!(stack.upstream.count().await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_goes_nowhere_else() {
    let (builder, received) = upstream("signing-placeholder-elsewhere", json!([placeholder(&json!(["body"]))])).await;
    let stack = builder.policy(POLICY).file("secrets/stocks", SECRET).start().await.unwrap();
    // The same agent, another server: it is neither replaced nor let through, in whatever form.
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(MARK);
    for text in [MARK, &encoded, "__SYEK_SKCOTS__"] {
        let text = if text == "__SYEK_SKCOTS__" { MARK.chars().rev().collect() } else { text.to_owned() };
        let answer = stack.call_tool("echo", json!({"message": text})).await.unwrap();
        expect::denied(&stack, &answer, Reason::SecretInRequest, 1).await;
    }
    assert!(received.all().is_empty());
}
