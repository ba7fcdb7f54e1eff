//! Every form in every carrier, over both protocols and with every kind of binding.

use std::net::SocketAddr;
use std::time::Duration;

use keyward_tests::client::{Answer, Protocol, Request, send_raw};
use keyward_tests::envoy::UpstreamCluster;
use keyward_tests::stack::Stack;
use keyward_tests::upstream::Slot;
use serde_json::json;
use tokio::task::JoinSet;

use crate::leak::{self, CARRIERS, FORMS};
use crate::search::Search;

/// How many calls are under way at once.
const AT_ONCE: usize = 8;

/// One call of the matrix.
#[derive(Clone, Debug)]
struct Case {
    id: u64,
    carrier: &'static str,
    form: &'static str,
    protocol: Protocol,
}

fn matrix(carriers: &[&'static str], forms: &[&'static str]) -> Vec<Case> {
    let pairs = carriers.iter().flat_map(|carrier| forms.iter().map(move |form| (*carrier, *form)));
    let case = |(position, (carrier, form)): (usize, (&'static str, &'static str))| {
        // Trailers travel over HTTP/2; a reason phrase exists in HTTP/1.1 only.
        let second = carrier == "trailer" || (position % 2 == 1 && carrier != "reason_phrase");
        let protocol = if second { Protocol::Http2 } else { Protocol::Http1 };
        Case { id: position as u64 + 1, carrier, form, protocol }
    };
    pairs.enumerate().map(case).collect()
}

/// Sends each case through Keyward, and to the upstream itself after `straight` added the key; returns what went wrong.
async fn check(
    stack: &Stack,
    cases: Vec<Case>,
    straight: impl Fn(Request) -> Request + Clone + Send + 'static,
) -> Vec<String> {
    let search = Search::new(&stack.secret);
    let mut faults = Vec::new();
    let mut running = JoinSet::new();
    for case in cases {
        let (agents, upstream, token) = (stack.agents, stack.upstream.address, stack.token.clone());
        let (search, straight) = (search.clone(), straight.clone());
        running.spawn(async move {
            let call = leak::of(case.id, case.carrier, case.form).protocol(case.protocol);
            let direct = straight(call.clone()).send(upstream).await.unwrap();
            let answer = call.bearer(&token).send(agents).await.unwrap();
            fault(&case, &search, &direct, &answer).map(|fault| format!("{case:?}: {fault}"))
        });
        if running.len() >= AT_ONCE {
            faults.extend(running.join_next().await.unwrap().unwrap());
        }
    }
    while let Some(done) = running.join_next().await {
        faults.extend(done.unwrap());
    }
    faults
}

fn fault(case: &Case, search: &Search, direct: &Answer, answer: &Answer) -> Option<String> {
    // The client here does not show reason phrases; they have a test of their own.
    if case.carrier != "reason_phrase" && search.find_in_answer(direct).is_none() {
        return Some(format!("the upstream did not give it away, or the search is blind: {}", direct.text()));
    }
    if let Some(found) = search.find_in_answer(answer) {
        return Some(format!("the secret came back: {found}"));
    }
    if answer.status != direct.status || answer.broken.is_some() {
        return Some(format!("{} instead of {}, {:?}", answer.status, direct.status, answer.broken));
    }
    let length = answer.header("content-length");
    if !length.is_empty() && length != answer.body().len().to_string() {
        return Some(format!("content-length {length}, body of {}", answer.body().len()));
    }
    if answer.body().len() != direct.body().len() {
        return Some(format!("the body has {} bytes instead of {}", answer.body().len(), direct.body().len()));
    }
    if case.carrier == "etag" && !answer.header("etag").starts_with("W/\"") {
        return Some(format!("etag `{}`", answer.header("etag")));
    }
    if case.carrier == "trailer" && answer.trailers.len() != direct.trailers.len() {
        return Some(format!("trailers {:?}", answer.trailers));
    }
    if case.carrier == "not_json" {
        return None;
    }
    let response = match answer.response() {
        Ok(response) => response,
        Err(error) => return Some(format!("no JSON-RPC response any more: {error:#}")),
    };
    let of_call = response["jsonrpc"] == "2.0" && response["id"] == json!(case.id);
    let same = direct.response().is_ok_and(|direct| same_shape(&direct, &response));
    (!of_call || !same).then(|| format!("another response: {response}"))
}

