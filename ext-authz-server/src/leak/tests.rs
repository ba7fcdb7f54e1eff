use std::sync::Arc;

use keyward_contract::patterns::rule;

use super::*;
use crate::binding::Mode;
use crate::config::{
    HmacAlgorithm, HmacCredential, KeyEncoding, QueryOrder, SecretSource, SignatureEncoding, TimestampFormat,
};
use crate::credential::hmac::Hmac;
use crate::perimeter::authority::HostPattern;
use crate::secret::{Resolved, Resolving, SecretBytes, SecretError, SecretStore, Secrets};

fn known(secrets: &[(&str, &str, &[&str])]) -> Known {
    let known = Known::default();
    for (binding, value, hosts) in secrets {
        let hosts: Vec<HostPattern> = hosts.iter().map(|host| HostPattern::parse(host, None).unwrap()).collect();
        known.note(binding, &hosts, None, &Arc::new(SecretBytes::new(value.as_bytes().to_vec())));
    }
    known
}

fn reason(result: Result<(), Denial>) -> Option<(Reason, String)> {
    result.err().map(|denial| (denial.reason, denial.cause))
}

#[test]
fn a_secret_leaves_only_to_where_it_is_bound() {
    let known = known(&[("one", "first-secret-1", &["a.example"]), ("two", "second-secret-2", &["*.b.example:443"])]);
    let body = |text: &str, authority: &str| {
        let outgoing = Outgoing::plain("POST", "https", authority, "/", text.as_bytes());
        reason(check_secrets(&outgoing, &known)).map(|(_, cause)| cause)
    };
    assert_eq!(body("first-secret-1", "a.example"), None);
    assert_eq!(body("second-secret-2", "x.b.example:443"), None);
    assert!(body("x first-secret-1 y", "b.example").unwrap().contains("binding `one`"));
    assert!(body("second-secret-2", "x.b.example:8443").unwrap().contains("binding `two`"));
    assert!(body(r#"{"a":"first-secret-1","b":"second-secret-2"}"#, "a.example").unwrap().contains("`two`"));
    assert_eq!(body("nothing of the kind", "b.example"), None);
    // In every form and every place.
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode("xxfirst-secret-1xx");
    for form in
        ["1-terces-tsrif", "66697273742d7365637265742d31", "first%2Dsecret%2D1", r"first\u002dsecret-1", &encoded]
    {
        assert!(body(form, "b.example").is_some(), "{form}");
        let target = format!("/v1/{form}?q=1").replace('\\', "%5C");
        let outgoing = Outgoing::plain("GET", "https", "b.example", &target, b"");
        assert!(check_secrets(&outgoing, &known).is_err(), "{form}");
        let mut outgoing = Outgoing::plain("GET", "https", "b.example", "/", b"");
        outgoing.set_header("x-anything", form).unwrap();
        assert!(check_secrets(&outgoing, &known).is_err(), "{form}");
    }
}

#[test]
fn a_secret_of_two_bindings_may_go_where_either_may() {
    let known = known(&[("one", "shared-secret", &["a.example"]), ("two", "shared-secret", &["b.example"])]);
    for (authority, refused) in [("a.example", false), ("b.example", false), ("c.example", true)] {
        let outgoing = Outgoing::plain("POST", "https", authority, "/", b"shared-secret");
        assert_eq!(check_secrets(&outgoing, &known).is_err(), refused, "{authority}");
    }
}

fn secret(text: &str) -> Arc<SecretBytes> {
    Arc::new(SecretBytes::new(text.as_bytes().to_vec()))
}

#[test]
fn what_is_known_is_bounded_and_forgets_the_oldest() {
    let known = Known::default();
    let hosts = [HostPattern::parse("a.example", None).unwrap()];
    for number in 0..1100 {
        known.note("b", &hosts, None, &secret(&format!("secret-number-{number:05}")));
    }
    let other = Authority::parse("b.example").unwrap();
    assert!(known.find(&[b"secret-number-00001"], &other).is_none());
    assert!(known.find(&[b"secret-number-01099"], &other).is_some());
    assert!(known.is_due("one") && known.is_due("one"), "it was not read");
    known.note_read("one");
    assert!(!known.is_due("one") && known.is_due("two") && !known.was_read("two"));
}

#[test]
fn nobody_makes_the_server_forget_another_s_secret() {
    let known = Known::default();
    let hosts = [HostPattern::parse("a.example", None).unwrap()];
    known.note("shared", &hosts, Some("alice"), &secret("service-account-secret"));
    known.note("shared", &hosts, Some("bob"), &secret("service-account-secret"));
    known.note("own", &hosts, Some("bob"), &secret("bob-has-this-alone"));
    for number in 0..2000 {
        known.note("own", &hosts, Some("mallory"), &secret(&format!("token-number-{number:05}")));
    }
    let other = Authority::parse("b.example").unwrap();
    let found = |text: &str| known.find(&[text.as_bytes()], &other);
    assert_eq!(found("service-account-secret").as_deref(), Some("shared"));
    assert_eq!(found("bob-has-this-alone").as_deref(), Some("own"));
    // Many people at once push out what one of them has alone, and never what is everybody's.
    for number in 0..2000 {
        known.note("own", &hosts, Some(&format!("person-{number}")), &secret(&format!("token-of-{number:05}")));
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(found("service-account-secret").as_deref(), Some("shared"));
    assert_eq!(found("token-of-01999").as_deref(), Some("own"));
    assert_eq!(found("bob-has-this-alone"), None);
}

#[test]
fn names_that_a_client_makes_up_do_not_cost_a_search_each() {
    let long = "x7Q".repeat(400);
    let secrets: Vec<String> = (0..200).map(|number| format!("{number:04}{long}")).collect();
    let hosts: Vec<&str> = vec!["a.example"];
    let all: Vec<(&str, &str, &[&str])> = secrets.iter().map(|own| ("one", own.as_str(), hosts.as_slice())).collect();
    let known = known(&all);
    let first = known.finder(None);
    for number in 0..100 {
        let authority = Authority::parse(&format!("n{number}.elsewhere.example")).unwrap();
        assert!(known.find(&[b"nothing"], &authority).is_none());
        assert_eq!(known.find(&[secrets[7].as_bytes()], &authority).as_deref(), Some("one"));
    }
    assert!(Arc::ptr_eq(&first, &known.finder(None)), "it was made anew");
    assert_eq!(known.kept(), 2, "one for all secrets, and one for all of these authorities");
    // What was noted meanwhile is found.
    known.note("two", &[HostPattern::parse("b.example", None).unwrap()], None, &secret("a-later-secret-of-two"));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let authority = Authority::parse("a.example").unwrap();
    assert_eq!(known.find(&[b"a-later-secret-of-two"], &authority).as_deref(), Some("two"));
    assert!(known.find(&[secrets[7].as_bytes()], &authority).is_none());
}

#[test]
fn a_secret_does_not_leave_in_the_name_of_a_host() {
    let known = known(&[("one", "first-secret-1", &["a.example"])]);
    let outgoing = Outgoing::plain("GET", "https", "first-secret-1.elsewhere.example", "/", b"");
    assert!(check_secrets(&outgoing, &known).is_err());
}

#[test]
fn a_header_s_secret_is_found_however_many_and_however_long_the_headers_are() {
    let known = known(&[("one", "first-secret-1", &["a.example"])]);
    for filler in [0, 1, 30, 300, 4000] {
        let mut outgoing = Outgoing::plain("GET", "https", "b.example", "/", b"");
        for number in 0..8 {
            outgoing.set_header(&format!("x-{number}"), &"f".repeat(filler)).unwrap();
        }
        assert!(check_secrets(&outgoing, &known).is_ok());
        outgoing.set_header("x-last", "first-secret-1").unwrap();
        assert!(check_secrets(&outgoing, &known).is_err(), "{filler}");
    }
}

#[test]
fn another_binding_s_placeholder_does_not_leave() {
    let placeholders = ["__OTHER_KEY__".to_owned()];
    for text in ["a __OTHER_KEY__ b", "X19PVEhFUl9LRVlfXw==", r"\u005f_OTHER_KEY__"] {
        let outgoing = Outgoing::plain("POST", "https", "a.example", "/", text.as_bytes());
        assert_eq!(
            reason(check_placeholders(&outgoing, &placeholders)).map(|(reason, _)| reason),
            Some(Reason::SecretInRequest),
            "{text}"
        );
    }
    let outgoing = Outgoing::plain("POST", "https", "a.example", "/", b"__OTHER_KEYS__");
    assert!(check_placeholders(&outgoing, &placeholders).is_ok());
}

fn stripe() -> String {
    ["sk_live_", "4eC39HqLyjWDarjtT1zdp7dcQ2x"].concat()
}

#[test]
fn what_looks_like_a_credential_is_blocked_masked_or_noted() {
    let guard = |action| Guard::new(Action::Off, &[(rule("stripe_key").unwrap(), action)]);
    let body = format!(r#"{{"key":"{}"}}"#, stripe());
    let outgoing = || Outgoing::plain("POST", "https", "a.example", "/", body.as_bytes());
    assert!(check_patterns(&mut outgoing(), &guard(Action::Block)).is_err());
    assert_eq!(check_patterns(&mut outgoing(), &guard(Action::Off)).unwrap(), Finding::default());
    let logged = check_patterns(&mut outgoing(), &guard(Action::Log)).unwrap();
    assert_eq!(logged.names().collect::<Vec<_>>(), ["stripe_key"]);
    let mut masked = outgoing();
    assert_eq!(check_patterns(&mut masked, &guard(Action::Mask)).unwrap().masked, 1);
    assert_eq!(masked.body(), body.replace(&stripe(), &"REDACTED".repeat(5)[..stripe().len()]).as_bytes());
    // Hidden behind escapes, or in the target: it can only be refused.
    let hidden = body.replace("sk_live", r"s\u006b_live");
    let mut outgoing = Outgoing::plain("POST", "https", "a.example", "/", hidden.as_bytes());
    assert!(check_patterns(&mut outgoing, &guard(Action::Mask)).is_err());
    let target = format!("/v1?key=%73{}", &stripe()[1..]);
    assert!(check_patterns(&mut Outgoing::plain("GET", "https", "a", &target, b""), &guard(Action::Mask)).is_err());
}

#[test]
fn what_looks_like_a_credential_does_not_leave_in_a_header_that_mirrors_an_argument() {
    use base64::Engine as _;
    let guard = |action| Guard::new(Action::Off, &[(rule("stripe_key").unwrap(), action)]);
    let look = |name: &str, value: &str, action| {
        let mut outgoing = Outgoing::plain("POST", "https", "a.example", "/", b"{}");
        outgoing.set_header(name, value).unwrap();
        check_patterns(&mut outgoing, &guard(action)).map(|finding| finding.names().count())
    };
    let encoded = format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(stripe()));
    for value in [stripe(), format!("key {}", stripe()), encoded, format!("=?base64?!{}", stripe())] {
        for name in ["mcp-param-message", "mcp-name"] {
            for action in [Action::Block, Action::Mask] {
                assert!(look(name, &value, action).is_err(), "{name}: {value}");
            }
            assert_eq!(look(name, &value, Action::Log).unwrap(), 1, "{name}: {value}");
        }
    }
    assert_eq!(look("mcp-param-message", "nothing of the kind", Action::Block).unwrap(), 0);
    // Not an argument: a session id may well look like one.
    assert_eq!(look("mcp-session-id", &stripe(), Action::Block).unwrap(), 0);
}

#[test]
fn an_encoded_body_leaves_only_where_nothing_is_looked_for() {
    let known = known(&[("one", "first-secret-1", &["a.example"])]);
    let (off, on) = (Guard::new(Action::Off, &[]), Guard::new(Action::Log, &[]));
    let look = |authority: &str, encoding: &str, body: &'static [u8], placeholders: &[String], guard: &Guard| {
        let mut outgoing = Outgoing::plain("POST", "https", authority, "/", body);
        outgoing.set_header("content-encoding", encoding).unwrap();
        reason(check_encoding(&outgoing, &known, placeholders, guard)).map(|(reason, _)| reason)
    };
    let refused = Some(Reason::InvalidRequest);
    for encoding in ["gzip", "br", "identity, gzip", "aws-chunked,gzip", "unknown"] {
        assert_eq!(look("b.example", encoding, b"\x1f\x8b", &[], &off), refused, "{encoding}");
        assert_eq!(look("a.example", encoding, b"\x1f\x8b", &[], &on), refused, "{encoding}");
        assert_eq!(look("a.example", encoding, b"\x1f\x8b", &["__KEY__".to_owned()], &off), refused, "{encoding}");
        assert_eq!(look("a.example", encoding, b"\x1f\x8b", &[], &off), None, "{encoding}");
        assert_eq!(look("b.example", encoding, b"", &[], &on), None, "{encoding}");
    }
    for encoding in ["identity", "Identity", "aws-chunked"] {
        assert_eq!(look("b.example", encoding, b"text", &[], &on), None, "{encoding}");
    }
}

/// A store of one secret, which takes its time.
struct Holds(String);

impl SecretStore for Holds {
    fn check(&self, _rest: &str) -> Result<(), SecretError> {
        Ok(())
    }

    fn resolve<'a>(&'a self, _rest: &'a str) -> Resolving<'a> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(Resolved::lasting(self.0.clone().into_bytes()))
        })
    }
}

