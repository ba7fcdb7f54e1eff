//! The response side: headers, body and trailers are scrubbed, or nothing gets out.

use keyward_contract::check::{OkHttpResponse, SCRUB_HEADER};
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::requests::{allowed, set};
use super::standin::{Bench, PROXY, TOOL_CALL, header, read, set_headers};

const SECRET: &str = "sk-demo-0123456789abcdef";

/// A request that was allowed with a secret to scrub.
fn forwarded() -> Bench {
    let mut bench = Bench::new(r#"{"cluster":"keyward","server":"demo"}"#);
    bench.headers(&[], false);
    bench.body(TOOL_CALL);
    let headers = vec![set("x-api-key", SECRET, b""), set(SCRUB_HEADER, "", SECRET.as_bytes())];
    bench.decide(&allowed(OkHttpResponse { headers, ..OkHttpResponse::default() }));
    bench
}

fn respond(bench: &mut Bench, headers: &[(&str, &str)]) -> Action {
    set_headers(MapType::HttpResponseHeaders, headers);
    bench.exchange.on_http_response_headers(0, false)
}

fn push(bench: &mut Bench, chunk: &str, end: bool) -> (Action, String) {
    PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(BufferType::HttpResponseBody as u32, chunk.into()));
    let action = bench.exchange.on_http_response_body(chunk.len(), end);
    let body = read(|proxy| proxy.buffers[&(BufferType::HttpResponseBody as u32)].clone());
    (action, String::from_utf8(body).unwrap())
}

fn reports() -> usize {
    read(|proxy| proxy.calls.iter().filter(|(method, _)| method == "Report").count())
}

#[test]
fn scrubs_headers_body_and_trailers_and_reports_it_once() {
    let mut bench = forwarded();
    let cookie = format!("a={SECRET}");
    let headers = [
        (":status", "200"),
        ("content-length", "100"),
        ("etag", "\"v1\""),
        ("digest", "sha-256=x"),
        ("set-cookie", "b=1"),
        ("set-cookie", &cookie),
    ];
    assert_eq!(respond(&mut bench, &headers), Action::Continue);
    let now = |name| header(MapType::HttpResponseHeaders, name);
    assert_eq!(now("set-cookie"), ["b=1", "a=REDACTEDREDACTEDREDACTED"]);
    assert_eq!((now("etag"), now("digest").len()), (vec!["W/\"v1\"".to_owned()], 0));
    assert_eq!(now("content-length"), ["100"]);

    let (action, body) = push(&mut bench, &format!("{{\"key\":\"{SECRET}\"}}"), true);
    assert_eq!((action, body.as_str()), (Action::Continue, "{\"key\":\"REDACTEDREDACTEDREDACTED\"}"));

    set_headers(MapType::HttpResponseTrailers, &[("x-trailer", SECRET)]);
    assert_eq!(bench.exchange.on_http_response_trailers(1), Action::Continue);
    assert_eq!(header(MapType::HttpResponseTrailers, "x-trailer"), ["REDACTEDREDACTEDREDACTED"]);
    bench.exchange.on_done();
    bench.exchange.on_done();
    assert_eq!(reports(), 1);
}

#[test]
fn a_secret_split_between_two_chunks_of_an_event_stream_never_shows() {
    for at in 1..SECRET.len() {
        let mut bench = forwarded();
        respond(&mut bench, &[(":status", "200"), ("content-type", "text/event-stream")]);
        let (left, right) = SECRET.split_at(at);
        let (first, mut sent) = push(&mut bench, &format!("data: {left}"), false);
        let (second, rest) = push(&mut bench, &format!("{right}\n\n"), false);
        sent.push_str(&rest);
        assert_eq!((first, second), (Action::Continue, Action::Continue));
        assert_eq!(sent, "data: REDACTEDREDACTEDREDACTED\n\n", "split at {at}");
    }
}

#[test]
fn a_short_body_of_unknown_length_waits_in_the_proxy_whatever_it_ends_in() {
    for text in ["ends in sk-demo-0", "ends in something else"] {
        let mut bench = forwarded();
        respond(&mut bench, &[(":status", "200"), ("content-type", "text/plain")]);
        assert_eq!(push(&mut bench, text, false), (Action::Pause, text.to_owned()));
        set_headers(MapType::HttpResponseTrailers, &[]);
        assert_eq!(bench.exchange.on_http_response_trailers(0), Action::Continue);
        assert_eq!(read(|proxy| proxy.reset), 0);
    }
}

#[test]
fn what_waits_in_the_proxy_is_scrubbed_when_trailers_end_it() {
    let mut bench = forwarded();
    respond(&mut bench, &[(":status", "200"), ("content-type", "text/plain")]);
    assert_eq!(push(&mut bench, &format!("key {SECRET}"), false).0, Action::Pause);
    set_headers(MapType::HttpResponseTrailers, &[]);
    assert_eq!(bench.exchange.on_http_response_trailers(0), Action::Continue);
    let body = read(|proxy| proxy.buffers[&(BufferType::HttpResponseBody as u32)].clone());
    assert_eq!(body, b"key REDACTEDREDACTEDREDACTED");
}

