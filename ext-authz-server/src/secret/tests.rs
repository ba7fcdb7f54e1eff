use super::*;
use crate::identity::Principal;
use crate::scratch::Scratch;

fn source(reference: &str, json_key: Option<&str>, trim_newline: bool) -> SecretSource {
    SecretSource { reference: reference.into(), json_key: json_key.map(Into::into), trim_newline }
}

async fn value(dir: &Scratch, source: SecretSource) -> Result<String, String> {
    let secrets = Secrets::standard(dir.path());
    let secret = secrets.resolve(&source).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(secret.expose().to_vec()).unwrap())
}

#[tokio::test]
async fn one_newline_goes_only_where_that_is_asked_for() {
    let dir = Scratch::new();
    dir.write("key", "marked-value\n\n");
    assert_eq!(value(&dir, source("file://key", None, false)).await.unwrap(), "marked-value\n\n");
    assert_eq!(value(&dir, source("file://key", None, true)).await.unwrap(), "marked-value\n");
    dir.write("key", "marked-value\r\n");
    assert_eq!(value(&dir, source("file://key", None, true)).await.unwrap(), "marked-value");
}

#[tokio::test]
async fn a_field_is_taken_out_of_json() {
    let dir = Scratch::new();
    dir.write("key", r#"{"password": "marked\u002dvalue", "port": 1}"#);
    assert_eq!(value(&dir, source("file://key", Some("password"), false)).await.unwrap(), "marked-value");
    for field in ["port", "none"] {
        let error = value(&dir, source("file://key", Some(field), false)).await.unwrap_err();
        assert_eq!(error, format!("secret `file://key` is not a JSON object with a string in `{field}`"));
        assert!(!error.contains("marked"));
    }
}

/// Gives back what it is asked for, numbered, and is kept.
#[derive(Default)]
struct Numbered(std::sync::atomic::AtomicUsize);

impl SecretStore for Numbered {
    fn check(&self, _rest: &str) -> Result<(), SecretError> {
        Ok(())
    }
    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        let number = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move { Ok(Resolved::lasting(format!("{number} {rest}").into_bytes())) })
    }
    fn terms(&self) -> Option<Terms> {
        Some(Terms::Stored { refresh: Duration::from_secs(60), max_stale: Duration::from_secs(300) })
    }
}

#[tokio::test]
async fn what_is_kept_for_one_tenant_person_agent_or_environment_serves_no_other() {
    use crate::identity::Principal;
    let caller = |tenant: &str, user: &str, agent: &str, environment: &str| {
        let agent = Some(agent.to_owned());
        let (tenant, subject) = (tenant.to_owned(), user.to_owned());
        let principal = Principal { tenant, subject, agent, ..Principal::nobody() };
        Caller { principal: Arc::new(principal), ..Caller::none(environment) }
    };
    let callers = [
        caller("acme", "alice", "desk", "test"),
        caller("other", "alice", "desk", "test"),
        caller("acme", "bob", "desk", "test"),
        caller("acme", "alice", "shell", "test"),
        caller("acme", "alice", "desk", "production"),
    ];
    // How many values the callers share; the tenant counts whether the reference names it or not.
    for (reference, distinct) in [
        ("kept://key", 2),
        ("kept://{tenant}", 2),
        ("kept://{user}", 3),
        ("kept://{agent}", 3),
        ("kept://{environment}", 3),
        ("kept://{user}/{agent}/{environment}", 5),
    ] {
        let secrets = Secrets::standard(Path::new("")).and("kept", Arc::new(Numbered::default()));
        let mut seen = std::collections::BTreeSet::new();
        for caller in &callers {
            let value = async || secrets.get(&source(reference, None, false), caller).await.unwrap().value;
            let first = value().await;
            let again = value().await;
            assert!(first.ct_eq(&again), "{reference}: it is kept");
            seen.insert(first.expose().to_vec());
        }
        assert_eq!(seen.len(), distinct, "{reference}");
        assert_eq!(secrets.freshness().len(), distinct, "{reference}");
    }
}

#[tokio::test]
async fn memory_is_swept_without_anybody_asking() {
    let secrets = Secrets::standard(Path::new(""));
    let failing = || -> crate::freshness::Minting { Box::pin(async { Err(MintError::consent("nobody gave it")) }) };
    let key = Key::new("test", "tenant");
    assert!(secrets.freshness().get(key, Terms::Minted, failing).await.is_err());
    assert_eq!(secrets.freshness().len(), 1);
    let sweeping = tokio::spawn(secrets.keep_swept(Duration::from_millis(5)));
    while !secrets.freshness().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sweeping.abort();
}

#[tokio::test]
async fn a_reference_needs_a_known_scheme() {
    let dir = Scratch::new();
    for reference in ["", "key", "vault://key", "FILE://key", "file://", "env://A B"] {
        let error = value(&dir, source(reference, None, false)).await.unwrap_err();
        assert!(error.starts_with("not a secret reference"), "{reference}: {error}");
    }
    for misplaced in
        ["marked-value", "marked-value://x", "vault://marked-value", "env://marked-value", "file://marked/"]
    {
        let error = value(&dir, source(misplaced, None, false)).await.unwrap_err();
        assert!(!error.contains("marked"), "{error}");
    }
}

/// A store that takes `Bob` and `bob` for one name.
struct CaseBlind;

impl SecretStore for CaseBlind {
    fn check(&self, _rest: &str) -> Result<(), SecretError> {
        Ok(())
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        Box::pin(async move { Ok(Resolved::lasting(rest.to_ascii_lowercase().into_bytes())) })
    }

    fn ignores_case(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn capitals_are_no_way_to_another_s_secret_where_the_store_ignores_them() {
    let dir = Scratch::new();
    let secrets = Secrets::standard(dir.path()).and("blind", Arc::new(CaseBlind));
    let get = async |subject: &str, reference: &str| {
        let principal = Principal { subject: subject.into(), ..Principal::nobody() };
        let caller = Caller { principal: Arc::new(principal), ..Caller::none("test") };
        secrets.get(&source(reference, None, false), &caller).await.map(|secret| secret.value.expose().to_vec())
    };
    assert_eq!(get("bob", "blind://Key-{user}").await.unwrap(), b"key-bob");
    let refused = get("Bob", "blind://Key-{user}").await.unwrap_err();
    assert!(refused.cause.contains("capital letters"), "{}", refused.cause);
    assert_eq!(get("Bob", "blind://Key").await.unwrap(), b"key");
}

#[test]
fn a_fingerprint_depends_on_key_and_value() {
    let bytes = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
    let one = bytes("one").fingerprint(&bytes("key"));
    assert_eq!(one.len(), 16);
    assert_eq!(one, bytes("one").fingerprint(&bytes("key")));
    assert_ne!(one, bytes("two").fingerprint(&bytes("key")));
    assert_ne!(one, bytes("one").fingerprint(&bytes("yek")));
    assert!(bytes("one").ct_eq(&bytes("one")) && !bytes("one").ct_eq(&bytes("two")));
}
