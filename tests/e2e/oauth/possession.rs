//! Tokens that are bound to a key (RFC 9449) or fetched over a connection with a certificate (RFC 8705).

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use keyward_tests::files;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{World, audience, client, resources};
use crate::certificates::{self, Authority, Pair};

const SECRET: &str = "the-secret-of-the-bound-client";

fn options(nonces: bool) -> Value {
    let mut bound = client("bound", SECRET, &["client_credentials"]);
    bound["dpop_bound_access_tokens"] = json!(true);
    let mut known = resources(&["orders"]);
    known["orders"]["dpop"] = json!(true);
    json!({"clients": [bound], "resources": known, "dpop_nonces": nonces})
}

async fn start(name: &str, nonces: bool, dpop: bool) -> World {
    World::start(
        name,
        |_| options(nonces),
        |server| {
            let credential = json!({
                "type": "oauth", "grant": "client_credentials", "token_endpoint": format!("{}/token", server.issuer),
                "client": {"id": "bound", "secret": {"ref": "env://CLIENT_SECRET"}},
                "scopes": ["read"], "resource": audience("orders"), "dpop": dpop, "upstream_scheme": "http",
            });
            vec![("orders", credential)]
        },
        |builder| builder.variable("CLIENT_SECRET", SECRET),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_goes_out_with_a_proof_of_its_own_each_time() {
    for (name, nonces) in [("oauth-dpop", false), ("oauth-dpop-nonce", true)] {
        let world = start(name, nonces, true).await;
        let mut proofs = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let answer = world.at_once(std::iter::once("orders")).await.remove(0);
            let claims = world.taken("orders", &answer).await;
            assert_eq!(claims["cnf"]["jkt"].as_str().map(str::len), Some(43), "{claims}");
            let last = world.server.received().await.unwrap().pop().unwrap();
            assert!(last["headers"]["authorization"].as_str().unwrap().starts_with("DPoP "), "{last}");
            proofs.insert(last["headers"]["dpop"].as_str().unwrap().to_owned());
        }
        assert_eq!(proofs.len(), 3);
        // With nonces the first attempt is sent back once, whatever the number of calls.
        assert_eq!(world.calls("client_credentials").await, if nonces { 2 } else { 1 });
        // What is given away is taken out of the answer, the proof among it.
        world.taken("orders", &world.get("orders").await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_insists_on_a_proof_is_a_denial_without_one() {
    let world = start("oauth-dpop-missing", false, false).await;
    world.denied(&world.get("orders").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_proves_the_client() {
    let authority = Authority::new();
    let own = authority.pair("localhost");
    let key = KeyPair::generate().unwrap();
    let self_signed = certificates::params("self-signed").self_signed(&key).unwrap();
    // The first byte says that both coordinates follow.
    let (x, y) = key.public_key_raw()[1..].split_at(32);
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        "x5c": [STANDARD.encode(self_signed.der())]});
    let names = ["client", "self-signed", "stranger"];
    let pairs = [
        authority.pair("client"),
        Pair { certificate: self_signed.pem(), key: key.serialize_pem() },
        authority.pair("stranger"),
    ];
    let trusted = files::run_folder("oauth-certificates").unwrap().join("authority.pem");
    files::replace(&trusted, &authority.certificate).unwrap();
    let with = |id: &str, method: &str, more: Value| {
        let mut client = json!({
            "client_id": id, "grant_types": ["client_credentials"], "response_types": [], "redirect_uris": [],
            "token_endpoint_auth_method": method,
        });
        if let (Some(client), Some(more)) = (client.as_object_mut(), more.as_object()) {
            client.extend(more.clone());
        }
        client
    };
    let options = json!({
        "clients": [
            with("client", "tls_client_auth", json!({"tls_client_auth_san_dns": "client"})),
            with("self-signed", "self_signed_tls_client_auth", json!({"jwks": {"keys": [jwk]}})),
            // Its certificate is by the authority, and another one's.
            with("stranger", "tls_client_auth", json!({"tls_client_auth_san_dns": "client"})),
        ],
        "resources": resources(&names),
        "tls": {"key": own.key, "cert": own.certificate, "ca": authority.certificate},
    });
    let world = World::start(
        "oauth-mtls",
        |_| options,
        |server| {
            let one = |name: &'static str| {
                let client = json!({
                    "id": name, "authentication": "tls_client_auth",
                    "certificate": {"ref": format!("file://secrets/{name}.pem")}, "key": {"ref": format!("file://secrets/{name}.key")},
                });
                let endpoint = format!("{}/token", server.mtls.as_ref().unwrap());
                (name, json!({
                    "type": "oauth", "grant": "client_credentials", "token_endpoint": endpoint,
                    "client": client, "scopes": ["read"], "resource": audience(name),
                }))
            };
            names.map(one).to_vec()
        },
        |mut builder| {
            for (name, pair) in names.iter().zip(&pairs) {
                builder = builder.file(&format!("secrets/{name}.pem"), &pair.certificate);
                builder = builder.file(&format!("secrets/{name}.key"), &pair.key);
            }
            builder.variable("SSL_CERT_FILE", trusted.to_str().unwrap())
        },
    )
    .await;
    for name in ["client", "self-signed"] {
        let claims = world.taken(name, &world.get(name).await).await;
        assert_eq!(claims["client_id"], name, "{claims}");
    }
    world.server.reset().await.unwrap();
    let record = world.denied(&world.get("stranger").await).await;
    assert!(record.contains("invalid_client"), "{record}");
}
