//! When a part fails, nothing goes through.

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::envoy::FailurePolicy;
use keyward_tests::stack::Stack;
use serde_json::json;

use crate::expect;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_a_denial_until_it_is_back() {
    let mut stack = Stack::builder("deny-server-down").start().await.unwrap();
    stack.server.process.kill();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    expect::denied(&stack, &answer, Reason::DecisionUnavailable, 1).await;

    stack.restart_server().unwrap();
    let started = Instant::now();
    loop {
        let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
        if answer.result().is_ok() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_server_is_a_denial_in_time() {
    let mut stack = Stack::builder("deny-server-slow")
        .envoy(|envoy| envoy.plugin.push(("timeout_ms".to_owned(), json!(300))))
        .start()
        .await
        .unwrap();
    stack.server.freeze(true).unwrap();
    // The signal has to reach every thread first.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let started = Instant::now();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    let took = started.elapsed();
    expect::denied(&stack, &answer, Reason::DecisionUnavailable, 1).await;
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&took), "{took:?}");

    // The late answer to a question that nobody waits for changes nothing.
    stack.server.freeze(false).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_cluster_is_a_denial() {
    let stack = Stack::builder("deny-unknown-cluster")
        .envoy(|envoy| envoy.plugin.push(("cluster".to_owned(), json!("nowhere"))))
        .start()
        .await
        .unwrap();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    let reason = answer.json().unwrap()["error"]["data"]["reason"].as_str().and_then(Reason::from_code).unwrap();
    assert!(matches!(reason, Reason::DecisionUnavailable | Reason::FilterMisconfigured), "{}", answer.text());
    expect::json_rpc_error(&answer, reason, &json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoy_that_would_not_wait_for_the_decision_is_noticed() {
    let stack =
        Stack::builder("deny-no-stop-iteration").envoy(|envoy| envoy.stop_iteration = false).start().await.unwrap();
    for _ in 0..3 {
        let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
        assert_eq!(stack.upstream.count().await.unwrap(), 0, "{}", answer.text());
        let reason = answer.json().unwrap()["error"]["data"]["reason"].clone();
        assert_eq!(reason, Reason::FilterMisconfigured.code(), "{}", answer.text());
    }
    let log = stack.envoy.process.log();
    assert!(log.contains("allow_on_headers_stop_iteration"), "the log does not name the setting:\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_filter_configuration_keeps_envoy_from_starting() {
    for text in ["{\"cluster\": \"keyward\", \"no_such_key\": 1}", "not json", "{}"] {
        let started =
            Stack::builder("deny-bad-plugin").envoy(|envoy| envoy.plugin_text = Some(text.to_owned())).start().await;
        assert!(started.is_err(), "Envoy started with `{text}`");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_gone_is_an_error_of_envoy() {
    let mut stack = Stack::builder("deny-upstream-down").start().await.unwrap();
    stack.upstream.process.kill();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    assert!(answer.status.is_server_error(), "{}", answer.status);
    assert!(!answer.text().contains(&stack.secret));
}

/// The filter traps on the header `x-keyward-test-trap` only when built with the feature `trap`; `cargo xtask test`
/// builds that module too and names it in `KEYWARD_TRAP_WASM`.
#[tokio::test(flavor = "multi_thread")]
async fn a_trap_in_the_filter_lets_nothing_through() {
    let Some(module) = std::env::var_os("KEYWARD_TRAP_WASM") else {
        eprintln!("skipped: KEYWARD_TRAP_WASM names no filter that can trap");
        return;
    };
    for policy in [FailurePolicy::Reload, FailurePolicy::Closed] {
        let stack = Stack::builder("deny-trap")
            .envoy(|envoy| {
                envoy.module = Some(module.clone().into());
                envoy.failure_policy = policy;
                envoy.max_stream_ms = Some(3_000);
            })
            .start()
            .await
            .unwrap();
        for moment in ["request_headers", "request_body", "decision"] {
            let call = agent::tool_call(1, "echo", json!({"message": "hello"})).header("x-keyward-test-trap", moment);
            let answer = stack.send(call).await.unwrap();
            expect::envoy_refused(&stack, &answer).await;
        }
        if policy == FailurePolicy::Reload {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
            expect::allowed(&stack, &answer).await;
        }
    }
}
