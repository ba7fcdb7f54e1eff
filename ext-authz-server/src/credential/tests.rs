//! What the static kinds put on a request, and what the stage takes off it.

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};

use super::basic::Basic;
use super::header::Header;
use super::hmac::Hmac;
use super::oauth::Oauth;
use super::oauth::dpop::DpopKey;
use super::placeholder::Placeholder;
use super::query::Query;
use super::*;
use crate::config::{BasicCredential, HeaderCredential, QueryCredential, SecretSource};
use crate::secret::{Resolved, Resolving, SecretError, SecretStore, Secrets};

fn source() -> SecretSource {
    SecretSource { reference: "test://TEST".into(), json_key: None, trim_newline: false }
}

/// Answers with this, or never.
struct Store(Option<Vec<u8>>);

impl SecretStore for Store {
    fn check(&self, _rest: &str) -> Result<(), SecretError> {
        Ok(())
    }

    fn resolve<'a>(&'a self, _rest: &'a str) -> Resolving<'a> {
        Box::pin(async {
            match &self.0 {
                Some(value) => Ok(Resolved::lasting(value.clone())),
                None => std::future::pending().await,
            }
        })
    }
}

fn sources(value: Option<&[u8]>) -> Arc<Sources> {
    let store = Arc::new(Store(value.map(<[u8]>::to_vec)));
    Arc::new(Sources::new(Arc::new(Secrets::standard(std::path::Path::new("")).and("test", store))))
}

fn caller() -> Arc<Caller> {
    Arc::new(Caller::none("test"))
}

fn header(template: &str) -> Arc<dyn Credential> {
    Arc::new(Header(HeaderCredential { name: "X-Api-Key".into(), template: template.into(), secret: source() }))
}

fn query() -> Arc<dyn Credential> {
    Arc::new(Query(QueryCredential { name: "apiKey".into(), template: "{secret}".into(), secret: source() }))
}

fn basic(username: &str) -> Arc<dyn Credential> {
    Arc::new(Basic(BasicCredential { username: Some(username.into()), username_secret: None, secret: source() }))
}

/// Puts one credential on a request: the value in its place, and what is scrubbed.
async fn compose(credential: &Arc<dyn Credential>, secret: &[u8]) -> Result<(String, Vec<Vec<u8>>), InjectError> {
    let mut outgoing = Outgoing::plain("POST", "https", "upstream.example", "/", b"");
    put(credential, &mut outgoing, &caller(), &sources(Some(secret))).await?;
    let outcome = outgoing.finish();
    let value = outcome.slots[0].value.to_string();
    Ok((value, outcome.scrub.iter().map(|value| value.to_vec()).collect()))
}

