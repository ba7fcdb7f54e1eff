//! A service's own refresh token (RFC 6749, 6). The user's, and rotation, need the store of grants.

use serde_json::{Value, json};

use super::{World, audience, client, resources};

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
