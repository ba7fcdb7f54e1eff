//! Tokens that are bound to a key (RFC 9449) or fetched over a connection with a certificate (RFC 8705).

use std::process::Command;

use keyward_tests::files;
use serde_json::{Value, json};

use super::{World, audience, client, resources};

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
    let folder = files::run_folder("oauth-certificates").unwrap();
    let script = r#"set -e
new() { openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$1.key" -subj "/CN=$1" "${@:2}" 2>/dev/null; }
new authority -x509 -days 2 -out authority.pem -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
for name in localhost client stranger; do
  new "$name" -out "$name.csr"
  printf 'subjectAltName=DNS:%s\nbasicConstraints=CA:FALSE\n' "$name" > "$name.ext"
  openssl x509 -req -in "$name.csr" -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile "$name.ext" -out "$name.pem" 2>/dev/null
done
new self-signed -x509 -days 2 -out self-signed.pem -addext subjectAltName=DNS:self-signed
openssl x509 -in self-signed.pem -outform DER | base64 -w0 > self-signed.x5c
openssl pkey -in self-signed.key -pubout -outform DER | tail -c 64 | base64 -w0 > self-signed.point"#;
    let done = Command::new("bash").args(["-c", script]).current_dir(&folder).status().unwrap();
    assert!(done.success(), "openssl made no certificates");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let url_safe = |text: &str| text.trim_end_matches('=').replace('+', "-").replace('/', "_");
    let point = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(read("self-signed.point").trim()).unwrap()
    };
    let coordinate = |bytes: &[u8]| {
        use base64::Engine as _;
        url_safe(&base64::engine::general_purpose::STANDARD.encode(bytes))
    };
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
    let jwk = json!({"kty": "EC", "crv": "P-256", "x": coordinate(&point[..32]), "y": coordinate(&point[32..]),
        "x5c": [read("self-signed.x5c").trim()]});
    let names = ["client", "self-signed", "stranger"];
    let options = json!({
        "clients": [
            with("client", "tls_client_auth", json!({"tls_client_auth_san_dns": "client"})),
            with("self-signed", "self_signed_tls_client_auth", json!({"jwks": {"keys": [jwk]}})),
            // Its certificate is by the authority, and another one's.
            with("stranger", "tls_client_auth", json!({"tls_client_auth_san_dns": "client"})),
        ],
        "resources": resources(&names),
        "tls": {"key": read("localhost.key"), "cert": read("localhost.pem"), "ca": read("authority.pem")},
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
            for name in names {
                for end in ["pem", "key"] {
                    builder = builder.file(&format!("secrets/{name}.{end}"), read(&format!("{name}.{end}")));
                }
            }
            builder.variable("SSL_CERT_FILE", folder.join("authority.pem").to_str().unwrap())
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
