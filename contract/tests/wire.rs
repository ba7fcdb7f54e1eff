//! The hand-written messages against the published ones: `check` against `envoy-types`, `report` against its proto file.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own material has failed")]

use std::collections::HashMap;
use std::fmt::Debug;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3 as auth;
use envoy_types::pb::envoy::r#type::v3::HttpStatus;
use envoy_types::pb::google::rpc::Status;
use keyward_contract::check;
use prost::Message;

/// Both directions: what either side writes the other reads as the same message, to the byte.
fn same_on_the_wire<Ours, Theirs>(ours: Ours, theirs: Theirs)
where
    Ours: Message + Default + PartialEq + Debug,
    Theirs: Message + Default + PartialEq + Debug,
{
    assert_eq!(Ours::decode(theirs.encode_to_vec().as_slice()).unwrap(), ours);
    assert_eq!(Theirs::decode(ours.encode_to_vec().as_slice()).unwrap(), theirs);
    assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
}

/// One entry only: the order in which a map is written is not fixed.
fn map(name: &str, value: &str) -> HashMap<String, String> {
    HashMap::from([(name.to_owned(), value.to_owned())])
}

#[test]
fn a_check_request_is_the_same_on_the_wire() {
    let http = check::HttpRequest {
        id: "id".into(),
        method: "POST".into(),
        headers: map(":authority", "mcp.example"),
        path: "/mcp?a=b".into(),
        host: "mcp.example".into(),
        scheme: "https".into(),
        size: -1,
        protocol: "HTTP/2".into(),
        raw_body: vec![0, 0xff, b'{'],
    };
    let ours = check::CheckRequest {
        attributes: Some(check::AttributeContext {
            source: Some(check::Peer {
                address: Some(check::Address {
                    socket_address: Some(check::SocketAddress { address: "192.0.2.1".into(), port_value: 65535 }),
                }),
            }),
            request: Some(check::Request { http: Some(http) }),
            context_extensions: map(check::extension::CONTRACT, check::CONTRACT_VERSION),
        }),
    };
    let http = auth::attribute_context::HttpRequest {
        id: "id".into(),
        method: "POST".into(),
        headers: map(":authority", "mcp.example"),
        path: "/mcp?a=b".into(),
        host: "mcp.example".into(),
        scheme: "https".into(),
        size: -1,
        protocol: "HTTP/2".into(),
        raw_body: vec![0, 0xff, b'{'],
        ..Default::default()
    };
    let socket_address = core::SocketAddress {
        address: "192.0.2.1".into(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(65535)),
        ..Default::default()
    };
    let theirs = auth::CheckRequest {
        attributes: Some(auth::AttributeContext {
            source: Some(auth::attribute_context::Peer {
                address: Some(core::Address { address: Some(core::address::Address::SocketAddress(socket_address)) }),
                ..Default::default()
            }),
            request: Some(auth::attribute_context::Request { http: Some(http), ..Default::default() }),
            context_extensions: map("keyward.contract", "1"),
            ..Default::default()
        }),
    };
    same_on_the_wire(ours, theirs);
}

#[test]
fn an_allowing_check_response_is_the_same_on_the_wire() {
    let ours = check::CheckResponse {
        status: Some(check::Status { code: 0 }),
        http_response: Some(check::HttpResponse::Ok(check::OkHttpResponse {
            headers: vec![our_text_header(), our_raw_header()],
            headers_to_remove: vec!["authorization".into(), "cookie".into()],
            query_parameters_to_set: vec![check::QueryParameter { key: "apiKey".into(), value: "v&=".into() }],
            query_parameters_to_remove: vec!["token".into()],
        })),
    };
    let theirs = auth::CheckResponse {
        status: Some(Status { code: 0, ..Default::default() }),
        http_response: Some(auth::check_response::HttpResponse::OkResponse(auth::OkHttpResponse {
            headers: vec![their_text_header(), their_raw_header()],
            headers_to_remove: vec!["authorization".into(), "cookie".into()],
            query_parameters_to_set: vec![core::QueryParameter { key: "apiKey".into(), value: "v&=".into() }],
            query_parameters_to_remove: vec!["token".into()],
            ..Default::default()
        })),
        ..Default::default()
    };
    same_on_the_wire(ours, theirs);
}