#[test]
fn a_long_body_that_trailers_end_is_reset_whatever_it_ends_in() {
    for end in ["sk-demo-0", "something"] {
        let mut bench = forwarded();
        respond(&mut bench, &[(":status", "200"), ("content-type", "text/plain")]);
        assert_eq!(push(&mut bench, &format!("{}{end}", "a ".repeat(40_000)), false).0, Action::Continue);
        set_headers(MapType::HttpResponseTrailers, &[]);
        assert_eq!(bench.exchange.on_http_response_trailers(0), Action::Pause);
        assert_eq!(read(|proxy| proxy.reset), 1);
    }
}

#[test]
fn the_announced_length_is_the_end() {
    let mut bench = forwarded();
    respond(&mut bench, &[(":status", "200"), ("content-length", "10")]);
    assert_eq!(push(&mut bench, "abcde", false), (Action::Pause, "abcde".to_owned()));
    assert_eq!(push(&mut bench, "abcdefghij", false), (Action::Continue, "abcdefghij".to_owned()));
    set_headers(MapType::HttpResponseTrailers, &[]);
    assert_eq!(bench.exchange.on_http_response_trailers(0), Action::Continue);
    // More than announced could be the other half of a secret.
    assert_eq!(push(&mut bench, "more", false).0, Action::Pause);
    assert_eq!(read(|proxy| proxy.reset), 1);
}

#[test]
fn a_long_body_of_known_length_goes_on_as_it_comes() {
    let mut bench = forwarded();
    respond(&mut bench, &[(":status", "200"), ("content-length", "60000")]);
    let (action, first) = push(&mut bench, &"ab".repeat(20_000), false);
    assert!(action == Action::Continue && first.len() > 30_000 && first.len() < 40_000, "{}", first.len());
    let (action, rest) = push(&mut bench, &"cd".repeat(10_000), false);
    assert_eq!((action, first.len() + rest.len()), (Action::Continue, 60_000));
}

#[test]
fn withholds_what_it_cannot_scrub() {
    for extra in [
        ("content-encoding", "gzip"),
        ("content-encoding", "identity, br"),
        (":status", "206"),
        (":status", "101"),
        (":status", "226"),
        ("content-type", "text/plain; charset=utf-16le"),
        ("content-type", "application/json;charset = \"UTF-32\""),
        ("content-type", "text/html; charset=ibm037"),
        ("content-type", "multipart/byteranges; boundary=x"),
        ("content-range", "bytes 0-1/2"),
    ] {
        let mut bench = forwarded();
        let headers = if extra.0 == ":status" { vec![extra] } else { vec![(":status", "200"), extra] };
        assert_eq!(respond(&mut bench, &headers), Action::Pause, "{extra:?}");
        let (status, body) = read(|proxy| (proxy.answers[0].status, proxy.answers[0].body.clone()));
        assert_eq!(status, 502);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((body["id"].as_u64(), body["error"]["code"].as_i64()), (Some(7), Some(-32010)));
        assert_eq!(reports(), 1);
    }
}

#[test]
fn text_that_contains_ascii_is_scrubbed_in_any_charset() {
    for charset in ["utf-8", "\"UTF-8\"", "iso-8859-15", "windows-1252", "GB18030", "shift_jis"] {
        let mut bench = forwarded();
        let content_type = format!("text/plain; charset={charset}");
        assert_eq!(respond(&mut bench, &[(":status", "200"), ("content-type", &content_type)]), Action::Continue);
        assert_eq!(push(&mut bench, SECRET, true).1, "REDACTEDREDACTEDREDACTED");
    }
}

#[test]
fn leaves_the_proxys_own_answer_before_a_decision_alone() {
    let mut bench = Bench::new(r#"{"cluster":"keyward"}"#);
    bench.headers(&[], false);
    assert_eq!(respond(&mut bench, &[(":status", "408"), ("content-encoding", "gzip")]), Action::Continue);
}

#[test]
fn without_a_secret_the_response_passes_as_it_is() {
    let mut bench = Bench::new(r#"{"cluster":"keyward"}"#);
    bench.headers(&[], false);
    bench.body(TOOL_CALL);
    bench.decide(&allowed(OkHttpResponse::default()));
    let headers = [(":status", "200"), ("content-encoding", "gzip"), ("etag", "\"v1\"")];
    assert_eq!(respond(&mut bench, &headers), Action::Continue);
    assert_eq!(header(MapType::HttpResponseHeaders, "etag"), ["\"v1\""]);
    assert_eq!(push(&mut bench, SECRET, true), (Action::Continue, SECRET.to_owned()));
}
