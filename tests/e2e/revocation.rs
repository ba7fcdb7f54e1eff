//! Access that is revoked ends everywhere: three replicas on one PostgreSQL, four Envoys, and an open stream through each of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Answer, OpenAnswer, Protocol, Request};
use keyward_tests::envoy::{Endpoint, Envoy};
use keyward_tests::files;
use keyward_tests::postgres::Postgres;
use keyward_tests::stack::{ROLE, Stack};
use serde_json::json;

use crate::expect;
use crate::leak;
use crate::store::{kept_in, run, until};

/// How long anything may take here, where much else runs. What is measured is printed.
const SOON: Duration = Duration::from_secs(20);
/// How long a server, and how long a filter, may not know what is revoked.
const MAX_STALE_MS: u64 = 2000;

/// A deployment: replicas that share a database, and Envoys that ask one of them each.
struct Everywhere {
    stack: Stack,
    envoys: Vec<Envoy>,
    postgres: Postgres,
}

impl Everywhere {
    async fn start(name: &str, servers: usize, envoys: usize) -> Everywhere {
        let postgres = Postgres::start(&files::run_folder(&format!("{name}-db")).unwrap()).await.unwrap();
        let builder = kept_in(Stack::builder(name).policy(leak::POLICY), Some(&postgres)).servers(servers);
        let builder = builder.config(|config| config["revocation"] = json!({"max_stale_ms": MAX_STALE_MS}));
        let stack = builder.start().await.unwrap();
        run(&stack, "secrets put team/demo", &stack.secret);
        let mut others = Vec::new();
        for number in 1..envoys {
            let mut options = stack.envoy.options().clone();
            options.replicas.clear();
            let replica = number.checked_sub(1).and_then(|index| stack.replicas.get(index % servers.max(2)));
            options.keyward = Endpoint::Tcp(replica.map_or(stack.server.grpc, |replica| replica.grpc));
            let folder = stack.folder.join(format!("envoy-{number}"));
            std::fs::create_dir_all(&folder).unwrap();
            others.push(Envoy::start(options, &folder).await.unwrap());
        }
        let all = Everywhere { stack, envoys: others, postgres };
        for envoy in 0..envoys {
            all.until(envoy, &all.stack.token, is_served).await;
        }
        all
    }

    fn count(&self) -> usize {
        self.envoys.len() + 1
    }

    async fn send(&self, envoy: usize, request: Request) -> Answer {
        request.send(self.agents(envoy)).await.unwrap()
    }

    fn agents(&self, envoy: usize) -> std::net::SocketAddr {
        envoy.checked_sub(1).map_or(self.stack.agents, |index| self.envoys[index].agents().unwrap())
    }

    /// Waits until a call through this Envoy is answered as wanted, and shows that the upstream saw only what was served.
    async fn until(&self, envoy: usize, token: &str, wanted: impl Fn(&Answer) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let before = self.stack.upstream.count().await.unwrap();
            let answer = self.send(envoy, echo(token)).await;
            let arrived = self.stack.upstream.count().await.unwrap() - before;
            assert_eq!(arrived, u64::from(is_served(&answer)), "Envoy {envoy}: {}", answer.text());
            if wanted(&answer) {
                return began.elapsed();
            }
            assert!(began.elapsed() < SOON, "Envoy {envoy}: {}", answer.text());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Opens a stream that would go on for a minute, and waits for its first event.
    async fn stream(&self, envoy: usize, token: &str) -> OpenAnswer {
        let call = agent::tool_call(7, "stream", json!({"events": 600, "interval_ms": 100}));
        // Over HTTP/1.1 Envoy ends a stream by closing the connection, for which it takes its time.
        let protocol = if envoy.is_multiple_of(2) { Protocol::Http1 } else { Protocol::Http2 };
        let mut stream = call.bearer(token).protocol(protocol).open(self.agents(envoy)).await.unwrap();
        assert_eq!(stream.status, 200);
        assert!(stream.chunk().await.unwrap().is_some());
        stream
    }

    /// Revokes, and waits until every stream has ended and every Envoy denies. Returns the number of the revocation, and how
    /// long each took from the moment at which the command had ended.
    async fn revoke(&self, what: &str, token: &str) -> (i64, Vec<Duration>) {
        let mut streams = Vec::new();
        for envoy in 0..self.count() {
            streams.push(self.stream(envoy, token).await);
        }
        let said = run(&self.stack, &format!("revoke {what} --reason test"), "");
        let began = Instant::now();
        let ends = streams.into_iter().map(|stream| {
            tokio::spawn(async move {
                let answer = tokio::time::timeout(SOON, stream.finish()).await;
                (began.elapsed(), answer)
            })
        });
        let ends: Vec<_> = ends.collect();
        let mut took = Vec::new();
        for envoy in 0..self.count() {
            took.push(self.until(envoy, token, is_revoked).await);
        }
        for end in ends {
            let (ended, answer) = end.await.unwrap();
            let answer = answer.unwrap_or_else(|_| unreachable!("{what}: a stream goes on"));
            assert!(answer.broken.is_some(), "{what}: a stream ended in order: {}", answer.text());
            took.push(ended);
        }
        let number = said.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap();
        (number, took)
    }

    async fn lift(&self, number: i64, token: &str) {
        run(&self.stack, &format!("revoke lift {number}"), "");
        for envoy in 0..self.count() {
            self.until(envoy, token, is_served).await;
        }
    }
}

fn echo(token: &str) -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"})).bearer(token)
}

