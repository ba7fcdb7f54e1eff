//! What cannot be scrubbed does not come through.

use http::StatusCode;
use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Answer, Request, send_raw};
use keyward_tests::envoy::UpstreamCluster;
use keyward_tests::stack::Stack;
use serde_json::json;
use std::time::Duration;

use crate::leak::{self, COMPRESSED};
use crate::search::Search;
use crate::{expect, scripted};

/// The answer is the error that says so, counted and audited.
async fn withheld(stack: &Stack, answer: &Answer, id: u64) {
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{}", answer.text());
    let decision = expect::json_rpc_error(answer, Reason::ResponseWithheld, &json!(id));
    assert_eq!(Search::new(&stack.secret).find_in_answer(answer), None);
    let is_report = |record: &serde_json::Value| {
        record["event"] == "response_withheld" && record["decision_id"].as_str() == Some(&decision)
    };
    let record = stack.server.audit_record(is_report).await.unwrap();
    assert_eq!(record["reason"], "response_withheld", "{record}");
    assert_eq!(record["http_status"], 502, "{record}");
}

fn at_scripted(mut request: Request, case: &str) -> Request {
    scripted::PATH.clone_into(&mut request.path);
    request.header("x-case", case)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_answer_is_withheld_and_an_uncompressed_one_asked_for() {
    let stack = Stack::builder("scrubbing-compressed").policy(leak::POLICY).start().await.unwrap();
    for (number, carrier) in COMPRESSED.into_iter().enumerate() {
        for accepted in ["gzip, br, deflate, zstd", "identity"] {
            let call = leak::of(number as u64, carrier, "raw").header("accept-encoding", accepted);
            let answer = stack.send(call).await.unwrap();
            withheld(&stack, &answer, number as u64).await;
            let last = stack.upstream.last().await.unwrap();
            assert!(last["headers"].to_string().contains(r#"["accept-encoding","identity"]"#), "{last}");
        }
    }
    assert_eq!(stack.envoy.stat("wasmcustom.keyward.withheld").await.unwrap(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_every_answer_that_hides_its_bytes() {
    let upstream = scripted::start(|request| {
        let key = scripted::header(request, "x-api-key");
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": key}]}}).to_string();
        // The first and the second half of the key, in two answers, would make a whole.
        let (half, _) = body.split_at(body.find(key).unwrap() + key.len() / 2);
        match scripted::header(request, "x-case") {
            "zstd" => scripted::response("200 OK", "content-encoding: zstd\r\n", body.as_bytes()),
            "unknown" => scripted::response("200 OK", "content-encoding: keyward-test\r\n", body.as_bytes()),
            "twice" => scripted::response("200 OK", "content-encoding: identity, gzip\r\n", body.as_bytes()),
            "two headers" => {
                let headers = "content-encoding: identity\r\ncontent-encoding: br\r\n";
                scripted::response("200 OK", headers, body.as_bytes())
            }
            "error" => scripted::response("500 Oops", "content-encoding: gzip\r\n", body.as_bytes()),
            "part" => {
                let range = format!("content-range: bytes 0-{}/{}\r\n", half.len() - 1, body.len());
                scripted::response("206 Partial Content", &range, half.as_bytes())
            }
            "part as 200" => {
                let range = format!("content-range: bytes 0-{}/{}\r\n", half.len() - 1, body.len());
                scripted::response("200 OK", &range, half.as_bytes())
            }
            "parts" => {
                let headers = "content-type: multipart/byteranges; boundary=x\r\n";
                scripted::response("200 OK", headers, half.as_bytes())
            }
            other => unreachable!("{other}"),
        }
    })
    .await;
    let builder = Stack::builder("scrubbing-hidden").policy(leak::POLICY);
    let stack = scripted::route(builder, upstream, "mcp").start().await.unwrap();
    let cases = ["zstd", "unknown", "twice", "two headers", "error", "part", "part as 200", "parts"];
    for (number, case) in cases.into_iter().enumerate() {
        let call = agent::tool_call(number as u64 + 1, "echo", json!({"message": "hello"}));
        let answer = stack.send(at_scripted(call, case)).await.unwrap();
        println!("{case}: {}", answer.status);
        withheld(&stack, &answer, number as u64 + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn early_hints_do_not_carry_the_secret_out() {
    let upstream = scripted::start(|request| {
        let key = scripted::header(request, "x-api-key");
        let body = json!({"jsonrpc": "2.0", "id": 1, "result": {}}).to_string();
        let hint = match scripted::header(request, "x-case") {
            "103" => format!("HTTP/1.1 103 Early Hints\r\nlink: <https://a.example/{key}>; rel=preload\r\n\r\n"),
            "102" => format!("HTTP/1.1 102 Processing\r\nx-debug: {key}\r\n\r\n"),
            _ => format!("HTTP/1.1 100 Continue\r\nx-debug: {key}\r\n\r\n"),
        };
        let last = scripted::response("200 OK", "content-type: application/json\r\n", body.as_bytes());
        [hint.into_bytes(), last].concat()
    })
    .await;
    let builder = Stack::builder("scrubbing-early-hints").policy(leak::POLICY);
    let stack = scripted::route(builder, upstream, "mcp").start().await.unwrap();
    let search = Search::new(&stack.secret);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    for case in ["100", "102", "103"] {
        for expect in ["", "expect: 100-continue\r\n"] {
            let request = format!(
                "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\naccept: application/json, \
                 text/event-stream\r\nmcp-protocol-version: 2025-06-18\r\nauthorization: Bearer {}\r\nx-case: {case}\r\n\
                 {expect}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                scripted::PATH,
                stack.agents,
                stack.token,
                body.len()
            );
            let bytes = send_raw(stack.agents, request.as_bytes(), Duration::from_secs(5)).await.unwrap();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            assert_eq!(search.find(&bytes), None, "{text}");
            assert!(text.contains("HTTP/1.1 200 ") || text.contains("HTTP/1.1 50"), "{case}: {text}");
        }
    }
}

/// Envoy chooses the route again when the filter has changed the request.
#[tokio::test(flavor = "multi_thread")]
async fn so_is_an_answer_from_another_cluster_than_was_decided_on() {
    let body = br#"{"jsonrpc":"2.0","id":5,"result":{"content":[{"type":"text","text":"astray"}]}}"#;
    let astray = scripted::start(|_| scripted::response("200 OK", "content-type: application/json\r\n", body)).await;
    let route = |domain: &str, cluster: &str| {
        json!({"name": cluster, "domains": [domain], "routes": [{
            "match": {"prefix": "/"}, "route": {"cluster": cluster},
            "metadata": {"filter_metadata": {"keyward": {"server": "demo", "mode": "mcp"}}},
        }]})
    };
    let hosts = json!([route("*", "demo_upstream"), route("demo-upstream.internal:9000", "astray")]);
    let stack = Stack::builder("scrubbing-astray")
        .envoy(|envoy| {
            envoy.clusters.push(UpstreamCluster::tcp("astray", astray));
            envoy.connection_manager = json!({"route_config": {"virtual_hosts": hosts}});
        })
        .start()
        .await
        .unwrap();
    let answer = stack.send(agent::tool_call(5, "echo", json!({"message": "hello"}))).await.unwrap();
    withheld(&stack, &answer, 5).await;
    let log = stack.envoy.process.log();
    assert!(log.contains("a route to another cluster"), "{log}");
}
