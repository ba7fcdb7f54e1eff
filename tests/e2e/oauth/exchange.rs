//! Tokens for other tokens: RFC 8693 with and without an actor, on behalf of, ID-JAG over two authorization servers, and an
//! assertion of our own (RFC 7523).

use keyward_tests::authorization_server::AuthorizationServer;
use keyward_tests::files;
use keyward_tests::issuer::{AUDIENCE, ISSUER, Issuer, Token};
use serde_json::{Value, json};

use super::{World, audience, client, keys, resources};

const SECRET: &str = "the-secret-of-the-gateway-client";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

fn options(issuer: &Issuer) -> Value {
    json!({
        "clients": [client("gateway", SECRET, &[EXCHANGE, BEARER])],
        "resources": resources(&["orders"]),
        "trusted": [{"issuer": ISSUER, "audience": AUDIENCE, "jwks": issuer.jwks()}],
        "actors": ["gateway-workload"],
    })
}

fn credential(issuer: &str, grant: &str) -> Value {
    json!({
        "type": "oauth", "grant": grant, "issuer": issuer, "scopes": ["read"],
        "client": {"id": "gateway", "secret": {"ref": "env://CLIENT_SECRET"}},
    })
}

async fn start(name: &str, grant: &str, change: impl FnOnce(&mut Value), actor: Option<Token>) -> World {
    let mut signed = None;
    World::start(
        name,
        |issuer| {
            signed = actor.map(|token| issuer.sign(&token).unwrap());
            options(issuer)
        },
        |server| {
            let mut credential = credential(&server.issuer, grant);
            credential["resource"] = json!(audience("orders"));
            change(&mut credential);
            vec![("orders", credential)]
        },
        |builder| builder.variable("CLIENT_SECRET", SECRET),
    )
    .await
    .with_actor(signed)
}

