//! What the scrubber does with single values and with text that never ends.

use super::*;

const KEY: &str = "sk-Live+9fQ/2xZ=~kd81LmV";

fn whole(secret: &str, text: &str) -> Option<(String, u64)> {
    let (out, count) = Scrubber::new(&[secret]).scrub_value(text.as_bytes())?;
    Some((String::from_utf8(out).unwrap(), count))
}

fn scrubbed(secret: &str, text: &str) -> String {
    whole(secret, text).expect("a secret").0
}

/// Pushes the text in pieces of this size: the output, the most held, and the steps for each byte.
fn pieces(scrubber: &Scrubber, text: &[u8], size: usize) -> (Vec<u8>, usize, u64) {
    let before = scrubber.steps();
    let (mut stream, mut all, mut held) = (scrubber.stream(false), Vec::new(), 0);
    for chunk in text.chunks(size) {
        let mut out = Vec::new();
        let push = stream.push(scrubber, chunk, false, &mut out);
        all.extend_from_slice(push.verbatim.map_or(out.as_slice(), |length| &chunk[..length]));
        held = held.max(push.held);
    }
    stream.push(scrubber, b"", true, &mut all);
    (all, held, (scrubber.steps() - before) / text.len().max(1) as u64)
}

#[test]
fn plain_secrets_are_overwritten_in_place() {
    let found = whole(KEY, "token=sk-Live+9fQ/2xZ=~kd81LmV; path=/");
    assert_eq!(found, Some(("token=REDACTEDREDACTEDREDACTED; path=/".to_owned(), 1)));
}

#[test]
fn clean_values_are_left_alone() {
    assert_eq!(whole(KEY, "application/json; charset=utf-8"), None);
    assert_eq!(whole(KEY, ""), None);
    let none: [&[u8]; 0] = [];
    assert!(Scrubber::new(&none).is_empty());
    assert_eq!(Scrubber::new(&none).scrub_value(b"anything"), None);
}

