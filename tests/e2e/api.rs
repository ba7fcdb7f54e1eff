//! The operator API: whoever has a token and a role does with bindings and grants what the commands do; nobody else does anything.

use std::time::{Duration, Instant};

use http::Method;
use keyward_contract::reason::Reason;
use keyward_tests::client::{Answer, Request};
use keyward_tests::issuer::Token;
use keyward_tests::stack::{Builder, ROLE, SUBJECT, Stack};
use serde_json::{Value, json};

use crate::expect;
use crate::stores::echo;

/// What tokens for the API have in `aud`, and no other token.
const AUDIENCE: &str = "https://keyward.example/api";
const ID: &str = "demo-api-key";

/// Bindings with a lifecycle, and an API on which each role has a group.
pub(crate) fn with_api(builder: Builder, approvals: usize) -> Builder {
    builder.variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").config(move |config| {
        config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
        config["lifecycle"] = json!({"approvals": approvals});
        config["revocation"] = json!({});
        config["listen"]["api"] = json!("127.0.0.1:0");
        let mut issuer = config["identity"]["issuers"][0].clone();
        issuer["name"] = json!("staff");
        issuer["audiences"] = json!([AUDIENCE]);
        config["api"] = json!({
            "identity": {"issuers": [issuer]},
            "assignments": [
                {"role": "viewer", "tenants": ["*"], "groups": ["auditors"]},
                {"role": "approver", "tenants": ["*"], "groups": ["owners"]},
                {"role": "responder", "tenants": ["*"], "groups": ["on-call"]},
                {"role": "responder", "tenants": ["acme"], "subjects": ["acme-admin"]},
                {"role": "responder", "tenants": ["demo"], "subjects": ["demo-admin"]},
                {"role": "operator", "tenants": ["*"], "subjects": ["olga"]},
            ],
        });
    })
}

/// The token of an operator in a group.
pub(crate) fn token(stack: &Stack, subject: &str, groups: &[&str]) -> String {
    stack.issuer.sign(&Token::new(subject, groups).claim("aud", AUDIENCE)).unwrap()
}

async fn send(stack: &Stack, request: Request) -> Answer {
    request.send(stack.server.api.unwrap()).await.unwrap()
}

async fn get(stack: &Stack, token: &str, path: &str) -> Answer {
    send(stack, Request::new(Method::GET, path).bearer(token)).await
}

async fn post(stack: &Stack, token: &str, path: &str, body: Value) -> Answer {
    send(stack, Request::post(path, &body).bearer(token)).await
}

/// A refusal with this status and code, and nothing else in it.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let problem = answer.json().unwrap();
    assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{problem}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// Waits until calls go through, or are denied for this reason.
