//! The official SDK clients as agents, in every revision they speak, and a server that nobody here wrote as upstream.

use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use keyward_contract::reason::Reason;
use keyward_tests::agent::{NEWEST, WITH_SESSIONS};
use keyward_tests::envoy::{Route, UpstreamCluster};
use keyward_tests::files;
use keyward_tests::peers::{self, NodeServer};
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const EVERYTHING_HOST: &str = "everything.internal:3001";
const EVERYTHING_CLUSTER: &str = "everything";

/// Everything to the principal of the token.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "everything"} if input.principal.subject == "alice"
"#;

/// An official client.
#[derive(Clone, Copy, Debug)]
enum Sdk {
    /// PyPI `mcp`.
    Python,
    /// npm `@modelcontextprotocol/sdk`, up to 2025-11-25.
    TypeScript1,
    /// npm `@modelcontextprotocol/client`.
    TypeScript2,
}

impl Sdk {
    fn command(self, stack: &Stack, given: &Value) -> Command {
        let mut command = match self {
            Sdk::Python => peers::python("client.py").unwrap(),
            Sdk::TypeScript1 | Sdk::TypeScript2 => peers::node(&stack.folder).unwrap(),
        };
        match self {
            Sdk::Python => {}
            Sdk::TypeScript1 => drop(command.arg("client_v1.mjs")),
            Sdk::TypeScript2 => drop(command.arg("client_v2.mjs")),
        }
        command.arg(given.to_string());
        command
    }

    /// Runs the client; returns what it reports.
    fn run(self, stack: &Stack, revision: &str, tour: &str) -> Value {
        let given = json!({
            "url": format!("http://{}/mcp", stack.agents),
            "token": stack.token,
            "revision": revision,
            "tour": tour,
            "leaks": leaks(),
        });
        peers::report(&format!("{self:?}-{revision}"), self.command(stack, &given), &stack.folder, LIMIT).unwrap()
    }
}

/// Where, and in which form, the upstream is asked to put its credential.
fn leaks() -> Value {
    let forms = ["raw", "base64", "base64_shift1", "hex", "json_unicode", "percent"];
    let mut leaks: Vec<Value> = forms.iter().map(|form| json!({"carrier": "text", "form": form})).collect();
    let carriers = [
        "tool_error",
        "structured_content",
        "embedded_resource",
        "meta",
        "error_message",
        "error_data",
        "notification",
        "header",
        "set_cookie",
        "sse_split",
        "sse_comment",
        "tcp_split",
    ];
    leaks.extend(carriers.iter().map(|carrier| json!({"carrier": carrier})));
    leaks.into()
}

/// The forms of the secret that [`leaks`] asks for, written independently of Keyward's own list.
fn forms(secret: &str) -> Vec<String> {
    let each = |write: fn(u8) -> String| secret.bytes().map(write).collect::<String>();
    let mut forms = vec![
        secret.to_owned(),
        secret.chars().rev().collect(),
        each(|byte| format!("{byte:02x}")),
        each(|byte| format!("{byte:02X}")),
        each(|byte| format!("%{byte:02X}")),
        each(|byte| format!("\\u{byte:04x}")),
        secret.replace('+', "%2B").replace('/', "%2F"),
    ];
    for shift in 0..3 {
        let text = format!("{}{secret}", &"..."[..shift]);
        // Without the characters that depend on the neighbours.
        for encoded in [STANDARD.encode(&text), URL_SAFE.encode(&text)] {
            forms.push(encoded[4..encoded.len() - 4].to_owned());
        }
    }
    forms
}

fn assert_clean(report: &Value, secret: &str) {
    // Both as the client read it and as it came over the wire, which `received` holds.
    for text in [report.to_string(), report["received"].as_str().unwrap().to_owned()] {
        for form in forms(secret) {
            assert!(!text.contains(&form), "the client received `{form}`");
        }
    }
}

