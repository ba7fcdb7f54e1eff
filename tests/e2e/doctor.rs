//! `keyward doctor` finds what keeps a server from working, and says what to do.

mod ages;
mod kept;

use std::process::Output;

use keyward_tests::files;
use keyward_tests::server::Server;
use keyward_tests::stack::Stack;
use keyward_tests::stores::{Kind, Store};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stores::builder;

const TOKEN: &str = "canary-doctor-token-20fa";
const VALUE: &str = "canary-value-of-doctor";

async fn vault(test: &str) -> Store {
    let store = Store::start(Kind::Vault, test).unwrap();
    for (path, kind) in [("kv", "kv"), ("database", "database")] {
        store.tell("mount", json!({"path": path, "kind": kind})).await.unwrap();
    }
    store.tell("role", json!({"mount": "database", "role": "app"})).await.unwrap();
    let rules = json!({"kv/data/*": ["read"], "database/creds/app": ["read"], "sys/leases/revoke": ["update"]});
    store.tell("policy", json!({"name": "keyward", "rules": rules})).await.unwrap();
    store.tell("token", json!({"policies": ["keyward"], "token": TOKEN})).await.unwrap();
    store.tell("put", json!({"mount": "kv", "path": "jira", "data": {"key": VALUE}})).await.unwrap();
    store
}

async fn stack(test: &str, store: &Store) -> Stack {
    let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
    let stores = json!({"vault": {"type": "vault", "address": store.url(), "auth": auth}});
    let headers = [
        ("x-key", json!({"ref": "vault://kv/jira", "json_key": "key"})),
        ("x-own", json!({"ref": "vault://kv/{user}", "json_key": "key"})),
        ("x-pair", json!({"ref": "vault://database/creds/app?dynamic", "json_key": "password"})),
    ];
    builder(test, stores, &headers).variable("VAULT_TOKEN", TOKEN).start().await.unwrap()
}

