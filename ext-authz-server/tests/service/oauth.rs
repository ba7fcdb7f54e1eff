//! Credentials of `type: oauth` in configuration: what docs/oauth.md shows, and what is refused before anything runs.

use std::path::Path;

use keyward_server::config::{json_schema, parse};
use serde_json::Value;

/// A configuration whose only binding has these credentials.
fn configuration(credentials: &str) -> String {
    let indented: String = credentials.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        r#"version: 1
environment: test
identity:
  issuers:
    - {{ name: demo, issuer: https://issuer.example, audiences: [a], algorithms: [ES256], jwks: {{ file: jwks.json }} }}
policy: {{ directory: policies }}
audit: {{ file: "-", hmac_key: {{ ref: "env://KEYWARD_AUDIT_KEY" }} }}
providers: {{ example: {{ type: oauth, issuer: "https://login.example", client_id: keyward, client_authentication: none }} }}
servers:
  demo:
    mode: mcp
    destinations: [{{ host: mcp.example, port: 443, path: /mcp }}]
    upstream_authority: upstream.internal:9000
bindings:
  - id: demo
    mode: service_account
    owner: platform-team
    environment: test
    servers: [demo]
    hosts: ["upstream.internal:9000"]
    credentials:
{indented}"#
    )
}

fn problems(credentials: &str) -> String {
    match parse(Path::new("k.yaml"), &configuration(credentials)) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_example_of_the_documentation_loads() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/oauth.md");
    let text = std::fs::read_to_string(path).unwrap();
    let examples: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 15, "{}", examples.len());
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for example in examples {
        assert_eq!(problems(example), "", "{example}");
        let value: Value = serde_saphyr::from_str(&configuration(example)).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{example}");
    }
}

/// A good one on one line, so that a case can add to it.
const GOOD: &str = r#"- { type: oauth, grant: client_credentials, issuer: "https://as.example", scopes: [a], client: { id: c, secret: { ref: "env://S" } } }"#;

#[test]
fn what_cannot_work_is_refused() {
    assert_eq!(problems(GOOD), "");
    let client = r#"client: { id: c, secret: { ref: "env://S" } }"#;
    let cases = [
        ("client_credentials", "nothing", "`nothing` is not one of the choices"),
        (r#"issuer: "https://as.example""#, r#"issuer: "http://as.example""#, "not an address of a server"),
        (r#"issuer: "https://as.example", "#, "", "neither `issuer` nor `token_endpoint`"),
        (client, "dpop: false", "the grant `client_credentials` needs `client`"),
        ("scopes: [a]", r#"scopes: ["a b"]"#, "`a b` is not one scope"),
        ("scopes: [a]", "resource: orders", "not an absolute URI"),
        ("scopes: [a]", "provider: x", "the grant `client_credentials` has no `provider`"),
        ("scopes: [a]", "subject: { from: caller }", "the grant `client_credentials` has no `subject`"),
        (
            "scopes: [a]",
            r#"scopes: [a], assertion: { issuer: i, subject: "{tenant}-{user}", key: { ref: "env://K" } }"#,
            "assertion.subject`: two placeholders have nothing between them",
        ),
        ("scopes: [a]", "scopes: [a], header: x-token, query: token", "the token has two places"),
        ("scopes: [a]", "scopes: [a], template: Bearer", "exactly one `{token}`"),
        ("scopes: [a]", "scopes: [a], dpop: true, query: token", "a bound token goes into `authorization`"),
        ("scopes: [a]", "scopes: [a], nonsense: 1", "unknown key"),
        ("client_credentials", "token_exchange", "a token exchange without a target"),
        ("client_credentials", "refresh_token", "exactly one of `refresh_token` and `provider` is there"),
        ("client_credentials", "github_app", "the grant `github_app` needs `app`"),
        ("client_credentials", "id_jag", "the grant `id_jag` needs `resource_server`"),
        ("client_credentials", "jwt_bearer", "the grant `jwt_bearer` needs `assertion`"),
        ("id: c,", "id: c, authentication: private_key_jwt,", "this `authentication` does not use it"),
        ("id: c,", "id: c, authentication: private_key_jwt,", "this `authentication` needs it"),
        (
            client,
            "client: { id: c, authentication: federated_token, token: { from: caller } }",
            "does not say who Keyward is",
        ),
        (
            client,
            "client: { id: c, authentication: federated_token, token: { from: secret } }",
            "`from: secret` needs it",
        ),
        (r#"secret: { ref: "env://S" }"#, r#"secret: { ref: "canary" }"#, "not a secret reference"),
    ];
    for (from, to, message) in cases {
        let problems = problems(&GOOD.replacen(from, to, 1));
        assert!(problems.contains(message), "{from} -> {to}: {problems}");
        assert!(!problems.contains("canary"), "{problems}");
    }
}

#[test]
fn a_public_client_with_a_refresh_token_has_no_key_for_each_access_token() {
    let client = r#"client: { id: c, secret: { ref: "env://S" } }"#;
    let public = "client: { id: c, authentication: none }";
    let grant = GOOD.replacen("client_credentials", "refresh_token", 1);
    for source in [r#"refresh_token: { ref: "env://T" }"#, "provider: example"] {
        let bound = grant.replacen("scopes: [a]", &format!("scopes: [a], {source}, dpop: true"), 1);
        assert_eq!(problems(&bound), "", "a client that proves itself may use any key");
        let told = problems(&bound.replacen(client, public, 1));
        assert!(told.contains("`bindings[0].credentials[0].dpop`: the refresh token of a public client"), "{told}");
        assert!(told.contains("; give the client an `authentication`, or remove `dpop`"), "{told}");
        assert_eq!(problems(&bound.replacen(client, public, 1).replacen(", dpop: true", "", 1)), "");
    }
    // Nothing outlives the token of such a client at another grant.
    let own = GOOD.replacen("scopes: [a]", "scopes: [a], dpop: true", 1).replacen(client, public, 1);
    assert_eq!(problems(&own), "");
}

#[test]
fn scopes_on_behalf_of_a_user_are_for_one_other_audience() {
    let with =
        |scopes: &str| problems(&GOOD.replacen("client_credentials", "on_behalf_of", 1).replacen("[a]", scopes, 1));
    assert_eq!(with(r#"["https://graph.example/User.Read", "https://graph.example/Mail.Read", offline_access]"#), "");
    assert!(with(r#"["https://graph.example/User.Read", "https://vault.example/.default"]"#).contains("2 audiences"));
    assert!(with(r#"["api://c/access_as_user"]"#).contains("those of the client itself"));
}