#[tokio::test]
async fn values_are_composed_and_everything_that_reveals_them_is_scrubbed() {
    type Case<'a> = (Arc<dyn Credential>, &'a [u8], &'a str, &'a [&'a [u8]]);
    let cases: [Case<'_>; 6] = [
        (header("{secret}"), b"s3cr3t-key", "s3cr3t-key", &[b"s3cr3t-key"]),
        (header("Bearer {secret}"), b"s3cr3t-key", "Bearer s3cr3t-key", &[b"s3cr3t-key"]),
        (header("{secret}"), "schlüssel".as_bytes(), "schlüssel", &["schlüssel".as_bytes()]),
        (query(), b"a b/c&d=e%", "a%20b%2Fc%26d%3De%25", &[b"a b/c&d=e%"]),
        (query(), "schlüssel".as_bytes(), "schl%C3%BCssel", &["schlüssel".as_bytes()]),
        (
            basic("svc"),
            b"pass:word",
            "Basic c3ZjOnBhc3M6d29yZA==",
            &[b"pass:word", b"svc:pass:word", b"c3ZjOnBhc3M6d29yZA=="],
        ),
    ];
    for (credential, secret, value, scrub) in cases {
        let composed = compose(&credential, secret).await.unwrap();
        assert_eq!(composed, (value.to_owned(), scrub.iter().map(|value| value.to_vec()).collect()));
    }
}

/// Holds one key after the other.
struct Changing(std::sync::Mutex<Vec<&'static str>>);

impl SecretStore for Changing {
    fn check(&self, _rest: &str) -> Result<(), SecretError> {
        Ok(())
    }

    fn resolve<'a>(&'a self, _rest: &'a str) -> Resolving<'a> {
        let value = self.0.lock().unwrap().pop().unwrap_or_default();
        Box::pin(async move { Ok(Resolved::lasting(value.as_bytes().to_vec())) })
    }
}

#[tokio::test]
async fn a_key_that_was_replaced_is_scrubbed_as_it_was_written_and_as_it_was_used() {
    let (old, new) = ("6f6c642d6b65792d6f6e65", "6e65772d6b65792d6f6e65");
    let store = Arc::new(Changing(std::sync::Mutex::new(vec![new, old])));
    let secrets = Secrets::standard(std::path::Path::new("")).and("test", store);
    let sources = Arc::new(Sources::new(Arc::new(secrets)));
    let configured = serde_json::json!({
        "secret": {"ref": "test://TEST"}, "key_encoding": "hex", "algorithm": "sha256", "message": "{body}",
        "headers": [{"name": "x-signature", "template": "{signature}"}],
    });
    let hmac = hmac::Hmac(serde_json::from_value(configured).unwrap());
    let credential: Arc<dyn Credential> = Arc::new(hmac);
    for (key, scrubbed) in [("old-key-one", vec![old]), ("new-key-one", vec![old, "old-key-one", new])] {
        let mut outgoing = Outgoing::plain("POST", "https", "upstream.example", "/", b"");
        put(&credential, &mut outgoing, &caller(), &sources).await.unwrap();
        let scrub = outgoing.finish().scrub;
        for value in scrubbed.into_iter().chain([key]) {
            assert!(scrub.iter().any(|known| known.as_slice() == value.as_bytes()), "{value}");
        }
    }
}

#[tokio::test]
async fn values_that_cannot_go_there_are_refused() {
    use CredentialError::*;
    let cases: [(Arc<dyn Credential>, &[u8], CredentialError); 17] = [
        (header("{secret}"), b"short", TooShort),
        (header("{secret}"), b"\\\\\\\\\\\\\\\\\\\\", TooUniform),
        (header("{secret}"), b"line\r\nx-evil: 1", Control),
        (header("{secret}"), b"trailing-lf\n", Control),
        (header("{secret}"), b"nul\0byte-inside", Control),
        (header("{secret}"), b"delete\x7fcharacter", Control),
        (header("{secret}"), b" leading-space", OuterSpace),
        (header("{secret}"), b"trailing-space ", OuterSpace),
        (header("{secret}"), b"\xff\xfe\xfd\xfc\xff\xfe\xfd\xfc", NotUtf8),
        (header("no placeholder"), b"s3cr3t-key", Template),
        (header("{secret}{secret}"), b"s3cr3t-key", Template),
        (query(), b"line\nfeed-inside", Control),
        (query(), b"\xff\xfe\xfd\xfc\xff\xfe\xfd\xfc", NotUtf8),
        (basic("a:b"), b"s3cr3t-key", UsernameColon),
        (basic("svc"), b"\xff\xfe\xfd\xfc\xff\xfe\xfd\xfc", NotUtf8),
        (basic("svc"), b"line\nfeed-inside", Control),
        (basic("sv\nc"), b"s3cr3t-key", Control),
    ];
    for (credential, secret, expected) in cases {
        let error = compose(&credential, secret).await.unwrap_err();
        assert_eq!(error, InjectError::Apply(expected), "{:?}", credential.places());
    }
}

fn choice(
    credentials: Vec<Arc<dyn Credential>>,
    server_slots: Vec<SlotName>,
    mode: Mode,
    passthrough: &[&str],
) -> Choice {
    let binding = Binding {
        id: "b".into(),
        mode,
        owner: String::new(),
        risk: None,
        environment: String::new(),
        tenants: None,
        servers: Vec::new(),
        tools: None,
        principals: None,
        hosts: Vec::new(),
        credentials,
        passthrough: passthrough.iter().map(|name| (*name).to_owned()).collect(),
        definition: String::new(),
        local_secrets: Vec::new(),
    };
    Choice { bindings: vec![binding.into()], server_slots, foreign_placeholders: Vec::new(), gated: false }
}

fn slots() -> Vec<SlotName> {
    vec![
        SlotName::Header("X-Api-Key".into()),
        SlotName::Header("Authorization".into()),
        SlotName::Header("x-other".into()),
        SlotName::Query("apiKey".into()),
    ]
}

async fn run(choice: &Choice, target: &str, value: Option<&[u8]>) -> Result<Injection, Denial> {
    run_with(choice, target, &sources(value)).await
}

async fn run_with(choice: &Choice, target: &str, sources: &Arc<Sources>) -> Result<Injection, Denial> {
    let http =
        HttpRequest { method: "POST".into(), path: target.into(), host: "mcp.example".into(), ..Default::default() };
    let request = attribute_context::Request { http: Some(http), ..Default::default() };
    let attributes = AttributeContext { request: Some(request), ..Default::default() };
    let message = CheckRequest { attributes: Some(attributes) };
    inject(
        choice,
        &Request::read(&message),
        "upstream.example",
        None,
        &leak::Rules::default().arguments,
        &caller(),
        sources,
    )
    .await
}

#[tokio::test]
async fn the_value_of_the_reference_before_is_still_scrubbed() {
    let store = |value: &str| Arc::new(Store(Some(value.as_bytes().to_vec())));
    let secrets = Secrets::standard(std::path::Path::new("")).and("one", store("old-s3cr3t-key"));
    let sources = Arc::new(Sources::new(Arc::new(secrets.and("two", store("new-s3cr3t-key")))));
    for (reference, scrubbed) in [
        ("one://key", vec!["old-s3cr3t-key"]),
        ("two://key", vec!["new-s3cr3t-key", "old-s3cr3t-key"]),
        ("one://key", vec!["old-s3cr3t-key", "new-s3cr3t-key"]),
    ] {
        let secret = SecretSource { reference: reference.into(), ..source() };
        let own = HeaderCredential { name: "X-Api-Key".into(), template: "{secret}".into(), secret };
        let choice = choice(vec![Arc::new(Header(own))], slots(), Mode::ServiceAccount, &[]);
        let injection = run_with(&choice, "/mcp", &sources).await.unwrap_or_else(|_| panic!());
        let scrub: Vec<&[u8]> = injection.scrub().collect();
        assert_eq!(scrub, scrubbed.iter().map(|value| value.as_bytes()).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn every_place_that_is_not_filled_is_emptied() {
    let credentials = vec![header("{secret}")];
    let choice = choice(credentials, slots(), Mode::ServiceAccount, &[]);
    let injection = run(&choice, "/mcp", Some(b"s3cr3t-key")).await.unwrap_or_else(|_| panic!());
    let (headers, parameters) = injection.removals();
    assert_eq!(headers.iter().filter(|name| *name == "authorization").count(), 1);
    assert!(headers.contains(&"x-other".to_owned()) && headers.contains(&"cookie".to_owned()));
    assert!(!headers.contains(&"x-api-key".to_owned()), "a place that is set must not be removed after it");
    assert_eq!(parameters, ["apiKey"]);
}

#[tokio::test]
async fn a_filled_authorization_header_is_not_stripped() {
    let credentials = vec![basic("svc")];
    let choice = choice(credentials, slots(), Mode::ServiceAccount, &[]);
    let injection = run(&choice, "/mcp", Some(b"s3cr3t-key")).await.unwrap_or_else(|_| panic!());
    assert!(!injection.removals().0.contains(&"authorization".to_owned()));
}

#[tokio::test]
async fn passthrough_never_lets_the_client_s_token_through() {
    let choice = choice(Vec::new(), slots(), Mode::Passthrough, &["X-Other", "Authorization", "Cookie"]);
    let injection = run(&choice, "/mcp", Some(b"")).await.unwrap_or_else(|_| panic!());
    let (headers, _) = injection.removals();
    assert!(!headers.contains(&"x-other".to_owned()));
    assert!(headers.contains(&"authorization".to_owned()) && headers.contains(&"cookie".to_owned()));
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_given_up() {
    let credentials = vec![header("{secret}")];
    let choice = choice(credentials, Vec::new(), Mode::ServiceAccount, &[]);
    let denial = run(&choice, "/mcp", None).await.err().unwrap();
    assert_eq!(denial.reason, Reason::CredentialUnavailable);
}

#[tokio::test]
async fn a_respelled_parameter_is_refused_before_any_secret_is_read() {
    let choice = choice(Vec::new(), slots(), Mode::None, &[]);
    let denial = run(&choice, "/mcp?api%4bey=x", None).await.err().unwrap();
    assert_eq!(denial.reason, Reason::InvalidRequest);
}

/// A credential that has its material already.
struct Minted<C>(C, Material);

impl<C: Credential + 'static> Credential for Minted<C> {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn places(&self) -> Vec<SlotName> {
        self.0.places()
    }

    fn references(&self) -> Vec<String> {
        self.0.references()
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, _caller: Arc<Caller>, _sources: Arc<Sources>) -> Minting {
        Box::pin(async move { Ok(self.1.clone()) })
    }

    fn turn(&self) -> Turn {
        self.0.turn()
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        self.0.apply(material, outgoing)
    }
}

#[tokio::test]
async fn a_proof_of_possession_names_the_path_that_leaves_and_a_signature_may_cover_it() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let own = serde_json::json!({"grant": "client_credentials", "dpop": true});
    let key = DpopKey::generate().ok().unwrap();
    let material = Material::new().secret("access_token", b"the-access-token-1".to_vec());
    let material = material.secret("dpop_key", key.pkcs8().to_vec());
    let secret = serde_json::json!({"ref": "test://TEST"});
    let placeholder = serde_json::json!({"placeholder": "__KEY__", "in": ["path"], "secret": secret});
    let hmac = serde_json::json!({
        "secret": secret, "message": "{header:authorization} {header:dpop}",
        "headers": [{"name": "x-signature", "template": "{signature}"}],
    });
    // In the order of the file, which is not the one in which they are applied.
    let credentials: Vec<Arc<dyn Credential>> = vec![
        Arc::new(Hmac(serde_json::from_value(hmac).unwrap())),
        Arc::new(Minted(Oauth(serde_json::from_value(own).unwrap()), material)),
        Arc::new(Placeholder(serde_json::from_value(placeholder).unwrap())),
    ];
    let choice = choice(credentials, slots(), Mode::ServiceAccount, &[]);
    let injection = run(&choice, "/v1/__KEY__/quote?a=1", Some(b"s3cr3t/key")).await.unwrap_or_else(|_| panic!());
    assert_eq!(injection.target(), Some("/v1/s3cr3t%2Fkey/quote?a=1"));
    let value = |name: &str| {
        let mut slots = injection.slots().iter().filter(|slot| slot.name == SlotName::Header(name.into()));
        slots.next().map(|slot| slot.value.to_string()).unwrap_or_default()
    };
    let proof = value("dpop");
    let claims = URL_SAFE_NO_PAD.decode(proof.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["htu"], "https://upstream.example/v1/s3cr3t%2Fkey/quote");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"s3cr3t/key");
    let expected = aws_lc_rs::hmac::sign(&key, format!("{} {proof}", value("authorization")).as_bytes());
    assert_eq!(value("x-signature"), crate::hex::hex(expected.as_ref()));
}
