//! The commands of the program, and what they say where something is wrong.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::fixture::Fixture;

fn keyward(fixture: &Fixture, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_keyward"))
        .args(arguments)
        .env("KEYWARD_CONFIG", fixture.configuration())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_config_tells_what_is_wrong_and_where() {
    let fixture = Fixture::new("check");
    let (code, out, err) = keyward(&fixture, &["check-config", "--secrets"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("ok, revision "), "{out}");
    fixture.write("policies/main.rego", "package keyward\n\ndecision := {");
    let (code, _, err) = keyward(&fixture, &["check-config"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("main.rego:3:"), "{err}");
    fixture.write("policies/main.rego", "package other\n");
    let (_, _, err) = keyward(&fixture, &["check-config"]);
    assert!(
        err.contains("keyward.yaml:12:11: `policy.directory`: ") && err.contains("has the rule `decision`"),
        "{err}"
    );
    let good = std::fs::read_to_string(fixture.configuration()).unwrap();
    fixture.write("keyward.yaml", &good.replace("jwks.json", "none.json").replace("policies", "none"));
    let (code, _, err) = keyward(&fixture, &["check-config"]);
    assert_eq!((code, err.lines().count()), (Some(1), 2), "{err}");
    for expected in
        ["keyward.yaml:11:15: `identity.issuers[0].jwks.file`: ", "keyward.yaml:12:11: `policy.directory`: "]
    {
        assert!(err.contains(expected), "{expected}: {err}");
    }
    fixture.write("keyward.yaml", "version: 1\nnonsense: 1\n");
    let (code, _, err) = keyward(&fixture, &["check-config"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("keyward.yaml:2:1: `nonsense`: unknown key"), "{err}");
    std::fs::remove_file(fixture.configuration()).unwrap();
    let (code, _, err) = keyward(&fixture, &["check-config"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("keyward.yaml: cannot be read"), "{err}");
    assert_eq!(keyward(&fixture, &["check-config", "--nonsense"]).0, Some(2));
    assert_eq!(keyward(&fixture, &["serve"]).0, Some(1));
}

#[test]
fn check_config_tells_where_a_missing_secret_is_named() {
    let fixture = Fixture::new("check-secrets");
    for secret in ["api.key", "audit.key"] {
        std::fs::remove_file(fixture.directory.join(secret)).unwrap();
    }
    assert_eq!(keyward(&fixture, &["check-config"]).0, Some(0));
    let (code, _, err) = keyward(&fixture, &["check-config", "--secrets"]);
    assert_eq!((code, err.lines().count()), (Some(1), 2), "{err}");
    assert!(err.contains("keyward.yaml:15:3: `audit.hmac_key`: secret `file://audit.key` is not set; "), "{err}");
    assert!(err.contains("`bindings[0].credentials[0]`: secret `file://api.key` is not set; set it where"), "{err}");
}

#[test]
fn check_config_refuses_secrets_that_could_not_be_used() {
    let fixture = Fixture::new("check-useless-secrets");
    fixture.write("audit.key", "short");
    for (secret, says) in
        [("abc", "shorter than"), ("aaaaaaaaaaaa", "different bytes"), ("s3cr3t-key-0123\n", "`trim_newline: true`")]
    {
        fixture.write("api.key", secret);
        let (code, _, err) = keyward(&fixture, &["check-config", "--secrets"]);
        assert_eq!((code, err.lines().count()), (Some(1), 2), "{err}");
        assert!(err.contains("`audit.hmac_key`: the key is shorter than 16 bytes"), "{err}");
        assert!(err.contains("`bindings[0].credentials[0]`: the ") && err.contains(says), "{err}");
        assert!(!err.contains(secret), "{err}");
    }
}

#[test]
fn check_config_warns_of_bindings_that_cannot_serve_and_doctor_tells_them_as_well() {
    let fixture = Fixture::new("check-warnings");
    let configuration = std::fs::read_to_string(fixture.configuration()).unwrap();
    let second = r#"
  - id: second-key
    mode: service_account
    owner: platform-team
    environment: test
    servers: [demo]
    hosts: ["mcp.example"]
    credentials:
      - { type: header, name: x-second, secret: { ref: "file://api.key" } }
"#;
    let configuration = configuration.trim_end().to_owned() + second;
    fixture.write("keyward.yaml", &configuration);
    let hosts = "none is an upstream of `demo` (`upstream.internal:9000`), so that it serves no call there; name that ";
    let principals = "`demo-api-key` fits the same callers of `demo`, whatever `hosts` says, and the policy names ";
    let (code, out, err) = keyward(&fixture, &["check-config"]);
    assert!(code == Some(0) && out.contains("ok, revision "), "{out}{err}");
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    assert!(lines[0].contains(&format!(": `bindings[1].hosts`: warning: {hosts}")), "{err}");
    assert!(lines[1].contains(&format!(": `bindings[1].principals`: warning: {principals}")), "{err}");
    let (code, out, err) = keyward(&fixture, &["doctor"]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains(&format!("FAIL  binding `second-key`, hosts: {hosts}")), "{out}");
    assert!(out.contains(&format!("WARN  binding `second-key`, principals: {principals}")), "{out}");

    // The policy may choose between the two.
    fixture.write("policies/more.rego", "package keyward\n\nother := \"second-key\"\n");
    fixture.write("keyward.yaml", &configuration.replace("mcp.example\"]", "upstream.internal\"]"));
    let (code, _, err) = keyward(&fixture, &["check-config"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let (code, out, err) = keyward(&fixture, &["doctor"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.contains("0 failed") && !out.contains("WARN"), "{out}");
}

#[test]
fn check_config_tells_programs_the_same() {
    let fixture = Fixture::new("check-json");
    let said = |arguments: &[&str], expected: i32| -> Vec<Value> {
        let (code, out, err) = keyward(&fixture, &[&["check-config", "--json"][..], arguments].concat());
        assert_eq!((code, err.as_str()), (Some(expected), ""), "{out}");
        let said: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"));
        for one in &said {
            for member in ["severity", "file", "line", "column", "key", "message", "remedy"] {
                assert!(one.get(member).is_some(), "{member}: {one}");
            }
        }
        said
    };
    let file = fixture.configuration().display().to_string();
    assert_eq!(said(&["--secrets"], 0), Vec::<Value>::new());

    let good = std::fs::read_to_string(fixture.configuration()).unwrap();
    fixture.write("keyward.yaml", &good.replace("jwks.json", "none.json").replace("policies", "none"));
    let places: Vec<Value> = said(&[], 1)
        .iter()
        .map(|one| json!([one["severity"], one["file"], one["line"], one["column"], one["key"]]))
        .collect();
    assert_eq!(
        places,
        [
            json!(["error", file, 11, 15, "identity.issuers[0].jwks.file"]),
            json!(["error", file, 12, 11, "policy.directory"]),
        ]
    );
    fixture.write("keyward.yaml", &good.replace("version: 1\n", "version: 1\nnonsense: 1\n"));
    let [unknown]: [Value; 1] = said(&[], 1).try_into().unwrap();
    assert_eq!((&unknown["key"], &unknown["message"]), (&json!("nonsense"), &json!("unknown key")));
    assert_ne!(unknown["remedy"], "");

    // A warning alone changes no exit code; with a problem beside it, both are said.
    fixture.write("keyward.yaml", &good.replace("hosts: [\"upstream.internal:9000\"]", "hosts: [\"mcp.example\"]"));
    let [warning]: [Value; 1] = said(&["--secrets"], 0).try_into().unwrap();
    assert_eq!((&warning["severity"], &warning["key"]), (&json!("warning"), &json!("bindings[0].hosts")));
    assert!(warning["message"].as_str().unwrap().starts_with("none is an upstream of `demo`"), "{warning}");
    std::fs::remove_file(fixture.directory.join("audit.key")).unwrap();
    let [warning, problem]: [Value; 2] = said(&["--secrets"], 1).try_into().unwrap();
    assert_eq!((&warning["severity"], &problem["severity"]), (&json!("warning"), &json!("error")));
    assert_eq!((&problem["key"], &problem["line"]), (&json!("audit.hmac_key"), &json!(15)));

    std::fs::remove_file(fixture.configuration()).unwrap();
    let [missing]: [Value; 1] = said(&[], 1).try_into().unwrap();
    assert_eq!(json!([missing["line"], missing["column"], missing["key"]]), json!([0, 0, ""]));
    assert_eq!(keyward(&fixture, &["check-config", "--json", "--nonsense"]).0, Some(2));
}

#[test]
fn explain_names_stage_rule_and_binding_but_no_secret() {
    let fixture = Fixture::new("explain");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"m"}}}"#;
    fixture.write("call.json", body);
    fixture.write("token", &fixture.token(&json!({})));
    let file = |name: &str| fixture.directory.join(name).display().to_string();
    let arguments = ["explain", "--server", "demo", "--token-file", &file("token"), "--request", &file("call.json")];
    let (code, out, err) = keyward(&fixture, &arguments);
    assert_eq!(code, Some(0), "{out}{err}");
    for expected in ["subject: alice", "rule: tools", "binding: demo-api-key", "set: yes", "allowed"] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
    assert!(!format!("{out}{err}").contains(super::fixture::SECRET));
    let claims = r#"{"iss":"https://issuer.example","aud":"https://mcp.example/mcp","sub":"bob","exp":9999999999}"#;
    let arguments = ["explain", "--server", "demo", "--claims", claims, "--request", &file("call.json"), "--json"];
    let (code, out, err) = keyward(&fixture, &arguments);
    assert_eq!(code, Some(1), "{out}{err}");
    let explanation: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(explanation["reason"], "not_allowed");
}

#[test]
fn explain_knows_for_which_resource_claims_are() {
    let fixture = Fixture::new("explain-resource");
    let configuration = std::fs::read_to_string(fixture.configuration()).unwrap();
    let resource = "    mode: mcp\n    resource: { url: \"https://mcp.example/own\" }\n";
    fixture.write("keyward.yaml", &configuration.replacen("    mode: mcp\n", resource, 1));
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"m"}}}"#;
    fixture.write("call.json", body);
    let call = fixture.directory.join("call.json").display().to_string();
    for (audience, said) in [("https://mcp.example/own", "pass identity"), ("https://mcp.example/mcp", "DENY identity")]
    {
        let claims =
            json!({"iss": "https://issuer.example", "aud": audience, "sub": "alice", "exp": 9_999_999_999_u64});
        let arguments = ["explain", "--server", "demo", "--claims", &claims.to_string(), "--request", &call];
        let (_, out, err) = keyward(&fixture, &arguments);
        assert!(out.contains(said), "{audience}: {out}{err}");
    }
}

#[test]
fn explain_uses_up_no_token_that_serves_once() {
    let fixture = Fixture::new("explain-once");
    let configuration = std::fs::read_to_string(fixture.configuration()).unwrap();
    let once = configuration.replace("      jwks: {", "      one_time: true\n      jwks: {");
    // There is no such database yet: what had to be remembered could not be.
    let database = "database: { encryption_keys: [{ ref: \"file://encryption.key\" }] }\npolicy:";
    fixture.write("keyward.yaml", &once.replace("policy:", database));
    fixture.write("encryption.key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"m"}}}"#;
    fixture.write("call.json", body);
    let file = |name: &str| fixture.directory.join(name).display().to_string();
    let arguments = ["explain", "--server", "demo", "--token-file", &file("token"), "--request", &file("call.json")];
    fixture.write("token", &fixture.token(&json!({"jti": "one", "scope": "use see"})));
    for _ in 0..2 {
        let (_, out, err) = keyward(&fixture, &arguments);
        assert!(out.contains("pass identity") && out.contains("scopes: use, see"), "{out}{err}");
    }
    assert!(!fixture.directory.join("keyward.db").exists());
    fixture.write("token", &fixture.token(&json!({"jti": null})));
    let (_, out, err) = keyward(&fixture, &arguments);
    assert!(format!("{out}{err}").contains("DENY identity"), "{out}{err}");
}

#[test]
fn the_example_of_the_readme_is_allowed() {
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let readme = std::fs::read_to_string(repository.join("README.md")).unwrap();
    let blocks = readme.split("```sh\n").filter_map(|rest| rest.split("```").next());
    let example = blocks.skip(1).find(|block| block.contains("keyward explain")).unwrap();
    let example = example.replace("target/release/keyward", env!("CARGO_BIN_EXE_keyward"));
    let fixture = Fixture::new("readme");
    std::os::unix::fs::symlink(repository.join("policies"), fixture.directory.join("sample")).unwrap();
    let example = example.replace("policies/keyward.yaml", "sample/keyward.yaml");
    let output = Command::new("sh").args(["-c", &example]).current_dir(&fixture.directory).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    for expected in ["mcp revision: 2026-07-28", "rule: tool_by_role", "binding: demo-api-key", "set: yes", "allowed"] {
        assert!(out.contains(expected), "{expected}: {out}");
    }
}

#[test]
fn explain_asks_from_the_address_that_it_is_told() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/keyward.yaml");
    let fixture = Fixture::new("source");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_everything","arguments":{}}}"#;
    fixture.write("call.json", body);
    let call = fixture.directory.join("call.json").display().to_string();
    let claims = r#"{"iss":"https://issuer.example","aud":"https://mcp.example/mcp","sub":"a","exp":4102444800,"roles":["demo-admin"]}"#;
    let arguments =
        ["explain", "--config", sample, "--server", "demo", "--claims", claims, "--request", &call, "--json"];
    for (source, rule) in [
        (&["--source", "10.1.2.3"][..], "tool_by_role"),
        (&["--source", "192.0.2.1"], "default_deny"),
        (&[], "default_deny"),
    ] {
        let (_, out, err) = keyward(&fixture, &[&arguments, source].concat());
        assert!(out.contains(&format!("rule: {rule}")), "{source:?}: {out}{err}");
    }
    let (code, _, err) = keyward(&fixture, &[&arguments[..], &["--source", "localhost"]].concat());
    assert!(code == Some(2) && err.contains("invalid IP address"), "{err}");
}

#[test]
fn explain_says_what_its_arguments_lack() {
    let fixture = Fixture::new("arguments");
    let (code, _, err) = keyward(&fixture, &["explain", "--server", "none"]);
    assert_eq!((code, err.as_str()), (Some(1), "--server: there is no server `none`; there is `demo`\n"));
    let (code, _, err) = keyward(&fixture, &["explain", "--server", "demo", "--claims", r#"{"sub":"alice"}"#]);
    assert_eq!(code, Some(1));
    assert!(err.contains("claim `iss` is missing") && err.contains("needed are `iss` and `aud`"), "{err}");
}

#[test]
fn explain_finds_entry_and_cluster_by_authority() {
    let fixture = Fixture::new("by-authority");
    let configuration = std::fs::read_to_string(fixture.configuration()).unwrap();
    let second = "servers:\n  api: { mode: http, destinations: [{ host: api.example }], cluster: api }\n";
    fixture.write("keyward.yaml", &configuration.replace("servers:\n  demo:", &format!("{second}  demo:")));
    let claims = r#"{"iss":"https://issuer.example","aud":"https://mcp.example/mcp","sub":"bob","exp":9999999999}"#;
    let arguments = ["explain", "--authority", "api.example", "--claims", claims, "--json"];
    let reason = |more: &[&str]| -> Value {
        let (_, out, err) = keyward(&fixture, &[&arguments[..], more].concat());
        let explanation: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
        explanation["reason"].clone()
    };
    // The perimeter lets it through; the policy then says no.
    assert_eq!(reason(&[]), "not_allowed");
    assert_eq!(reason(&["--cluster", "other"]), "destination_denied");
}

#[test]
fn bindings_are_shown_without_their_secrets() {
    let fixture = Fixture::new("bindings");
    let (code, out, _) = keyward(&fixture, &["bindings", "show", "demo-api-key"]);
    assert_eq!(code, Some(0));
    let card: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        card["credentials"][0],
        json!({"type": "header", "places": ["header `x-api-key`"], "references": ["file://api.key"], "state": "set"})
    );
    assert_eq!(card["actor"], "everybody");
    assert!(!out.contains(super::fixture::SECRET));
    std::fs::remove_file(fixture.directory.join("api.key")).unwrap();
    let (_, out, _) = keyward(&fixture, &["bindings", "list"]);
    let expected = "ID            STATE   VERSION  MODE             ENVIRONMENT  OWNER          SERVERS  HOSTS                   \
                    SECRETS\n\
                    demo-api-key  active  -        service_account  test         platform-team  demo     upstream.internal:9000  NOT SET\n";
    assert_eq!(out, expected);
    let (_, out, _) = keyward(&fixture, &["bindings", "export"]);
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()[0]["credentials"][0]["state"], "not_set");
    assert_eq!(keyward(&fixture, &["bindings", "show", "none"]).0, Some(1));
}
