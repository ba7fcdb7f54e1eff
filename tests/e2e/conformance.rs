//! The official conformance suite, directly against an upstream on the official SDK and through Keyward: what passes
//! directly, passes through Keyward.
//!
//! The suite cannot send a token, so a hop in front adds it. The upstream asks for no credential, but Keyward injects one,
//! so that every answer passes the scrubber.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use keyward_tests::envoy::{Envoy, Route, UpstreamCluster};
use keyward_tests::peers::{self, NodeServer};
use keyward_tests::stack::Stack;
use keyward_tests::{client, files};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);
const SECRET: &str = "conformance/key+0123456789";
const UPSTREAM_HOST: &str = "conformance.internal";
const CLUSTER: &str = "conformance_upstream";

/// Everything to the principal of the token: whatever is lost then, Keyward's protocol handling lost.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "everything"} if input.principal.subject == "alice"
"#;

/// A check: scenario, id, name, and which one of that id and name it is in the scenario.
type Check = (String, String, String, usize);

/// How a check came out, and why.
#[derive(Debug, PartialEq)]
struct Outcome {
    status: String,
    why: String,
}

type Checks = BTreeMap<Check, Outcome>;

/// Reads what the suite wrote: one folder a scenario, named `server-SCENARIO-TIME`.
fn read_checks(results: &Path) -> Checks {
    let mut checks = Checks::new();
    for entry in fs::read_dir(results).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let scenario =
            name.strip_prefix("server-").and_then(|rest| rest.get(..rest.len() - "-YYYY-MM-DDThh-mm-ss-mmmZ".len()));
        let list: Value = serde_json::from_slice(&fs::read(folder.join("checks.json")).unwrap()).unwrap();
        for check in list.as_array().unwrap() {
            let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
            let mut key = (scenario.unwrap().to_owned(), text("id"), text("name"), 1);
            while checks.contains_key(&key) {
                key.3 += 1;
            }
            checks.insert(key, Outcome { status: text("status"), why: text("errorMessage") });
        }
    }
    checks
}

fn passed(outcome: Option<&Outcome>) -> bool {
    outcome.is_some_and(|outcome| outcome.status == "SUCCESS")
}

/// What passes directly and not through Keyward, and what fails only through Keyward.
fn lost(direct: &Checks, through: &Checks) -> Vec<String> {
    let mut lost = Vec::new();
    for (check, outcome) in direct {
        let there = through.get(check);
        if passed(Some(outcome)) && !passed(there) {
            lost.push(format!("{check:?} passes directly, through Keyward: {there:?}"));
        }
    }
    for (check, outcome) in through {
        if outcome.status == "FAILURE" && !direct.contains_key(check) {
            lost.push(format!("{check:?} exists only through Keyward: {outcome:?}"));
        }
    }
    lost
}

/// Per scenario: how many checks pass and fail, directly and through Keyward.
fn table(direct: &Checks, through: &Checks) -> String {
    let mut rows: BTreeMap<&str, [usize; 4]> = BTreeMap::new();
    for (column, checks) in [(0, direct), (2, through)] {
        for ((scenario, ..), outcome) in checks {
            let row = rows.entry(scenario).or_default();
            match outcome.status.as_str() {
                "SUCCESS" => row[column] += 1,
                "FAILURE" => row[column + 1] += 1,
                _ => {}
            }
        }
    }
    let mut text = format!("{:<52}{:>16}{:>20}\n", "scenario", "directly", "through Keyward");
    for (scenario, [passed, failed, passed_there, failed_there]) in rows {
        let directly = format!("{passed} / {failed}");
        let there = format!("{passed_there} / {failed_there}");
        let _ = writeln!(text, "{scenario:<52}{directly:>16}{there:>20}");
    }
    text
}

async fn compare(requirements: &str, at_least: usize) {
    let folder = files::run_folder("conformance-direct").unwrap();
    let environment = [("UPSTREAM_HOST", UPSTREAM_HOST), ("UPSTREAM_SECRET", SECRET)];
    let upstream = NodeServer::start("conformance_upstream.mjs", &environment, &folder).unwrap();
    let url = format!("http://{}/mcp", upstream.address);
    let direct = read_checks(&peers::conformance(&url, requirements, &folder, LIMIT).unwrap());
    let before = received(&upstream).await;
    assert_eq!(before["with_key"], 0, "{before}");

    let stack = stack(&upstream).await;
    let folder = files::run_folder("conformance-through").unwrap();
    let bearer = format!("Bearer {}", stack.token);
    let hop = Envoy::start_hop(stack.agents, &[("authorization", &bearer)], &folder).await.unwrap();
    let url = format!("http://{}/mcp", hop.agents().unwrap());
    let through = read_checks(&peers::conformance(&url, requirements, &folder, LIMIT).unwrap());

    let table = table(&direct, &through);
    println!("requirements {requirements}: checks that pass / fail\n{table}");
    let count = |checks: &Checks| checks.values().filter(|outcome| passed(Some(outcome))).count();
    let (directly, there) = (count(&direct), count(&through));
    // Not through the macro, whose output a passing test swallows.
    let line = format!("conformance {requirements}: {directly} checks pass directly, {there} through Keyward");
    let _ = writeln!(std::io::stderr(), "{line}");
    fs::write(folder.join("table.txt"), format!("{line}\n{table}")).unwrap();
    assert!(directly >= at_least, "only {directly} checks pass directly");
    let lost = lost(&direct, &through);
    assert!(lost.is_empty(), "{line}\n{table}\n{}", lost.join("\n"));

    let after = received(&upstream).await;
    let since = |key: &str| after[key].as_u64().unwrap() - before[key].as_u64().unwrap();
    assert!(since("requests") > 50, "{after}");
    assert_eq!(since("with_key"), since("requests"), "a request came without the credential: {before} {after}");
    assert_eq!(since("with_authorization"), 0, "the agent's token reached the upstream: {after}");
    assert!(!everything_in(&folder).contains(SECRET), "the suite received the credential");
}

async fn stack(upstream: &NodeServer) -> Stack {
    let address = upstream.address;
    Stack::builder("conformance")
        .policy(POLICY)
        .secret(SECRET)
        .config(|config| {
            let authority = format!("{UPSTREAM_HOST}:{}", address.port());
            config["servers"]["demo"]["upstream_authority"] = json!(authority);
            config["servers"]["demo"]["cluster"] = json!(CLUSTER);
            config["bindings"][0]["hosts"] = json!([authority]);
        })
        .envoy(|envoy| {
            envoy.clusters.push(UpstreamCluster::tcp(CLUSTER, address));
            let metadata = json!({"server": "demo", "mode": "mcp"});
            envoy.routes.push(Route { prefix: "/mcp".to_owned(), cluster: CLUSTER.to_owned(), metadata });
        })
        .start()
        .await
        .unwrap()
}

async fn received(upstream: &NodeServer) -> Value {
    serde_json::from_str(&client::get(upstream.address, "/report").await.unwrap()).unwrap()
}

/// All that the suite wrote down of what it received.
fn everything_in(folder: &Path) -> String {
    let mut all = fs::read_to_string(folder.join("conformance.out")).unwrap();
    for entry in fs::read_dir(folder.join("results")).unwrap() {
        all += &fs::read_to_string(entry.unwrap().path().join("checks.json")).unwrap();
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_of_2025_11_25_survives_keyward() {
    compare("2025-11-25", 80).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_check_of_2026_07_28_survives_keyward() {
    compare("2026-07-28", 160).await;
}
