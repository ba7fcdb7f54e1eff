//! Throughput through one Envoy with 1, 2 and 4 replicas of the server on one PostgreSQL, and what a token costs that was not
//! seen before; all up at once, measured in turn.
//!
//! Replicas share the machine here: more of them show what sharing costs, not what more machines give.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use keyward_tests::issuer::Token;
use keyward_tests::postgres::Postgres;
use keyward_tests::stack::{ROLE, SUBJECT, Stack};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::measure::median;

/// How many replicas.
const COUNTS: [usize; 3] = [1, 2, 4];
const CONNECTIONS: usize = 32;
const ROUNDS: usize = 3;
/// How many calls one connection makes in a round, each of the cold ones with a token of its own.
const CALLS: usize = 50;

/// What a slice cost.
struct Slice {
    requests_per_sec: f64,
    p99_ms: f64,
    servers_us: f64,
    envoy_us: f64,
}

/// Measures, and prints a table.
///
/// # Errors
/// Where something does not start, or a call is not answered with a result.
pub async fn run() -> Result<()> {
    let folder = keyward_tests::files::run_folder("bench-postgres")?;
    let mut parts = Vec::new();
    for count in COUNTS {
        let postgres = Postgres::start(&folder).await?;
        let stack = Stack::builder("bench-replicas")
            .unbounded()
            .servers(count)
            .variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
            .variable("DATABASE_URL", &postgres.url_past_the_relay())
            .token_secs(3600)
            .config(|config| {
                let (key, url) = (json!([{"ref": "env://ENCRYPTION_KEY"}]), json!({"ref": "env://DATABASE_URL"}));
                config["database"] = json!({"encryption_keys": key, "url_secret": url});
                config["lifecycle"] = json!({"approvals": 0});
            })
            .start()
            .await?;
        parts.push((count, stack, postgres));
    }
    let mut rows: Vec<(String, Vec<Slice>)> = Vec::new();
    for round in 0..=ROUNDS {
        for (count, stack, _) in &parts {
            for is_cold in [false, true] {
                let slice = measure(stack, is_cold).await?;
                // The first round only warms up.
                if round > 0 {
                    let name = format!("{count} replica(s), {} token", if is_cold { "cold" } else { "warm" });
                    match rows.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, slices)) => slices.push(slice),
                        None => rows.push((name, vec![slice])),
                    }
                }
            }
        }
    }
    println!(
        "{:<26} {:>8} {:>8} {:>12} {:>10} {:>14}",
        "", "req/s", "p99 ms", "servers µs", "Envoy µs", "req/s to first"
    );
    let first: Vec<f64> = rows.first().into_iter().flat_map(|(_, all)| all).map(|one| one.requests_per_sec).collect();
    for (name, slices) in &rows {
        let of = |figure: fn(&Slice) -> f64| median(slices.iter().map(figure).collect());
        let ratios: Vec<f64> = slices.iter().zip(&first).map(|(one, first)| one.requests_per_sec / first).collect();
        let (rate, p99) = (of(|one| one.requests_per_sec), of(|one| one.p99_ms));
        let (servers, envoy) = (of(|one| one.servers_us), of(|one| one.envoy_us));
        println!("{name:<26} {rate:>8.0} {p99:>8.1} {servers:>12.0} {envoy:>10.0} {:>14.2}", median(ratios));
    }
    Ok(())
}

async fn measure(stack: &Stack, is_cold: bool) -> Result<Slice> {
    let tokens: Vec<String> = if is_cold {
        let token = Token::new(SUBJECT, &[ROLE]);
        (0..CONNECTIONS * CALLS).map(|_| stack.issuer.sign(&token)).collect::<Result<_>>()?
    } else {
        vec![stack.token.clone()]
    };
    let tokens = Rc::new(tokens);
    let cpu = || -> Result<(Duration, Duration)> {
        let mut servers = stack.server.process.cpu_time()?;
        for replica in &stack.replicas {
            servers += replica.process.cpu_time()?;
        }
        Ok((servers, stack.envoy.process.cpu_time()?))
    };
    let (before, began) = (cpu()?, Instant::now());
    let tasks = LocalSet::new();
    let mut latencies = tasks
        .run_until(async {
            let workers: Vec<_> = (0..CONNECTIONS)
                .map(|worker| tokio::task::spawn_local(work(stack.agents, tokens.clone(), worker)))
                .collect();
            let mut all = Vec::new();
            for worker in workers {
                all.extend(worker.await??);
            }
            anyhow::Ok(all)
        })
        .await?;
    let (elapsed, after) = (began.elapsed(), cpu()?);
    latencies.sort_unstable();
    let count = latencies.len() as f64;
    let p99 = latencies.get(latencies.len() * 99 / 100).copied().unwrap_or_default();
    Ok(Slice {
        requests_per_sec: count / elapsed.as_secs_f64(),
        p99_ms: p99.as_secs_f64() * 1e3,
        servers_us: (after.0 - before.0).as_secs_f64() * 1e6 / count,
        envoy_us: (after.1 - before.1).as_secs_f64() * 1e6 / count,
    })
}

async fn work(target: SocketAddr, tokens: Rc<Vec<String>>, worker: usize) -> Result<Vec<Duration>> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::task::spawn_local(connection);
    let template = keyward_tests::agent::tool_call(1, "echo", json!({"message": "hello"}));
    let keyward_tests::client::RequestBody::Whole(body) = template.body else {
        anyhow::bail!("a call has no body");
    };
    let mut latencies = Vec::with_capacity(CALLS);
    for call in 0..CALLS {
        let token = tokens.get((worker * CALLS + call) % tokens.len()).context("there is no token")?;
        let mut request = http::Request::post(&template.path).header("host", target.to_string());
        for (name, value) in &template.headers {
            request = request.header(name, value.as_slice());
        }
        let request = request.header("authorization", format!("Bearer {token}"));
        let began = Instant::now();
        sender.ready().await?;
        let response = sender.send_request(request.body(Full::new(Bytes::clone(&body)))?).await?;
        let status = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        latencies.push(began.elapsed());
        let text = String::from_utf8_lossy(&answer);
        ensure!(status == 200 && text.contains("\"result\""), "answered with {status}: `{text}`");
    }
    drop(sender);
    connection.await??;
    Ok(latencies)
}
