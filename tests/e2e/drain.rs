//! The server ends without losing a request, and comes back without a restart of Envoy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use keyward_tests::agent;
use keyward_tests::client::{Answer, Protocol, Request};
use keyward_tests::stack::Stack;
use rustix::process::Signal;
use serde_json::{Value, json};

/// How long the server goes on after SIGTERM.
const DRAIN: Duration = Duration::from_secs(2);

fn echo() -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

async fn ready(stack: &Stack) -> (StatusCode, Value) {
    let answer = Request::new(http::Method::GET, "/readyz").send(stack.server.admin).await.unwrap();
    (answer.status, answer.json().unwrap())
}

/// `grpc.health.v1.Health/Check` of the whole server: 1 is SERVING, 2 is NOT_SERVING.
async fn health(stack: &Stack) -> u8 {
    // An empty message in a frame: not compressed, no bytes.
    let mut request = Request::post_bytes("/grpc.health.v1.Health/Check", vec![0; 5])
        .without_header("content-type")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    request.protocol = Protocol::Http2;
    let answer = request.send(stack.server.grpc).await.unwrap();
    // One frame with the field 1 as a varint.
    match answer.body().as_slice() {
        [0, 0, 0, 0, 2, 8, status] => *status,
        other => unreachable!("{other:?} with {:?}", answer.trailers),
    }
}

async fn until_served(stack: &Stack) {
    let started = Instant::now();
    loop {
        let answer = stack.send(echo()).await.unwrap();
        if answer.result().is_ok() {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_is_announced_and_loses_no_request() {
    let mut stack = Stack::builder("drain")
        .config(|config| config["listen"]["drain_secs"] = json!(DRAIN.as_secs()))
        .start()
        .await
        .unwrap();
    assert_eq!(ready(&stack).await.0, 200);
    assert_eq!(health(&stack).await, 1);

    let stop = Arc::new(AtomicBool::new(false));
    let worker = |_| {
        let (stop, agents) = (Arc::clone(&stop), stack.agents);
        let request = echo().bearer(&stack.token);
        tokio::spawn(async move {
            let mut answers: Vec<(Instant, Answer)> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                answers.push((started, request.clone().send(agents).await.unwrap()));
            }
            answers
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;

    let told = Instant::now();
    stack.server.process.signal(Signal::TERM).unwrap();
    // Both say so while the server still decides.
    while ready(&stack).await.0 == 200 {
        assert!(told.elapsed() < Duration::from_secs(1), "readiness stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ready(&stack).await.0, 503);
    assert!(ready(&stack).await.1["problems"].to_string().contains("draining"));
    while health(&stack).await != 2 {
        assert!(told.elapsed() < Duration::from_secs(1), "health stays");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("not ready and not serving after {:?}", told.elapsed());
    let status = loop {
        if let Some(status) = stack.server.process.exit_status() {
            break status;
        }
        assert!(told.elapsed() < DRAIN + Duration::from_secs(5), "it does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let ended = told.elapsed();
    assert!(status.success(), "{status}: {}", stack.server.process.log());
    assert!(ended >= DRAIN, "ended after {ended:?} already");

    // Envoy stays as it is.
    tokio::time::sleep(Duration::from_millis(200)).await;
    stack.restart_server().unwrap();
    until_served(&stack).await;
    stop.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    for worker in workers {
        answers.extend(worker.await.unwrap());
    }
    let refused: Vec<_> = answers.iter().filter(|(_, answer)| answer.result().is_err()).collect();
    println!(
        "{} requests, {} refused while there was no server; it ended after {ended:?}",
        answers.len(),
        refused.len()
    );
    for (started, answer) in &refused {
        let reason = &answer.json().unwrap()["error"]["data"]["reason"];
        assert_eq!(reason, "decision_unavailable", "{}", answer.text());
        // Nobody was turned away while the server was there.
        let after = started.duration_since(told);
        assert!(after + Duration::from_millis(50) >= DRAIN, "refused after {after:?}: {}", answer.text());
    }
    let records = stack.server.audit().unwrap();
    assert!(records.iter().any(|record| record["event"] == "stopped"));
    assert_eq!(records.iter().filter(|record| record["event"] == "started").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_under_way_is_finished() {
    let mut stack = Stack::builder("drain-under-way")
        .config(|config| config["listen"]["drain_secs"] = json!(1))
        .envoy(|envoy| envoy.plugin.push(("timeout_ms".to_owned(), json!(5_000))))
        .start()
        .await
        .unwrap();
    until_served(&stack).await;
    stack.upstream.reset().await.unwrap();
    // The question is in, and the server has not looked at it when it is told to end.
    stack.server.freeze(true).unwrap();
    let call = tokio::spawn(echo().bearer(&stack.token).send(stack.agents));
    tokio::time::sleep(Duration::from_millis(200)).await;
    stack.server.process.signal(Signal::TERM).unwrap();
    stack.server.freeze(false).unwrap();
    let answer = call.await.unwrap().unwrap();
    assert_eq!(answer.result().unwrap()["content"][0]["text"], "hello");
    let status = stack.server.process.stop(Duration::from_secs(10)).unwrap();
    assert!(status.success(), "{status}");
    stack.restart_server().unwrap();
    until_served(&stack).await;
}
