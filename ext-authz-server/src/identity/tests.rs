//! Tokens that are accepted and tokens that are not.

mod terms;
mod wycheproof;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::config::{Algorithm, JwksSource};
use crate::outbound::Outbound;
use crate::scratch::Scratch;

/// The public key of RFC 7515, appendix A.3.
pub(crate) const JWKS: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "rfc7515-a3",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

const NOW: u64 = 1_785_240_000;

struct Signer {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl Signer {
    fn new(kid: &'static str) -> Signer {
        Signer { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(), kid }
    }

    fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid, "x": x, "y": y})
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.kid, "typ": "at+jwt"});
        self.sign(&header.to_string(), &claims.to_string())
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example", "aud": ["https://mcp.example/mcp"], "sub": "alice", "client_id": "bot",
        "roles": ["one", "two", "one"], "exp": NOW + 600, "nbf": NOW - 5, "iat": NOW - 5,
    })
}

fn with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

pub(crate) fn issuer(jwks: JwksSource) -> Issuer {
    Issuer {
        name: "demo".into(),
        issuer: "https://issuer.example".into(),
        audiences: vec!["https://mcp.example/mcp".into()],
        algorithms: vec![Algorithm::ES256],
        jwks,
        subject_claim: "sub".into(),
        agent_claim: "client_id".into(),
        roles_claim: "roles".into(),
        tenant_claim: None,
        clock_skew_secs: 30,
        max_token_bytes: 8192,
        max_lifetime_secs: None,
        token_type: TokenType::Any,
        one_time: false,
        bootstrap: false,
        introspection: None,
    }
}

fn identity(dir: &Scratch, keys: &[Value]) -> Identity {
    of_tenants(dir, keys, None)
}

fn of_tenants(dir: &Scratch, keys: &[Value], tenant_claim: Option<&str>) -> Identity {
    with_terms(dir, keys, |issuer| issuer.tenant_claim = tenant_claim.map(str::to_owned))
}

fn with_terms(dir: &Scratch, keys: &[Value], change: impl FnOnce(&mut Issuer)) -> Identity {
    let file = dir.write("jwks.json", &json!({"keys": keys}).to_string());
    let source = JwksSource { file: Some(file), ..JwksSource::default() };
    let mut issuer = issuer(source);
    change(&mut issuer);
    Identity::new(&IdentityConfig { issuers: vec![issuer], ..IdentityConfig::default() }, None, &Outbound::default())
        .unwrap()
}

async fn verify(identity: &Identity, token: &str) -> Result<Principal, String> {
    let authorization = format!("Bearer {token}");
    identity.verify_at(Some(&authorization), NOW).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_chain_of_delegation_is_read_whole_or_refuses_the_token() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let act = json!({"sub": "helper", "iss": "https://other.example", "act": {"sub": "first"}});
    let chained = verify(&identity, &signer.token(&with(json!({"act": act})))).await.unwrap();
    let actors: Vec<_> = chained.actors.iter().map(|own| (own.subject.as_str(), own.issuer.as_deref())).collect();
    assert_eq!(actors, [("helper", Some("https://other.example")), ("first", None)]);
    assert_eq!(chained.agent.as_deref(), Some("bot"));
    // Without a client, the one who acts is the agent: what alice gave for herself is not theirs.
    let unnamed = verify(&identity, &signer.token(&with(json!({"act": act, "client_id": null})))).await.unwrap();
    let alone = verify(&identity, &signer.token(&with(json!({"client_id": null})))).await.unwrap();
    assert_eq!(unnamed.agent.as_deref(), Some("helper"));
    assert_ne!(unnamed.key, alone.key);
    let deep = (0..9).fold(json!({"sub": "x"}), |inner, _| json!({"sub": "x", "act": inner}));
    for odd in [json!("helper"), json!({}), json!({"sub": 7}), json!({"sub": ""}), json!({"sub": "a", "act": []}), deep]
    {
        let error = verify(&identity, &signer.token(&with(json!({"act": odd})))).await.unwrap_err();
        assert!(error.contains("`act`"), "{odd}: {error}");
    }
}

#[tokio::test]
async fn a_good_token_names_its_principal() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let user = verify(&identity, &signer.token(&claims())).await.unwrap();
    assert_eq!((user.kind, user.subject.as_str(), user.agent.as_deref()), (PrincipalKind::User, "alice", Some("bot")));
    assert_eq!((user.issuer.as_str(), user.expires_unix_secs), ("demo", NOW + 600));
    assert_eq!(user.roles, ["one", "two"]);
    assert_eq!(user.claims["aud"][0], "https://mcp.example/mcp");
    let agent = verify(&identity, &signer.token(&with(json!({"sub": "bot"})))).await.unwrap();
    assert_eq!(agent.kind, PrincipalKind::Agent);
    assert_ne!(user.key, agent.key);
    let words = verify(&identity, &signer.token(&with(json!({"roles": "one two", "client_id": null})))).await.unwrap();
    assert_eq!((words.roles.len(), words.agent), (2, None));
}

