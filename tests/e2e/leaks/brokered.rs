//! A brokered secret in a request to a host that it is not bound to, in any form and any place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use keyward_contract::reason::Reason;
use keyward_tests::client::{Request, RequestBody};
use keyward_tests::envoy::Authorizer;
use keyward_tests::stack::{Builder, Stack, UPSTREAM_AUTHORITY};
use serde_json::json;

use crate::{expect, scripted};

const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "all", "explanation": "a test"}
"#;

/// The demo upstream with its secret, and another server that must never see it.
async fn start(name: &str) -> (Stack, Arc<AtomicU64>) {
    let (builder, count) = builder(name).await;
    (builder.start().await.unwrap(), count)
}

async fn builder(name: &str) -> (Builder, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let address = scripted::start(move |_| {
        counter.fetch_add(1, Ordering::AcqRel);
        scripted::response("200 OK", "content-type: text/plain\r\n", b"done")
    })
    .await;
    let builder = scripted::route(Stack::builder(name).policy(POLICY), address, "http");
    let builder = builder
        .config(|config| {
            config["bindings"][0]["servers"] = json!(["demo"]);
            config["bindings"][0]["hosts"] = json!([UPSTREAM_AUTHORITY]);
            let other = json!({
                "id": "other", "mode": "service_account", "owner": "team", "environment": "development",
                "servers": ["scripted"], "hosts": [scripted::AUTHORITY],
                "credentials": [{"type": "header", "name": "x-other-key", "secret": {"ref": "file://secrets/other"}}],
            });
            if let Some(bindings) = config["bindings"].as_array_mut() {
                bindings.push(other);
            }
        })
        .file("secrets/other", "the-other-secret-value");
    (builder, count)
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Forms of a secret that need no letters outside a path.
fn forms(secret: &str) -> Vec<(&'static str, String)> {
    vec![
        ("hexadecimal digits", secret.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ("upper-case digits", secret.bytes().map(|byte| format!("{byte:02X}")).collect()),
        ("base64", STANDARD.encode(secret).replace(['+', '/'], "-")),
        ("base64 of more", URL_SAFE_NO_PAD.encode(format!("key={secret};"))),
        ("reversed", percent(&secret.chars().rev().collect::<String>())),
        ("percent-encoded", percent(secret)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_does_not_leave_to_a_host_it_is_not_bound_to() {
    let (stack, count) = start("leaks-brokered").await;
    // A secret that no form of which is one of another alphabet.
    let secret = stack.secret.clone();
    let get = |target: &str| Request::new(Method::GET, &format!("{}{target}", scripted::PATH));
    let post = |body: String| {
        let mut request = Request::new(Method::POST, scripted::PATH).header("content-type", "text/plain");
        request.body = RequestBody::Whole(body.into());
        request
    };
    let json = json!({"a": [{"b": format!("x{secret}y")}]}).to_string();
    let mut cases = vec![
        ("header, as it is".to_owned(), get("").header("x-note", &secret)),
        ("body, as it is".to_owned(), post(format!("before {secret} after"))),
        ("body, JSON".to_owned(), post(json.clone())),
        ("body, JSON in JSON".to_owned(), post(json!({"text": json}).to_string())),
        ("body, UTF-16".to_owned(), post(secret.chars().flat_map(|char| [char, '\0']).collect())),
    ];
    for (form, text) in forms(&secret) {
        cases.push((format!("path, {form}"), get(&format!("/v1/{text}/x"))));
        cases.push((format!("query, {form}"), get(&format!("/v1?a=1&q=x{text}"))));
        cases.push((format!("header, {form}"), get("").header("x-note", &text)));
        cases.push((format!("body, {form}"), post(format!("<<{text}>>"))));
    }
    for (name, request) in cases {
        let answer = stack.send(request).await.unwrap();
        // Envoy refuses an escaped slash by itself.
        if answer.status == 400 && name.starts_with("path, ") {
            continue;
        }
        assert_eq!(answer.status, 403, "{name}: {}", answer.text());
        expect::plainly_denied(&stack, &answer, Reason::SecretInRequest).await;
        assert!(!answer.text().contains(&secret), "{name}");
    }
    assert_eq!(count.load(Ordering::Acquire), 0, "the other upstream received a request");
    let record = stack.server.audit_record(|record| record["reason"] == "secret_in_request").await.unwrap();
    let explanation = record["explanation"].as_str().unwrap_or_default();
    assert!(explanation.contains("demo-api-key") && !record.to_string().contains(&secret), "{record}");

    // Where it is bound to, it may be; and the other server's requests go on.
    let answer = stack.call_tool("echo", json!({"message": secret})).await.unwrap();
    expect::allowed(&stack, &answer).await;
    assert_eq!(stack.send(post("nothing of the kind".to_owned())).await.unwrap().text(), "done");
    assert_eq!(count.load(Ordering::Acquire), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_the_other_server_does_not_leave_in_an_argument() {
    let (stack, _) = start("leaks-brokered-argument").await;
    for message in ["the-other-secret-value", "eulav-terces-rehto-eht", "dGhlLW90aGVyLXNlY3JldC12YWx1ZQ"] {
        let answer = stack.call_tool("echo", json!({"message": message})).await.unwrap();
        expect::denied(&stack, &answer, Reason::SecretInRequest, 1).await;
    }
    // A rotated secret counts as soon as it is read, and the one before still does.
    stack.change_file("secrets/other", "the-rotated-secret-value").unwrap();
    let rotated = std::time::Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.call_tool("echo", json!({"message": "the-rotated-secret-value"})).await.unwrap();
        if answer.text().contains("secret_in_request") {
            expect::denied(&stack, &answer, Reason::SecretInRequest, 1).await;
            break;
        }
        assert!(rotated.elapsed().as_secs() < 15, "the new secret is not known");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let answer = stack.call_tool("echo", json!({"message": "the-other-secret-value"})).await.unwrap();
    expect::denied(&stack, &answer, Reason::SecretInRequest, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_which_nothing_can_be_found_does_not_leave() {
    let (stack, count) = start("leaks-brokered-encoded").await;
    let post = |coding: &str, body: &'static [u8]| {
        let mut request = Request::new(Method::POST, scripted::PATH).header("content-encoding", coding);
        request.body = RequestBody::Whole(body.into());
        request
    };
    for coding in ["gzip", "br", "deflate", "zstd", "identity, gzip"] {
        let answer = stack.send(post(coding, b"\x1f\x8b\x08 whatever it holds")).await.unwrap();
        expect::plainly_denied(&stack, &answer, Reason::InvalidRequest).await;
    }
    assert_eq!(count.load(Ordering::Acquire), 0, "the other upstream received a request");
    assert_eq!(stack.send(post("identity", b"plain")).await.unwrap().text(), "done");
    assert_eq!(stack.send(post("gzip", b"")).await.unwrap().text(), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_which_only_a_part_came_does_not_leave() {
    // Stock ext_authz, told to send no body, or the beginning of a long one only.
    for (name, limit) in [("leaks-brokered-none", None), ("leaks-brokered-part", Some(64))] {
        let mut filter = json!({"name": "envoy.filters.http.ext_authz", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3", "failure_mode_allow": false,
            "grpc_service": {"envoy_grpc": {"cluster_name": "keyward"}, "timeout": "5s"},
        }});
        if let Some(limit) = limit {
            filter["typed_config"]["with_request_body"] =
                json!({"max_request_bytes": limit, "allow_partial_message": true, "pack_as_bytes": true});
        }
        let (builder, count) = builder(name).await;
        let stack = builder
            .envoy(|envoy| envoy.authorizer = Authorizer::Filters(vec![filter]))
            // This filter names no cluster.
            .config(|config| config["servers"]["scripted"]["cluster"].take().as_str().map(drop).unwrap())
            .start()
            .await
            .unwrap();
        let mut long = Request::new(Method::POST, scripted::PATH).header("content-type", "text/plain");
        long.body = RequestBody::Whole(format!("{}{}", "x".repeat(500), stack.secret).into());
        let answer = stack.send(long).await.unwrap();
        expect::plainly_denied(&stack, &answer, Reason::InvalidRequest).await;
        assert_eq!(count.load(Ordering::Acquire), 0, "the other upstream received a request");
        let get = Request::new(Method::GET, &format!("{}?page=2", scripted::PATH));
        assert_eq!(stack.send(get).await.unwrap().text(), "done");
    }
}
