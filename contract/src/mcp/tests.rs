//! What is accepted and what is refused, case by case.

use super::*;

const OLD: Pairs<'_> = &[("content-type", "application/json"), ("mcp-protocol-version", "2025-11-25")];
const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// Headers by name.
type Pairs<'h> = &'h [(&'h str, &'h str)];

fn read_with<'a>(method: &'a str, headers: &'a Vec<(&'a str, &'a str)>, body: &'a str) -> Result<Call<'a>, Refusal> {
    read(&HttpView { method, headers, body: body.as_bytes() }, &Limits::default())
}

/// JSON, and the version if there is one, and whatever else is given.
fn with<'h>(version: &'h str, more: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
    let mut headers = vec![("content-type", "application/json")];
    if !version.is_empty() {
        headers.push(("mcp-protocol-version", version));
    }
    headers.extend_from_slice(more);
    headers
}

fn reason_of(result: Result<Call<'_>, Refusal>) -> Option<Reason> {
    result.err().map(|refusal| refusal.reason)
}

/// A tool call of 2026-07-28.
fn tool_call(name: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{name},"arguments":{{}},{META}}}}}"#)
}

#[test]
fn the_envelope_is_json_rpc_and_nothing_else() {
    let invalid = Some(Reason::InvalidRequest);
    let parameters = Some(Reason::InvalidParams);
    let cases: &[(&str, Option<Reason>)] = &[
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","id":"1","method":"ping","params":{}}"#, None),
        (r#"{"jsonrpc":"2.0","id":-1,"method":"unheard/of"}"#, None),
        (r#"{"jsonrpc":"2.0","id":"","method":"ping"}"#, None),
        (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, None),
        (r#"{"jsonrpc":"2.0","method":"custom"}"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, None),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}"#, None),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"a"}}}"#,
            None,
        ),
        ("1", invalid),
        ("\"text\"", invalid),
        ("null", invalid),
        ("{}", invalid),
        ("[]", invalid),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, invalid),
        (r#"{"id":1,"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1.0,"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1e2,"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":null}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{"code":1,"message":""}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","extra":1}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"Method":"ping"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","Params":{}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"result":[]}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#, invalid),
        (r#"{"jsonrpc":"2.0","result":{}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"message":"no code"}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":""}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#, invalid),
        // A call that expects no answer would still be run by some servers.
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}"#, invalid),
        (r#"{"jsonrpc":"2.0","method":"initialize","params":{}}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"notifications/cancelled"}"#, invalid),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":[]}}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Arguments":{}}}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","argument\u017f":{}}}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":1}}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"name":"a"}}"#, parameters),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":null}}"#, parameters),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","Name":"a"}}}"#,
            parameters,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"} {}"#, Some(Reason::InvalidJson)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}"#, Some(Reason::InvalidJson)),
        ("", Some(Reason::InvalidJson)),
    ];
    for (body, expected) in cases {
        assert_eq!(reason_of(read_with("POST", &OLD.to_vec(), body)), *expected, "{body}");
    }
    let deep =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{}1{}}}"#, "{\"a\":".repeat(64), "}".repeat(64));
    assert_eq!(reason_of(read_with("POST", &OLD.to_vec(), &deep)), Some(Reason::RequestTooLarge));
    let long = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":"{}"}}}}"#, "a".repeat(1 << 20));
    assert_eq!(reason_of(read_with("POST", &OLD.to_vec(), &long)), Some(Reason::RequestTooLarge));
}

#[test]
fn the_revision_comes_from_the_header_and_has_to_agree_with_the_body() {
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let initialize = |version: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{}}}}}}"#
        )
    };
    let claim = |version: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":{version},"io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}"#
        )
    };
    let method = [("mcp-method", "tools/list")];
    let cases: &[(&str, Pairs<'_>, String, Result<Revision, Reason>)] = &[
        ("", &[], ping.into(), Ok(Revision::R2025_03_26)),
        ("2025-03-26", &[], ping.into(), Ok(Revision::R2025_03_26)),
        ("2025-06-18", &[], ping.into(), Ok(Revision::R2025_06_18)),
        (" 2025-11-25 ", &[], ping.into(), Ok(Revision::R2025_11_25)),
        ("2024-11-05", &[], ping.into(), Err(Reason::UnsupportedRevision)),
        ("2027-01-01", &[], ping.into(), Err(Reason::UnsupportedRevision)),
        ("2025-11-25,2025-11-25", &[], ping.into(), Err(Reason::UnsupportedRevision)),
        ("nonsense", &[], "{\"jsonrpc\":\"3.0\"}".into(), Err(Reason::UnsupportedRevision)),
        ("2026-07-28", &[], ping.into(), Err(Reason::InvalidParams)),
        ("2026-07-28", &method, claim("\"2026-07-28\""), Ok(Revision::R2026_07_28)),
        ("2026-07-28", &method, claim("1"), Err(Reason::InvalidParams)),
        ("2026-07-28", &method, claim("\"2025-11-25\""), Err(Reason::HeaderMismatch)),
        ("2025-11-25", &method, claim("\"2026-07-28\""), Err(Reason::HeaderMismatch)),
        ("2025-11-25", &[], claim("\"2026-07-28\""), Err(Reason::HeaderMismatch)),
        ("", &[], claim("\"2026-07-28\""), Err(Reason::HeaderMismatch)),
        ("2027-01-01", &method, claim("\"2026-07-28\""), Err(Reason::HeaderMismatch)),
        ("2027-01-01", &method, claim("\"2027-01-01\""), Err(Reason::UnsupportedRevision)),
        ("", &[], initialize("2025-06-18"), Ok(Revision::R2025_06_18)),
        ("", &[], initialize("2024-11-05"), Ok(Revision::R2025_03_26)),
        ("", &[], initialize("2030-01-01"), Ok(Revision::R2025_03_26)),
        ("", &[], initialize("2026-07-28"), Ok(Revision::R2025_03_26)),
        ("2025-11-25", &[], initialize("2025-06-18"), Ok(Revision::R2025_06_18)),
        ("2024-11-05", &[], initialize("2024-11-05"), Err(Reason::UnsupportedRevision)),
        ("2026-07-28", &[], initialize("2026-07-28"), Err(Reason::HeaderMismatch)),
        // Headers that mirror the body have no authority where no server compares them.
        ("", &[("mcp-method", "ping")], ping.into(), Err(Reason::HeaderMismatch)),
        ("2025-11-25", &[("mcp-method", "ping")], ping.into(), Err(Reason::HeaderMismatch)),
        ("2025-11-25", &[("mcp-name", "ping")], ping.into(), Err(Reason::HeaderMismatch)),
        ("2025-11-25", &[("mcp-param-region", "eu")], ping.into(), Err(Reason::HeaderMismatch)),
    ];
    for (version, headers, body, expected) in cases {
        let headers = with(version, headers);
        let found = read_with("POST", &headers, body).map(|call| call.revision).map_err(|refusal| refusal.reason);
        assert_eq!(found, *expected, "{version} {headers:?} {body}");
    }
}

