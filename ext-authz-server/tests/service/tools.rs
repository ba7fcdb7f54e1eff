//! Bindings for some tools only, and what a policy sees of bindings: from the configuration through Rego to the choice.

use std::process::Command;

use serde_json::{Value, json};

use super::fixture::Fixture;

const CLAIMS: &str =
    r#"{"iss":"https://issuer.example","aud":"https://mcp.example/mcp","exp":4102444800,"sub":"alice"}"#;

/// What `keyward explain` says of this message.
fn explained(fixture: &Fixture, message: &Value) -> Value {
    fixture.write("call.json", &message.to_string());
    let output = Command::new(env!("CARGO_BIN_EXE_keyward"))
        .args(["explain", "--server", "demo", "--json", "--claims", CLAIMS, "--request"])
        .arg(fixture.directory.join("call.json"))
        .env("KEYWARD_CONFIG", fixture.configuration())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{error}"))
}

fn call(tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
}

/// The reason and cause of a denial, or the facts about the bindings.
fn outcome(explanation: &Value) -> String {
    if explanation["allowed"] == false {
        let text = |name: &str| explanation[name].as_str().unwrap().to_owned();
        return format!("{}: {}", text("reason"), text("cause"));
    }
    let stages = explanation["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["stage"] == "binding").unwrap()["facts"].to_string()
}

/// Changes the configuration of the fixture's only binding.
fn configure(fixture: &Fixture, more: &str) {
    let configuration = std::fs::read_to_string(fixture.configuration()).unwrap();
    fixture.write(
        "keyward.yaml",
        &configuration.replace("    servers: [demo]\n", &format!("    servers: [demo]\n{more}")),
    );
}

#[test]
fn a_list_of_tools_counts_in_the_decision_and_explain_shows_it() {
    let fixture = Fixture::new("tools");
    configure(&fixture, "    tools: [echo, \"get_*\"]\n    risk: medium\n");
    let named = r#""bindings": ["demo-api-key"], "#;
    for (naming, cause) in [
        ("", "no_binding: no binding of this server is for this principal and what it asks for"),
        (named, "the policy names binding `demo-api-key`, which is not for this tool or message"),
    ] {
        let policy = format!("package keyward\n\ndecision := {{{naming}\"allow\": true, \"rule\": \"all\"}}\n");
        fixture.write("policies/main.rego", &policy);
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        for message in [call("echo"), call("get_weather"), list] {
            let outcome = outcome(&explained(&fixture, &message));
            assert!(outcome.contains("binding: demo-api-key"), "{naming} {message}: {outcome}");
            assert!(outcome.contains("tools: echo, get_*") && outcome.contains("risk: medium"), "{outcome}");
        }
        let prompt = json!({"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {"name": "echo"}});
        for message in [call("delete_everything"), call("Echo"), call("get"), prompt] {
            let outcome = outcome(&explained(&fixture, &message));
            assert_eq!(outcome, format!("credential_unavailable: {cause}"), "{naming} {message}");
        }
    }
}

#[test]
fn policy_chooses_by_tenant_owner_risk_and_mode() {
    let fixture = Fixture::new("owners");
    let second = r#"
  - id: own-key
    mode: service_account
    owner: demo-team
    risk: low
    environment: test
    servers: [demo]
    hosts: ["upstream.internal:9000"]
    credentials:
      - { type: header, name: x-own, secret: { ref: "file://api.key" } }
"#;
    let configuration = std::fs::read_to_string(fixture.configuration()).unwrap().trim_end().to_owned() + second;
    fixture.write("keyward.yaml", &configuration);
    // The tenant of an issuer without a `tenant_claim` is its name, `demo`.
    let policy = r#"package keyward

default decision := {"allow": false, "rule": "default"}

decision := {"allow": true, "rule": "own_team", "bindings": [binding.id]} if {
	some binding in input.bindings
	binding.owner == concat("-", [input.principal.tenant, "team"])
	binding.risk == "low"
	binding.mode == "service_account"
}
"#;
    fixture.write("policies/main.rego", policy);
    let facts = outcome(&explained(&fixture, &call("echo")));
    for expected in ["binding: own-key", "owner: demo-team", "risk: low"] {
        assert!(facts.contains(expected), "{expected}: {facts}");
    }
    for (from, to) in [
        ("risk: low", "risk: high"),
        ("    risk: low\n", ""),
        ("owner: demo-team", "owner: other-team"),
        ("risk: low", "risk: low\n    tools: [leak]"),
    ] {
        fixture.write("keyward.yaml", &configuration.replace(from, to));
        let outcome = outcome(&explained(&fixture, &call("echo")));
        assert!(outcome.starts_with("not_allowed: "), "{to}: {outcome}");
    }
}
