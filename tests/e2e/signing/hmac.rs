//! Signed requests: the signature is recomputed by Python over what the upstream received.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyward_contract::reason::Reason;
use keyward_tests::envoy::Authorizer;
use serde_json::{Value, json};

use super::{body_of, post, upstream};
use crate::{expect, scripted};

const KEY: &str = "signing-key-0123456789";

/// The HMAC as Python's standard library computes it, in hexadecimal digits.
fn python(algorithm: &str, key: &str, message: &str) -> String {
    let program =
        "import sys, hmac; print(hmac.new(sys.argv[2].encode(), sys.argv[3].encode(), sys.argv[1]).hexdigest())";
    let output = Command::new("python3").args(["-c", program, algorithm, key, message]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn hmac(message: &str, more: Value) -> Value {
    let mut credential = json!({"type": "hmac", "secret": {"ref": "file://secrets/signing"}, "message": message});
    for (name, value) in more.as_object().unwrap() {
        credential[name] = value.clone();
    }
    credential
}

fn header(name: &str, template: &str) -> Value {
    json!({"name": name, "template": template})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_in_each_known_style_covers_what_leaves() {
    let credentials = json!([
        {"type": "query", "name": "apiKey", "secret": {"ref": "file://secrets/demo"}},
        hmac("{timestamp}.{body}", json!({"headers": [header("x-stripe-like", "t={timestamp},v1={signature}")]})),
        hmac("v0:{timestamp}:{body}", json!({"headers": [
            header("x-slack-like", "v0={signature}"), header("x-slack-like-timestamp", "{timestamp}"),
        ]})),
        hmac("{body}", json!({"algorithm": "sha1", "headers": [header("x-hub-like", "sha1={signature}")]})),
        hmac("{method}\n{host}\n{path}\n{query}\n{header:content-type}\n{nonce}\n{timestamp}\n{body_sha256_base64}", json!({
            "algorithm": "sha512", "encoding": "base64", "timestamp": "http_date", "query_order": "sorted", "key_id": "k-1",
            "headers": [header("x-full", "{key_id} {nonce} {signature}"), header("x-full-date", "{timestamp}")],
        })),
    ]);
    let (builder, received) = upstream("signing-hmac", credentials).await;
    let stack = builder.file("secrets/signing", KEY).start().await.unwrap();
    let body = "{\"amount\": 12, \"text\": \"grüße\"}";
    let answer = stack.send(post("/pay?z=1&a=%20b&x-stripe-like=1", "application/json", body)).await.unwrap();
    assert_eq!(answer.text(), "done");
    let (line, request) = received.last();
    let target = line.strip_prefix("POST ").unwrap();
    let (path, query) = target.split_once('?').unwrap();
    assert_eq!(body_of(&request), body);
    let get = |name: &str| scripted::header(&request, name).to_owned();

    let stripe = get("x-stripe-like");
    let (time, signature) = stripe.strip_prefix("t=").unwrap().split_once(",v1=").unwrap();
    assert_eq!(signature, python("sha256", KEY, &format!("{time}.{body}")));
    let (time, slack) = (get("x-slack-like-timestamp"), get("x-slack-like"));
    assert_eq!(slack, format!("v0={}", python("sha256", KEY, &format!("v0:{time}:{body}"))));
    assert_eq!(get("x-hub-like"), format!("sha1={}", python("sha1", KEY, body)));

    let full = get("x-full");
    let parts: Vec<&str> = full.split(' ').collect();
    let mut pairs: Vec<&str> = query.split('&').collect();
    pairs.sort_unstable();
    assert!(query.contains("apiKey="), "`{query}`");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    let message = format!(
        "POST\n{}\n{path}\n{}\napplication/json\n{}\n{}\n{}",
        get("host"),
        pairs.join("&"),
        parts[1],
        get("x-full-date"),
        STANDARD.encode(digest.as_ref())
    );
    let expected = python("sha512", KEY, &message);
    let got: String = STANDARD.decode(parts[2]).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((parts[0], got), ("k-1", expected));
    let written = stack.everything_written().await.unwrap();
    assert!(!written.contains(KEY) && !written.contains(signature), "a key or a signature was written somewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_in_the_query_is_not_part_of_what_is_signed() {
    let credentials = json!([hmac(
        "{method} {target} {timestamp}",
        json!({
            "timestamp": "unix_ms", "query": [header("ts", "{timestamp}"), header("sig", "{signature}")],
        })
    )]);
    let (builder, received) = upstream("signing-hmac-query", credentials).await;
    let stack = builder.file("secrets/signing", KEY).start().await.unwrap();
    // What the client sends in its place is gone, and not signed.
    let answer = stack.send(post("/pay?a=1&sig=forged", "text/plain", "x")).await.unwrap();
    assert_eq!(answer.text(), "done");
    let (line, _) = received.last();
    let (target, rest) = line.strip_prefix("POST ").unwrap().split_once("&ts=").unwrap();
    let (time, signature) = rest.split_once("&sig=").unwrap();
    assert_eq!(signature, python("sha256", KEY, &format!("POST {target} {time}")), "{line}");
    assert!(!line.contains("forged"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_the_upstream_shows_does_not_come_back() {
    let address = scripted::start(|request| {
        let shown = format!("you sent {}", scripted::header(request, "x-signature"));
        scripted::response("200 OK", "content-type: text/plain\r\n", shown.as_bytes())
    })
    .await;
    let builder = keyward_tests::stack::Stack::builder("signing-hmac-echo").policy(super::POLICY);
    let credentials = json!([hmac("{timestamp}.{body}", json!({"headers": [header("x-signature", "{signature}")]}))]);
    let stack = scripted::route(builder, address, "http")
        .config(|config| config["bindings"][0]["credentials"] = credentials)
        .file("secrets/signing", KEY)
        .start()
        .await
        .unwrap();
    let answer = stack.send(post("/", "text/plain", "x")).await.unwrap();
    let shown = answer.text().strip_prefix("you sent ").unwrap().to_owned();
    assert_eq!(shown.len(), 64, "{shown}");
    assert!(shown.contains("REDACTED") && !shown.chars().any(|char| char.is_ascii_digit()), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_body_is_not_signed() {
    let credentials = json!([hmac("{body}", json!({"headers": [header("x-signature", "{signature}")]}))]);
    let (builder, received) = upstream("signing-hmac-partial", credentials).await;
    // Stock ext_authz, told to send the beginning of a long body only.
    let partial = json!({"name": "envoy.filters.http.ext_authz", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3", "failure_mode_allow": false,
        "grpc_service": {"envoy_grpc": {"cluster_name": "keyward"}, "timeout": "5s"},
        "with_request_body": {"max_request_bytes": 64, "allow_partial_message": true, "pack_as_bytes": true},
    }});
    let stack = builder
        .file("secrets/signing", KEY)
        .envoy(|envoy| envoy.authorizer = Authorizer::Filters(vec![partial]))
        // This filter names no cluster.
        .config(|config| config["servers"]["scripted"]["cluster"].take().as_str().map(drop).unwrap())
        .start()
        .await
        .unwrap();
    let answer = stack.send(post("/pay", "text/plain", &"x".repeat(500))).await.unwrap();
    expect::plainly_denied(&stack, &answer, Reason::InvalidRequest).await;
    assert!(received.all().is_empty());
    // The same request, short enough to be whole.
    let answer = stack.send(post("/pay", "text/plain", "x")).await.unwrap();
    assert_eq!(answer.text(), "done");
    assert_eq!(scripted::header(&received.last().1, "x-signature"), python("sha256", KEY, "x"));
}
