//! The request side: what is asked, what is let through, what is answered.

use keyward_contract::check::{
    CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse,
    QueryParameter, SCRUB_HEADER, Status, extension,
};
use prost::Message;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use super::standin::{Bench, PROXY, TOOL_CALL, checks, header, last_token, read, set_headers};

const CONFIGURATION: &str = r#"{"cluster":"keyward","server":"demo"}"#;

pub(super) fn set(name: &str, value: &str, raw: &[u8]) -> HeaderValueOption {
    let header = HeaderValue { key: name.into(), value: value.into(), raw_value: raw.into() };
    HeaderValueOption { header: Some(header), append_action: 2 }
}

pub(super) fn allowed(ok: OkHttpResponse) -> Vec<u8> {
    let response = CheckResponse { status: Some(Status { code: 0 }), http_response: Some(HttpResponse::Ok(ok)) };
    response.encode_to_vec()
}

fn asked() -> Bench {
    let mut bench = Bench::new(CONFIGURATION);
    assert_eq!(bench.headers(&[], false), Action::Pause);
    assert_eq!(bench.body(TOOL_CALL), Action::Pause);
    bench
}

fn error() -> (u32, serde_json::Value) {
    read(|proxy| {
        assert_eq!((proxy.answers.len(), proxy.resumed), (1, 0), "one answer, and nothing goes on");
        (proxy.answers[0].status, serde_json::from_str(&proxy.answers[0].body).unwrap())
    })
}

#[test]
fn the_metadata_of_a_resource_is_asked_for_without_mcp() {
    for (path, is_asked) in [
        ("/.well-known/oauth-protected-resource", true),
        ("/.well-known/oauth-protected-resource/mcp?x=1", true),
        ("/.well-known/oauth-protected-resources", false),
        ("/mcp/.well-known/oauth-protected-resource", false),
    ] {
        let mut bench = Bench::new(CONFIGURATION);
        let headers = [(":method", "GET"), (":path", path), ("mcp-protocol-version", "2026-07-28")];
        assert_eq!(bench.headers(&headers, true), Action::Pause);
        assert_eq!(checks().len(), usize::from(is_asked), "{path}");
    }
}

#[test]
fn asks_once_with_the_whole_request() {
    let mut bench = Bench::new(CONFIGURATION);
    PROXY.with_borrow_mut(|proxy| {
        proxy.properties.insert("xds\0cluster_name".into(), b"demo_upstream".to_vec());
        proxy.properties.insert("source\0address".into(), b"[::1]:5000".to_vec());
    });
    bench.headers(&[("x-twice", "a"), ("x-twice", "b")], false);
    assert!(checks().is_empty(), "nothing is asked before the body is there");
    bench.body(TOOL_CALL);
    let [check] = checks().try_into().unwrap();
    let attributes = check.attributes.unwrap();
    let source = attributes.source.unwrap().address.unwrap().socket_address.unwrap();
    assert_eq!((source.address.as_str(), source.port_value), ("::1", 5000));
    let http = attributes.request.unwrap().http.unwrap();
    assert_eq!((http.method.as_str(), http.path.as_str(), http.host.as_str()), ("POST", "/mcp", "mcp.example"));
    assert_eq!(http.raw_body, TOOL_CALL.as_bytes());
    assert_eq!(http.headers["authorization"], "Bearer token");
    assert_eq!(http.headers["x-twice"], "a,b");
    let extensions = attributes.context_extensions;
    assert_eq!(extensions[extension::CONTRACT], "1");
    assert_eq!(extensions[extension::SERVER], "demo");
    assert_eq!(extensions[extension::CLUSTER], "demo_upstream");
    assert_eq!(extensions[extension::DECISION_ID].len(), 32);
}

#[test]
fn asks_at_the_trailers_when_the_body_does_not_end_the_stream() {
    let mut bench = Bench::new(CONFIGURATION);
    bench.headers(&[], false);
    PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(BufferType::HttpRequestBody as u32, TOOL_CALL.into()));
    assert_eq!(bench.exchange.on_http_request_body(TOOL_CALL.len(), false), Action::Pause);
    set_headers(MapType::HttpRequestTrailers, &[("x-api-key", "mine"), ("authorization", "mine")]);
    assert_eq!(bench.exchange.on_http_request_trailers(1), Action::Pause);
    assert!(header(MapType::HttpRequestTrailers, "x-api-key").is_empty());
    assert!(header(MapType::HttpRequestTrailers, "authorization").is_empty());
    assert_eq!(checks().len(), 1);
    assert_eq!(read(|proxy| proxy.resumed), 0);
}

#[test]
fn applies_an_allowing_decision() {
    let mut bench = Bench::new(CONFIGURATION);
    let spoofed = [("x-keyward-scrub", "x"), ("x-api-key", "spoofed"), ("cookie", "c"), ("range", "bytes=0-1")];
    bench.headers(&[&spoofed[..], &[(":path", "/mcp?apiKey=spoofed")]].concat(), false);
    bench.body(TOOL_CALL);
    bench.decide(&allowed(OkHttpResponse {
        headers: vec![
            set("x-api-key", "the-secret-key", b""),
            set(":authority", "up.internal", b""),
            set(SCRUB_HEADER, "", b"the-secret-key"),
        ],
        headers_to_remove: vec!["accept".into()],
        query_parameters_to_set: vec![QueryParameter { key: "apiKey".into(), value: "the secret".into() }],
        query_parameters_to_remove: vec![],
    }));
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len())), (1, 0));
    let now = |name| header(MapType::HttpRequestHeaders, name);
    assert_eq!(now("x-api-key"), ["the-secret-key"]);
    assert_eq!(now(":authority"), ["up.internal"]);
    assert_eq!(now("accept-encoding"), ["identity"]);
    assert_eq!(now(":path"), ["/mcp?apiKey=the%20secret"]);
    for gone in ["authorization", "cookie", "accept", "range", "x-keyward-scrub"] {
        assert!(now(gone).is_empty(), "{gone}");
    }
}

