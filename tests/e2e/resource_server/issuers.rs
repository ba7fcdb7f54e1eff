//! What an issuer's entry can demand of its tokens, and which tokens of an authorization server are access tokens.

use keyward_contract::reason::Reason;
use keyward_tests::authorization_server::AuthorizationServer;
use keyward_tests::client::{Request, RequestBody};
use keyward_tests::files;
use keyward_tests::issuer::Issuer;
use serde_json::{Value, json};

use super::{World, call};
use crate::expect;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TYPE: &str = "urn:ietf:params:oauth:token-type:";
const SECRET: &str = "the-secret-of-the-agent";

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_strict_issuer_serves_once_and_not_for_long() {
    let world = World::start("resource-once", json!({}), |builder| {
        builder.config(|config| {
            let issuer = &mut config["identity"]["issuers"][0];
            issuer["one_time"] = json!(true);
            issuer["max_lifetime_secs"] = json!(600);
            issuer["token_type"] = json!("at_jwt");
        })
    })
    .await;
    let token = || world.token(&world.mcp, "");
    let mut plain = token();
    plain.header["typ"] = json!("JWT");
    for bad in [token().claim("jti", Value::Null), token().lifetime(0, 601), token().claim("iat", Value::Null), plain] {
        let answer = world.call(&world.signed(&bad)).await;
        expect::unauthenticated(&world.stack, &answer, Reason::InvalidToken, 1).await;
    }
    let once = world.signed(&token());
    expect::allowed(&world.stack, &world.call(&once).await).await;
    world.stack.upstream.reset().await.unwrap();
    for _ in 0..2 {
        expect::unauthenticated(&world.stack, &world.call(&once).await, Reason::InvalidToken, 1).await;
    }
    assert_eq!(world.events("replay_refused").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_token_leads_to_no_credential() {
    let world = World::start("resource-bootstrap", json!({"issuers": ["demo"]}), |builder| {
        builder.config(|config| {
            config["identity"]["issuers"][0]["bootstrap"] = json!(true);
            let bare = json!({
                "id": "bare", "mode": "none", "owner": "platform-team", "environment": "development",
                "servers": ["scripted"], "hosts": [crate::scripted::AUTHORITY],
            });
            config["bindings"][0]["servers"] = json!(["demo"]);
            config["bindings"].as_array_mut().unwrap().push(bare);
            config["servers"]["scripted"]["resource"]["issuers"] = json!(["demo"]);
        })
    })
    .await;
    let answer = world.call(&world.signed(&world.token(&world.mcp, ""))).await;
    expect::denied(&world.stack, &answer, Reason::NotAllowed, 1).await;
    let record = world.stack.server.audit_record(|record| record["reason"] == "not_allowed").await.unwrap();
    assert!(record["explanation"].as_str().unwrap().contains("bootstrap"), "{record}");
    // What takes no credential, it may do.
    let answer = world.call_scripted(&world.signed(&world.token(&world.scripted, ""))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

async fn ask(server: &AuthorizationServer, fields: &[(&str, &str)]) -> Value {
    let encode = |text: &str| -> String {
        let each =
            |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        text.bytes().map(each).collect()
    };
    let own = [("client_id", "agent"), ("client_secret", SECRET)];
    let pairs: Vec<String> =
        own.iter().chain(fields).map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let mut request = Request::new(http::Method::POST, "/token");
    request = request.header("content-type", "application/x-www-form-urlencoded");
    request.body = RequestBody::Whole(pairs.join("&").into());
    request.send(server.issuer.trim_start_matches("http://").parse().unwrap()).await.unwrap().json().unwrap()
}

/// The enterprise's identity provider says who the user is, the resource's own authorization server takes its word and gives
/// the access token; only that opens anything.
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_assertion_is_redeemed_first() {
    let name = "resource-id-jag";
    let people = std::sync::Arc::new(Issuer::new().unwrap());
    let client = json!({
        "client_id": "agent", "client_secret": SECRET, "grant_types": ["client_credentials", EXCHANGE, BEARER],
        "token_endpoint_auth_method": "client_secret_post", "response_types": [], "redirect_uris": [],
    });
    let folder = files::run_folder(&format!("{name}-servers")).unwrap();
    let trusted = json!([{"issuer": keyward_tests::issuer::ISSUER, "jwks": people.jwks(), "audience": "agent"}]);
    let enterprise = json!({"clients": [client], "trusted": trusted, "resources": {}});
    let enterprise = AuthorizationServer::start("enterprise", &enterprise, &folder).unwrap();
    let trusted = json!([{"issuer": enterprise.issuer, "jwks_uri": format!("{}/jwks", enterprise.issuer)}]);
    let own = json!({"clients": [client], "trusted": trusted,
        "resources": {"demo": {"audience": "urn:keyward:demo", "scope": "use"}}});
    let server = AuthorizationServer::start("resource", &own, &folder).unwrap();
    let issuer = |name: &str, issuer: &str| {
        json!({"name": name, "issuer": issuer, "audiences": ["urn:keyward:demo"], "algorithms": ["RS256"],
            "jwks": {"url": format!("{issuer}/jwks")}})
    };
    // Both are known, so that nothing but its type keeps the assertion out.
    let issuers = [issuer("resource", &server.issuer), issuer("enterprise", &enterprise.issuer)];
    let section = json!({"audiences": ["urn:keyward:demo", server.issuer], "scopes": {"required": ["use"]}});
    let world = World::start(name, section, |builder| {
        builder.issuer(people).config(|config| {
            config["identity"]["issuers"].as_array_mut().unwrap().extend(issuers);
        })
    })
    .await;
    let id_token = world.signed(&world.token("agent", ""));
    let asked = [
        ("grant_type", EXCHANGE),
        ("subject_token", &id_token),
        ("subject_token_type", &format!("{TYPE}id_token")),
        ("requested_token_type", &format!("{TYPE}id-jag")),
        ("audience", &server.issuer),
        ("resource", "urn:keyward:demo"),
        ("scope", "use"),
    ];
    let assertion = ask(&enterprise, &asked).await;
    let assertion = assertion["access_token"].as_str().unwrap_or_else(|| panic!("{assertion}"));
    for refused in [assertion, &id_token] {
        let answer = world.call(refused).await;
        expect::unauthenticated(&world.stack, &answer, Reason::InvalidToken, 1).await;
    }
    let asked = [("grant_type", BEARER), ("assertion", assertion), ("resource", "urn:keyward:demo"), ("scope", "use")];
    let given = ask(&server, &asked).await;
    let token = given["access_token"].as_str().unwrap_or_else(|| panic!("{given}"));
    expect::allowed(&world.stack, &world.send(call().bearer(token)).await).await;
    let record = world.stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!((&record["principal"]["subject"], &record["principal"]["agent"]), (&json!("alice"), &json!("agent")));

    // The client-credentials extension: the agent for itself.
    let asked = [("grant_type", "client_credentials"), ("resource", "urn:keyward:demo"), ("scope", "use")];
    let given = ask(&server, &asked).await;
    let token = given["access_token"].as_str().unwrap_or_else(|| panic!("{given}"));
    world.stack.upstream.reset().await.unwrap();
    expect::allowed(&world.stack, &world.send(call().bearer(token)).await).await;
}
