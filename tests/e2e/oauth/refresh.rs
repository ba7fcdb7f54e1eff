//! A service's own refresh token (RFC 6749, 6), with and without a place to keep the next one. The user's is a matter of
//! `connect`.

use std::time::Duration;

use http::Method;
use keyward_tests::client::Request;
use keyward_tests::server::Server;
use serde_json::{Value, json};

use super::{World, audience, client, resources};
use crate::replica::Replica;

const SECRET: &str = "the-secret-of-the-refreshing-client";

/// A world whose refresh token, of this account, lies where configuration says.
async fn start(name: &str, rotate: bool) -> (World, String) {
    let mut keyward = client("keyward", SECRET, &["authorization_code", "refresh_token"]);
    keyward["redirect_uris"] = json!(["https://keyward.example/callback"]);
    keyward["response_types"] = json!(["code"]);
    let options = json!({"clients": [keyward], "resources": resources(&["orders"]), "rotate": rotate});
    let world = World::start(
        name,
        |_| options,
        |server| {
            let credential = json!({
                "type": "oauth", "grant": "refresh_token", "issuer": server.issuer,
                "client": {"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}},
                "refresh_token": {"ref": "file://secrets/refresh"}, "scopes": ["read"],
            });
            vec![("orders", credential)]
        },
        |builder| builder.variable("CLIENT_SECRET", SECRET),
    )
    .await;
    let scope = "openid read write offline_access";
    let token = world.server.seed_refresh_token("keyward", "robot", scope, &audience("orders")).await.unwrap();
    world.stack.change_file("secrets/refresh", &token).unwrap();
    (world, token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_served_with_its_refresh_token_which_stays_here() {
    let (world, token) = start("oauth-refresh", false).await;
    for answer in world.at_once(std::iter::repeat_n("orders", 20)).await {
        let claims = world.taken("orders", &answer).await;
        assert_eq!((&claims["sub"], &claims["scope"]), (&json!("robot"), &json!("read")), "{claims}");
    }
    assert_eq!(world.calls("refresh_token").await, 1);
    let received = Value::Array(world.server.received().await.unwrap()).to_string();
    assert!(!received.contains(&token), "the refresh token reached the upstream");
    assert!(
        !world.stack.everything_written().await.unwrap().contains(&token),
        "the refresh token was written somewhere"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_refresh_token_is_a_denial() {
    let (world, token) = start("oauth-refresh-revoked", false).await;
    world.server.revoke(&token).await.unwrap();
    let record = world.denied(&world.get("orders").await).await;
    assert!(record.contains("invalid_grant") && !record.contains(&token), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotating_server_is_a_denial_where_the_next_token_could_not_be_kept() {
    let (world, _) = start("oauth-refresh-unkept", true).await;
    let record = world.denied(&world.get("orders").await).await;
    assert!(record.contains("database"), "{record}");
}

/// A world whose server rotates, and ends a grant whose old token comes back. Two upstreams of one audience: two access
/// tokens of one grant, each used for a second. Returns the refresh token to begin with.
async fn rotating(name: &str) -> (World, String) {
    let mut keyward = client("keyward", SECRET, &["authorization_code", "refresh_token"]);
    keyward["redirect_uris"] = json!(["https://keyward.example/callback"]);
    keyward["response_types"] = json!(["code"]);
    let mut known = resources(&["orders", "again"]);
    known["again"]["audience"] = json!(audience("orders"));
    let options = json!({"clients": [keyward], "resources": known, "token_secs": 2});
    let world = World::start(
        name,
        |_| options,
        |server| {
            let credential = |scope: &str| {
                json!({
                    "type": "oauth", "grant": "refresh_token", "issuer": server.issuer,
                    "client": {"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}},
                    "refresh_token": {"ref": "file://secrets/refresh"}, "scopes": [scope],
                })
            };
            vec![("orders", credential("read")), ("again", credential("write"))]
        },
        |builder| {
            builder
                .variable("CLIENT_SECRET", SECRET)
                .variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
                .config(|config| config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]}))
        },
    )
    .await;
    let scope = "openid read write offline_access";
    let seed = world.server.seed_refresh_token("keyward", "robot", scope, &audience("orders")).await.unwrap();
    world.stack.change_file("secrets/refresh", &seed).unwrap();
    (world, seed)
}

/// Had an old refresh token ever come back, the server would have ended the grant.
async fn none_came_twice(world: &World, seed: &str) {
    let calls = world.server.token_calls().await.unwrap();
    assert!(calls.len() >= 8 && calls.iter().all(|call| call["status"] == 200), "{calls:?}");
    assert!(!world.server.is_live(seed).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_rotating_server_exactly_one_refresh_token_lives() {
    let (mut world, seed) = rotating("oauth-refresh-rotating").await;
    for round in 0..4 {
        for answer in world.at_once(["orders", "again"].into_iter().cycle().take(20)).await {
            assert_eq!(answer.status, 200, "{round}: {}\n{}", answer.text(), world.stack.server.process.log());
        }
        if round == 1 {
            // What was kept in memory is gone; the next refresh token is not.
            world.stack.restart_server().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    none_came_twice(&world, &seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_replica_nor_a_command_that_looks_sends_a_refresh_token_that_was_sent() {
    let (world, seed) = rotating("oauth-refresh-replicas").await;
    let replica = Replica::start(&world.stack).await;
    let config = world.stack.folder.join("keyward.yaml").display().to_string();
    for round in 0..4 {
        let look = |command: &'static [&'static str]| {
            let (config, variables) = (config.clone(), world.stack.variables().to_vec());
            tokio::task::spawn_blocking(move || {
                Server::run(&[command, &["--config", config.as_str()]].concat(), &variables).unwrap()
            })
        };
        let looks = [look(&["bindings", "list"]), look(&["doctor"])];
        let mut calls = tokio::task::JoinSet::new();
        for (resource, agents) in [("orders", world.stack.agents), ("again", replica.agents)] {
            let request = Request::new(Method::GET, &format!("/{resource}/items")).bearer(&world.stack.token);
            calls.spawn(request.send(agents));
        }
        for answer in calls.join_all().await {
            let answer = answer.unwrap();
            let logs = [world.stack.server.process.log(), replica.server.process.log()];
            assert_eq!(answer.status, 200, "{round}: {}\n{}", answer.text(), logs.join("\n"));
        }
        for look in looks {
            let output = look.await.unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert!(!said.contains("NOT SET") && !said.contains("invalid_grant"), "{round}: {said}");
            assert!(!said.contains("FAIL  binding"), "{round}: {said}");
        }
        tokio::time::sleep(Duration::from_millis(1200)).await;
    }
    none_came_twice(&world, &seed).await;
}
