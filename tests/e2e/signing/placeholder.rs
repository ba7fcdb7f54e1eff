//! Secrets in place of what an agent wrote: in the path, in bodies, in tool arguments; refused where they have no business.

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

use super::{POLICY, body_of, post, showing, upstream};
use crate::{expect, scripted};

const MARK: &str = "__STOCKS_KEY__";
const SECRET: &str = r#"pl"ace/key\42"#;

fn placeholder(surfaces: &Value) -> Value {
    named(MARK, surfaces)
}

fn named(mark: &str, surfaces: &Value) -> Value {
    json!({"type": "placeholder", "placeholder": mark, "in": surfaces, "secret": {"ref": "file://secrets/stocks"}})
}

/// What an upstream reads that is lenient: what is no escape stands for itself.
fn read(encoded: &str) -> String {
    let (mut read, mut rest) = (Vec::new(), encoded.as_bytes());
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%');
        read.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&read).into_owned()
}

/// Shows path, query, form and document as an upstream reads them.
fn shown(request: &str) -> String {
    let (_, target) = request.lines().next().unwrap_or_default().split_once(' ').unwrap_or_default();
    let body = body_of(request);
    let body = match scripted::header(request, "content-type") {
        "application/json" => serde_json::from_str::<Value>(body).map(|value| value["k"].clone()).unwrap_or_default(),
        _ => json!(read(body)),
    };
    format!("{}\n{}", read(target), body.as_str().unwrap_or_default())
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
async fn nothing_before_a_placeholder_hides_the_secret_in_the_answer() {
    // It could end an escape in a URL (`%fa`) and one in JSON (`\f`), and so could the beginning of the second placeholder.
    const HEXADECIMAL: &str = "face-0123456789-the-key";
    const FORM: &str = "application/x-www-form-urlencoded";
    let surfaces = json!(["path", "query", "body"]);
    let credentials = json!([placeholder(&surfaces), named("feed-here", &surfaces)]);
    let (builder, received) = showing("signing-placeholder-echo", credentials, shown).await;
    let stack = builder.file("secrets/stocks", HEXADECIMAL).start().await.unwrap();
    for mark in [MARK, "feed-here"] {
        let document = |before: &str| post("/v1", "application/json", &format!(r#"{{"k":"{before}{mark}"}}"#));
        for request in [
            post(&format!("/v1/a%20{mark}?k=%41{mark}%41"), "text/plain", ""),
            post("/v1", FORM, &format!("a=1&k=a+{mark}%")),
            document(r"\n"),
            document(r"\u0041"),
            document(r#"\""#),
        ] {
            let count = received.all().len();
            let answer = stack.send(request).await.unwrap();
            assert_eq!((answer.status.as_u16(), received.all().len()), (200, count + 1), "{}", answer.text());
            assert!(received.last().1.contains(HEXADECIMAL), "{}", received.last().1);
            assert!(!answer.text().contains("0123456789"), "{}", answer.text());
        }
        let count = received.all().len();
        for request in [
            post(&format!("/v1?k=%{mark}"), "text/plain", ""),
            post(&format!("/v1?k=%4{mark}"), "text/plain", ""),
            post(&format!("/v1?k=%25{mark}"), "text/plain", ""),
            post(&format!("/v1/%{mark}"), "text/plain", ""),
            post("/v1", FORM, &format!("k=%{mark}")),
            post("/v1", FORM, &format!("k=%f{mark}")),
            post("/v1", &format!("{FORM}; charset=utf-16"), &format!("k={mark}")),
            document(r"\"),
            document(r"\u"),
            document(r"\\"),
            document("%"),
        ] {
            let answer = stack.send(request).await.unwrap();
            assert!(!answer.status.is_success(), "{}", answer.text());
            assert!(!answer.text().contains("0123456789"), "{}", answer.text());
        }
        assert_eq!(received.all().len(), count, "the upstream received a request that was refused");
    }
    let answer = stack.send(post(&format!("/v1?k=%{MARK}"), "text/plain", "")).await.unwrap();
    expect::plainly_denied(&stack, &answer, Reason::InvalidRequest).await;
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