fn bound(local_secrets: Vec<SecretSource>, credentials: Vec<Arc<dyn Credential>>) -> Binding {
    Binding {
        id: "one".into(),
        mode: Mode::ServiceAccount,
        owner: String::new(),
        environment: String::new(),
        risk: None,
        servers: Vec::new(),
        principals: None,
        tools: None,
        hosts: vec![HostPattern::parse("a.example", None).unwrap()],
        credentials,
        tenants: None,
        passthrough: Vec::new(),
        definition: String::new(),
        local_secrets,
    }
}

fn source() -> SecretSource {
    SecretSource { reference: "env://SECRET".into(), json_key: None, trim_newline: false }
}

#[tokio::test]
async fn who_comes_while_the_secrets_are_first_read_waits_for_them() {
    let store = Arc::new(Holds("a-secret-that-is-slow".to_owned()));
    let secrets = Secrets::standard(std::path::Path::new("")).and("env", store);
    let sources = Arc::new(Sources::new(Arc::new(secrets)));
    let catalogue = Catalogue::new(vec![bound(vec![source()], Vec::new())], "", false);
    let elsewhere = Authority::parse("b.example").unwrap();
    let found = async |revision: &str| {
        note_local(&catalogue, revision, &sources).await;
        sources.secrets.known().find(&[b"a-secret-that-is-slow"], &elsewhere).is_some()
    };
    // One who gives up takes nobody's place.
    let gone = tokio::time::timeout(Duration::from_millis(10), found("rev1")).await;
    assert!(gone.is_err());
    assert_eq!(tokio::join!(found("rev1"), found("rev1"), found("rev1")), (true, true, true));
    // And once they were read nobody waits.
    let at_once = tokio::time::timeout(Duration::from_millis(50), found("rev1")).await;
    assert_eq!(at_once, Ok(true));
}