#[test]
fn a_denying_check_response_is_the_same_on_the_wire() {
    let ours = check::CheckResponse {
        status: Some(check::Status { code: 7 }),
        http_response: Some(check::HttpResponse::Denied(check::DeniedHttpResponse {
            status: Some(check::HttpStatus { code: 403 }),
            headers: vec![our_text_header()],
            body: "{\"error\":{}}".into(),
        })),
    };
    let theirs = auth::CheckResponse {
        status: Some(Status { code: 7, ..Default::default() }),
        http_response: Some(auth::check_response::HttpResponse::DeniedResponse(auth::DeniedHttpResponse {
            status: Some(HttpStatus { code: 403 }),
            headers: vec![their_text_header()],
            body: "{\"error\":{}}".into(),
        })),
        ..Default::default()
    };
    same_on_the_wire(ours, theirs);
}

#[test]
fn fields_that_keyward_does_not_read_are_skipped() {
    let theirs = auth::CheckResponse {
        status: Some(Status { code: 7, message: "denied".into(), details: Vec::new() }),
        dynamic_metadata: Some(Default::default()),
        http_response: Some(auth::check_response::HttpResponse::OkResponse(auth::OkHttpResponse {
            response_headers_to_add: vec![their_text_header()],
            ..Default::default()
        })),
    };
    let ours = check::CheckResponse::decode(theirs.encode_to_vec().as_slice()).unwrap();
    assert_eq!(ours.status, Some(check::Status { code: 7 }));
    assert_eq!(ours.http_response, Some(check::HttpResponse::Ok(check::OkHttpResponse::default())));
}

#[test]
fn the_report_is_what_its_proto_file_says() {
    let proto = include_str!("../proto/keyward/v1/report.proto");
    let rust = include_str!("../src/report.rs");
    let published: Vec<_> = proto.lines().filter_map(proto_field).collect();
    let written: Vec<_> = rust.lines().zip(rust.lines().skip(1)).filter_map(rust_field).collect();
    assert_eq!(written, published);
    assert_eq!(published.len(), 8);
    assert!(proto.contains("package keyward.v1;") && proto.contains("service FilterReports"));
    assert_eq!(keyward_contract::report::SERVICE, "keyward.v1.FilterReports");
    assert!(
        proto.contains(&format!("rpc {}(ReportRequest) returns (ReportResponse);", keyward_contract::report::METHOD))
    );
}

/// Type, name and number out of `string decision_id = 1;`.
fn proto_field(line: &str) -> Option<(String, String, String)> {
    let mut words = line.trim().strip_suffix(';')?.split_whitespace();
    let (kind, name, equals, number) = (words.next()?, words.next()?, words.next()?, words.next()?);
    (equals == "=").then(|| (kind.to_owned(), name.to_owned(), number.to_owned()))
}

/// The same out of `#[prost(string, tag = "1")]` and the line below it.
fn rust_field((attribute, field): (&str, &str)) -> Option<(String, String, String)> {
    let (kind, tag) = attribute.trim().strip_prefix("#[prost(")?.strip_suffix("\")]")?.split_once(", tag = \"")?;
    let (name, _) = field.trim().strip_prefix("pub ")?.split_once(':')?;
    Some((kind.to_owned(), name.to_owned(), tag.to_owned()))
}

fn our_text_header() -> check::HeaderValueOption {
    let header = check::HeaderValue { key: "x-api-key".into(), value: "value".into(), raw_value: Vec::new() };
    check::HeaderValueOption { header: Some(header), append_action: 2 }
}

fn their_text_header() -> core::HeaderValueOption {
    let header = core::HeaderValue { key: "x-api-key".into(), value: "value".into(), raw_value: Vec::new() };
    let append_action = core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd.into();
    core::HeaderValueOption { header: Some(header), append_action, ..Default::default() }
}

fn our_raw_header() -> check::HeaderValueOption {
    let header = check::HeaderValue { key: check::SCRUB_HEADER.into(), value: String::new(), raw_value: vec![1, 0xfe] };
    check::HeaderValueOption { header: Some(header), append_action: 2 }
}

fn their_raw_header() -> core::HeaderValueOption {
    let header = core::HeaderValue { key: "x-keyward-scrub".into(), value: String::new(), raw_value: vec![1, 0xfe] };
    core::HeaderValueOption { header: Some(header), append_action: 2, ..Default::default() }
}
