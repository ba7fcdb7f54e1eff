//! What callers are told whose tokens will not do, and that a token for one server serves at no other.

use std::sync::atomic::Ordering;

use http::StatusCode;
use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::issuer::Token;
use serde_json::{Value, json};

use super::{World, call, parameter};
use crate::expect;

fn section() -> Value {
    json!({"scopes": {"required": ["use"], "methods": {"tools/call": ["call"]}, "tools": {"delete_*": ["admin"]}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_for_one_server_serves_at_no_other() {
    let world = World::start("resource-audience", json!({}), |builder| builder).await;
    let (mcp, own) = (world.token(&world.mcp, ""), world.token(&world.scripted, ""));
    let (mcp, own) = (world.signed(&mcp), world.signed(&own));
    let elsewhere = world.signed(&Token::new("alice", &["demo-user"]));
    // The first time it is verified, and the second time it is remembered.
    for _ in 0..2 {
        for token in [&own, &elsewhere] {
            let answer = world.call(token).await;
            expect::unauthenticated(&world.stack, &answer, Reason::InvalidToken, 1).await;
        }
        let answer = world.call_scripted(&mcp).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.text());
        world.untouched().await;
    }
    assert_eq!(world.events("audience_refused").await, 6);
    world.stack.server.audit_record(|record| record["event"] == "audience_refused").await.unwrap();

    expect::allowed(&world.stack, &world.call(&mcp).await).await;
    assert_eq!(world.call_scripted(&own).await.result().unwrap()["content"][0]["text"], "done");
    // Remembered as good at the one, and still not good at the other.
    assert_eq!(world.call_scripted(&mcp).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(world.call(&own).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!((world.stack.upstream.count().await.unwrap(), world.received.load(Ordering::SeqCst)), (1, 1));

    // A token for both is for both.
    let both = world.signed(&world.token("", "").claim("aud", json!([world.mcp, world.scripted])));
    assert_eq!(
        (world.call(&both).await.status, world.call_scripted(&both).await.status),
        (StatusCode::OK, StatusCode::OK)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_resource_takes_no_token_for_one() {
    let world = World::start("resource-beside", json!({}), |builder| {
        builder.config(|config| drop(config["servers"]["scripted"].as_object_mut().unwrap().remove("resource")))
    })
    .await;
    let token = world.signed(&world.token(&world.mcp, ""));
    for _ in 0..2 {
        assert_eq!(world.call_scripted(&token).await.status, StatusCode::UNAUTHORIZED);
        world.untouched().await;
    }
    let general = world.stack.token.clone();
    assert_eq!(world.call_scripted(&general).await.status, StatusCode::OK);
    assert_eq!(world.call(&general).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_says_which_token_would_do() {
    let world = World::start("resource-challenge", section(), |builder| builder).await;
    let metadata = world.mcp.replace("/mcp", "/.well-known/oauth-protected-resource/mcp");
    let missing = world.send(call()).await;
    expect::unauthenticated(&world.stack, &missing, Reason::Unauthenticated, 1).await;
    let expected = format!("Bearer scope=\"use\", resource_metadata=\"{metadata}\"");
    assert_eq!(missing.header("www-authenticate"), expected);
    let broken = world.call(&world.signed(&world.token(&world.mcp, "use call").broken_signature())).await;
    expect::unauthenticated(&world.stack, &broken, Reason::InvalidToken, 1).await;
    assert_eq!(parameter(broken.header("www-authenticate"), "resource_metadata"), metadata);

    // Step by step: each refusal names all that the call takes, and what the token has that means something here.
    let lacking = |scope: &str| world.signed(&world.token(&world.mcp, scope));
    let delete = || agent::tool_call(7, "delete_everything", json!({}));
    for (request, scope, told) in [
        (call(), "openid", "use call"),
        (call(), "use", "use call"),
        (call(), "call admin", "use call admin"),
        (delete(), "use call", "use call admin"),
        (delete(), "openid use", "use call admin"),
    ] {
        let id = if told.ends_with("admin") && scope != "call admin" { 7 } else { 1 };
        let answer = world.send(request.bearer(&lacking(scope))).await;
        expect::denied(&world.stack, &answer, Reason::InsufficientScope, id).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer error=\"insufficient_scope\""), "{challenge}");
        assert_eq!(parameter(challenge, "scope"), told, "{scope}: {challenge}");
        assert_eq!(parameter(challenge, "resource_metadata"), metadata);
    }
    assert_eq!(world.events("scope_refused").await, 5);
    world.stack.server.audit_record(|record| record["event"] == "scope_refused").await.unwrap();
    let told = world.send(delete().bearer(&lacking("use call admin"))).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text());
    assert_eq!(world.stack.upstream.count().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_asks_for_scopes_of_its_own() {
    let world = World::start("resource-policy-scopes", section(), |builder| builder).await;
    let leak = || agent::tool_call(1, "leak", json!({"form": "raw", "carrier": "text"}));
    let answer = world.send(leak().bearer(&world.signed(&world.token(&world.mcp, "use call")))).await;
    expect::denied(&world.stack, &answer, Reason::InsufficientScope, 1).await;
    assert_eq!(parameter(answer.header("www-authenticate"), "scope"), "audit use call");
    let decision = world.stack.server.audit_record(|record| record["reason"] == "insufficient_scope").await.unwrap();
    assert!(decision["explanation"].as_str().unwrap().contains("`audit`"), "{decision}");
    for scope in ["use call audit", "use call root"] {
        let answer = world.send(leak().bearer(&world.signed(&world.token(&world.mcp, scope)))).await;
        assert_eq!(answer.status, StatusCode::OK, "{scope}: {}", answer.text());
    }
}
