//! Every method that the published schemas let a client send is read, in every revision, and no damage to a message is
//! understood otherwise than by `serde_json`.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its own material has failed")]

use std::path::Path;

use keyward_contract::json::Limits;
use keyward_contract::mcp::{self, Body, HttpView, Message, Revision};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The definitions that `ClientRequest` or `ClientNotification` refers to, one level of `anyOf` deep.
fn alternatives<'s>(definitions: &'s Value, union: &str) -> Vec<&'s Value> {
    let union = &definitions[union];
    match union["anyOf"].as_array() {
        Some(members) => members
            .iter()
            .map(|member| &definitions[member["$ref"].as_str().unwrap().rsplit('/').next().unwrap()])
            .collect(),
        None => vec![union],
    }
}

/// A value that the schema allows: required members only, constants and first alternatives.
fn example(definitions: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return example(definitions, &definitions[reference.rsplit('/').next().unwrap()]);
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    for choice in ["enum", "anyOf", "oneOf"] {
        if let Some(first) = schema[choice].as_array().and_then(|choices| choices.first()) {
            return if choice == "enum" { first.clone() } else { example(definitions, first) };
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or("object");
    match kind {
        "string" => json!("text"),
        "integer" | "number" => json!(7),
        "boolean" => json!(true),
        "array" => json!([]),
        _ => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let member = |name: Value| {
                let name = name.as_str().unwrap().to_owned();
                let value = example(definitions, &schema["properties"][&name]);
                (name, value)
            };
            Value::Object(required.into_iter().map(member).collect())
        }
    }
}

fn read(revision: Revision, message: &Value) -> Result<bool, mcp::Refusal> {
    let method = message["method"].as_str().unwrap();
    let mut headers = vec![("content-type", "application/json"), ("mcp-protocol-version", revision.as_str())];
    if revision.is_stateless() {
        headers.push(("mcp-method", method));
        let name = ["name", "uri", "taskId"].into_iter().find_map(|member| message["params"][member].as_str());
        headers.extend(name.map(|name| ("mcp-name", name)));
    }
    let body = serde_json::to_vec(message).unwrap();
    let view = HttpView { method: "POST", headers: &headers, body: &body };
    let call = mcp::read(&view, &Limits::default())?;
    assert_eq!(call.revision, revision);
    Ok(matches!(call.body, Body::Single(Message::Request(_))))
}

#[test]
fn every_client_method_of_every_revision_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/mcp_schema");
    if !folder.is_dir() {
        println!("SKIPPED: no schemas at ../shared/vectors/mcp_schema");
        return;
    }
    for revision in Revision::ALL {
        let text = std::fs::read(folder.join(format!("{revision}.json"))).unwrap();
        let schema: Value = serde_json::from_slice(&text).unwrap();
        let definitions = if schema["$defs"].is_object() { &schema["$defs"] } else { &schema["definitions"] };
        let mut methods = Vec::new();
        for (union, is_request) in [("ClientRequest", true), ("ClientNotification", false)] {
            for definition in alternatives(definitions, union) {
                let mut message = example(definitions, definition);
                message["jsonrpc"] = json!("2.0");
                if is_request {
                    message["id"] = json!(1);
                }
                if revision.is_stateless() && is_request {
                    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(revision.as_str());
                }
                if message["method"] == "initialize" {
                    message["params"]["protocolVersion"] = json!(revision.as_str());
                }
                assert_eq!(read(revision, &message), Ok(is_request), "{revision}: {message}");
                methods.push(message["method"].as_str().unwrap().to_owned());
            }
        }
        println!("{revision}: {} methods: {}", methods.len(), methods.join(" "));
        assert!(methods.len() >= 11, "{revision}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn a_damaged_call_is_refused_or_means_what_serde_json_reads(
        damage in prop::collection::vec((any::<prop::sample::Index>(), r#"[ "{}:,\\\\a-zA-Z0-9]{0,3}"#, 0..3_usize), 0..3),
        stateless in any::<bool>(),
    ) {
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;
        let meta = if stateless { meta } else { r#""_meta":{}"# };
        let mut body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"a":[1]}},{meta}}}}}"#);
        for (place, text, removed) in damage {
            let place = place.index(body.len());
            body.replace_range(place..(place + removed).min(body.len()), &text);
        }
        let mut headers = vec![("content-type", "application/json")];
        if stateless {
            headers.extend([("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "echo")]);
        }
        let view = HttpView { method: "POST", headers: &headers, body: body.as_bytes() };
        match mcp::read(&view, &Limits::default()) {
            Ok(call) => {
                let theirs: Value = serde_json::from_str(&body).unwrap();
                let operation = call.operations().next().unwrap();
                prop_assert_eq!(theirs["method"].as_str().unwrap_or_default(), operation.method);
                if operation.method == "tools/call" {
                    prop_assert_eq!(theirs["params"]["name"].as_str(), operation.target);
                    prop_assert_eq!(theirs["params"].get("arguments").is_some(), operation.arguments.is_some());
                }
                if stateless {
                    prop_assert!(operation.kind == mcp::OperationKind::Notification || operation.target == Some("echo"));
                }
            }
            Err(refusal) => {
                let answer: Value = serde_json::from_slice(&refusal.body(Some("d"))).unwrap();
                prop_assert!(answer["error"]["code"].is_i64() && !answer["id"].is_array(), "{}", answer);
            }
        }
    }
}
