//! The client's own token (RFC 6749, 4.4), with every way to prove who the client is, each enforced by the certified server.

use serde_json::{Value, json};

use super::{World, audience, client, keys, resources};

const SECRET: &str = "a secret: with+every/kind%of=character&\"more\"";

fn credential(issuer: &str, resource: &str, client: &Value) -> Value {
    json!({
        "type": "oauth", "grant": "client_credentials", "issuer": issuer, "client": client,
        "scopes": ["read"], "resource": audience(resource),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_proof_of_a_client_gets_a_token_that_the_resource_takes() {
    let algorithms = ["ES256", "RS256", "PS256", "EdDSA"];
    let pairs: Vec<(String, Value)> = algorithms.iter().map(|algorithm| keys::pair(algorithm)).collect();
    let mut clients =
        vec![client("basic", SECRET, &["client_credentials"]), client("post", SECRET, &["client_credentials"])];
    clients[1]["token_endpoint_auth_method"] = json!("client_secret_post");
    for (algorithm, (_, jwk)) in algorithms.iter().zip(&pairs) {
        clients.push(json!({
            "client_id": algorithm.to_lowercase(), "grant_types": ["client_credentials"], "response_types": [], "redirect_uris": [],
            "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": algorithm,
            "jwks": {"keys": [jwk]},
        }));
    }
    let names = ["basic", "post", "es256", "rs256", "ps256", "eddsa"];
    let options = json!({"clients": clients, "resources": resources(&names)});
    let secret = json!({"ref": "env://CLIENT_SECRET"});
    let credentials = |issuer: &str| {
        let mut all = vec![
            ("basic", credential(issuer, "basic", &json!({"id": "basic", "secret": secret}))),
            (
                "post",
                credential(
                    issuer,
                    "post",
                    &json!({
                        "id": "post", "authentication": "client_secret_post", "secret": secret,
                    }),
                ),
            ),
        ];
        for (algorithm, name) in algorithms.iter().zip(&names[2..]) {
            let key = json!({"ref": format!("file://secrets/{algorithm}.pem")});
            let client = json!({
                "id": name, "authentication": "private_key_jwt", "key": key, "key_id": "k", "algorithm": algorithm,
            });
            all.push((*name, credential(issuer, name, &client)));
        }
        all
    };
    let world = World::start(
        "oauth-clients",
        |_| options,
        |server| credentials(&server.issuer),
        |mut builder| {
            for (algorithm, (pem, _)) in algorithms.iter().zip(&pairs) {
                builder = builder.file(&format!("secrets/{algorithm}.pem"), pem);
            }
            builder.variable("CLIENT_SECRET", SECRET)
        },
    )
    .await;
    for name in names {
        let answer = world.get(name).await;
        let claims = world.taken(name, &answer).await;
        assert_eq!((&claims["client_id"], &claims["aud"]), (&json!(name), &json!(audience(name))), "{claims}");
        assert_eq!(claims["scope"], "read", "{claims}");
    }
    let written = world.stack.everything_written().await.unwrap();
    assert!(!written.contains(SECRET) && !written.contains("eyJ"), "a secret was written somewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_serves_many_calls_and_each_audience_has_its_own() {
    let options = json!({
        "clients": [client("keyward", SECRET, &["client_credentials"])], "resources": resources(&["orders", "billing"]),
    });
    let client = json!({"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}});
    let world = World::start(
        "oauth-audiences",
        |_| options,
        |server| {
            let one = |name: &'static str| (name, credential(&server.issuer, name, &client));
            vec![one("orders"), one("billing")]
        },
        |builder| builder.variable("CLIENT_SECRET", SECRET),
    )
    .await;
    let answers = world.at_once((0..40).map(|number| if number % 2 == 0 { "orders" } else { "billing" })).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{}", answers[0].text());
    assert_eq!(world.calls("client_credentials").await, 2, "one mint for each audience");
    let received = world.server.received().await.unwrap();
    let tokens = |name: &str| {
        let of = received.iter().filter(|request| request["url"].as_str().unwrap().starts_with(&format!("/{name}")));
        of.map(|request| request["headers"]["authorization"].as_str().unwrap())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (orders, billing) = (tokens("orders"), tokens("billing"));
    assert_eq!((orders.len(), billing.len()), (1, 1));
    assert!(orders.is_disjoint(&billing));
    for request in &received {
        let name = request["url"].as_str().unwrap().split('/').nth(1).unwrap();
        assert_eq!(request["claims"]["aud"], audience(name), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_goes_where_it_is_wanted() {
    let mut known = resources(&["header", "query"]);
    for name in ["header", "query"] {
        known[name]["format"] = json!("opaque");
    }
    let options = json!({"clients": [client("keyward", SECRET, &["client_credentials"])], "resources": known});
    let client = json!({"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}});
    let world = World::start(
        "oauth-places",
        |_| options,
        |server| {
            let mut query = credential(&server.issuer, "query", &client);
            query["query"] = json!("access_token");
            vec![("header", credential(&server.issuer, "header", &client)), ("query", query)]
        },
        |builder| builder.variable("CLIENT_SECRET", SECRET),
    )
    .await;
    for name in ["header", "query"] {
        let answer = world.get(name).await;
        let claims = world.taken(name, &answer).await;
        assert_eq!(claims["client_id"], "keyward", "{claims}");
    }
    let last = world.server.received().await.unwrap().pop().unwrap();
    assert!(last["headers"]["authorization"].is_null(), "{last}");
    let url = last["url"].as_str().unwrap();
    assert!(url.starts_with("/query/items?page=1&echo=1&access_token="), "{url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_its_server_revoked_is_had_anew_when_the_upstream_refuses_it() {
    let mut known = resources(&["orders"]);
    known["orders"]["format"] = json!("opaque");
    let options = json!({"clients": [client("keyward", SECRET, &["client_credentials"])], "resources": known});
    let client = json!({"id": "keyward", "secret": {"ref": "env://CLIENT_SECRET"}});
    let world = World::start(
        "oauth-revoked",
        |_| options,
        |server| vec![("orders", credential(&server.issuer, "orders", &client))],
        |builder| builder.variable("CLIENT_SECRET", SECRET),
    )
    .await;
    let first = world.at_once(std::iter::once("orders")).await.remove(0);
    world.taken("orders", &first).await;
    let last = world.server.received().await.unwrap().pop().unwrap();
    let token = last["headers"]["authorization"].as_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    world.server.revoke(&token).await.unwrap();
    let started = std::time::Instant::now();
    loop {
        // The upstream's refusal is the agent's answer; the next call has another token.
        let answer = world.at_once(std::iter::once("orders")).await.remove(0);
        if answer.status == 200 {
            break;
        }
        assert_eq!(answer.status, 401, "{}", answer.text());
        assert!(started.elapsed().as_secs() < 10, "still the revoked token");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.calls("client_credentials").await, 2);
}
