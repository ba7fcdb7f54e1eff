//! Grants against a token endpoint that answers as told, and checks what it is asked.

mod grants;
mod requests;
mod services;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::*;
use crate::identity::{Principal, PrincipalKind};
use crate::scratch::Scratch;
use crate::secret::{SecretBytes, Secrets};

/// One request as the server got it.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    target: String,
    headers: axum::http::HeaderMap,
    body: String,
}

/// A server that remembers what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

// === impl Asked ===

impl Asked {
    /// A field of the form; `None` where it is absent or there twice.
    fn field(&self, name: &str) -> Option<String> {
        let mut found = url::form_urlencoded::parse(self.body.as_bytes()).filter(|(own, _)| own == name);
        let value = found.next().map(|(_, value)| value.into_owned());
        value.filter(|_| found.next().is_none())
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

// === impl Server ===

impl Server {
    async fn start(answer: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) -> Server {
        Server::start_raw(move |asked| {
            let (status, body) = answer(asked);
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            (status, [("content-type", "application/json")], body.to_string()).into_response()
        })
        .await
    }

    async fn start_raw(answer: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Server {
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        let router = Router::new().fallback(move |request: Request| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
                let asked = Asked {
                    method: head.method.to_string(),
                    target: head.uri.to_string(),
                    headers: head.headers,
                    body: String::from_utf8(body.to_vec()).unwrap(),
                };
                log.lock().unwrap().push(asked.clone());
                answer(&asked)
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Server { url, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// A good answer with this token.
fn token(value: &str) -> Value {
    json!({"access_token": value, "token_type": "Bearer", "expires_in": 600})
}

fn sources(scratch: &Scratch) -> Arc<Sources> {
    Arc::new(Sources::new(Arc::new(Secrets::standard(scratch.path()))))
}

/// Somebody with a token for this audience.
fn caller(subject: &str, audience: &str) -> Arc<Caller> {
    let principal = Principal {
        key: Principal::key("jwt", "main", PrincipalKind::User, subject, None),
        subject: subject.to_owned(),
        claims: json!({"aud": [audience, "https://other.example"]}),
        expires_unix_secs: 4_000_000_000,
        ..Principal::nobody()
    };
    let token = Arc::new(SecretBytes::new(format!("the-callers-own-token-of-{subject}").into_bytes()));
    Arc::new(Caller { principal: Arc::new(principal), token: Some(token), ..Caller::none("test") })
}

fn oauth(configured: Value) -> Arc<Oauth> {
    Arc::new(Oauth(serde_json::from_value(configured).unwrap()))
}

async fn mint(credential: &Arc<Oauth>, caller: &Arc<Caller>, sources: &Arc<Sources>) -> Result<Material, MintError> {
    Arc::clone(credential).mint(Arc::clone(caller), Arc::clone(sources)).await
}

/// An RSA key as PEM, and a verifier of what it signs.
fn rsa_key() -> (String, jsonwebtoken::DecodingKey) {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()));
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::RS256).unwrap();
    (pem, jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap())
}

/// The claims of a JWT that this key signed for this audience.
fn verified(token: &str, key: &jsonwebtoken::DecodingKey, audience: &str) -> Value {
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_audience(&[audience]);
    jsonwebtoken::decode::<Value>(token, key, &validation).unwrap().claims
}

/// An unsigned JWT with these claims: what a stranger's token looks like.
fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg", part(&json!({"alg": "RS256"})), part(claims))
}

fn fields(material: &Material) -> Vec<&str> {
    material.fields().iter().filter(|field| field.is_secret).map(|field| field.name.as_str()).collect()
}

#[test]
fn no_caller_gets_the_token_of_another() {
    let key = |configured: &Value, caller: &Caller| oauth(configured.clone()).key(caller).unwrap().digest();
    let client = json!({"id": "c", "secret": {"ref": "env://S"}});
    let own = json!({"grant": "client_credentials", "issuer": "https://as.example", "client": client, "scopes": ["a"]});
    let (alice, bob) = (caller("alice", "x"), caller("bob", "x"));
    assert_eq!(key(&own, &alice), key(&own, &bob), "the client's own token is everybody's");
    let exchange = json!({"grant": "token_exchange", "issuer": "https://as.example", "resource": "https://r.example"});
    assert_ne!(key(&exchange, &alice), key(&exchange, &bob));
    let again =
        Arc::new(Caller { token: Some(Arc::new(SecretBytes::new(b"another-token".to_vec()))), ..(*alice).clone() });
    assert_ne!(key(&exchange, &alice), key(&exchange, &again), "another token of the same caller may allow less");
    let users = json!({"grant": "refresh_token", "issuer": "https://as.example", "client": client, "provider": "p"});
    assert_ne!(key(&users, &alice), key(&users, &bob));
    assert_eq!(key(&users, &alice), key(&users, &again));
    let templated = json!({"grant": "client_credentials", "issuer": "https://as.example",
        "client": {"id": "c", "secret": {"ref": "file://keys/{user}"}}});
    assert_ne!(key(&templated, &alice), key(&templated, &bob));
    for (name, value) in [
        ("issuer", json!("https://bs.example")),
        ("scopes", json!(["b"])),
        ("audience", json!("x")),
        ("resource", json!("https://r.example")),
        ("client", json!({"id": "d", "secret": {"ref": "env://S"}})),
        ("dpop", json!(true)),
    ] {
        let mut other = own.clone();
        other[name] = value;
        assert_ne!(key(&own, &alice), key(&other, &alice), "{name}");
    }
}

#[test]
fn a_token_goes_into_its_place_and_a_bound_one_only_with_its_proof() {
    let material = Material::new().secret(ACCESS_TOKEN, b"the-access-token/+1".to_vec());
    let put = |configured: Value, material: &Material| {
        let mut outgoing = Outgoing::plain("POST", "http", "api.example:8443", "/mcp?x=1", b"");
        oauth(configured).apply(material, &mut outgoing).unwrap();
        let header = |name: &str| outgoing.header(name).map(str::to_owned);
        (header("authorization"), header("x-token"), header("dpop"), outgoing.target().to_owned())
    };
    let base = json!({"grant": "client_credentials"});
    let with = |more: Value| {
        let mut all = base.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    assert_eq!(put(base.clone(), &material).0.as_deref(), Some("Bearer the-access-token/+1"));
    let (none, own, ..) = put(with(json!({"header": "X-Token", "template": "t={token}"})), &material);
    assert_eq!((none, own.as_deref()), (None, Some("t=the-access-token/+1")));
    let (none, .., target) = put(with(json!({"query": "access_token"})), &material);
    assert_eq!((none, target.as_str()), (None, "/mcp?x=1&access_token=the-access-token%2F%2B1"));
    let key = DpopKey::generate().ok().unwrap();
    let bound = material.clone().secret(DPOP_KEY, key.pkcs8().to_vec());
    let (token, _, proof, _) = put(with(json!({"dpop": true})), &bound);
    assert_eq!(token.as_deref(), Some("DPoP the-access-token/+1"));
    let proof = proof.unwrap();
    let claims = URL_SAFE_NO_PAD.decode(proof.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["htm"], &claims["htu"]), (&json!("POST"), &json!("https://api.example:8443/mcp")));
    assert!(claims["ath"].is_string());
}
