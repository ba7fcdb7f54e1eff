//! Where resources are found, and what those are told whose token will not do.

use serde_json::{Value, json};

use super::*;
use crate::config::JwksSource;
use crate::decision::Incident;
use crate::identity::{Confirmation, TokenFacts};
use crate::operation::Operation;
use crate::plan::Mode;

fn identity() -> IdentityConfig {
    let named = |name: &str, issuer: &str| config::Issuer {
        name: name.to_owned(),
        issuer: issuer.to_owned(),
        ..crate::identity::tests::issuer(JwksSource::default())
    };
    let mut first = named("first-steps", "https://first.example");
    first.bootstrap = true;
    let issuers = vec![named("people", "https://login.example"), first, named("machines", "urn:machines")];
    IdentityConfig { issuers, ..IdentityConfig::default() }
}

fn resource(changes: Value) -> Resource {
    let mut section = json!({"url": "https://mcp.example/mcp"});
    for (name, value) in changes.as_object().unwrap() {
        section[name] = value.clone();
    }
    Resource::new(&serde_json::from_value(section).unwrap(), &identity()).unwrap()
}

fn server(resource: Option<Resource>) -> Server {
    Server {
        name: "demo".into(),
        mode: Mode::Mcp,
        upstream_authority: None,
        max_body_bytes: 1024,
        leaks: crate::leak::Rules::default(),
        resource: resource.map(std::sync::Arc::new),
    }
}

fn document(resource: &Resource) -> Value {
    serde_json::from_str(resource.metadata()).unwrap()
}

