//! Replicas behind one Envoy: they are restarted one after the other and nobody notices; one that is killed costs the calls it
//! had, which are denied, and no more.

use std::time::{Duration, Instant};

use keyward_tests::agent;
use keyward_tests::client::{Answer, Request};
use keyward_tests::files;
use keyward_tests::postgres::Postgres;
use keyward_tests::server::Server;
use keyward_tests::stack::Stack;
use rustix::process::Signal;
use serde_json::json;

use crate::leak;
use crate::load::Load;
use crate::store::{echo, kept_in, run, until};

/// How long a replica goes on after SIGTERM: twice the interval of Envoy's health checks, and something for a busy machine.
const DRAIN_SECS: u64 = 3;
const SOON: Duration = Duration::from_secs(15);

async fn stack(name: &str, postgres: &Postgres, servers: usize) -> Stack {
    let builder = kept_in(Stack::builder(name).policy(leak::POLICY), Some(postgres)).servers(servers);
    let stack = builder.config(|config| config["listen"]["drain_secs"] = json!(DRAIN_SECS)).start().await.unwrap();
    run(&stack, "secrets put team/demo", &stack.secret);
    until(&stack, |text| text.contains("\"result\"")).await;
    stack
}

/// Waits until Envoy holds this many replicas for healthy.
async fn until_healthy(stack: &Stack, count: u64) {
    let began = Instant::now();
    while stack.envoy.stat("cluster.keyward.membership_healthy").await.unwrap() != count {
        assert!(began.elapsed() < SOON, "Envoy does not see {count} healthy replicas");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn drained(server: &mut Server) {
    server.process.signal(Signal::TERM).unwrap();
    let status = server.process.finish(Duration::from_secs(DRAIN_SECS + 8)).unwrap();
    assert!(status.success(), "{status}: {}", server.process.log());
}

fn refused(answers: &[(Instant, Answer)]) -> Vec<&(Instant, Answer)> {
    answers.iter().filter(|(_, answer)| answer.result().is_err()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_loses_no_call_and_cuts_no_stream() {
    let postgres = Postgres::start(&files::run_folder("replicas-rolling").unwrap()).await.unwrap();
    let mut stack = stack("replicas-rolled", &postgres, 3).await;
    until_healthy(&stack, 3).await;
    stack.upstream.reset().await.unwrap();
    // A stream that was let through before the first replica ends, and ends after the last one is back.
    let events = 230;
    let arguments = json!({"events": events, "interval_ms": 100});
    let request = agent::tool_call(7, "stream", arguments).bearer(&stack.token);
    let stream = tokio::spawn(request.send(stack.agents));
    let load = Load::start(stack.agents, &echo(&stack));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let began = Instant::now();
    for replica in 0..3 {
        let server = if replica == 0 { &mut stack.server } else { &mut stack.replicas[replica - 1] };
        drained(server);
        until_healthy(&stack, 2).await;
        if replica == 0 {
            stack.restart_server().unwrap();
        } else {
            stack.restart_replica(replica - 1).unwrap();
        }
        until_healthy(&stack, 3).await;
    }
    let took = began.elapsed();
    let answers = load.stop().await;
    let stream = stream.await.unwrap().unwrap();
    assert!(stream.broken.is_none(), "{:?}", stream.broken);
    assert_eq!(stream.result().unwrap()["content"][0]["text"], format!("sent {events} events"));
    let lost = refused(&answers);
    println!("three restarts in {took:?}: {} calls, {} refused; stream whole", answers.len(), lost.len());
    assert!(answers.len() > 100, "{}", answers.len());
    assert!(lost.is_empty(), "{} of {}: {}", lost.len(), answers.len(), lost[0].1.text());
    assert_eq!(stack.upstream.count().await.unwrap(), answers.len() as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_costs_a_moment_and_lets_nothing_through() {
    let postgres = Postgres::start(&files::run_folder("replicas-kill").unwrap()).await.unwrap();
    let mut stack = stack("replicas-killed", &postgres, 2).await;
    until_healthy(&stack, 2).await;
    stack.upstream.reset().await.unwrap();
    let load = Load::start(stack.agents, &echo(&stack));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let killed = Instant::now();
    stack.server.process.kill();
    until_healthy(&stack, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stack.restart_server().unwrap();
    until_healthy(&stack, 2).await;
    // And the other one, so that whoever carried the filter's line has been killed once.
    let killed_again = Instant::now();
    stack.replicas[0].process.kill();
    until_healthy(&stack, 1).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let answers = load.stop().await;
    let lost = refused(&answers);
    println!("{} calls, {} refused", answers.len(), lost.len());
    for (began, answer) in &lost {
        assert_eq!(answer.json().unwrap()["error"]["data"]["reason"], "decision_unavailable", "{}", answer.text());
        // Only around the two deaths, as long as Envoy may need to see them; a call under way began before.
        let is_near = |death: Instant| {
            let after = began.saturating_duration_since(death);
            death.saturating_duration_since(*began) < Duration::from_secs(2) && after < Duration::from_secs(4)
        };
        assert!(is_near(killed) || is_near(killed_again), "refused {:?} after the first", began.duration_since(killed));
    }
    let served = answers.len() - lost.len();
    assert!(served > 100, "{served} of {}", answers.len());
    assert_eq!(stack.upstream.count().await.unwrap(), served as u64, "more reached the upstream than was answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_reaches_five_replicas_within_a_moment() {
    let postgres = Postgres::start(&files::run_folder("replicas-five").unwrap()).await.unwrap();
    let stack = stack("replicas-steps", &postgres, 5).await;
    until_healthy(&stack, 5).await;
    run(&stack, "bindings disable demo-api-key --by carol", "");
    let began = Instant::now();
    let known = |server: &Server| {
        let is_step = |record: &serde_json::Value| record["event"] == "binding_change_in_force";
        server.audit().unwrap().iter().any(is_step)
    };
    while !stack.replicas.iter().chain([&stack.server]).all(known) {
        assert!(began.elapsed() < SOON, "a replica does not hear of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("five replicas knew of a step {:?} after the command had ended", began.elapsed());
    stack.upstream.reset().await.unwrap();
    for _ in 0..20 {
        let answer: Answer = Request::send(echo(&stack), stack.agents).await.unwrap();
        assert!(answer.text().contains("binding_inactive"), "{}", answer.text());
    }
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
}
