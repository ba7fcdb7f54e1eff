//! The strict reader against JSONTestSuite, against its own table of the same shape, and against `serde_json`.

use std::path::Path;

use keyward_contract::json::{Limits, Value, parse};
use keyward_contract::mcp::{self, HttpView};
use keyward_contract::reason::Reason;
use proptest::prelude::*;

/// Accepted by the suite, refused here on purpose: two readers may understand them differently.
const REFUSED_ON_PURPOSE: [&str; 2] = ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"];

fn accepts(text: &[u8]) -> bool {
    parse(text, &Limits::default()).is_ok()
}

/// Whether the text is accepted as an argument of a tool call; what is refused has to be refused as JSON, not by chance.
fn accepts_inside_a_call(text: &[u8]) -> bool {
    let mut body =
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"value":"#.to_vec();
    body.extend_from_slice(text);
    body.extend_from_slice(b"}}}");
    let headers = vec![("content-type", "application/json")];
    match mcp::read(&HttpView { method: "POST", headers: &headers, body: &body }, &Limits::default()) {
        Ok(_) => true,
        Err(refusal) => {
            assert!(matches!(refusal.reason, Reason::InvalidJson | Reason::RequestTooLarge), "{refusal:?}");
            false
        }
    }
}

#[test]
fn agrees_with_the_published_suite() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/json_parsing");
    let Ok(files) = std::fs::read_dir(&folder) else {
        println!("SKIPPED: no JSONTestSuite at ../shared/vectors/json_parsing; the table in this file stands for it");
        return;
    };
    let mut counts = [0; 3];
    for file in files {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let text = std::fs::read(file.path()).unwrap();
        let bare = accepts(&text);
        let inside = accepts_inside_a_call(&text);
        let expected = match name.split_once('_').map(|(kind, _)| kind) {
            Some("y") => {
                counts[0] += 1;
                Some(!REFUSED_ON_PURPOSE.contains(&name.as_str()))
            }
            Some("n") => {
                counts[1] += 1;
                Some(false)
            }
            Some("i") => {
                counts[2] += 1;
                None
            }
            _ => continue,
        };
        if let Some(expected) = expected {
            assert_eq!(bare, expected, "{name} bare");
            // A text that ends a value too early can be completed by what follows it inside a call.
            assert!(inside == expected, "{name} inside a call");
        }
    }
    println!("JSONTestSuite: {} to accept, {} to refuse, {} undefined", counts[0], counts[1], counts[2]);
    assert!(counts[0] >= 90 && counts[1] >= 180, "{counts:?}");
}

