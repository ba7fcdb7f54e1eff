//! What the static kinds put on a request, and what the stage takes off it.

use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};

use super::basic::Basic;
use super::header::Header;
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
        environment: String::new(),
        servers: Vec::new(),
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
        &sources(value),
    )
    .await
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