async fn until(stack: &Stack, denied: Option<Reason>) {
    let began = Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        match denied {
            Some(reason) if answer.text().contains(reason.code()) => {
                expect::denied(stack, &answer, reason, 1).await;
                return;
            }
            None if answer.result().is_ok() => {
                expect::allowed(stack, &answer).await;
                return;
            }
            _ => assert!(began.elapsed() < Duration::from_secs(5), "{}", answer.text()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_without_an_admin_identity_gets_anything() {
    let stack = with_api(Stack::builder("api-nobody"), 0).start().await.unwrap();
    let agent = stack.token.clone();
    let stranger = token(&stack, "stranger", &["nobody"]);
    let broken = stack.issuer.sign(&Token::new("olga", &[]).claim("aud", AUDIENCE).broken_signature()).unwrap();
    let late = stack.issuer.sign(&Token::new("olga", &[]).claim("aud", AUDIENCE).lifetime(-600, -300)).unwrap();
    let paths = [
        (Method::GET, "/v1/operator"),
        (Method::GET, "/v1/bindings"),
        (Method::GET, "/v1/bindings/demo-api-key/history"),
        (Method::POST, "/v1/bindings/demo-api-key/disable"),
        (Method::GET, "/v1/grants"),
        (Method::POST, "/v1/grants/revoke"),
        (Method::GET, "/no/such/path"),
        (Method::PUT, "/v1/bindings"),
    ];
    for (method, path) in &paths {
        let request = || Request::new(method.clone(), path);
        refused(&send(&stack, request()).await, 401, "unauthenticated");
        // An agent's token, whoever it is for, is none of an operator.
        for token in [&agent, &broken, &late] {
            refused(&send(&stack, request().bearer(token)).await, 401, "unauthenticated");
        }
        refused(&send(&stack, request().bearer(&stranger)).await, 403, "forbidden");
        let twice = request().bearer(&stranger).bearer(&token(&stack, "olga", &[]));
        refused(&send(&stack, twice).await, 401, "unauthenticated");
    }
    // And an operator's token is none of an agent.
    let answer =
        stack.send(echo().without_header("authorization").bearer(&token(&stack, "olga", &[ROLE]))).await.unwrap();
    assert_eq!(answer.status, 401, "{}", answer.text());
    // Nothing has changed, and each attempt is in the trail.
    until(&stack, None).await;
    let refusals = stack.server.audit().unwrap();
    let refusals = refusals.iter().filter(|record| record["event"] == "operator_request");
    assert_eq!(refusals.filter(|record| record["operator"].is_null()).count(), paths.len() * 6);
    // What needs no identity shows no name.
    let page = Request::new(Method::GET, "/v1/bindings").send(stack.server.admin).await.unwrap();
    assert_eq!(page.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_web_page_sends_is_refused_with_the_best_of_tokens() {
    let stack = with_api(Stack::builder("api-browser"), 0).start().await.unwrap();
    let olga = token(&stack, "olga", &[]);
    let disable = || Request::post("/v1/bindings/demo-api-key/disable", &json!({})).bearer(&olga);
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "same-origin"),
        ("sec-fetch-mode", "navigate"),
        ("cookie", "session=1"),
    ] {
        refused(&send(&stack, disable().header(name, value)).await, 403, "browser_refused");
    }
    let preflight = Request::new(Method::OPTIONS, "/v1/bindings").header("origin", "https://evil.example");
    let answer = send(&stack, preflight.header("access-control-request-method", "POST")).await;
    refused(&answer, 403, "browser_refused");
    assert_eq!(answer.header("access-control-allow-origin"), "");
    // A name of somebody else's that leads here.
    for host in ["rebound.example", "localhost", "127.0.0.1:1", "user@localhost:80"] {
        refused(&send(&stack, disable().authority(host)).await, 421, "unknown_host");
    }
    // A form that a page can send without asking.
    let form = disable().without_header("content-type").header("content-type", "text/plain");
    refused(&send(&stack, form).await, 400, "invalid_request");
    until(&stack, None).await;
    let port = stack.server.api.unwrap().port();
    let answer = send(&stack, disable().authority(&format!("localhost:{port}"))).await;
    assert_eq!(answer.json().unwrap()["state"], "disabled", "{}", answer.text());
    until(&stack, Some(Reason::BindingInactive)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_its_own_and_two_people_are_two_tokens() {
    let stack = with_api(Stack::builder("api-roles"), 2).start().await.unwrap();
    let [ann, bob] = ["ann", "bob"].map(|name| token(&stack, name, &["owners"]));
    let auditor = token(&stack, "ada", &["auditors"]);
    let responder = token(&stack, "rex", &["on-call"]);
    let olga = token(&stack, "olga", &[]);
    let step = async |token: &str, action: &str| {
        post(&stack, token, &format!("/v1/bindings/{ID}/{action}"), json!({"reason": "because"})).await
    };
    let state = |answer: &Answer| answer.json().unwrap()["state"].as_str().map(str::to_owned).unwrap_or_default();

    until(&stack, Some(Reason::BindingInactive)).await;
    for (token, action) in [
        (&auditor, "approve"),
        (&auditor, "activate"),
        (&auditor, "disable"),
        (&auditor, "revoke"),
        (&ann, "activate"),
        (&ann, "revoke"),
        (&responder, "approve"),
        (&responder, "activate"),
        (&olga, "approve"),
    ] {
        refused(&step(token, action).await, 403, "forbidden");
    }
    assert_eq!(state(&step(&ann, "approve").await), "draft");
    // The same person with another token is nobody else.
    assert_eq!(step(&token(&stack, "ann", &["owners", "x"]), "approve").await.json().unwrap()["changed"], false);
    refused(&step(&olga, "activate").await, 409, "conflict");
    assert_eq!(state(&step(&bob, "approve").await), "approved");
    assert_eq!(state(&step(&olga, "activate").await), "active");
    until(&stack, None).await;
    let late = post(&stack, &responder, &format!("/v1/bindings/{ID}/disable"), json!({"version": 1})).await;
    refused(&late, 409, "conflict");
    assert_eq!(state(&step(&responder, "disable").await), "disabled");
    until(&stack, Some(Reason::BindingInactive)).await;

    let history = get(&stack, &auditor, &format!("/v1/bindings/{ID}/history")).await.json().unwrap();
    let who: Vec<&str> = history.as_array().unwrap().iter().filter_map(|step| step["by"].as_str()).collect();
    assert_eq!(who, ["ann@staff", "bob@staff", "olga@staff", "rex@staff"], "{history}");
    let record = stack.server.audit_record(|record| record["event"] == "binding_changed").await.unwrap();
    let expected = (&json!("disable"), &json!("rex@staff"), &json!("operator-api"), &json!("because"));
    let step = &record["binding"];
    assert_eq!((&step["action"], &step["by"], &step["user"], &step["reason"]), expected, "{record}");
    // The cards hold references and no value.
    let cards = get(&stack, &auditor, "/v1/bindings").await.text();
    assert!(cards.contains(ID) && !cards.contains(&stack.secret), "{cards}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_for_one_tenant_sees_and_ends_nothing_of_another() {
    let stack = with_api(Stack::builder("api-tenant"), 0).start().await.unwrap();
    let acme = token(&stack, "acme-admin", &[]);
    let me = get(&stack, &acme, "/v1/operator").await.json().unwrap();
    assert_eq!(me["roles"], json!([{"role": "responder", "tenants": ["acme"]}]), "{me}");
    assert_eq!(get(&stack, &acme, "/v1/grants?tenant=acme").await.json().unwrap(), json!([]));
    for path in ["/v1/grants", "/v1/grants?tenant=other", "/v1/grants?tenant=", "/v1/bindings"] {
        refused(&get(&stack, &acme, path).await, 403, "forbidden");
    }
    for repeated in ["/v1/grants?tenant=acme&tenant=other", "/v1/grants?tenants=acme"] {
        refused(&get(&stack, &acme, repeated).await, 400, "invalid_request");
    }
    let grant = |tenant: &str| json!({"tenant": tenant, "principal": SUBJECT, "provider": "calendar"});
    refused(&post(&stack, &acme, "/v1/grants/revoke", grant("other")).await, 403, "forbidden");
    refused(&post(&stack, &acme, "/v1/grants/revoke", grant("acme")).await, 404, "not_found");
    refused(&post(&stack, &acme, &format!("/v1/bindings/{ID}/disable"), json!({})).await, 403, "forbidden");
    until(&stack, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_is_revoked_for_ones_own_tenant_and_lifted_by_who_may_let_through() {
    let stack = with_api(Stack::builder("api-revoke"), 0).start().await.unwrap();
    let [acme, demo, olga] = ["acme-admin", "demo-admin", "olga"].map(|name| token(&stack, name, &[]));
    let alice =
        |tenant: &str| json!({"kind": "human", "tenant": tenant, "issuer": "demo", "id": SUBJECT, "reason": "left"});
    let revoke = async |token: &str, body: Value| post(&stack, token, "/v1/revocations", body).await;
    refused(&revoke(&acme, alice("demo")).await, 403, "forbidden");
    refused(&revoke(&demo, alice("acme")).await, 403, "forbidden");
    refused(&revoke(&demo, json!({"kind": "binding", "id": ID})).await, 403, "forbidden");
    for odd in [
        json!({"kind": "human", "tenant": "demo", "issuer": "nobody", "id": SUBJECT}),
        json!({"kind": "human", "tenant": "demo", "id": SUBJECT}),
        json!({"kind": "human", "tenant": "demo", "issuer": "demo", "id": SUBJECT, "server": "nowhere"}),
        json!({"kind": "human", "tenant": "demo", "issuer": "demo", "id": SUBJECT, "for_secs": 0}),
        json!({"kind": "everybody", "tenant": "demo"}),
        json!({"kind": "tenant", "tenant": "demo", "because": "x"}),
    ] {
        refused(&revoke(&demo, odd).await, 400, "invalid_request");
    }
    until(&stack, None).await;
    let revoked = revoke(&demo, alice("demo")).await.json().unwrap();
    let number = revoked["number"].as_i64().unwrap();
    assert_eq!((&revoked["by"], &revoked["user"]), (&json!("demo-admin@staff"), &json!("operator-api")), "{revoked}");
    until(&stack, Some(Reason::AccessRevoked)).await;

    let listed = get(&stack, &demo, "/v1/revocations?tenant=demo").await.json().unwrap();
    assert_eq!((&listed[0]["id"], &listed[0]["reason"]), (&json!(SUBJECT), &json!("left")), "{listed}");
    refused(&get(&stack, &demo, "/v1/revocations").await, 403, "forbidden");
    let path = format!("/v1/revocations/{number}/lift");
    refused(&post(&stack, &demo, &path, json!({})).await, 403, "forbidden");
    refused(&post(&stack, &acme, "/v1/revocations/999/lift", json!({})).await, 403, "forbidden");
    refused(&post(&stack, &olga, "/v1/revocations/999/lift", json!({})).await, 404, "not_found");
    assert_eq!(post(&stack, &olga, &path, json!({})).await.json().unwrap()["lifts"], number);
    until(&stack, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_seen_and_ended_for_ones_own_tenant() {
    let stack = with_api(Stack::builder("api-sessions"), 0).start().await.unwrap();
    let [acme, demo] = ["acme-admin", "demo-admin"].map(|name| token(&stack, name, &[]));
    let session = stack.session("2025-11-25").await.unwrap();
    let call = async |id: u32| session.call_tool(id, "echo", json!({"message": "hello"})).await.unwrap();
    assert!(call(2).await.result().is_ok());
    refused(&get(&stack, &acme, "/v1/sessions?tenant=demo").await, 403, "forbidden");
    let listed = get(&stack, &demo, "/v1/sessions?tenant=demo").await.json().unwrap();
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    let end = async |token: &str, body: Value| post(&stack, token, "/v1/sessions/end", body).await;
    refused(&end(&demo, json!({})).await, 403, "forbidden");
    refused(&end(&acme, json!({"tenant": "acme", "id": id})).await, 404, "not_found");
    refused(&end(&token(&stack, "olga", &[]), json!({})).await, 400, "invalid_request");
    assert_eq!(end(&demo, json!({"tenant": "demo", "id": id})).await.json().unwrap()["ended"], json!([id]));
    let began = Instant::now();
    while call(3).await.status != 404 {
        assert!(began.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