#[test]
fn passes_on_the_servers_denial() {
    let mut bench = asked();
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![set("www-authenticate", "Bearer", b"")],
        body: "{}".into(),
    };
    let response =
        CheckResponse { status: Some(Status { code: 16 }), http_response: Some(HttpResponse::Denied(denied)) };
    bench.decide(&response.encode_to_vec());
    assert_eq!(error().0, 401);
}

#[test]
fn denies_on_every_answer_outside_the_contract() {
    let ok = || Some(HttpResponse::Ok(OkHttpResponse::default()));
    let denied = || Some(HttpResponse::Denied(DeniedHttpResponse::default()));
    let answers: [(&str, Vec<u8>); 6] = [
        ("not protobuf", b"\xff\xff\xff".to_vec()),
        ("empty", Vec::new()),
        ("no status", CheckResponse { status: None, http_response: ok() }.encode_to_vec()),
        ("no response", CheckResponse { status: Some(Status { code: 0 }), http_response: None }.encode_to_vec()),
        ("denied with instructions", {
            CheckResponse { status: Some(Status { code: 7 }), http_response: ok() }.encode_to_vec()
        }),
        ("allowed with a denial", {
            CheckResponse { status: Some(Status { code: 0 }), http_response: denied() }.encode_to_vec()
        }),
    ];
    for (what, answer) in answers {
        let mut bench = asked();
        bench.decide(&answer);
        let (status, body) = error();
        assert_eq!((status, body["id"].as_u64()), (200, Some(7)), "{what}");
        assert_eq!(body["error"]["data"]["reason"], "decision_unavailable", "{what}");
        assert_eq!(body["error"]["data"]["decision_id"].as_str().map(str::len), Some(32), "{what}");
    }
}

#[test]
fn denies_when_the_call_fails_or_cannot_be_made() {
    let mut bench = asked();
    bench.exchange.on_grpc_call_response(last_token(), 14, 0);
    assert_eq!(error().1["error"]["data"]["reason"], "decision_unavailable");

    let mut bench = Bench::new(CONFIGURATION);
    PROXY.with_borrow_mut(|proxy| proxy.cluster_missing = true);
    bench.headers(&[], false);
    bench.body(TOOL_CALL);
    assert_eq!(error().1["error"]["data"]["reason"], "decision_unavailable");
}

#[test]
fn an_answer_that_comes_after_a_denial_changes_nothing() {
    let mut bench = asked();
    bench.exchange.on_grpc_call_response(last_token(), 4, 0);
    bench.decide(&allowed(OkHttpResponse::default()));
    error();
}

#[test]
fn answers_malformed_requests_without_asking() {
    for (body, status) in [("{", 400), (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, 400), ("", 400)] {
        let mut bench = Bench::new(CONFIGURATION);
        bench.headers(&[], false);
        bench.body(body);
        assert!(checks().is_empty(), "{body}");
        assert_eq!(error().0, status, "{body}");
    }
}

#[test]
fn refuses_a_body_over_the_limit_as_soon_as_it_is() {
    let mut bench = Bench::new(r#"{"cluster":"keyward","max_body_bytes":10}"#);
    bench.headers(&[], false);
    bench.exchange.on_http_request_body(11, false);
    assert_eq!(error().0, 413);
    bench.exchange.on_http_request_trailers(1);
    assert!(checks().is_empty());
}

#[test]
fn refuses_tunnels() {
    for extra in [("upgrade", "websocket"), (":method", "CONNECT")] {
        let mut bench = Bench::new(CONFIGURATION);
        assert_eq!(bench.headers(&[extra], true), Action::Pause);
        assert_eq!(error().0, 405);
    }
}

#[test]
fn an_answer_for_a_client_that_went_away_changes_nothing() {
    let mut bench = asked();
    bench.exchange.on_done();
    bench.decide(&allowed(OkHttpResponse::default()));
    assert_eq!(read(|proxy| (proxy.resumed, proxy.answers.len())), (0, 0));
}

#[test]
fn ends_a_request_that_waits_too_long() {
    let mut bench = Bench::new(CONFIGURATION);
    bench.headers(&[], false);
    bench.exchange.on_http_request_body(1, false);
    for _ in 0..100 {
        assert!(bench.shared.watch.tick().is_empty());
    }
    let overdue = bench.shared.watch.tick();
    overdue[0].overdue(&bench.shared);
    assert_eq!(error().0, 408);
}

#[test]
fn notices_that_envoy_does_not_show_it_the_body() {
    let mut bench = Bench::new(CONFIGURATION);
    bench.headers(&[], false);
    let overdue = std::iter::from_fn(|| Some(bench.shared.watch.tick())).find(|overdue| !overdue.is_empty());
    overdue.unwrap()[0].overdue(&bench.shared);
    assert_eq!(error().1["error"]["data"]["reason"], "filter_misconfigured");
}

#[test]
fn plain_http_requests_are_not_parsed_and_get_plain_errors() {
    let mut bench = Bench::new(r#"{"cluster":"keyward","mode":"http"}"#);
    bench.headers(&[], false);
    bench.body("not json");
    assert_eq!(checks().len(), 1);
    bench.exchange.on_grpc_call_response(last_token(), 14, 0);
    let (status, body) = error();
    assert_eq!((status, body["error"]["reason"].as_str()), (503, Some("decision_unavailable")));
}
