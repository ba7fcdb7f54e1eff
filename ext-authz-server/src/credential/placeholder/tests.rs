use super::*;
use crate::config::SecretSource;

const MARK: &str = "__KEY__";

fn credential(surfaces: &[Surface]) -> Placeholder {
    Placeholder(PlaceholderCredential {
        placeholder: MARK.into(),
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
    let mut outgoing = Outgoing::plain("POST", "https", "api.example", target, body.as_bytes());
    for (name, value) in headers {
        outgoing.set_header(name, value)?;
    }
    let material = Material::new().secret("secret", br#"s3"cr/t\key&1"#.to_vec());
    credential(surfaces).apply(&material, &mut outgoing)?;
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
