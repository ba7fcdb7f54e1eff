//! Stored secrets that are older than their binding allows: a metric, a line in the log, and a warning. They go on serving.

use std::time::{Duration, Instant, SystemTime};

use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, Stack};
use keyward_tests::stores::Store;
use serde_json::json;

use super::{TOKEN, vault};
use crate::expect;
use crate::stores::{builder, echo};

const DAY: Duration = Duration::from_secs(86_400);

fn doctor(stack: &Stack) -> (Option<i32>, String) {
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let output = Server::run(&["doctor", "--config", &config], stack.variables()).unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A binding with a secret in a file and one in a store that says no time.
fn prepared(name: &str, store: &Store) -> Builder {
    let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
    let stores = json!({"vault": {"type": "vault", "address": store.url(), "auth": auth}});
    builder(name, stores, &[("x-key", json!({"ref": "vault://kv/jira", "json_key": "key"}))])
        .variable("VAULT_TOKEN", TOKEN)
        .config(|config| config["bindings"][0]["max_age_days"] = json!(90))
}

fn make_old(stack: &Stack, age: Duration) {
    let file = std::fs::File::options().write(true).open(stack.folder.join("secrets/demo")).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_too_old_is_told_of_and_goes_on_serving() {
    let store = vault("ages-old").await;
    let builder = prepared("ages-old", &store);
    let mut stack = builder
        .variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
        .config(|config| config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]}))
        .start()
        .await
        .unwrap();
    make_old(&stack, 100 * DAY);
    // What is too old is looked for at the start, and every hour.
    stack.restart_server().unwrap();
    let started = Instant::now();
    let gauge = |metrics: &str, reference: &str| -> Option<u64> {
        let name = format!("keyward_secret_age_seconds{{binding=\"demo-api-key\",reference=\"{reference}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok())
    };
    let (old, new) = loop {
        let metrics = stack.server.metrics().await.unwrap();
        if let (Some(old), Some(new)) = (gauge(&metrics, "file://secrets/demo"), gauge(&metrics, "vault://kv/jira key"))
        {
            break (old, new);
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!((100 * 86_400..100 * 86_400 + 600).contains(&old), "{old}");
    assert!(new < 600, "the store says no time: since this server saw it first, {new}");
    let log = stack.server.process.log();
    let line = log.lines().find(|line| line.contains("a stored secret is older than its binding allows"));
    assert!(line.is_some_and(|line| line.contains("file://secrets/demo") && line.contains("age_days=100")), "{log}");
    assert_eq!(log.matches("a stored secret is older").count(), 1, "{log}");
    let answer = stack.send(echo()).await.unwrap();
    expect::allowed(&stack, &answer).await;

    let (code, text) = doctor(&stack);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "WARN  age of binding `demo-api-key`, credential 0: `file://secrets/demo` is 100 days old; rotate it: `max_age_days` is 90",
        "pass  age of binding `demo-api-key`, credential 1: `vault://kv/jira key` is 0 days old",
        "1 warned, 0 failed",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    make_old(&stack, 80 * DAY);
    let (_, text) = doctor(&stack);
    assert!(
        text.contains("pass  age of binding `demo-api-key`, credential 0: `file://secrets/demo` is 80 days old"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_age_that_nobody_knows_is_not_made_up() {
    let store = vault("ages-unknown").await;
    let stack = prepared("ages-unknown", &store).start().await.unwrap();
    let (code, text) = doctor(&stack);
    assert_eq!(code, Some(0), "{text}");
    let line = "skip  age of binding `demo-api-key`, credential 1: `vault://kv/jira key`: its store says no time, and there is no \
                database to note one in";
    assert!(text.contains(line), "{text}");
    let metrics = stack.server.metrics().await.unwrap();
    assert!(!metrics.contains("vault://kv/jira"), "{metrics}");
}