#[tokio::test]
async fn a_login_is_for_one_client_and_answers_one_nonce() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let good = json!({
        "aud": "keyward", "nonce": "n", "iat": now, "nbf": null, "exp": now + 60, "client_id": null, "roles": null,
    });
    let changed = |name: &str, value: Value| {
        let mut changes = good.clone();
        changes[name] = value;
        signer.token(&with(changes))
    };
    let verify = async |token: &str| identity.verify_login("demo", token, "keyward", "n").await.ok();
    let alice = Some(LoggedIn { subject: "alice".into(), tenant: None });
    assert_eq!(verify(&signer.token(&with(good.clone()))).await, alice);
    assert_eq!(verify(&changed("azp", json!("keyward"))).await, alice);
    for bad in [
        changed("aud", json!("another")),
        changed("aud", json!(["keyward", "another"])),
        changed("azp", json!("another")),
        changed("nonce", json!("m")),
        changed("nonce", Value::Null),
        changed("iss", json!("https://another.example")),
        changed("iat", Value::Null),
        changed("exp", json!(now - 31)),
        changed("sub", Value::Null),
        Signer::new("one").token(&with(good.clone())),
        signer.token(&claims()),
    ] {
        assert_eq!(verify(&bad).await, None, "{bad}");
    }
    let tenants = of_tenants(&dir, &[signer.jwk()], Some("org"));
    let person = tenants.verify_login("demo", &changed("org", json!("acme")), "keyward", "n").await.unwrap();
    assert_eq!(person.tenant.as_deref(), Some("acme"));
    assert!(tenants.verify_login("demo", &changed("org", json!(["acme"])), "keyward", "n").await.is_err());
    assert!(identity.verify_login("unknown", &signer.token(&with(good.clone())), "keyward", "n").await.is_err());
}

#[tokio::test]
async fn bad_claims_are_refused() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let cases = [
        (json!({"iss": null}), "claim `iss` is missing"),
        (json!({"iss": "https://issuer.example/"}), "its issuer is not known"),
        (json!({"iss": ["https://issuer.example"]}), "claim `iss` is missing"),
        (json!({"aud": null}), "claim `aud` is missing"),
        (json!({"aud": "https://mcp.example"}), "another audience"),
        (json!({"aud": []}), "another audience"),
        (json!({"aud": {"https://mcp.example/mcp": 1}}), "claim `aud`"),
        (json!({"exp": null}), "claim `exp` is missing"),
        (json!({"exp": "1999999999"}), "claim `exp`"),
        (json!({"exp": -1}), "claim `exp`"),
        (json!({"exp": NOW - 31}), "expired"),
        (json!({"exp": NOW - 30}), "expired"),
        (json!({"nbf": NOW + 31}), "not valid yet"),
        (json!({"nbf": "soon"}), "claim `nbf`"),
        (json!({"iat": true}), "claim `iat`"),
        (json!({"sub": null}), "claim `sub` is missing"),
        (json!({"sub": ""}), "claim `sub`"),
        (json!({"sub": "  "}), "claim `sub`"),
        (json!({"sub": 7}), "claim `sub`"),
        (json!({"sub": "a\u{0}b"}), "claim `sub`"),
        (json!({"client_id": ["bot"]}), "claim `client_id`"),
        (json!({"roles": {"one": true}}), "claim `roles`"),
        (json!({"roles": ["one", 2]}), "claim `roles`"),
        (json!({"filler": "x".repeat(9000)}), "longer than the limit"),
    ];
    for (changes, expected) in cases {
        let error = verify(&identity, &signer.token(&with(changes.clone()))).await.unwrap_err();
        assert!(error.contains(expected), "{changes}: {error}");
    }
    for changes in [json!({"exp": NOW - 29}), json!({"nbf": NOW + 30}), json!({"exp": 1_785_240_100.5})] {
        verify(&identity, &signer.token(&with(changes.clone()))).await.unwrap_or_else(|e| panic!("{changes}: {e}"));
    }
}