/// Both values have the same structure and differ in strings only.
fn same_shape(one: &serde_json::Value, other: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Object, String};
    match (one, other) {
        (String(_), String(_)) => true,
        (Array(one), Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_shape(one, other))
        }
        (Object(one), Object(other)) => {
            let same = |(name, value)| other.get(name).is_some_and(|other| same_shape(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        (one, other) => one == other,
    }
}

fn with_key(secret: &str) -> impl Fn(Request) -> Request + Clone + Send + 'static {
    let secret = secret.to_owned();
    move |request: Request| request.header("x-api-key", &secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_form_in_any_carrier_reaches_the_client() {
    let stack = Stack::builder("scrubbing-header").policy(leak::POLICY).start().await.unwrap();
    let cases = matrix(&CARRIERS, &FORMS);
    let count = cases.len();
    let faults = check(&stack, cases, with_key(&stack.secret)).await;
    assert!(faults.is_empty(), "{} of {count}:\n{}", faults.len(), faults.join("\n"));
    // The reason phrase never gets past Envoy; everything else was found and replaced.
    let redactions = stack.envoy.stat("wasmcustom.keyward.redactions").await.unwrap();
    assert!(redactions >= count as u64 - FORMS.len() as u64, "{redactions} redactions in {count} answers");
    println!("{count} combinations of form and carrier, {redactions} redactions");
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_from_an_upstream_over_http_2() {
    let stack = Stack::builder("scrubbing-http2")
        .policy(leak::POLICY)
        .envoy(|envoy| envoy.upstream = UpstreamCluster { http2: true, ..envoy.upstream.clone() })
        .start()
        .await
        .unwrap();
    let cases = matrix(&["text", "trailer", "header", "tcp_split", "large"], &FORMS);
    let faults = check(&stack, cases, with_key(&stack.secret)).await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_of_a_credential_in_the_query() {
    let slot = Slot::Query("apiKey".to_owned());
    let stack = Stack::builder("scrubbing-query").slot(slot).policy(leak::POLICY).start().await.unwrap();
    let encoded: String = stack.secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let straight = move |mut request: Request| {
        request.path = format!("/mcp?apiKey={encoded}");
        request
    };
    let cases = matrix(
        &["text", "structured_content", "header", "location", "error_data"],
        &["raw", "base64", "percent", "percent_all"],
    );
    let faults = check(&stack, cases, straight).await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_of_a_basic_password() {
    use base64::Engine;
    let slot = Slot::Basic("svc".to_owned());
    let stack = Stack::builder("scrubbing-basic").slot(slot).policy(leak::POLICY).start().await.unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("svc:{}", stack.secret));
    let straight = move |request: Request| request.header("authorization", format!("Basic {encoded}"));
    let cases = matrix(
        &["text", "structured_content", "header", "www_authenticate", "error_message"],
        &["raw", "base64", "basic", "reversed"],
    );
    let faults = check(&stack, cases, straight).await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_phrase_and_the_raw_bytes_hold_nothing() {
    let stack = Stack::builder("scrubbing-raw-bytes").policy(leak::POLICY).start().await.unwrap();
    let search = Search::new(&stack.secret);
    let raw = async |to: SocketAddr, form: &str, header: String| {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "leak", "arguments": {"carrier": "reason_phrase", "form": form}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }}})
        .to_string();
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n\
             mcp-method: tools/call\r\nmcp-name: leak\r\n{header}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        send_raw(to, (head + &body).as_bytes(), Duration::from_secs(5)).await.unwrap()
    };
    for form in ["raw", "base64", "percent_all"] {
        let direct = raw(stack.upstream.address, form, format!("x-api-key: {}", stack.secret)).await;
        assert!(search.find(&direct).is_some(), "{}", String::from_utf8_lossy(&direct));
        let bytes = raw(stack.agents, form, format!("authorization: Bearer {}", stack.token)).await;
        assert!(bytes.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(search.find(&bytes), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_redaction_is_counted_and_audited_without_the_value() {
    let stack = Stack::builder("scrubbing-audit").policy(leak::POLICY).start().await.unwrap();
    let search = Search::new(&stack.secret);
    for (number, (carrier, where_found)) in
        [("text", "body"), ("header", "headers"), ("trailer", "trailers")].into_iter().enumerate()
    {
        let call = leak::of(1, carrier, "base64").protocol(Protocol::Http2);
        let answer = stack.send(call).await.unwrap();
        assert_eq!(search.find_in_answer(&answer), None);
        let is_report = |record: &serde_json::Value| {
            record["event"] == "secret_echoed" && record["carriers"] == json!([where_found])
        };
        let record = stack.server.audit_record(is_report).await.unwrap();
        assert_eq!((&record["redactions"], &record["http_status"]), (&json!(1), &json!(200)), "{record}");
        assert_eq!(record["server"], "demo", "{record}");
        let decision = stack.server.decision(record["decision_id"].as_str().unwrap()).await.unwrap();
        assert_eq!(decision["decision"], "allow", "{decision}");
        assert_eq!(search.find(record.to_string().as_bytes()), None);
        let counted = stack.envoy.stat("wasmcustom.keyward.redactions").await.unwrap();
        assert_eq!(counted, number as u64 + 1);
    }
    let metrics = stack.server.metrics().await.unwrap();
    assert!(metrics.contains(r#"keyward_redactions_total{server="demo"} 3"#), "{metrics}");
    // An answer without the secret counts as nothing.
    stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    assert_eq!(stack.envoy.stat("wasmcustom.keyward.redactions").await.unwrap(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_earlier_revision_is_scrubbed_too() {
    let stack = Stack::builder("scrubbing-session").policy(leak::POLICY).start().await.unwrap();
    let search = Search::new(&stack.secret);
    let session = stack.session("2025-11-25").await.unwrap();
    // A log message goes to the stream that the client opened by GET.
    let mut server_messages = session.stream().open(stack.agents).await.unwrap();
    assert_eq!(server_messages.status, 200);
    for (id, form) in ["raw", "base64", "json_unicode"].into_iter().enumerate() {
        for carrier in ["log", "text", "notification", "sse_split"] {
            let answer =
                session.call_tool(id as u64 + 10, "leak", json!({"carrier": carrier, "form": form})).await.unwrap();
            assert_eq!(search.find_in_answer(&answer), None, "{carrier} {form}");
            assert_eq!(answer.response().unwrap()["id"], id as u64 + 10);
        }
    }
    let mut seen = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = server_messages.chunk().await {
            seen.extend_from_slice(&chunk.bytes);
            if String::from_utf8_lossy(&seen).matches("notifications/message").count() >= 3 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), reading).await;
    let text = String::from_utf8_lossy(&seen).into_owned();
    assert!(text.matches("notifications/message").count() >= 3, "the stream brought `{text}`");
    assert_eq!(search.find(&seen), None, "{text}");
}
