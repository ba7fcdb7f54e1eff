//! What the strict reader accepts and refuses, and what its values give back.

use super::*;

fn read(text: &str) -> Result<Value<'_>, JsonError> {
    parse(text.as_bytes(), &Limits::default())
}

fn compact(text: &str) -> String {
    let mut out = Vec::new();
    read(text).unwrap().write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn refuses_each_fault_by_its_name_and_place() {
    use JsonError::*;
    let cases: &[(&str, JsonError)] = &[
        ("", Syntax { offset: 0 }),
        ("  ", Syntax { offset: 2 }),
        ("[1,]", Syntax { offset: 3 }),
        ("{\"a\":1,}", Syntax { offset: 7 }),
        ("{a:1}", Syntax { offset: 1 }),
        ("nul", Syntax { offset: 3 }),
        ("01", TrailingData { offset: 1 }),
        ("NaN", Syntax { offset: 0 }),
        ("Infinity", Syntax { offset: 0 }),
        ("-", Syntax { offset: 1 }),
        ("1.", Syntax { offset: 2 }),
        ("1e+", Syntax { offset: 3 }),
        ("\"a\nb\"", Syntax { offset: 2 }),
        ("\"abcdefgh\u{1}\"", Syntax { offset: 9 }),
        ("\"\\x\"", Syntax { offset: 2 }),
        ("\"\\u12g4\"", Syntax { offset: 5 }),
        ("\"\\ud800\"", Syntax { offset: 2 }),
        ("\"\\udc00\"", Syntax { offset: 2 }),
        ("\"\\ud800\\u0041\"", Syntax { offset: 2 }),
        ("\"open", Syntax { offset: 5 }),
        ("\u{feff}{}", Syntax { offset: 0 }),
        ("{} {}", TrailingData { offset: 3 }),
        ("{}\0", TrailingData { offset: 2 }),
        ("18446744073709551616", NumberOutOfRange { offset: 0 }),
        ("[-9223372036854775809]", NumberOutOfRange { offset: 1 }),
        ("1e400", NumberOutOfRange { offset: 0 }),
        ("{\"a\":1,\"a\":1}", DuplicateKey { offset: 7 }),
        ("{\"a\":1,\"\\u0061\":1}", DuplicateKey { offset: 7 }),
        ("{\"name\":1,\"Name\":1}", DuplicateKey { offset: 10 }),
        ("{\"params\":1,\"param\u{17f}\":1}", DuplicateKey { offset: 12 }),
        ("[{\"k\":1,\"\u{212a}\":1}]", DuplicateKey { offset: 8 }),
    ];
    for (text, error) in cases {
        assert_eq!(read(text), Err(*error), "{text:?}");
    }
    assert_eq!(parse(b"\"\xff\"", &Limits::default()), Err(InvalidUtf8 { offset: 1 }));
    assert_eq!(parse(b"\"\xed\xa0\x80\"", &Limits::default()), Err(InvalidUtf8 { offset: 1 }));
}

#[test]
fn keeps_numbers_as_written() {
    for number in ["0", "-0", "18446744073709551615", "-9223372036854775808", "1.50", "1E+2", "1e-400", "0.1e1"] {
        assert_eq!(compact(number), number);
        assert!(read(number).unwrap().as_number().unwrap().as_f64().is_finite());
    }
    let long = format!("{}.5", "1".repeat(308));
    assert!(read(&long).is_ok());
    assert!(matches!(read(&"1".repeat(308)), Err(JsonError::NumberOutOfRange { .. })));
    assert!(matches!(read(&format!("{}.5", "1".repeat(310))), Err(JsonError::NumberOutOfRange { .. })));
}

#[test]
fn resolves_every_escape_and_borrows_where_there_is_none() {
    let text = r#""\"\\\/\b\f\n\r\té\ud834\udd1e and plain text é""#;
    assert_eq!(read(text).unwrap().as_str(), Some("\"\\/\u{8}\u{c}\n\r\té\u{1d11e} and plain text é"));
    assert!(matches!(read("\"plain text, longer than eight\""), Ok(Value::String(Cow::Borrowed(_)))));
    assert_eq!(compact(r#""\u0000\u001f\/\n\"é""#), "\"\\u0000\\u001f/\\n\\\"é\"");
}

#[test]
fn writes_compactly_what_it_read() {
    let text = " { \"a\" : [ 1 , true , null , \"x\" , { } , [ ] ] , \"b\" : { \"c\" : false } } ";
    assert_eq!(compact(text), r#"{"a":[1,true,null,"x",{},[]],"b":{"c":false}}"#);
}

#[test]
fn finds_values_by_pointer() {
    let value = read(r#"{"a":[10,{"b/c":{"d~e":20}}],"":30}"#).unwrap();
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_number).and_then(Number::as_i64);
    assert_eq!(number("/a/0"), Some(10));
    assert_eq!(number("/a/1/b~1c/d~0e"), Some(20));
    assert_eq!(number("/"), Some(30));
    assert_eq!(value.pointer(""), Some(&value));
    for missing in ["a", "/a/2", "/a/00", "/a/+0", "/a/-", "/a/0/x", "/b"] {
        assert_eq!(value.pointer(missing), None, "{missing}");
    }
}

#[test]
fn bounds_size_and_depth() {
    let limits = Limits { max_bytes: 8, max_depth: 2 };
    assert!(parse(b"[[1,2,3]", &limits).is_err_and(|error| error == JsonError::Syntax { offset: 8 }));
    assert_eq!(parse(b"[[1,2,3]]", &limits), Err(JsonError::TooLarge { max_bytes: 8 }));
    assert!(parse(b"[{}]", &limits).is_ok());
    assert_eq!(parse(b"[[[]]]", &limits), Err(JsonError::TooDeep { offset: 2 }));
    let unbounded = Limits { max_bytes: usize::MAX, max_depth: usize::MAX };
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(nested(DEPTH_CEILING).as_bytes(), &unbounded).is_ok());
    assert_eq!(parse(nested(100_000).as_bytes(), &unbounded), Err(JsonError::TooDeep { offset: DEPTH_CEILING }));
}

#[test]
fn finds_duplicates_in_objects_of_every_size() {
    for count in [1, 2, 15, 16, 17, 18, 40, 1000] {
        let members: Vec<String> = (0..count).map(|number| format!("\"key{number}\":0")).collect();
        let unique = members.join(",");
        assert!(read(&format!("{{{unique}}}")).is_ok(), "{count}");
        for repeated in [0, count / 2, count - 1] {
            for name in [
                format!("key{repeated}"),
                format!("KEY{repeated}"),
                format!("\\u006bey{repeated}"),
                format!("\u{212a}ey{repeated}"),
            ] {
                let twice = format!("{{{unique},\"{name}\":0}}");
                assert!(matches!(read(&twice), Err(JsonError::DuplicateKey { .. })), "{count} {name}");
            }
        }
    }
}

#[test]
fn a_hundred_thousand_keys_take_no_quadratic_time() {
    let members: Vec<String> = (0..100_000).map(|number| format!("\"prefix{number}\":0")).collect();
    let limits = Limits { max_bytes: usize::MAX, max_depth: 64 };
    let text = format!("{{{}}}", members.join(","));
    let started = std::time::Instant::now();
    assert_eq!(parse(text.as_bytes(), &limits).unwrap().as_object().map(Object::len), Some(100_000));
    // Comparing every pair would take five thousand million comparisons.
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
}
