use proptest::prelude::*;

use super::*;
use crate::config::SecretSource;

const MARK: &str = "__KEY__";
const SECRET: &str = r#"s3"cr/t\key&1"#;

fn credential(placeholder: &str, surfaces: &[Surface]) -> Placeholder {
    Placeholder(PlaceholderCredential {
        placeholder: placeholder.into(),
        surfaces: surfaces.to_vec(),
        secret: SecretSource { reference: "env://KEY".into(), json_key: None, trim_newline: false },
    })
}

fn applied(
    surfaces: &[Surface],
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(String, String), CredentialError> {
    put((MARK, SECRET), surfaces, target, headers, body)
}

/// Path and query, and the body, as they leave with this placeholder and this secret.
fn put(
    (placeholder, secret): (&str, &str),
    surfaces: &[Surface],
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<(String, String), CredentialError> {
    let mut outgoing = Outgoing::plain("POST", "https", "api.example", target, body.as_bytes());
    for (name, value) in headers {
        outgoing.set_header(name, value)?;
    }
    let material = Material::new().secret("secret", secret.as_bytes().to_vec());
    credential(placeholder, surfaces).apply(&material, &mut outgoing)?;
    Ok((outgoing.target().to_owned(), String::from_utf8(outgoing.body().to_vec()).unwrap()))
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json; charset=utf-8")];
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];
const ALL: [Surface; 4] = [Surface::Path, Surface::Query, Surface::Body, Surface::Arguments];

#[test]
fn the_secret_stands_where_the_placeholder_stood_escaped_as_the_place_demands() {
    let (target, _) = applied(&[Surface::Path], "/v1/__KEY__/quote/__KEY__?a=1", &[], "").unwrap();
    assert_eq!(target, "/v1/s3%22cr%2Ft%5Ckey%261/quote/s3%22cr%2Ft%5Ckey%261?a=1");
    let (target, _) = applied(&[Surface::Query], "/v1?a=1&k=x__KEY__y", &[], "").unwrap();
    assert_eq!(target, "/v1?a=1&k=xs3%22cr%2Ft%5Ckey%261y");
    let body = "{ \"b\" : 1.0,\n \"a\":[\"__KEY__\",{\"c\":\"x __KEY__ \\u0041\"}], \"d\":\"\\\"\"}";
    let (_, got) = applied(&[Surface::Body], "/", &JSON, body).unwrap();
    assert_eq!(got, body.replace(MARK, r#"s3\"cr/t\\key&1"#));
    let (_, got) = applied(&[Surface::Body], "/", &FORM, "a=1&key=__KEY__&b=2").unwrap();
    assert_eq!(got, "a=1&key=s3%22cr%2Ft%5Ckey%261&b=2");
    // Nothing to replace: nothing changes.
    assert_eq!(applied(&ALL, "/a?b=c", &JSON, "{}").unwrap(), ("/a?b=c".to_owned(), "{}".to_owned()));
}

#[test]
fn of_a_message_only_the_arguments_of_tool_calls_are_touched() {
    let call = |arguments: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"quote","arguments":{arguments}}}}}"#
        )
    };
    let body = call(r#"{"symbol":"X","auth":{"key":["__KEY__"]}}"#);
    let (_, got) = applied(&ALL, "/mcp", &JSON, &body).unwrap();
    assert_eq!(got, body.replace(MARK, r#"s3\"cr/t\\key&1"#));
    let batch = format!("[{body},{body}]");
    assert_eq!(applied(&ALL, "/mcp", &JSON, &batch).unwrap().1, batch.replace(MARK, r#"s3\"cr/t\\key&1"#));
    let refused = [
        call(r#"{"__KEY__":"a key"}"#),
        r#"{"jsonrpc":"2.0","id":"__KEY__","method":"tools/call","params":{"name":"q","arguments":{"a":"b"}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"__KEY__","arguments":{"a":"b"}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"q","_meta":{"a":"__KEY__"},"arguments":{}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"q","arguments":{"a":"__KEY__"}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"q","arguments":"__KEY__"}}"#.to_owned(),
    ];
    for body in refused {
        assert!(matches!(applied(&ALL, "/mcp", &JSON, &body), Err(CredentialError::Request(_))), "{body}");
    }
    assert!(applied(&[Surface::Body], "/mcp", &JSON, &call(r#"{"a":"__KEY__"}"#)).is_err());
}

#[test]
fn what_cannot_be_read_for_certain_is_refused() {
    /// Surfaces, target, headers and body.
    type Case<'a> = (&'a [Surface], &'a str, &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 12] = [
        (&[Surface::Path], "/v1?k=__KEY__", &[], ""),
        (&[Surface::Query], "/__KEY__", &[], ""),
        (&[Surface::Query], "/?__KEY__=a", &[], ""),
        (&[Surface::Body], "/__KEY__", &[], ""),
        (&ALL, "/", &[("x-key", MARK)], ""),
        (&ALL, "/", &[("content-type", "text/plain")], MARK),
        (&ALL, "/", &[("content-type", "multipart/form-data; boundary=x")], "--x"),
        (&ALL, "/", &[("content-type", "application/json"), ("content-encoding", "gzip")], "\u{1f}"),
        (&ALL, "/", &[("content-type", "application/json"), ("content-digest", "sha-256=:x:")], r#"{"a":"__KEY__"}"#),
        (&ALL, "/", &JSON, r#"{"a":"__KEY__","a":1}"#),
        (&ALL, "/", &JSON, r#"{"__KEY__":1}"#),
        (&ALL, "/", &FORM, "__KEY__=1"),
    ];
    for (surfaces, target, headers, body) in cases {
        assert!(applied(surfaces, target, headers, body).is_err(), "{target} {headers:?} {body}");
    }
}

/// Secrets whose first characters could end an escape, and placeholders that could themselves.
const PAIRS: [(&str, &str); 6] = [
    (MARK, "c1m3-0123456789-key"),
    (MARK, "face/é 0123 \"key"),
    (MARK, "u0041-0123-key"),
    ("token-here", "token-0123-key"),
    ("20ab-KEY", "20ab-0123-key"),
    ("0041.KEY", "00e9-face-0123-key"),
];

#[test]
fn an_escape_before_a_placeholder_does_not_take_in_the_secret() {
    for pair @ (mark, secret) in PAIRS {
        for before in ["%", "a%4", "%25", "%u00", "%5C", "%81", "%C3%A9", "\\"] {
            let target = format!("/v1?k={before}{mark}");
            assert!(put(pair, &ALL, &target, &[], "").is_err(), "{target}");
            assert!(put(pair, &ALL, "/", &FORM, &format!("a=1&k={before}{mark}")).is_err(), "{before}{mark}");
            assert!(put(pair, &ALL, &format!("/v1/{before}{mark}/x"), &[], "").is_err(), "{before}{mark}");
        }
        for before in [r"\", r"\u", r"\u00", r"\\", r"\\u00", "%", "%4", r"\u0025", r"\u00254", "%25"] {
            let body = format!(r#"{{"k":"{before}{mark}"}}"#);
            assert!(put(pair, &ALL, "/", &JSON, &body).is_err(), "{body}");
        }
        // One that is finished is a character like any other.
        let encoded = query::encode(secret.as_bytes());
        for before in ["%20", "%41", "a+", "%3D", "50%25-off:"] {
            let expected = format!("/v1/{before}{}?k={before}{}x", *encoded, *encoded);
            let (target, _) = put(pair, &ALL, &format!("/v1/{before}{mark}?k={before}{mark}x"), &[], "").unwrap();
            assert_eq!(target, expected);
        }
        for before in [r"\n", r"\u0041", r"\\:", r#"\""#, "é", "ключ", r"\ud83d\ude00"] {
            let body = format!(r#"{{"k":"{before}{mark}{before}"}}"#);
            let (_, sent) = put(pair, &ALL, "/", &JSON, &body).unwrap();
            assert_eq!(values(&sent), values(&body.replace(mark, "MARK")).map(|all| all.replace("MARK", secret)));
        }
    }
}

#[test]
fn a_body_in_another_character_set_is_refused() {
    for (media_type, body) in
        [("application/json", r#"{"k":"__KEY__"}"#), ("application/x-www-form-urlencoded", "k=__KEY__")]
    {
        let with = |parameters: &str| {
            let content_type = format!("{media_type}{parameters}");
            applied(&ALL, "/", &[("content-type", content_type.as_str())], body)
        };
        for parameters in ["", "; charset=utf-8", ";charset=\"UTF-8\"", "; v=1"] {
            assert!(with(parameters).is_ok(), "{parameters}");
        }
        for parameters in [
            "; charset=utf-16",
            ";charset=ibm037",
            "; charset=utf-8; charset=utf-7",
            "; charset*=utf-16''x",
            "; charset=utf-8, x",
        ] {
            assert!(with(parameters).is_err(), "{parameters}");
        }
    }
}

/// Every string in a JSON document, one a line.
fn values(body: &str) -> Option<String> {
    fn gather(value: &serde_json::Value, all: &mut String) {
        match value {
            serde_json::Value::String(text) => all.extend([text, "\n"]),
            serde_json::Value::Array(elements) => elements.iter().for_each(|element| gather(element, all)),
            serde_json::Value::Object(members) => members.values().for_each(|member| gather(member, all)),
            _ => {}
        }
    }
    let mut all = String::new();
    gather(&serde_json::from_str(body).ok()?, &mut all);
    Some(all)
}

/// What an agent may write beside a placeholder.
fn beside(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(pieces), 0..6).prop_map(|chosen| chosen.concat())
}

/// Percent-encoding as lenient readers undo it: what is no escape stays; then once more.
fn readings(encoded: &str) -> Vec<String> {
    let once = url::form_urlencoded::parse(encoded.as_bytes()).map(|(_, value)| value).collect::<Vec<_>>().join("&");
    let own = String::from_utf8_lossy(&query::decode(encoded)).into_owned();
    let twice = String::from_utf8_lossy(&query::decode(&own)).into_owned();
    vec![once, own, twice]
}

const IN_QUERY: &[&str] = &[
    "%", "%4", "%41", "%25", "%2", "%u", "%u00", "%5C", "%C3", "%E2%82", "u", "x", "0", "4", "a", "f", "+", "=", "-",
    "\\", "&", ";", "%20", "%00",
];
const IN_JSON: &[&str] = &[
    "\\", "\\\\", "\\n", "\\u", "\\u00", "\\u0041", "\\u005c", "\\u0025", "\\\"", "\\ud83d", "\\ude00", "%", "%4",
    "%25", "u", "x", "0", "4", "a", "f", "t", "é", " ", "\",\"",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn whatever_stands_around_a_placeholder_the_upstream_reads_the_secret_whole(
        pair in prop::sample::select(PAIRS.to_vec()),
        before in beside(IN_QUERY),
        after in beside(IN_QUERY),
    ) {
        let (mark, secret) = pair;
        let pairs = format!("a=1&k={before}{mark}{after}");
        if let Ok((target, _)) = put(pair, &ALL, &format!("/v1?{pairs}"), &[], "") {
            for reading in readings(target.split_once('?').unwrap().1) {
                prop_assert!(reading.contains(secret), "{target} is read as {reading}");
            }
        }
        if let Ok((_, body)) = put(pair, &ALL, "/", &FORM, &pairs) {
            for reading in readings(&body) {
                prop_assert!(reading.contains(secret), "{body} is read as {reading}");
            }
        }
    }

    #[test]
    fn whatever_stands_around_a_placeholder_a_document_holds_the_secret_whole(
        pair in prop::sample::select(PAIRS.to_vec()),
        before in beside(IN_JSON),
        after in beside(IN_JSON),
    ) {
        let (mark, secret) = pair;
        let body = format!(r#"{{"k":["{before}{mark}{after}"]}}"#);
        if let Ok((_, sent)) = put(pair, &ALL, "/", &JSON, &body) {
            let read = values(&sent).unwrap();
            prop_assert_eq!(&read, &values(&body).unwrap().replace(mark, secret));
            prop_assert!(read.contains(secret));
            // As somebody reads it who takes the text for a URL.
            prop_assert!(String::from_utf8_lossy(&query::decode(&read)).contains(secret), "{read}");
        }
    }
}

#[test]
fn a_secret_is_put_in_a_bounded_number_of_places() {
    let text = |count: usize, separator: &str| vec![MARK; count].join(separator);
    for (count, is_good) in [(MAX_PLACES, true), (MAX_PLACES + 1, false), (100_000, false)] {
        let json = format!("[\"{}\"]", text(count, " "));
        assert_eq!(applied(&ALL, "/", &JSON, &json).is_ok(), is_good, "{count} in JSON");
        assert_eq!(
            applied(&ALL, "/", &FORM, &format!("a={}", text(count, "&a="))).is_ok(),
            is_good,
            "{count} in a form"
        );
        assert_eq!(applied(&ALL, &format!("/{}", text(count, "/")), &[], "").is_ok(), is_good, "{count} in the path");
    }
    let long = "x".repeat(MAX_CHANGED_BYTES / MAX_PLACES);
    let body = format!("[\"{}\"]", text(MAX_PLACES, " "));
    assert!(put((MARK, &long), &ALL, "/", &JSON, &body).is_err());
}