impl World {
    /// Puts the actor's token where the configuration expects it.
    fn with_actor(self, token: Option<String>) -> World {
        if let Some(token) = token {
            self.stack.change_file("secrets/actor", token).unwrap();
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_is_the_subject_of_its_own_token() {
    let world = start("oauth-exchange", "token_exchange", |_| (), None).await;
    for subject in ["alice", "bob", "alice"] {
        let token = world.stack.token_for(subject, &["demo-user"]).unwrap();
        let answer = world.get_as("orders", &token).await;
        let claims = world.taken("orders", &answer).await;
        assert_eq!((&claims["sub"], &claims["aud"]), (&json!(subject), &json!(audience("orders"))), "{claims}");
        assert_eq!((&claims["client_id"], &claims["scope"]), (&json!("gateway"), &json!("read")), "{claims}");
        assert!(claims["act"].is_null(), "{claims}");
        let last = world.server.received().await.unwrap().pop().unwrap();
        assert!(!last.to_string().contains(&token), "the caller's token reached the upstream: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actor_is_named_in_the_token() {
    let actor = Token::new("gateway-workload", &[]);
    let with = |credential: &mut Value| {
        credential["actor"] = json!({"from": "secret", "secret": {"ref": "file://secrets/actor"}});
    };
    let world = start("oauth-actor", "token_exchange", with, Some(actor)).await;
    let claims = world.taken("orders", &world.get("orders").await).await;
    assert_eq!((&claims["sub"], &claims["act"]["sub"]), (&json!("alice"), &json!("gateway-workload")), "{claims}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_actor_that_may_not_act_is_a_denial() {
    let actor = Token::new("somebody-else", &[]);
    let with = |credential: &mut Value| {
        credential["actor"] = json!({"from": "secret", "secret": {"ref": "file://secrets/actor"}});
    };
    let world = start("oauth-wrong-actor", "token_exchange", with, Some(actor)).await;
    let record = world.denied(&world.get("orders").await).await;
    assert!(record.contains("invalid_request"), "{record}");
    assert_eq!(world.calls(EXCHANGE).await, world.server.token_calls().await.unwrap().len(), "nothing else is tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_not_known_is_a_denial() {
    let other = |credential: &mut Value| credential["resource"] = json!("https://api.example/unknown");
    let world = start("oauth-exchange-target", "token_exchange", other, None).await;
    let record = world.denied(&world.get("orders").await).await;
    assert!(record.contains("invalid_target"), "{record}");
    assert_eq!(world.server.token_calls().await.unwrap().len(), 1, "nothing else is tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_behalf_of_needs_a_token_that_was_meant_for_the_client() {
    let ours = |credential: &mut Value| credential["subject"] = json!({"from": "caller", "audience": AUDIENCE});
    let world = start("oauth-behalf", "on_behalf_of", ours, None).await;
    let claims = world.taken("orders", &world.get("orders").await).await;
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("alice"), &json!(audience("orders"))), "{claims}");

    // Without the setting the token has to be for the client's own id, and that of the agent is for Keyward.
    let world = start("oauth-behalf-audience", "on_behalf_of", |_| (), None).await;
    let record = world.denied(&world.get("orders").await).await;
    assert!(record.contains("audience"), "{record}");
    assert_eq!(world.server.token_calls().await.unwrap(), Vec::<Value>::new(), "it left the gateway");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_assertion_is_redeemed_at_the_resources_own_server() {
    let name = "oauth-id-jag";
    let provider = std::cell::RefCell::new(None);
    let secret_there = "the-secret-at-the-resource-server";
    let world = World::start(
        name,
        |issuer| {
            let folder = files::run_folder(&format!("{name}-provider")).unwrap();
            let started = AuthorizationServer::start("identity-provider", &options(issuer), &folder).unwrap();
            let trusted = json!([{"issuer": started.issuer, "jwks_uri": format!("{}/jwks", started.issuer)}]);
            provider.replace(Some(started));
            json!({
                "clients": [client("gateway", secret_there, &[BEARER])],
                "resources": resources(&["orders"]), "trusted": trusted,
            })
        },
        |server| {
            let issuer = provider.borrow().as_ref().map(|provider| provider.issuer.clone()).unwrap();
            let mut credential = credential(&issuer, "id_jag");
            credential["scopes"] = json!(["read", "write"]);
            credential["resource"] = json!(audience("orders"));
            credential["resource_server"] = json!({
                "issuer": server.issuer, "scopes": ["read"],
                "client": {"id": "gateway", "secret": {"ref": "env://RESOURCE_SECRET"}},
            });
            vec![("orders", credential)]
        },
        |builder| builder.variable("CLIENT_SECRET", SECRET).variable("RESOURCE_SECRET", secret_there),
    )
    .await;
    let claims = world.taken("orders", &world.get("orders").await).await;
    assert_eq!((&claims["sub"], &claims["iss"]), (&json!("alice"), &json!(world.server.issuer)), "{claims}");
    assert_eq!((&claims["scope"], &claims["client_id"]), (&json!("read"), &json!("gateway")), "{claims}");
    let provider = provider.into_inner().unwrap();
    let first = provider.token_calls().await.unwrap();
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!((&first[0]["scope"], &first[0]["audience"]), (&json!("read write"), &json!(world.server.issuer)));
    assert_eq!(world.calls(BEARER).await, 1);

    // The assertion alone opens nothing: it is no access token.
    assert_eq!(provider.received().await.unwrap(), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_of_our_own_names_the_caller() {
    let (pem, jwk) = keys::pair("ES256");
    let world = World::start(
        "oauth-assertion",
        |_| {
            json!({
                "clients": [client("gateway", SECRET, &[BEARER])], "resources": resources(&["orders"]),
                "trusted": [{"issuer": "https://keyward.example", "jwks": {"keys": [jwk]}}],
            })
        },
        |server| {
            let mut credential = credential(&server.issuer, "jwt_bearer");
            credential["resource"] = json!(audience("orders"));
            credential["assertion"] = json!({
                "issuer": "https://keyward.example", "subject": "{user}", "key_id": "k",
                "key": {"ref": "file://secrets/assertion.pem"},
            });
            vec![("orders", credential)]
        },
        |builder| builder.variable("CLIENT_SECRET", SECRET).file("secrets/assertion.pem", &pem),
    )
    .await;
    for subject in ["alice@example.com", "bob@example.com"] {
        let token = world.stack.token_for(subject, &["demo-user"]).unwrap();
        let claims = world.taken("orders", &world.get_as("orders", &token).await).await;
        assert_eq!(claims["sub"], subject, "{claims}");
    }
}