/// Runs `keyward doctor` on the stack's configuration; nothing secret may stand in what it prints.
fn doctor(stack: &Stack, more: &[&str]) -> (Output, String) {
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let arguments = [&["doctor", "--config", &config], more].concat();
    let variables = [("KEYWARD_AUDIT_KEY", "audit-key-of-doctor"), ("VAULT_TOKEN", TOKEN)];
    let output = Server::run(&arguments, &variables.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    for secret in [TOKEN, VALUE, &stack.secret, "audit-key-of-doctor"] {
        assert!(!text.contains(secret), "{text}");
    }
    (output, text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_works_passes_every_check_and_no_lease_is_left() {
    let store = vault("doctor-pass").await;
    let stack = stack("doctor-pass", &store).await;
    let envoy = files::workspace().join("envoy/demo.yaml").display().to_string();
    let (output, text) = doctor(&stack, &["--envoy", &envoy]);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for expected in [
        "pass  policy:",
        "pass  audit file:",
        "pass  issuer `demo`: 3 usable keys",
        "pass  store `vault`:",
        "pass  binding `demo-api-key`, credential 1: header from `vault://kv/jira` can be had and used",
        "skip  binding `demo-api-key`, credential 2:",
        "pass  binding `demo-api-key`, credential 3:",
        "allow_on_headers_stop_iteration: set",
        "buffer limits: 2097152 bytes",
        ", 0 failed, 1 skipped",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let leases = store.tell("leases", json!({})).await.unwrap();
    let leases = leases.as_array().unwrap();
    assert!(leases.len() == 1 && leases[0]["revoked"] == true, "{leases:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_thing_that_is_broken_is_named_with_its_remedy() {
    let store = vault("doctor-fail").await;
    let stack = stack("doctor-fail", &store).await;
    store.tell("policy", json!({"name": "keyward", "rules": {}})).await.unwrap();
    let demo = std::fs::read_to_string(files::workspace().join("envoy/demo.yaml")).unwrap();
    let broken = demo
        .replace("allow_on_headers_stop_iteration: true", "allow_on_headers_stop_iteration: false")
        .replace("failure_policy: FAIL_RELOAD", "failure_policy: FAIL_OPEN")
        .replace("per_connection_buffer_limit_bytes: 2097152", "per_connection_buffer_limit_bytes: 65536")
        .replace("keyward: { server: demo", "keyward: { server: other")
        .replace("\"cluster\": \"keyward\"", "\"cluster\": \"none\"");
    stack.change_file("envoy.yaml", broken).unwrap();
    let envoy = stack.folder.join("envoy.yaml").display().to_string();
    let (output, text) = doctor(&stack, &["--format", "json", "--envoy", &envoy]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let failed: Vec<String> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["outcome"] == "fail")
        .map(|finding| format!("{}: {} -> {}", finding["check"], finding["seen"], finding["remedy"]))
        .collect();
    let expected = [
        ("credential 1", "capability `read`"),
        ("credential 3", "capability `read`"),
        ("allow_on_headers_stop_iteration", "set it to true"),
        ("failure policy", "FAIL_RELOAD"),
        ("server's cluster", "correct `cluster`"),
        ("buffer limits", "at least as large"),
        ("routes", "filter_metadata.keyward.server"),
    ];
    assert_eq!(failed.len(), expected.len(), "{failed:#?}");
    for ((check, remedy), found) in expected.iter().zip(&failed) {
        assert!(found.contains(check) && found.contains(remedy), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_one_side_does_not_know_is_named() {
    let store = vault("doctor-certificates").await;
    let mut stack = stack("doctor-certificates", &store).await;
    stack
        .change_config(|config| {
            let of_file = |name: &str| json!({"ref": format!("file://secrets/{name}")});
            config["listen"]["secrets_on_loopback"] = json!(true);
            if let Some(own) = config["bindings"][0]["credentials"].as_array_mut() {
                let (certificate, key) = (of_file("bank.pem"), of_file("bank.key"));
                own.push(json!({"type": "client_certificate", "name": "bank", "certificate": certificate, "key": key}));
            }
        })
        .unwrap();
    let demo = std::fs::read_to_string(files::workspace().join("envoy/demo.yaml")).unwrap();
    let source = "resource_api_version: V3, api_config_source: { api_type: GRPC, transport_api_version: V3, \
                  grpc_services: [{ envoy_grpc: { cluster_name: keyward } }] }";
    let asks = |name: &str| {
        let context = format!("tls_certificate_sds_secret_configs: [{{ name: {name}, sds_config: {{ {source} }} }}]");
        let socket = format!("      transport_socket: {{ typed_config: {{ common_tls_context: {{ {context} }} }} }}\n");
        stack.change_file("envoy.yaml", demo.clone() + &socket).unwrap();
        let envoy = stack.folder.join("envoy.yaml").display().to_string();
        doctor(&stack, &["--envoy", &envoy]).1
    };
    let text = asks("bank");
    for expected in [
        "pass  Envoy: secrets that Keyward is asked for: a credential has each of `bank`",
        "pass  Envoy: client certificates of Keyward: each of `bank` is asked for",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let text = asks("bnak");
    for expected in [
        "FAIL  Envoy: secrets that Keyward is asked for: no binding of this environment has a client certificate `bnak`",
        "WARN  Envoy: client certificates of Keyward: nothing in this file asks for `bank`",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

/// A server of keys whose clock is far off.
async fn issuer_with_another_clock(jwks: Value) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let body = jwks.to_string();
            let mut request = [0; 4096];
            let _ = connection.read(&mut request).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n",
                body.len()
            );
            let _ = connection.write_all((head + &body).as_bytes()).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_and_issuers_that_cannot_be_had_and_clocks_that_differ_are_named() {
    let mut store = vault("doctor-away").await;
    let mut stack = stack("doctor-away", &store).await;
    let address = issuer_with_another_clock(stack.issuer.jwks()).await;
    store.kill();
    let gone = store.url();
    let change = move |config: &mut Value| {
        let mut second = config["identity"]["issuers"][0].clone();
        config["identity"]["issuers"][0]["jwks"] = json!({"url": format!("http://{address}/jwks.json")});
        second["name"] = json!("second");
        second["issuer"] = json!("https://second.example");
        second["jwks"] = json!({"url": format!("{gone}/jwks.json")});
        if let Some(issuers) = config["identity"]["issuers"].as_array_mut() {
            issuers.push(second);
        }
        config["audit"]["file"] = json!("none/audit.jsonl");
    };
    stack.change_config(change).unwrap();
    let started = std::time::Instant::now();
    let (output, text) = doctor(&stack, &[]);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (check, remedy) in [
        ("FAIL  audit file:", "make its folder"),
        ("pass  issuer `demo`: 3 usable keys", ""),
        ("FAIL  clock of issuer `demo`:", "clock"),
        ("FAIL  issuer `second`:", "check `jwks.url`"),
        ("FAIL  store `vault`:", "check that the store runs"),
        ("FAIL  binding `demo-api-key`, credential 1:", "check that the store runs"),
    ] {
        let line = text.lines().find(|line| line.starts_with(check));
        assert!(line.is_some_and(|line| line.contains(remedy)), "{check}\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_cannot_be_used_ends_with_2() {
    let store = vault("doctor-config").await;
    let stack = stack("doctor-config", &store).await;
    stack.change_file("keyward.yaml", "version: 1\n").unwrap();
    let (output, text) = doctor(&stack, &[]);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("is missing"), "{text}");
}