#[tokio::test]
async fn bad_headers_are_refused() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let payload = claims().to_string();
    let cases = [
        (r#"{"alg":"none","kid":"one"}"#, "algorithm is not accepted"),
        (r#"{"alg":"None","kid":"one"}"#, "algorithm is not accepted"),
        (r#"{"alg":"HS256","kid":"one"}"#, "algorithm is not accepted"),
        (r#"{"alg":"es256","kid":"one"}"#, "algorithm is not accepted"),
        (r#"{"alg":"RS256","kid":"one"}"#, "algorithm is not accepted"),
        (r#"{"alg":["ES256"],"kid":"one"}"#, "header is malformed"),
        (r#"{"kid":"one"}"#, "header is malformed"),
        (r#"{"alg":"ES256","alg":"ES256","kid":"one"}"#, "header is malformed"),
        (r#"{"alg":"ES256","kid":7}"#, "header is malformed"),
        (r#"{"alg":"ES256","kid":"one","crit":["exp"],"exp":1}"#, "demands an extension"),
        (r#"{"alg":"ES256","kid":"one","b64":false}"#, "demands an extension"),
        (r#"{"alg":"ES256","kid":"one","enc":"A128GCM"}"#, "demands an extension"),
        (r#"{"alg":"ES256","kid":"one","typ":"dpop+jwt"}"#, "its type"),
        (r#"{"alg":"ES256","kid":"one","typ":"id+jwt"}"#, "its type"),
        (r#"{"alg":"ES256","kid":"two"}"#, "no key of the issuer"),
        (r#"["ES256"]"#, "header is malformed"),
    ];
    for (header, expected) in cases {
        let error = verify(&identity, &signer.sign(header, &payload)).await.unwrap_err();
        assert!(error.contains(expected), "{header}: {error}");
    }
    for header in [
        r#"{"alg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"one","typ":"JWT"}"#,
        r#"{"alg":"ES256","kid":"one","typ":"application/at+JWT"}"#,
        r#"{"alg":"ES256","kid":"one","jku":"https://evil.example"}"#,
    ] {
        verify(&identity, &signer.sign(header, &payload)).await.unwrap_or_else(|e| panic!("{header}: {e}"));
    }
}

#[tokio::test]
async fn forged_and_malformed_tokens_are_refused() {
    let (dir, signer, other) = (Scratch::new(), Signer::new("one"), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let good = signer.token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let admin = URL_SAFE_NO_PAD.encode(with(json!({"sub": "root"})).to_string());
    let duplicate = claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let cases = [
        (other.token(&claims()), "signature is wrong"),
        (format!("{}.{admin}.{}", parts[0], parts[2]), "signature is wrong"),
        (format!("{}.{}.", parts[0], parts[1]), "signature is wrong"),
        (format!("{}.{}", parts[0], parts[1]), "three parts"),
        (format!("{good}.a.b"), "encrypted"),
        (format!("{good}."), "three parts"),
        (format!("{}=.{}.{}", parts[0], parts[1], parts[2]), "three parts"),
        (signer.sign(r#"{"alg":"ES256","kid":"one"}"#, &duplicate), "claims are malformed"),
        (signer.sign(r#"{"alg":"ES256","kid":"one"}"#, "[]"), "claims are malformed"),
    ];
    for (token, expected) in cases {
        let error = verify(&identity, &token).await.unwrap_err();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn only_one_bearer_token_is_read() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let token = signer.token(&claims());
    for good in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER   {token}")] {
        identity.verify_at(Some(&good), NOW).await.unwrap();
    }
    let repeated = format!("Bearer {token},Bearer {token}");
    let bad = ["", "Bearer", "Bearer ", &repeated, &format!("Bearer {token} x"), &format!("Bearer\t{token}")];
    for bad in bad {
        let error = identity.verify_at(Some(bad), NOW).await.unwrap_err();
        assert!(matches!(error, IdentityError::Header(_)), "{bad}: {error}");
        assert_eq!(error.reason(), Reason::InvalidToken);
    }
    for no_attempt in [None, Some("Basic YTpi")] {
        assert_eq!(identity.verify_at(no_attempt, NOW).await.unwrap_err().reason(), Reason::Unauthenticated);
    }
}

#[test]
fn keys_that_cannot_verify_are_left_out() {
    let signer = Signer::new("one");
    let changed = |name: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk[name] = value;
        jwk
    };
    let parse =
        |keys: Vec<Value>| key::KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), &[Algorithm::ES256]);
    let cases = [
        (changed("use", json!("enc")), "not for signatures"),
        (changed("key_ops", json!(["sign"])), "not for verifying"),
        (changed("alg", json!("HS256")), "not known"),
        (changed("alg", json!("ES384")), "not configured"),
        (changed("d", json!("AAAA")), "not a public key"),
        (changed("crv", json!("P-521")), "not supported"),
        (json!({"kty": "oct", "k": "c2VjcmV0", "kid": "one"}), "not a public key"),
        (json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB"}), "2048"),
        (json!({"kty": "new"}), "malformed"),
        (json!(7), "malformed"),
    ];
    for (jwk, expected) in cases {
        let error = parse(vec![jwk.clone()]).unwrap_err().to_string();
        assert!(error.contains(expected) || error.contains("not supported"), "{jwk}: {error}");
        assert_eq!(parse(vec![jwk, signer.jwk()]).unwrap().len(), 1);
    }
    assert!(parse(vec![signer.jwk(); key::MAX_KEYS + 1]).is_err());
    assert!(parse(Vec::new()).is_err());
}

#[test]
fn a_token_without_key_id_needs_an_unambiguous_key() {
    let keys = json!({"keys": [Signer::new("one").jwk(), Signer::new("two").jwk()]}).to_string();
    let keys = key::KeySet::parse(keys.as_bytes(), &[Algorithm::ES256]).unwrap();
    assert!(keys.select(None, Algorithm::ES256).is_empty());
    assert_eq!(keys.select(Some("two"), Algorithm::ES256).len(), 1);
    assert!(keys.select(Some("two"), Algorithm::RS256).is_empty());
}

#[test]
fn no_parts_spell_the_key_of_others() {
    let key = |issuer, subject, agent| Principal::key("jwt", issuer, PrincipalKind::User, subject, agent);
    let keys = [
        key("a", "b", None),
        key("a", "b", Some("")),
        key("a", "b", Some("~")),
        key("a", "b.c", None),
        key("a.b", "c", None),
        key("a", "b", Some("c")),
        Principal::key("jwt", "a", PrincipalKind::Agent, "b", None),
    ];
    for (index, one) in keys.iter().enumerate() {
        assert!(keys.iter().skip(index + 1).all(|other| other != one), "{one}");
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)));
    }
    assert_eq!(key("a", "caf\u{e9}", None), key("a", "cafe\u{301}", None));
}

/// Answers each connection with the next text, and counts them.
async fn key_server(answers: Vec<String>) -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut request = [0; 2048];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, count)
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn remote(url: String) -> Identity {
    let source = JwksSource { url: Some(url), ..JwksSource::default() };
    let config = IdentityConfig { issuers: vec![issuer(source)], ..IdentityConfig::default() };
    Identity::new(&config, None, &Outbound::default()).unwrap()
}

#[tokio::test]
async fn keys_are_fetched_once_however_many_tokens_come() {
    let signer = Signer::new("one");
    let body = answer(&json!({"keys": [signer.jwk()]}).to_string());
    let (url, count) = key_server(vec![body.clone(), body]).await;
    let identity = std::sync::Arc::new(remote(url));
    assert_eq!(identity.problems().len(), 1);
    let mut waiting = Vec::new();
    for index in 0..20 {
        let (identity, good) = (identity.clone(), index % 2 == 0);
        let unknown = r#"{"alg":"ES256","kid":"unknown"}"#;
        let token = if good { signer.token(&claims()) } else { signer.sign(unknown, &claims().to_string()) };
        waiting.push(tokio::spawn(async move { (good, verify(&identity, &token).await) }));
    }
    for task in waiting {
        let (good, result) = task.await.unwrap();
        assert_eq!(result.is_ok(), good, "{result:?}");
    }
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert!(identity.problems().is_empty());
    // A new snapshot does not ask again.
    let config = IdentityConfig { issuers: vec![identity.issuers[0].issuer.clone()], ..IdentityConfig::default() };
    let next = Identity::new(&config, Some(&identity), &Outbound::default()).unwrap();
    verify(&next, &signer.token(&claims())).await.unwrap();
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_key_server_that_misbehaves_gives_no_keys() {
    let signer = Signer::new("one");
    let large =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", " ".repeat(crate::outbound::MAX_ANSWER_BYTES + 1));
    let cases = [
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_owned(), "status 302"),
        ("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(), "status 500"),
        (answer("not json"), "not a JWK Set"),
        (answer(r#"{"keys":[]}"#), "no key"),
        (large, "more than"),
        (String::new(), "does not answer"),
    ];
    for (response, expected) in cases {
        let (url, _) = key_server(vec![response]).await;
        let error = remote(url).verify_at(Some(&format!("Bearer {}", signer.token(&claims()))), NOW).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(error.reason(), Reason::DecisionUnavailable);
    }
}

#[test]
fn keys_come_over_https_or_loopback_only() {
    for good in ["https://issuer.example/jwks", "http://127.0.0.1:8080/jwks", "http://[::1]/jwks", "http://localhost/"]
    {
        assert_eq!(jwks::check_url(good), Ok(()), "{good}");
    }
    for bad in [
        "http://issuer.example/",
        "file:///etc/keys",
        "https://a:b@issuer.example/",
        "issuer.example",
        "http://127.0.0.1.evil/",
    ] {
        assert!(jwks::check_url(bad).is_err(), "{bad}");
    }
}