#[test]
fn an_address_has_one_place_for_its_metadata() {
    for (address, metadata) in [
        ("https://mcp.example/mcp", "https://mcp.example/.well-known/oauth-protected-resource/mcp"),
        ("https://mcp.example/a/b", "https://mcp.example/.well-known/oauth-protected-resource/a/b"),
        ("https://mcp.example/a/", "https://mcp.example/.well-known/oauth-protected-resource/a/"),
        ("https://mcp.example", "https://mcp.example/.well-known/oauth-protected-resource"),
        ("https://mcp.example/", "https://mcp.example/.well-known/oauth-protected-resource"),
        ("https://mcp.example:8443/mcp", "https://mcp.example:8443/.well-known/oauth-protected-resource/mcp"),
        ("http://127.0.0.1:81/mcp", "http://127.0.0.1:81/.well-known/oauth-protected-resource/mcp"),
        ("https://[::1]/mcp", "https://[::1]/.well-known/oauth-protected-resource/mcp"),
    ] {
        assert_eq!(Address::parse(address).unwrap().metadata_url(), metadata);
    }
    for bad in [
        "http://mcp.example/mcp",
        "mcp.example/mcp",
        "https://mcp.example/mcp?x=1",
        "https://mcp.example/mcp#x",
        "https://a:b@mcp.example/mcp",
        "https://mcp.example//mcp",
        "https://mcp.example/a/../mcp",
        "https://mcp.example/%6dcp",
        "urn:mcp",
        "",
    ] {
        assert!(Address::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_address_is_recognised_behind_a_proxy_that_ended_tls() {
    let address = Address::parse("https://mcp.example/mcp").unwrap();
    for (authority, here) in [
        ("mcp.example", true),
        ("MCP.example.", true),
        ("mcp.example:443", true),
        ("mcp.example:8443", false),
        ("other.example", false),
        ("mcp.example.evil", false),
        ("a@mcp.example", false),
        ("", false),
    ] {
        assert_eq!(address.is_at(authority), here, "{authority}");
    }
}

#[test]
fn the_metadata_says_what_is_configured() {
    let plain = resource(json!({}));
    let expected = json!({
        "resource": "https://mcp.example/mcp",
        "authorization_servers": ["https://login.example"],
        "bearer_methods_supported": ["header"],
        "tls_client_certificate_bound_access_tokens": false,
        "dpop_bound_access_tokens_required": false,
    });
    assert_eq!(document(&plain), expected);
    // A bootstrap issuer is nobody's authorization server unless it is named.
    assert_eq!(plain.issuers, ["people", "machines"]);
    let scopes = json!({"required": ["use"], "methods": {"tools/call": ["call", "use"]}, "tools": {"delete_*": ["admin"]},
        "others": ["audit"]});
    let full = resource(json!({
        "issuers": ["first-steps"], "scopes": scopes, "documentation": "https://docs.example/mcp",
        "dpop": {"required": true, "algorithms": ["ES256", "EdDSA"]},
    }));
    let document = document(&full);
    assert_eq!(document["authorization_servers"], json!(["https://first.example"]));
    assert_eq!(document["scopes_supported"], json!(["use", "call", "admin", "audit"]));
    assert_eq!(document["dpop_signing_alg_values_supported"], json!(["ES256", "EdDSA"]));
    assert_eq!(document["dpop_bound_access_tokens_required"], true);
    assert_eq!(document["resource_documentation"], "https://docs.example/mcp");
}

#[test]
fn all_scopes_that_apply_are_needed_together() {
    let scopes = json!({"required": ["use"], "methods": {"tools/call": ["call"], "tools/list": ["use"]},
        "tools": {"delete_*": ["admin", "call"], "*_all": ["bulk"]}});
    let scopes = resource(json!({"scopes": scopes})).scopes;
    let needed = |kind, method, target| {
        scopes.needed(&Operation { kind, method, target, arguments: None, params: None }).join(" ")
    };
    assert_eq!(needed("request", "tools/list", None), "use");
    assert_eq!(needed("stream_open", "", None), "use");
    assert_eq!(needed("request", "tools/call", Some("echo")), "use call");
    assert_eq!(needed("request", "tools/call", Some("delete_one")), "use call admin");
    assert_eq!(needed("request", "tools/call", Some("delete_all")), "use call bulk admin");
    // Some upstreams run what comes as a notification, too.
    assert_eq!(needed("notification", "tools/call", Some("delete_one")), "use call admin");
    let long = format!("delete_{}", "x".repeat(300));
    let of_long =
        Operation { kind: "request", method: "tools/call", target: Some(&long), arguments: None, params: None };
    assert_eq!(scopes.needed(&of_long).join(" "), "use call bulk admin", "whatever it is called");
}

fn challenge(error: NotIdentified, resource: Value, authorization: &str) -> (Denial, String) {
    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};
    use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
    let headers = std::collections::HashMap::from([("authorization".to_owned(), authorization.to_owned())]);
    let http = Some(HttpRequest { headers, ..HttpRequest::default() });
    let request = Some(attribute_context::Request { http, ..Default::default() });
    let message = CheckRequest { attributes: Some(AttributeContext { request, ..AttributeContext::default() }) };
    let denial = unrecognised(error, Some(&server(Some(self::resource(resource)))), &Request::read(&message));
    let value = denial.headers.iter().find(|(name, _)| *name == CHALLENGE).map(|(_, value)| value.clone());
    (denial, value.unwrap_or_default())
}

const METADATA: &str = r#"resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp""#;

#[test]
fn who_has_no_token_is_told_where_to_get_one() {
    let scopes = json!({"scopes": {"required": ["use", "see"], "tools": {"*": ["call"]}}});
    let (_, value) = challenge(NotIdentified::Missing, json!({}), "");
    assert_eq!(value, format!("Bearer {METADATA}"));
    let (_, value) = challenge(NotIdentified::Missing, scopes.clone(), "");
    assert_eq!(value, format!("Bearer scope=\"use see\", {METADATA}"));
    let (denial, value) = challenge(NotIdentified::Refused("old".into()), scopes, "Bearer x");
    assert_eq!(value, format!("Bearer error=\"invalid_token\", scope=\"use see\", {METADATA}"));
    assert_eq!((denial.reason, denial.cause.as_str()), (Reason::InvalidToken, "old"));
    let (denial, value) = challenge(NotIdentified::Unavailable("no keys".into()), json!({}), "Bearer x");
    assert_eq!((denial.reason, value.as_str()), (Reason::DecisionUnavailable, ""));
}

#[test]
fn who_has_to_prove_something_is_told_how() {
    let accepted = json!({"dpop": {"algorithms": ["ES256", "EdDSA"]}});
    let required = json!({"dpop": {"required": true, "algorithms": ["ES256"]}});
    let (_, value) = challenge(NotIdentified::Missing, accepted.clone(), "");
    assert_eq!(value, format!("Bearer {METADATA}, DPoP algs=\"ES256 EdDSA\""));
    let (_, value) = challenge(NotIdentified::Missing, required.clone(), "");
    assert_eq!(value, format!("DPoP {METADATA}, algs=\"ES256\""));
    let refused = || NotIdentified::Refused("bound".into());
    assert!(challenge(refused(), accepted.clone(), "Bearer x").1.starts_with("Bearer error=\"invalid_token\""));
    assert!(challenge(refused(), accepted.clone(), "dpop x").1.starts_with("DPoP error=\"invalid_token\""));
    assert!(challenge(refused(), required, "Bearer x").1.starts_with("DPoP error=\"invalid_token\""));
    let unproven =
        |reason, signal| NotIdentified::Unproven { reason, cause: "c".into(), signal, nonce: Some("fresh".into()) };
    let replayed = unproven(Reason::InvalidProof, Some(Signal::Replay));
    let (denial, value) = challenge(replayed, accepted.clone(), "DPoP x");
    assert!(value.starts_with("DPoP error=\"invalid_dpop_proof\""), "{value}");
    assert_eq!(denial.incident, Some(Incident::Token(Signal::Replay)));
    let (denial, value) = challenge(unproven(Reason::UseDpopNonce, None), accepted, "DPoP x");
    assert!(value.starts_with("DPoP error=\"use_dpop_nonce\""), "{value}");
    assert!(denial.headers.contains(&(NONCE, "fresh".to_owned())) && denial.incident.is_none());
}

#[test]
fn who_lacks_scopes_is_told_all_that_will_do() {
    let section = json!({"scopes": {"required": ["use"], "others": ["see", "admin"]}});
    let principal = Principal {
        scopes: vec!["use".into(), "see".into(), "openid".into()],
        token: TokenFacts { confirmation: Some(Confirmation::Jkt("x".into())), ..TokenFacts::default() },
        ..Principal::nobody()
    };
    let needed = ["use".to_owned(), "admin".to_owned()];
    let value = |server: &Server| {
        let denial = lacking(&needed, server, &principal, "c".into());
        assert_eq!((denial.reason, denial.incident), (Reason::InsufficientScope, Some(Incident::Token(Signal::Scope))));
        denial.headers[0].1.clone()
    };
    // What it has and means nothing here is not its to ask for here.
    let expected = format!("Bearer error=\"insufficient_scope\", scope=\"use admin see\", {METADATA}");
    assert_eq!(value(&server(Some(resource(section)))), expected);
    assert_eq!(value(&server(None)), "Bearer error=\"insufficient_scope\", scope=\"use admin\"");
}