fn is_served(answer: &Answer) -> bool {
    answer.result().is_ok()
}

fn is_revoked(answer: &Answer) -> bool {
    let is_revoked = answer.text().contains(Reason::AccessRevoked.code());
    if is_revoked {
        expect::json_rpc_error(answer, Reason::AccessRevoked, &json!(1));
    }
    is_revoked
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_revoked_is_denied_at_four_envoys_and_every_stream_of_theirs_ends() {
    let all = Everywhere::start("revocation", 3, 4).await;
    let token = all.stack.token.clone();
    let bob = all.stack.token_for("bob", &[ROLE]).unwrap();
    let digest = format!("sha256:{}", hex(&token));
    let mut took = BTreeMap::new();
    for (what, spares_bob) in [
        ("human alice".to_owned(), true),
        ("human alice --server demo".to_owned(), true),
        ("agent demo-agent".to_owned(), false),
        ("agent demo-agent --server demo".to_owned(), false),
        (format!("token {digest}"), true),
        ("binding demo-api-key".to_owned(), false),
        ("tenant demo".to_owned(), false),
    ] {
        let (number, each) = all.revoke(&what, &token).await;
        let answer = all.send(1, echo(&bob)).await;
        assert_eq!(is_served(&answer), spares_bob, "{what}: {}", answer.text());
        all.lift(number, &token).await;
        took.insert(what, each);
    }
    for (what, each) in &took {
        println!("{what}: {each:?}");
    }
    let mut sorted: Vec<Duration> = took.into_values().flatten().collect();
    sorted.sort();
    println!("of {}: median {:?}, longest {:?}", sorted.len(), sorted[sorted.len() / 2], sorted[sorted.len() - 1]);

    // Each server says when it was in force, and the filters say what they ended.
    let in_force = |record: &serde_json::Value| {
        record["event"] == "revocation_in_force" && record["revocation"]["kind"] == "tenant"
    };
    for server in std::iter::once(&all.stack.server).chain(&all.stack.replicas) {
        let record = server.audit_record(in_force).await.unwrap();
        assert_eq!(
            (&record["revocation"]["tenant"], &record["revocation"]["reason"]),
            (&json!("demo"), &json!("test"))
        );
    }
    let ended = all.stack.server.audit_record(|record| record["event"] == "stream_ended").await.unwrap();
    assert_eq!(ended["reason"], Reason::AccessRevoked.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlasts_a_restart_and_replicas_that_are_killed_and_is_told_to_those_that_are_left() {
    let mut all = Everywhere::start("revocation-kill", 3, 2).await;
    let token = all.stack.token.clone();
    // The second Envoy asks the first of the replicas; nobody tells it anything when that is gone.
    all.stack.replicas[1].process.kill();
    let (number, _) = all.revoke("human alice", &token).await;
    all.stack.server.process.kill();
    all.stack.restart_server().unwrap();
    for envoy in 0..2 {
        all.until(envoy, &token, is_revoked).await;
    }
    let listed = run(&all.stack, "revoke list", "");
    assert!(listed.contains(&format!("revocation {number}  human \"alice\" of issuer \"demo\"")), "{listed}");
    all.lift(number, &token).await;
    assert_eq!(run(&all.stack, "revoke list", ""), "");

    // One that ends by itself.
    run(&all.stack, "revoke human alice --for 2", "");
    all.until(0, &token, is_revoked).await;
    all.until(0, &token, is_served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_cannot_be_known_what_is_revoked_nothing_gets_through() {
    let all = Everywhere::start("revocation-cut", 1, 1).await;
    let is_denied = |answer: &Answer| answer.text().contains(Reason::DecisionUnavailable.code());
    all.postgres.relay.cut();
    let took = all.until(0, &all.stack.token, is_denied).await;
    println!("denied {took:?} after the database was cut off");
    assert!(took >= Duration::from_millis(MAX_STALE_MS / 2), "{took:?}");
    let problems = Request::new(http::Method::GET, "/readyz").send(all.stack.server.admin).await.unwrap();
    assert_eq!(problems.status, 503);
    assert!(problems.text().contains("what is revoked could not be read"), "{}", problems.text());
    all.postgres.relay.mend();
    all.until(0, &all.stack.token, is_served).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_an_earlier_revision_is_gone_and_the_agent_that_begins_anew_is_denied() {
    let builder = kept_in(Stack::builder("revocation-session"), None);
    let stack = builder.config(|config| config["revocation"] = json!({})).start().await.unwrap();
    run(&stack, "secrets put team/demo", &stack.secret);
    until(&stack, |text| text.contains("\"result\"")).await;
    let session = stack.session("2025-11-25").await.unwrap();
    let answer = session.call_tool(2, "echo", json!({"message": "hello"})).await.unwrap();
    assert!(answer.result().is_ok(), "{}", answer.text());
    run(&stack, "revoke human alice", "");
    let began = Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = session.call_tool(3, "echo", json!({"message": "hello"})).await.unwrap();
        if answer.result().is_err() {
            assert_eq!(answer.status, 404, "{}", answer.text());
            assert_eq!(stack.upstream.count().await.unwrap(), 0);
            break;
        }
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answer = stack.send(agent::tool_call(1, "echo", json!({"message": "hello"}))).await.unwrap();
    expect::denied(&stack, &answer, Reason::AccessRevoked, 1).await;
}

/// The lower-case hex of the SHA-256.
fn hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
