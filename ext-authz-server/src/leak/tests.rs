use std::sync::Arc;

use keyward_contract::patterns::rule;

use super::*;
use crate::perimeter::authority::HostPattern;
use crate::secret::SecretBytes;

fn known(secrets: &[(&str, &str, &[&str])]) -> Known {
    let known = Known::default();
    for (binding, value, hosts) in secrets {
        let hosts: Vec<HostPattern> = hosts.iter().map(|host| HostPattern::parse(host, None).unwrap()).collect();
        known.note(binding, &hosts, &Arc::new(SecretBytes::new(value.as_bytes().to_vec())));
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

#[test]
fn what_is_known_is_bounded_and_forgets_the_oldest() {
    let known = Known::default();
    let hosts = [HostPattern::parse("a.example", None).unwrap()];
    for number in 0..1100 {
        known.note("b", &hosts, &Arc::new(SecretBytes::new(format!("secret-number-{number:05}").into_bytes())));
    }
    let other = Authority::parse("b.example").unwrap();
    assert!(known.find(b"secret-number-00001", &other).is_none());
    assert!(known.find(b"secret-number-01099", &other).is_some());
    assert!(known.is_due("one") && !known.is_due("one") && known.is_due("two"));
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