/// Everything that must hold after the tour of one client in one revision.
async fn check_demo_tour(sdk: Sdk, stack: &Stack, asked: &str, expected: &str) {
    stack.upstream.reset().await.unwrap();
    let report = sdk.run(stack, asked, "demo");
    let said = || {
        let mut short = report.clone();
        short["received"] = Value::Null;
        format!("{sdk:?} {asked}: {short:#}")
    };
    assert_eq!(report["revision"], expected, "{}", said());
    // The Python SDK, told the newest revision, asks nothing before its first call.
    if !(matches!(sdk, Sdk::Python) && asked == NEWEST) {
        assert_eq!(report["server"], "keyward-demo-upstream", "{}", said());
    }
    for tool in ["echo", "leak", "delete_everything"] {
        assert!(report["tools"].as_array().unwrap().contains(&json!(tool)), "{}", said());
    }
    assert_eq!(report["echo"]["content"][0]["text"], "hello", "{}", said());
    assert_eq!(report["echo_again"]["content"][0]["text"], "hello again", "{}", said());
    for error in report["errors"].as_array().unwrap() {
        // The Python SDK knows only 200 and 204 as answers to DELETE; the upstream's SDK sends 202.
        assert_eq!(error, "Session termination failed: 202", "{}", said());
    }

    assert_clean(&report, &stack.secret);
    let leaks = report["leaks"].as_array().unwrap();
    for leak in leaks {
        let fails = ["error_message", "error_data"].contains(&leak["leak"]["carrier"].as_str().unwrap());
        assert_eq!(leak["error"].is_object(), fails, "{leak}");
    }
    assert!(leaks[0].to_string().contains("REDACTED"), "{}", leaks[0]);

    let error = &report["denied"]["error"];
    assert_eq!(error["code"], Reason::NotAllowed.json_rpc(), "{}", said());
    assert!(error["message"].as_str().unwrap().contains(Reason::NotAllowed.message()), "{}", said());
    assert_eq!(error["data"]["reason"], Reason::NotAllowed.code(), "{}", said());
    let decision = stack.server.decision(error["data"]["decision_id"].as_str().unwrap()).await.unwrap();
    assert_eq!(decision["operations"][0]["target"], "delete_everything", "{decision}");

    let requests = stack.upstream.requests().await.unwrap();
    let requests = requests.as_array().unwrap();
    // Listing, two echoes and the leaks.
    assert!(requests.len() >= leaks.len() + 3, "{}", requests.len());
    for request in requests {
        let pairs = request["headers"].as_array().unwrap();
        let keys: Vec<&Value> = pairs.iter().filter(|pair| pair[0] == "x-api-key").map(|pair| &pair[1]).collect();
        assert_eq!(keys, [&json!(stack.secret)], "{request}");
        let text = request.to_string();
        assert!(!text.contains(&stack.token), "the agent's token reached the upstream: {request}");
        assert!(!text.contains("delete_everything"), "the denied call reached the upstream: {request}");
    }
}

async fn check_demo_tours(name: &str, sdk: Sdk, revisions: &[&str]) {
    let stack = Stack::builder(name).start().await.unwrap();
    for revision in revisions {
        check_demo_tour(sdk, &stack, revision, revision).await;
    }
    if revisions.contains(&NEWEST) {
        check_demo_tour(sdk, &stack, "auto", NEWEST).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_works_in_every_revision() {
    check_demo_tours("clients-python", Sdk::Python, &["2025-03-26", "2025-06-18", "2025-11-25", NEWEST]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_typescript_sdk_works_in_every_revision() {
    check_demo_tours("clients-typescript-1", Sdk::TypeScript1, &WITH_SESSIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_typescript_sdk_works_in_every_revision() {
    check_demo_tours("clients-typescript-2", Sdk::TypeScript2, &["2025-03-26", "2025-06-18", "2025-11-25", NEWEST])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_here_wrote_works_as_upstream() {
    let folder = files::run_folder("clients-everything-upstream").unwrap();
    let upstream = NodeServer::start_everything(&folder).unwrap();
    let address = upstream.address;
    let stack = Stack::builder("clients-everything")
        .policy(POLICY)
        .config(|config| {
            config["servers"]["demo"]["upstream_authority"] = json!(EVERYTHING_HOST);
            config["servers"]["demo"]["cluster"] = json!(EVERYTHING_CLUSTER);
            config["bindings"][0]["hosts"] = json!([EVERYTHING_HOST]);
        })
        .envoy(|envoy| {
            envoy.clusters.push(UpstreamCluster::tcp(EVERYTHING_CLUSTER, address));
            let metadata = json!({"server": "demo", "mode": "mcp"});
            let cluster = EVERYTHING_CLUSTER.to_owned();
            envoy.routes.push(Route { prefix: "/mcp".to_owned(), cluster, metadata });
        })
        .start()
        .await
        .unwrap();
    for sdk in [Sdk::Python, Sdk::TypeScript1, Sdk::TypeScript2] {
        for revision in WITH_SESSIONS {
            let report = sdk.run(&stack, revision, "everything");
            check_everything_tour(&report, revision, &stack.secret);
        }
    }
    // Asked for the newest revision, which it does not speak, it is still reached in the one it does.
    for sdk in [Sdk::Python, Sdk::TypeScript2] {
        let report = sdk.run(&stack, "auto", "everything");
        check_everything_tour(&report, "2025-11-25", &stack.secret);
    }
}

fn check_everything_tour(report: &Value, revision: &str, secret: &str) {
    assert_clean(report, secret);
    let mut said = report.clone();
    said["received"] = Value::Null;
    said["picture"] = Value::Null;
    assert_eq!(report["revision"], revision, "{said:#}");
    assert_eq!(report["server"], "mcp-servers/everything", "{said:#}");
    assert_eq!(report["echo"]["content"][0]["text"], "Echo: hello", "{said:#}");
    let picture = report["picture"]["content"][1]["data"].as_str().unwrap_or_default();
    assert!(STANDARD.decode(picture).is_ok_and(|bytes| bytes.starts_with(b"\x89PNG")), "{}", report["picture"]);

    let progress = report["progress"].as_array().unwrap();
    let steps: Vec<f64> = progress.iter().filter_map(|step| step["progress"].as_f64()).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0], "{said:#}");
    // The steps came while the tool ran, and not at its end.
    let first_ms = progress[0]["after_ms"].as_f64().unwrap();
    assert!(first_ms + 400.0 < report["long_ms"].as_f64().unwrap(), "{said:#}");
    assert_eq!(report["errors"], json!([]), "{said:#}");
}
