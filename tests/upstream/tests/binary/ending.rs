//! The upstream ends when it should.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::running::{Call, Upstream};

const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn it_ends_when_standard_input_closes_even_with_a_call_under_way() {
    let mut upstream = Upstream::start(&[]).await;
    let call = Call::tool("slow", json!({"millis": 60_000}));
    let _ = tokio::time::timeout(Duration::from_millis(100), upstream.send(call)).await;
    drop(upstream.child.stdin.take());
    let status = tokio::time::timeout(WITHIN, upstream.child.wait()).await.unwrap().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn it_ends_well_on_sigterm() {
    let mut upstream = Upstream::start(&[]).await;
    let id = upstream.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    let status = tokio::time::timeout(WITHIN, upstream.child.wait()).await.unwrap().unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn a_missing_key_and_a_busy_port_are_clear_errors() {
    let upstream = Upstream::start(&[]).await;
    for (arguments, key, expected) in [
        (vec!["--api-key-env", "NO_SUCH_KEY"], "x", "no API key in the environment variable `NO_SUCH_KEY`"),
        (vec!["--api-key-env", "UPSTREAM_KEY"], "", "is empty"),
        (vec!["--api-key-env", "UPSTREAM_KEY", "--listen", &upstream.mcp], "x", "cannot listen on `127.0.0.1:"),
        (vec!["--api-key-env", "UPSTREAM_KEY", "--variant", "smoke"], "x", "invalid value 'smoke'"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_keyward-demo-upstream"))
            .args(arguments)
            .env("UPSTREAM_KEY", key)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(WITHIN, output).await.unwrap().unwrap();
        assert!(!output.status.success());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(expected), "{error}");
    }
}