#[test]
fn numbers_stay_numbers() {
    assert_eq!(scrubbed("4929123456", r#"{"id":4929123456}"#), r#"{"id":1111111111}"#);
    assert_eq!(scrubbed("-12.5e+307", r#"[-12.5e+307]"#), r#"[-11.1e+000]"#);
    assert_eq!(scrubbed("11111111", "11111111"), "22222222");
}

#[test]
fn an_array_of_bytes_stays_one() {
    let found = scrubbed("abcdefgh", r#"{"type":"Buffer","data":[97,98,99,100,101,102,103,104]}"#);
    assert_eq!(found, r#"{"type":"Buffer","data":[10,0,0,0,0,0,0,0,0,0,0,0,0,0]}"#);
}

#[test]
fn a_secret_that_the_replacement_would_spell_is_replaced_by_something_else() {
    assert_eq!(scrubbed("redacted", "my redacted text"), "my XXXXXXXX text");
}

#[test]
fn an_escape_is_never_cut() {
    // A high surrogate goes with its low one, a backslash with the quote that it escapes.
    assert_eq!(scrubbed("de0041bcdefg", r#""\u00de0041bcdefg""#), r#""REDACTEDREDACTED""#);
    assert_eq!(scrubbed("de00abcdefgh", r#""\ud83d\ude00abcdefgh""#), r#""REDACTEDREDACTEDREDA""#);
    assert_eq!(scrubbed("abcdefgh\\", r#""abcdefgh\"" "#), r#""REDACTEDRE" "#);
    assert_eq!(scrubbed("abcdefgh\\", r#""abcdefgh\\""#), r#""REDACTEDRE""#);
    assert_eq!(scrubbed("nbcdefgh", r#""\nbcdefgh""#), r#""REDACTEDR""#);
}

#[test]
fn base64_keeps_its_length_and_padding() {
    assert_eq!(scrubbed("abcdefgh", "YWJjZGVmZ2g="), "REDACTEDREA=");
    assert_eq!(scrubbed("abc?defgh", r"YWJjP2\u0052lZmdo"), r"REDACT\u0041EDRED");
    assert_eq!(scrubbed("?????????", r"Pz8\/Pz8%2FPz8/"), r"RED\/ACT%41EDRE");
}

#[test]
fn the_rest_of_a_blob_stays_as_it_is() {
    // {"key":"k-0123456789abcdef","n":1}
    let (before, after) =
        ("eyJrZXkiOiJrLTAxMjM0NTY3ODlhYmNkZWYiLCJuIjoxfQ==", "eyJrZXkiOiJSRURBQ1RFRFJFREFDVEVEUkUiLCJuIjoxfQ==");
    assert_eq!(scrubbed("k-0123456789abcdef", before), after);
    // Of {"pod":"???","key":"fedcba9876543210-k"}, which is the secret back to front, with each slash escaped.
    let reversed = r"eyJwb2QiOiI\/Pz8iLCJrZXkiOiJmZWRjYmE5ODc2NTQzMjEwLWsifQ==";
    let clean = r"eyJwb2QiOiI\/Pz8iLCJrZXkiOiJSRURBQ1RFRFJFREFDVEVEUkUifQ==";
    assert_eq!(scrubbed("k-0123456789abcdef", reversed), clean);
}

#[test]
fn folded_lines_of_any_width_are_found() {
    let text = r"Qkh6SYZ\ntek00eV\nNvYjFkb\nGtZMzVZ\na1pTcjF\nOcHRwZW\n9VaDXc+\nUBKZKY";
    for size in 1..text.len() {
        let scrubber = Scrubber::new(&["mzM4ySob1dlkY35YkZSr1NptpeoUh5"]);
        let (out, ..) = pieces(&scrubber, text.as_bytes(), size);
        assert_ne!(out, text.as_bytes(), "by {size}");
    }
}

#[test]
fn folded_lines_stay() {
    assert_eq!(scrubbed("abcdefgh", "YWJj\r\nZGVm\r\nZ2g="), "REDA\r\nCTED\r\nREA=");
    assert_eq!(scrubbed("abcdefgh", "data: abcd\ndata: efgh\n\n"), "data: REDA\ndata: CTED\n\n");
    assert_eq!(scrubbed("abcdefgh", "abcd=\r\nefgh"), "REDA=\r\nCTED");
}

#[test]
fn overlapping_finds_are_one_redaction() {
    let scrubber = Scrubber::new(&["abcdefgh", "efghijkl"]);
    assert_eq!(scrubber.scrub_value(b"<abcdefghijkl>"), Some((b"<REDACTEDREDA>".to_vec(), 1)));
    assert_eq!(scrubber.scrub_value(b"<abcdefgh efghijkl>"), Some((b"<REDACTED REDACTED>".to_vec(), 2)));
}

#[test]
fn events_and_lines_flow_without_delay() {
    let scrubber = Scrubber::new(&[KEY, "Y2xpZW50OnB3K1E4eC96elQxaz09"]);
    for (events, pieces) in [
        (true, ["data: {\"a\":\"b\\n\"}\n\n", "event: message\ndata: {}\r\n\r\n", ": ping\n\n"]),
        (false, ["{\"object\":{\"x\":[1,2]}}\n", "the job has begun\r\n", "[sk-Live] done.\n"]),
    ] {
        let mut stream = scrubber.stream(events);
        for piece in pieces {
            let push = stream.push(&scrubber, piece.as_bytes(), false, &mut Vec::new());
            assert_eq!((push.held, push.verbatim), (0, Some(piece.len())), "{piece:?}");
        }
    }
}

#[test]
fn what_is_held_back_goes_at_the_end() {
    let scrubber = Scrubber::new(&[KEY]);
    let mut stream = scrubber.stream(false);
    let mut out = Vec::new();
    assert!(stream.would_hold(&scrubber, b"key sk-Live+9f"));
    let push = stream.push(&scrubber, b"key sk-Live+9f", false, &mut out);
    assert_eq!((push.verbatim, push.held), (Some(0), 14));
    let push = stream.push(&scrubber, b"Q/2xZ=~kd81LmV!", true, &mut out);
    assert_eq!((out.as_slice(), push.redactions, push.held), (b"key REDACTEDREDACTEDREDACTED!".as_slice(), 1, 0));
}

#[test]
fn endless_text_that_never_decides_costs_a_bounded_amount() {
    // Not a secret that is itself a run of backslashes: see the bounds in the module's documentation.
    let secrets = [KEY, "abababababababab", r"\DOMAIN\user\p4ss", "%25%25%25%25&amp;&amp;", "0000000000000000"];
    let encoded = "c2stTGl2ZSs5ZlEvMnhaPX5rZDgx";
    let pieces_of = [
        "\\".to_owned(),
        "%25".to_owned(),
        "%2525252525".to_owned(),
        "&#000000".to_owned(),
        "&amp;".to_owned(),
        "&#x26;#x26;".to_owned(),
        "=3D".to_owned(),
        "=\r\n".to_owned(),
        "\n".to_owned(),
        "a\n".to_owned(),
        "\\u005c".to_owned(),
        "\\\\u005c\\u0075".to_owned(),
        "\\ud83d".to_owned(),
        "ab".to_owned(),
        "0".to_owned(),
        KEY[..KEY.len() - 1].to_owned(),
        KEY[..9].to_owned(),
        encoded.to_owned(),
        format!("{encoded}\\r\\n"),
        "%73k-Live".to_owned(),
    ];
    for secret in secrets {
        let scrubber = Scrubber::new(&[secret]);
        for piece in &pieces_of {
            let text = piece.repeat(1_500 / piece.len() + 1);
            for size in [1, 7, 4096] {
                let (out, held, steps) = pieces(&scrubber, text.as_bytes(), size);
                let case = format!("{secret:?} in {piece:?} by {size}");
                assert_eq!(out.len(), text.len(), "{case}");
                assert!(held <= scrubber.hold_max_bytes(), "{case} held {held}");
                // One byte at a time, each byte looks again at what is held and at the tail.
                let limit = if size == 1 { 40_000 } else { 8_000 };
                assert!(steps <= limit, "{case}: {steps} steps for each byte");
            }
        }
    }
}
