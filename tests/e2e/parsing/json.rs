//! Strict JSON, through the real Envoy.

use std::fs;
use std::path::Path;

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Answer, Request};
use keyward_tests::files;
use keyward_tests::stack::Stack;
use serde_json::json;

use crate::{expect, leak};

/// Refused although the suite accepts them: the two readers of such an object may take different values.
const REFUSED_ON_PURPOSE: [&str; 2] = ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"];

/// A call of `echo` with this text as the value of an argument.
fn with_argument(text: &[u8]) -> Request {
    let mut body = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}},
        "name":"echo","arguments":{"message":"hello","value":"#
        .to_vec();
    body.extend_from_slice(text);
    body.extend_from_slice(b"}}}");
    Request::post_bytes("/mcp", body)
        .header("mcp-protocol-version", agent::NEWEST)
        .header("mcp-method", "tools/call")
        .header("mcp-name", "echo")
}

/// The request with this argument went to the upstream, byte for byte.
async fn passed(stack: &Stack, name: &str, text: &[u8]) {
    stack.upstream.reset().await.unwrap();
    let request = with_argument(text);
    let keyward_tests::client::RequestBody::Whole(body) = &request.body else { unreachable!() };
    let body = String::from_utf8_lossy(body).into_owned();
    let answer = stack.send(request).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 1, "{name}: {}", answer.text());
    assert_eq!(stack.upstream.last().await.unwrap()["body"], body, "{name}");
}

async fn refused(stack: &Stack, name: &str, request: Request) -> Answer {
    stack.upstream.reset().await.unwrap();
    let answer = stack.send(request).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 0, "{name} reached the upstream");
    let reason = answer.json().unwrap()["error"]["data"]["reason"].as_str().and_then(Reason::from_code);
    let reason = reason.unwrap_or_else(|| unreachable!("{name}: {}", answer.text()));
    assert!(matches!(reason, Reason::InvalidJson | Reason::RequestTooLarge), "{name}: {}", answer.text());
    // What is not JSON has no id that could be read.
    expect::json_rpc_error(&answer, reason, &json!(null));
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_suite_comes_out_as_named() {
    let folder = files::workspace().join("../shared/vectors/json_parsing");
    let Some(cases) = suite(&folder) else {
        eprintln!("SKIPPED: no JSONTestSuite at ../shared/vectors/json_parsing");
        return;
    };
    let stack = Stack::builder("parsing-suite").policy(leak::POLICY).start().await.unwrap();
    let (mut accepted, mut denied) = (0, 0);
    for (name, text) in cases {
        if name.starts_with("y_") && !REFUSED_ON_PURPOSE.contains(&name.as_str()) {
            passed(&stack, &name, &text).await;
            accepted += 1;
        } else {
            refused(&stack, &name, with_argument(&text)).await;
            denied += 1;
        }
    }
    println!("JSONTestSuite: {accepted} accepted, {denied} refused");
    assert!(accepted >= 90 && denied >= 180);
}

/// The files that begin with `y_` and `n_`; none where there is no such folder.
fn suite(folder: &Path) -> Option<Vec<(String, Vec<u8>)>> {
    let mut cases: Vec<_> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            (name.starts_with("y_") || name.starts_with("n_")).then(|| (name, fs::read(path).unwrap()))
        })
        .collect();
    cases.sort();
    Some(cases)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_readings_are_no_reading() {
    let stack = Stack::builder("parsing-ambiguous").policy(leak::POLICY).start().await.unwrap();
    // Duplicate keys at any depth, also when spelled differently, and names that differ by case only.
    let ambiguous: [&[u8]; 12] = [
        br#"{"a":1,"a":1}"#,
        br#"{"a":1,"b":2,"a":3}"#,
        br#"{"a":1,"\u0061":2}"#,
        br#"{"a":1,"A":2}"#,
        br#"[[[{"x":{"y":1,"y":2}}]]]"#,
        br#"{"a":{"b":{"c":{"d":{"e":1,"e":2}}}}}"#,
        br#"1e999"#,
        br#"18446744073709551616"#,
        br#""\ud800""#,
        b"\"\xff\"",
        b"\"a\x00b\"",
        b"1} , \"name\": {\"a\":1",
    ];
    for text in ambiguous {
        refused(&stack, &String::from_utf8_lossy(text), with_argument(text)).await;
    }
    for text in [&br#"{"a":1,"b":{"a":2}}"#[..], br#"[{"a":1},{"a":1}]"#, br#""\ud83d\ude00""#, b"18446744073709551615"]
    {
        passed(&stack, &String::from_utf8_lossy(text), text).await;
    }
    // The envelope is no exception.
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/call","params":{"name":"echo"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"delete_everything"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"delete_everything"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","Name":"delete_everything"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"},"p\u0061rams":{"name":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}"#,
        "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}",
        "",
    ] {
        refused(&stack, body, Request::post_bytes("/mcp", body.to_owned())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn depth_and_size_are_bounded() {
    let stack = Stack::builder("parsing-limits").policy(leak::POLICY).start().await.unwrap();
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    // The value stands three objects deep.
    passed(&stack, "61 deeper", &nested(61)).await;
    for depth in [62, 1_000, 400_000] {
        let answer = refused(&stack, &format!("{depth} deeper"), with_argument(&nested(depth))).await;
        assert_eq!(answer.status, 413, "{depth}");
    }
    let text = |bytes: usize| format!("\"{}\"", "a".repeat(bytes - 2)).into_bytes();
    let keyward_tests::client::RequestBody::Whole(empty) = with_argument(b"").body else { unreachable!() };
    let room = 1_048_576 - empty.len();
    passed_by_count(&stack, &text(room)).await;
    let answer = refused(&stack, "one byte over", with_argument(&text(room + 1))).await;
    assert_eq!(answer.status, 413);
}

/// As [`passed`], where the upstream's report does not hold the whole body.
async fn passed_by_count(stack: &Stack, text: &[u8]) {
    stack.upstream.reset().await.unwrap();
    let answer = stack.send(with_argument(text)).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 1, "{}: {}", answer.status, answer.text());
}