#[tokio::test]
async fn a_key_leaves_neither_as_it_is_written_nor_as_it_is_used() {
    use base64::Engine as _;
    let written = base64::engine::general_purpose::STANDARD.encode("the-key-as-it-signs");
    let hmac = Hmac(HmacCredential {
        secret: source(),
        key_encoding: KeyEncoding::Base64,
        algorithm: HmacAlgorithm::Sha256,
        message: "{body}".into(),
        timestamp: TimestampFormat::Unix,
        query_order: QueryOrder::AsIs,
        encoding: SignatureEncoding::Hex,
        key_id: None,
        headers: Vec::new(),
        query: Vec::new(),
    });
    let credential: Arc<dyn Credential> = Arc::new(hmac);
    let binding = bound(vec![source()], vec![credential.clone()]);
    let elsewhere = Authority::parse("b.example").unwrap();
    let found = |known: &Known, text: &str| known.find(&[text.as_bytes()], &elsewhere).is_some();

    let used = Known::default();
    let material = Material::new().secret("secret", written.clone().into_bytes());
    note(&binding, &credential, &material, None, &used);
    assert!(found(&used, &written) && found(&used, "x the-key-as-it-signs y"));

    let store = Arc::new(Holds(written.clone()));
    let secrets = Secrets::standard(std::path::Path::new("")).and("env", store);
    let sources = Arc::new(Sources::new(Arc::new(secrets)));
    note_local(&Catalogue::new(vec![binding], "", false), "rev1", &sources).await;
    let local = sources.secrets.known();
    assert!(found(local, &written) && found(local, "x the-key-as-it-signs y"));
}
