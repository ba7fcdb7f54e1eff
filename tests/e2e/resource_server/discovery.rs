//! The official client with nothing but the address: it finds the authorization server, gets a token there, calls, and gets a
//! better token where a call takes one.

use std::time::Duration;

use keyward_tests::authorization_server::AuthorizationServer;
use keyward_tests::peers;
use keyward_tests::{files, stack::Stack};
use serde_json::{Value, json};

use super::free_address;

const CALLBACK: &str = "http://127.0.0.1:9/callback";
const SECRET: &str = "the-secret-of-the-machine";
const LIMIT: Duration = Duration::from_secs(60);
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "everything"}
"#;

/// The stack, and the authorization server that its metadata names.
async fn start(name: &str) -> (Stack, AuthorizationServer, String) {
    let listen = free_address();
    let url = format!("http://{listen}/mcp");
    let folder = files::run_folder(&format!("{name}-server")).unwrap();
    let options = json!({
        "clients": [{
            "client_id": "person", "redirect_uris": [CALLBACK], "response_types": ["code"],
            "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "none",
            "application_type": "native",
        }, {
            "client_id": "machine", "client_secret": SECRET, "redirect_uris": [], "response_types": [],
            "grant_types": ["client_credentials"], "token_endpoint_auth_method": "client_secret_basic",
        }],
        "resources": {"demo": {"audience": url, "scope": "use leak"}},
    });
    let server = AuthorizationServer::start("authorization-server", &options, &folder).unwrap();
    let stack = Stack::builder(name)
        .policy(POLICY)
        .envoy(|envoy| envoy.listen = listen)
        .config(|config| {
            config["identity"]["issuers"] = json!([{
                "name": "corporate", "issuer": server.issuer, "audiences": ["urn:nothing-else"],
                "algorithms": ["RS256"], "jwks": {"url": format!("{}/jwks", server.issuer)}, "token_type": "at_jwt",
            }]);
            config["servers"]["demo"]["resource"] =
                json!({"url": url, "scopes": {"required": ["use"], "tools": {"leak": ["leak"]}}});
        })
        .start()
        .await
        .unwrap();
    (stack, server, url)
}

fn run(stack: &Stack, given: &Value) -> Value {
    let mut command = peers::node(&stack.folder).unwrap();
    command.arg("client_authorization.mjs").arg(given.to_string());
    peers::report("client-authorization", command, &stack.folder, LIMIT).unwrap()
}

fn statuses(report: &Value, part: &str) -> Vec<u64> {
    let asked = report["asked"].as_array().unwrap().iter();
    let there = asked.filter(|asked| asked["url"].as_str().unwrap_or_default().contains(part));
    there.map(|asked| asked["status"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_led_to_the_authorization_server_and_steps_up() {
    let (stack, _server, url) = start("resource-discovery").await;
    let given = json!({
        "url": url, "account": "alice", "client": "person", "callback": CALLBACK,
        "tools": [["echo", {"message": "hello"}], ["leak", {"form": "raw", "carrier": "text"}]],
    });
    let report = run(&stack, &given);
    assert_eq!(report["results"], json!({"echo": "ok", "leak": "ok"}), "{report:#}");
    // First for what every call takes, then for what the one call takes besides: what it had is among it.
    assert_eq!(report["scopes"], json!(["use", "use leak"]), "{report:#}");
    assert_eq!(report["resources"], json!([url, url]));
    assert!(statuses(&report, "/.well-known/oauth-protected-resource/mcp").contains(&200), "{report:#}");
    let forbidden = report["asked"].as_array().unwrap().iter().find(|asked| asked["status"] == 403).unwrap();
    assert!(forbidden["challenge"].as_str().unwrap().contains("insufficient_scope"), "{forbidden}");
    let record = stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!((&record["principal"]["subject"], &record["principal"]["agent"]), (&json!("alice"), &json!("person")));
    let last = stack.upstream.requests().await.unwrap().to_string();
    assert!(!last.contains("eyJ"), "a token reached the upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_finds_its_token_by_itself() {
    let (stack, server, url) = start("resource-machine").await;
    let given = json!({"url": url, "client": "machine", "secret": SECRET, "callback": CALLBACK, "tools": [["echo", {"message": "hello"}]]});
    let report = run(&stack, &given);
    assert_eq!(report["results"], json!({"echo": "ok"}), "{report:#}");
    let calls = server.token_calls().await.unwrap();
    assert!(!calls.is_empty() && calls.iter().all(|call| call["grant"] == "client_credentials"), "{calls:?}");
    assert!(calls.iter().all(|call| call["resource"] == url), "{calls:?}");
    let record = stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!(record["principal"]["kind"], "agent", "{record}");
}