#[test]
fn mirrored_headers_of_2026_07_28_equal_the_body() {
    let mismatch = Some(Reason::HeaderMismatch);
    let call = ("mcp-method", "tools/call");
    let cases: &[(&str, Pairs<'_>, Option<Reason>)] = &[
        (r#""echo""#, &[call, ("mcp-name", "echo")], None),
        (r#""echo""#, &[call, ("mcp-name", "  echo\t")], None),
        (r#""echo""#, &[call, ("mcp-name", "=?base64?ZWNobw==?=")], None),
        (r#""Hello, 世界""#, &[call, ("mcp-name", "=?base64?SGVsbG8sIOS4lueVjA==?=")], None),
        (r#"" padded ""#, &[call, ("mcp-name", "=?base64?IHBhZGRlZCA=?=")], None),
        (r#""=?base64?literal?=""#, &[call, ("mcp-name", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=")], None),
        (r#""""#, &[call, ("mcp-name", "")], None),
        (r#""=?BASE64?ZWNobw==?=""#, &[call, ("mcp-name", "=?BASE64?ZWNobw==?=")], None),
        (r#""echo""#, &[call], mismatch),
        (r#""echo""#, &[("mcp-name", "echo")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "Echo")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "echo"), ("mcp-name", "echo")], mismatch),
        (r#""echo""#, &[("mcp-method", "tools/list"), ("mcp-name", "echo")], mismatch),
        (r#""echo""#, &[("mcp-method", "Tools/call"), ("mcp-name", "echo")], mismatch),
        (r#""echo""#, &[call, call, ("mcp-name", "echo")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "=?BASE64?ZWNobw==?=")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "=?base64?ZWNobw?=")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "=?base64?ZWNobx==?=")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "=?base64?!!?=")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "=?base64?/w==?=")], mismatch),
        (r#""=?base64?=""#, &[call, ("mcp-name", "=?base64?=")], mismatch),
        (r#""=?base64?literal?=""#, &[call, ("mcp-name", "=?base64?literal?=")], mismatch),
        (r#""é""#, &[call, ("mcp-name", "é")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "echo"), ("mcp-param-region", "eu-west")], None),
        (r#""echo""#, &[call, ("mcp-name", "echo"), ("mcp-param-region", "=?base64?4oKs?=")], None),
        (r#""echo""#, &[call, ("mcp-name", "echo"), ("mcp-param-region", "=?base64?%?=")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "echo"), ("mcp-param-a", "\u{1}"), ("mcp-param-b", "b")], mismatch),
        (r#""echo""#, &[call, ("mcp-name", "echo"), ("mcp-session-id", "old"), ("last-event-id", "1")], None),
    ];
    for (name, headers, expected) in cases {
        let headers = with("2026-07-28", headers);
        assert_eq!(reason_of(read_with("POST", &headers, &tool_call(name))), *expected, "{name} {headers:?}");
    }
}

#[test]
fn each_mirrored_member_is_the_one_of_its_method() {
    let cases = [
        ("tools/call", "name"),
        ("prompts/get", "name"),
        ("resources/read", "uri"),
        ("tasks/get", "taskId"),
        ("tasks/update", "taskId"),
        ("tasks/cancel", "taskId"),
    ];
    for (method, member) in cases {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"{member}":"x://y",{META}}}}}"#);
        let right = with("2026-07-28", &[("mcp-method", method), ("mcp-name", "x://y")]);
        let call = read_with("POST", &right, &body).unwrap();
        assert_eq!(call.messages()[0].operation().target, Some("x://y"));
        for wrong in [
            with("2026-07-28", &[("mcp-method", method), ("mcp-name", "other")]),
            with("2026-07-28", &[("mcp-method", method)]),
        ] {
            assert_eq!(reason_of(read_with("POST", &wrong, &body)), Some(Reason::HeaderMismatch), "{method}");
        }
    }
}

#[test]
fn requests_of_2026_07_28_carry_their_meta() {
    let method = with("2026-07-28", &[("mcp-method", "tools/list")]);
    for params in [
        String::new(),
        r#","params":{}"#.into(),
        r#","params":{"_meta":{}}"#.into(),
        r#","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#.into(),
        r#","params":{"_meta":{"io.modelcontextprotocol/clientCapabilities":{}}}"#.into(),
        r#","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":1}}"#.to_owned(),
    ] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/list"{params}}}"#);
        let refusal = read_with("POST", &method, &body).unwrap_err();
        assert_eq!((refusal.reason, refusal.http_status()), (Reason::InvalidParams, 400), "{body}");
        assert_eq!(refusal.id.as_ref().map(IdText::as_json), Some("7"));
    }
    // Of notifications the revision demands neither `_meta` nor mirrored headers; a wrong header is still refused.
    let body = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(reason_of(read_with("POST", &with("2026-07-28", &[]), body)), None);
    assert_eq!(reason_of(read_with("POST", &method, body)), Some(Reason::HeaderMismatch));
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    assert_eq!(reason_of(read_with("POST", &with("2026-07-28", &[]), response)), Some(Reason::InvalidRequest));
}

#[test]
fn http_methods_are_those_of_the_revision() {
    let cases = [
        ("GET", "", "", Ok(Body::StreamOpen)),
        ("GET", "2025-11-25", "", Ok(Body::StreamOpen)),
        ("DELETE", "2025-06-18", "", Ok(Body::SessionEnd)),
        ("GET", "2025-11-25", "{}", Err((Reason::InvalidRequest, None))),
        ("GET", "2024-11-05", "", Err((Reason::UnsupportedRevision, None))),
        ("GET", "2026-07-28", "", Err((Reason::MethodNotAllowed, Some("POST")))),
        ("DELETE", "2026-07-28", "", Err((Reason::MethodNotAllowed, Some("POST")))),
        ("OPTIONS", "", "", Err((Reason::MethodNotAllowed, Some("GET, POST, DELETE")))),
        ("PUT", "2026-07-28", "{}", Err((Reason::MethodNotAllowed, Some("POST")))),
        ("post", "2025-11-25", "{}", Err((Reason::MethodNotAllowed, Some("GET, POST, DELETE")))),
        ("HEAD", "nonsense", "", Err((Reason::MethodNotAllowed, Some("GET, POST, DELETE")))),
    ];
    for (method, version, body, expected) in cases {
        let headers = with(version, &[]);
        match (read_with(method, &headers, body), expected) {
            (Ok(call), Ok(expected)) => assert_eq!(call.body, expected),
            (Err(refusal), Err((reason, allow))) => {
                assert_eq!(refusal.reason, reason, "{method} {version}");
                let found = refusal.headers().into_iter().find(|(name, _)| *name == "allow").map(|(_, value)| value);
                assert_eq!(found, allow, "{method} {version}");
                let body = String::from_utf8(refusal.body(None)).unwrap();
                assert!(body.starts_with(r#"{"error":{"reason":""#), "{body}");
            }
            (found, _) => panic!("{method} {version}: {found:?}"),
        }
    }
    let mirrored = with("2025-11-25", &[("mcp-method", "x")]);
    assert_eq!(reason_of(read_with("GET", &mirrored, "")), Some(Reason::HeaderMismatch));
}

#[test]
fn a_body_is_uncompressed_json_in_utf_8() {
    let cases: &[(Pairs<'_>, bool)] = &[
        (&[("content-type", "application/json")], true),
        (&[("content-type", "Application/JSON; charset=\"UTF-8\"")], true),
        (&[("content-type", "application/json;profile=x"), ("content-encoding", "identity")], true),
        (&[], false),
        (&[("content-type", "")], false),
        (&[("content-type", "text/plain")], false),
        (&[("content-type", "application/json-rpc")], false),
        (&[("content-type", "application/json; charset=utf-16")], false),
        (&[("content-type", "application/json; charset =utf-16")], false),
        (&[("content-type", "application/json; charset*=utf-16''")], false),
        (&[("content-type", "application/json"), ("content-type", "application/json")], false),
        (&[("content-type", "application/json"), ("content-encoding", "gzip")], false),
    ];
    for (headers, accepted) in cases {
        let found = reason_of(read_with("POST", &headers.to_vec(), r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
        assert_eq!(found, (!accepted).then_some(Reason::InvalidRequest), "{headers:?}");
    }
}

#[test]
fn batches_belong_to_2025_03_26_and_hold_distinct_messages() {
    let ping = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned();
    let result = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    let many = |count: usize| (0..count).map(|id| ping(&id.to_string())).collect::<Vec<_>>();
    let meta = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{{META}}}}}"#);
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#;
    let invalid = Some(Reason::InvalidRequest);
    let cases: Vec<(&str, Vec<String>, Option<Reason>)> = vec![
        ("", vec![ping("1")], None),
        ("2025-03-26", vec![ping("1"), note.clone(), note.clone(), ping("\"1\""), result("1")], None),
        ("", many(64), None),
        ("", many(65), Some(Reason::RequestTooLarge)),
        ("", vec![], invalid),
        ("", vec![ping("1"), "1".into()], invalid),
        ("", vec![ping("1"), "[]".into()], invalid),
        ("", vec![ping("1"), ping("1")], invalid),
        ("", vec![ping("0"), ping("-0")], invalid),
        ("", vec![ping("\"a\""), note, ping("\"\\u0061\"")], invalid),
        ("", vec![result("1"), result("1")], invalid),
        ("", vec![ping("2"), initialize.into()], invalid),
        ("", vec![meta], Some(Reason::HeaderMismatch)),
        ("2025-06-18", vec![ping("1")], invalid),
        ("2026-07-28", vec![ping("1")], invalid),
        ("2024-11-05", vec![ping("1")], Some(Reason::UnsupportedRevision)),
    ];
    for (version, elements, expected) in cases {
        let headers = with(version, &[]);
        let body = format!("[{}]", elements.join(","));
        let found = read_with("POST", &headers, &body);
        if let Ok(call) = &found {
            assert_eq!(call.messages().len(), elements.len());
            assert_eq!(call.operations().count(), elements.len());
        }
        assert_eq!(reason_of(found), expected, "{version} {body}");
    }
}

#[test]
fn an_operation_shows_what_a_policy_decides_about() {
    let headers = OLD.to_vec();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"e\u0063ho","arguments":{"a":1}}}"#;
    let call = read_with("POST", &headers, body).unwrap();
    let operation = call.operations().next().unwrap();
    assert_eq!((operation.kind.as_str(), operation.method, operation.target), ("request", "tools/call", Some("echo")));
    assert_eq!(operation.arguments.and_then(|arguments| arguments.pointer("/a")?.as_number()?.as_i64()), Some(1));
    assert_eq!(operation.params.and_then(|params| params.pointer("/name")?.as_str()), Some("echo"));
    let cases = [
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, "request", "tools/list", None),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"a:b"}}"#,
            "request",
            "resources/subscribe",
            Some("a:b"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"p"}}}"#,
            "request",
            "completion/complete",
            Some("p"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/resource","name":"p","uri":"u"}}}"#,
            "request",
            "completion/complete",
            Some("u"),
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"?","name":"p"}}}"#,
            "request",
            "completion/complete",
            None,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"unheard/of","params":{"name":"n"}}"#, "request", "unheard/of", None),
        (
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
            "notification",
            "notifications/cancelled",
            None,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"a":1}}"#, "response", "", None),
    ];
    for (body, kind, method, target) in cases {
        let call = read_with("POST", &headers, body).unwrap();
        let operation = call.operations().next().unwrap();
        assert_eq!((operation.kind.as_str(), operation.method, operation.target), (kind, method, target), "{body}");
    }
    let call = read_with("GET", &headers, "").unwrap();
    assert_eq!(call.operations().next().map(|operation| operation.kind), Some(OperationKind::StreamOpen));
}

#[test]
fn a_refusal_echoes_the_id_as_it_was_written() {
    let cases = [
        ("1", "1"),
        ("-0", "-0"),
        ("18446744073709551615", "18446744073709551615"),
        (r#""a\u0062\n\"é""#, r#""ab\n\"é""#),
    ];
    for (id, echoed) in cases {
        let body = format!(r#"{{"jsonrpc":"1.0","id":{id},"method":"ping"}}"#);
        let refusal = read_with("POST", &OLD.to_vec(), &body).unwrap_err();
        assert_eq!(refusal.id.as_ref().map(IdText::as_json), Some(echoed));
    }
    // There is nothing to answer, or nothing to answer under.
    for body in ["{", r#"{"jsonrpc":"1.0","id":null,"method":"a"}"#, r#"{"jsonrpc":"1.0","id":1,"result":{}}"#] {
        assert_eq!(read_with("POST", &OLD.to_vec(), body).unwrap_err().id, None, "{body}");
    }
}

#[test]
fn error_bodies_have_the_form_that_is_documented() {
    let id = Id::read(Value::from("a\"b")).unwrap().to_text();
    let facts = ErrorFacts { decision_id: Some("0123"), policy_revision: Some("r1"), ..ErrorFacts::default() };
    let single = r#"{"jsonrpc":"2.0","id":"a\"b","error":{"code":-32003,"message":"not allowed by policy","data":{"reason":"not_allowed","decision_id":"0123","policy_revision":"r1"}}}"#;
    assert_eq!(String::from_utf8(error_body(Reason::NotAllowed, Some(&id), &facts)).unwrap(), single);
    let batch = batch_body([(Reason::NotAllowed, &id), (Reason::NotAllowed, &id)], &facts);
    assert_eq!(String::from_utf8(batch).unwrap(), format!("[{single},{single}]"));
    let plain = plain_body(Reason::NotAllowed, &ErrorFacts { decision_id: Some("0123"), ..ErrorFacts::default() });
    assert_eq!(
        String::from_utf8(plain).unwrap(),
        r#"{"error":{"reason":"not_allowed","message":"not allowed by policy","decision_id":"0123"}}"#
    );
    let headers = with("1900-01-01\"", &[]);
    let refusal = read_with("POST", &headers, r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#).unwrap_err();
    assert_eq!(refusal.http_status(), 400);
    assert_eq!(
        String::from_utf8(refusal.body(Some("ff"))).unwrap(),
        "{\"jsonrpc\":\"2.0\",\"id\":5,\"error\":{\"code\":-32022,\"message\":\"unsupported protocol version: \
         `MCP-Protocol-Version` names a revision that is not spoken here\",\"data\":{\"reason\":\"unsupported_revision\",\
         \"decision_id\":\"ff\",\"requested\":\"1900-01-01\\\"\",\"supported\":[\"2025-03-26\",\"2025-06-18\",\
         \"2025-11-25\",\"2026-07-28\"]}}}"
    );
}

#[test]
fn a_handshake_may_mirror_its_method_truly() {
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let cases = [
        (initialize, ("mcp-method", "initialize"), None),
        (initialized, ("mcp-method", "notifications/initialized"), None),
        (initialize, ("mcp-method", "tools/list"), Some(Reason::HeaderMismatch)),
        (initialize, ("mcp-name", "initialize"), Some(Reason::HeaderMismatch)),
        (initialize, ("mcp-param-a", "b"), Some(Reason::HeaderMismatch)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, ("mcp-method", "ping"), Some(Reason::HeaderMismatch)),
    ];
    for (body, mirror, expected) in cases {
        let headers = with("2025-11-25", &[mirror]);
        assert_eq!(
            read_with("POST", &headers, body).err().map(|refusal| refusal.reason),
            expected,
            "{body} {mirror:?}"
        );
    }
}

#[test]
fn a_method_that_a_revision_lacks_needs_no_target_there() {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
    for (method, expected) in [("resources/subscribe", None), ("tools/call", Some(Reason::InvalidParams))] {
        let headers = with("2026-07-28", &[("mcp-method", method)]);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{meta}}}}}"#);
        assert_eq!(read_with("POST", &headers, &body).err().map(|refusal| refusal.reason), expected);
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"uri":7,"name":7,{meta}}}}}"#);
        assert_eq!(read_with("POST", &headers, &body).unwrap_err().reason, Reason::InvalidParams);
    }
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{}}"#;
    assert_eq!(read_with("POST", &with("2025-11-25", &[]), body).unwrap_err().reason, Reason::InvalidParams);
}

#[test]
fn a_stateless_client_of_an_unknown_revision_learns_the_stateless_ones() {
    let headers = with("2027-01-01", &[]);
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2027-01-01"}"#;
    let body = format!(r#"{{"jsonrpc":"2.0","id":5,"method":"server/discover","params":{{"_meta":{meta}}}}}"#);
    let answer = String::from_utf8(read_with("POST", &headers, &body).unwrap_err().body(None)).unwrap();
    assert!(answer.ends_with(r#""requested":"2027-01-01","supported":["2026-07-28"]}}}"#), "{answer}");
}

#[test]
fn every_kind_of_header_store_reads_alike() {
    let pairs = [("a", "1"), ("b", "2"), ("a", "3")];
    let list: Vec<(String, String)> = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let slice: &[(&str, &str)] = &pairs;
    let map = std::collections::HashMap::from([("a".to_owned(), "1,3".to_owned()), ("b".to_owned(), "2".to_owned())]);
    let stores: [&dyn Headers; 3] = [&list, &slice, &map];
    for store in stores {
        assert_eq!(store.get("a").as_deref(), Some("1,3"));
        assert_eq!(store.get("b").as_deref(), Some("2"));
        assert_eq!(store.get("c"), None);
    }
}