#[test]
fn agrees_with_its_own_table() {
    let accepted: &[&str] = &[
        "[]",
        "{}",
        "0",
        "-0",
        "-1",
        "1.5",
        "1E22",
        "1e-2",
        "20e1",
        "0e+1",
        "[1e+2]",
        "123e45",
        "\"\"",
        "\"a\"",
        "true",
        "false",
        "null",
        " [1 , 2]\n",
        "[\"\\u0061\\u30af\\u30EA\"]",
        "[\"\\uD801\\udc37\"]",
        "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
        "[\"\\u0000\"]",
        "[\"\\uFFFF\"]",
        "[\"\u{10ffff}\"]",
        "[\"\u{2028}\"]",
        "[\"\u{7f}\"]",
        "{\"\":0}",
        "{\"a\\u0000b\":1}",
        "{\"a\":{\"b\":[]}}",
        "[null,1,\"1\",{}]",
        "[[]   ]",
        "{\n\"a\": \"b\"\n}",
        "[-0.000000000000000000000000000000000001]",
        "[18446744073709551615]",
        "[-9223372036854775808]",
        "{\"a\":1,\"b\":{\"a\":1}}",
        "\t\r\n 1 \t",
    ];
    let refused: &[&[u8]] = &[
        b"",
        b" ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"[1",
        b"[1 true]",
        b"[1:2]",
        b"[1,,2]",
        b"[,1]",
        b"[1,]",
        b"[-]",
        b"[- 1]",
        b"[+1]",
        b"[.5]",
        b"[1.]",
        b"[1.e1]",
        b"[1e]",
        b"[1eE2]",
        b"[0x1]",
        b"[01]",
        b"[-01]",
        b"[1_000]",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b"[nan]",
        b"[1a]",
        b"{\"a\"}",
        b"{\"a\":}",
        b"{:1}",
        b"{1:1}",
        b"{a:1}",
        b"{'a':1}",
        b"{\"a\":1,}",
        b"{\"a\":1,,\"b\":2}",
        b"{\"a\" 1}",
        b"{\"a\"::1}",
        b"{\"a\":1}#",
        b"{\"a\":1}/**/",
        b"{\"a\":1}//",
        b"[\"a",
        b"\"",
        b"['a']",
        b"[\"\\a\"]",
        b"[\"\\u00A\"]",
        b"[\"\\U0041\"]",
        b"[\"\\uD800\"]",
        b"[\"\\uD800\\u\"]",
        b"[\"\\uDc00\"]",
        b"[\"\\uD800\\uD800\"]",
        b"[\"\\\t\"]",
        b"[\"a\x00a\"]",
        b"[\"\x1f\"]",
        b"[\"new\nline\"]",
        b"[tru]",
        b"[True]",
        b"[nul]",
        b"1 2",
        b"[]]",
        b"{}}",
        b"[1]x",
        b"\xef\xbb\xbf[]",
        b"\xef\xbb\xbf",
        b"\xfe\xff\x00[",
        b"[\x00\"\x00",
        b"[\"\xff\"]",
        b"[\"\xc0\xaf\"]",
        b"[\"\xed\xa0\x80\"]",
        b"[\"\xf4\x90\x80\x80\"]",
        b"[\xe9]",
        b"[\x0c]",
        b"[\x0b]",
        b"[\xe2\x81\xa0]",
        b"\xc3\xa9",
        b"*",
        b"<null>",
        b"{\"a\":1,\"a\":1}",
        b"{\"a\":1,\"a\":2}",
        b"{\"a\":1,\"\\u0061\":2}",
        b"{\"a\":1,\"A\":2}",
        b"[{\"x\":{\"y\":1,\"Y\":1}}]",
        b"[18446744073709551616]",
        b"[-9223372036854775809]",
        b"[1e309]",
        b"[-1e309]",
        b"[123123e100000]",
    ];
    for text in accepted {
        assert!(accepts(text.as_bytes()), "{text:?} bare");
        assert!(accepts_inside_a_call(text.as_bytes()), "{text:?} inside a call");
    }
    for text in refused {
        let shown = String::from_utf8_lossy(text);
        assert!(!accepts(text), "{shown:?} bare");
        assert!(!accepts_inside_a_call(text), "{shown:?} inside a call");
    }
    assert!(!accepts(&b"[".repeat(100_000)));
    assert!(!accepts(&b"{\"a\":".repeat(50_000)));
}

/// Whether both readers understood the same.
fn equal(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(one), serde_json::Value::Bool(other)) => one == other,
        (Value::String(one), serde_json::Value::String(other)) => one == other,
        (Value::Number(one), serde_json::Value::Number(other)) => {
            let integers = one.as_i64() == other.as_i64() && one.as_u64() == other.as_u64();
            // serde_json's default reading of a double is allowed to be off by one in the last place.
            let near = other.as_f64().is_some_and(|other| (one.as_f64() - other).abs() <= other.abs() * 1e-15);
            near && (integers || one.as_str() == "-0" || !one.is_integer())
        }
        (Value::Array(one), serde_json::Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), serde_json::Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| equal(value, other)))
        }
        _ => false,
    }
}

fn check(text: &[u8]) -> Result<(), TestCaseError> {
    let ours = parse(text, &Limits::default());
    let theirs = serde_json::from_slice::<serde_json::Value>(text);
    if let Ok(ours) = ours {
        let Ok(theirs) = theirs else {
            return Err(TestCaseError::fail(format!("accepted here only: {:?}", String::from_utf8_lossy(text))));
        };
        prop_assert!(equal(&ours, &theirs), "{:?}: {:?} {:?}", String::from_utf8_lossy(text), ours, theirs);
        let mut written = Vec::new();
        ours.write(&mut written);
        prop_assert_eq!(parse(&written, &Limits::default()), Ok(ours));
    }
    Ok(())
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        prop::num::f64::NORMAL.prop_map(Into::into),
        any::<String>().prop_map(Into::into),
        "[ -~\\n\"\\\\\u{80}-\u{2030}]{0,20}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::btree_map("[a-f]{1,3}", inner, 0..20)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn reads_what_serde_json_wrote(value in any_json()) {
        for text in [serde_json::to_vec(&value).unwrap(), serde_json::to_vec_pretty(&value).unwrap()] {
            let ours = parse(&text, &Limits::default());
            prop_assert!(ours.is_ok(), "{:?}", ours);
            check(&text)?;
        }
    }

    #[test]
    fn accepts_nothing_that_serde_json_refuses_or_reads_otherwise(text in r#"[\[\]{}:,"\\0-9aAeEnulltrfs.+\- u\n]{0,24}"#) {
        check(text.as_bytes())?;
    }

    #[test]
    fn survives_every_damage(value in any_json(), place in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let place = place.index(text.len());
        if cut {
            text.truncate(place);
        } else {
            text[place] = byte;
        }
        check(&text)?;
    }

    #[test]
    fn survives_any_bytes(text in prop::collection::vec(any::<u8>(), 0..64)) {
        check(&text)?;
    }
}
