//! What an authorization server refuses ends as a denial: nothing else is tried, and the upstream receives nothing.

use serde_json::{Value, json};

use super::{World, audience, client, resources};

const SECRET: &str = "the-right-secret-of-the-client";

fn credential(issuer: &str) -> Value {
    json!({
        "type": "oauth", "grant": "client_credentials", "issuer": issuer,
        "client": {"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}},
        "scopes": ["read"], "resource": audience("orders"),
    })
}

async fn start(name: &str, change: impl FnOnce(&mut Value, &str), secret: &str) -> World {
    let options = json!({
        "clients": [client("keyward", SECRET, &["client_credentials"])], "resources": resources(&["orders"]),
    });
    World::start(
        name,
        |_| options,
        |server| {
            let mut credential = credential(&server.issuer);
            change(&mut credential, &server.issuer);
            vec![("orders", credential)]
        },
        |builder| builder.variable("CLIENT_SECRET", secret),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_a_denial_without_the_secret() {
    let world = start("oauth-wrong-secret", |_, _| (), "some-wrong-secret-of-the-client").await;
    let answer = world.get("orders").await;
    let record = world.denied(&answer).await;
    assert!(record.contains("invalid_client"), "{record}");
    assert!(!answer.text().contains("invalid_client"), "the agent learns the reason: {}", answer.text());
    let written = world.stack.everything_written().await.unwrap();
    assert!(!written.contains("some-wrong-secret"), "the secret was written somewhere");
    // A second call at once does not ask again.
    world.denied(&world.get("orders").await).await;
    assert_eq!(world.calls("client_credentials").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_the_server_does_not_know_is_a_denial() {
    let other = |credential: &mut Value, _: &str| credential["resource"] = json!("https://api.example/unknown");
    let world = start("oauth-invalid-target", other, SECRET).await;
    let record = world.denied(&world.get("orders").await).await;
    assert!(record.contains("invalid_target"), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_the_client_has_not_is_a_denial() {
    let exchange = |credential: &mut Value, _: &str| credential["grant"] = json!("token_exchange");
    let world = start("oauth-unauthorized-client", exchange, SECRET).await;
    world.denied(&world.get("orders").await).await;
    assert_eq!(world.calls("client_credentials").await, 0, "nothing falls back to the client's own token");
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_of_another_issuer_is_a_denial() {
    // `localhost` and `127.0.0.1` are one server and two issuers.
    let other = |credential: &mut Value, issuer: &str| {
        credential["issuer"] = json!(issuer.replace("127.0.0.1", "localhost"));
    };
    let world = start("oauth-other-issuer", other, SECRET).await;
    let record = world.denied(&world.get("orders").await).await;
    assert!(record.contains("another issuer"), "{record}");
    assert_eq!(world.server.token_calls().await.unwrap(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_a_denial() {
    let mut world = start("oauth-gone", |_, _| (), SECRET).await;
    world.server.process.kill();
    let answer = world.get("orders").await;
    let body = answer.json().unwrap();
    assert_eq!(body["error"]["reason"], "credential_unavailable", "{body}");
}
