//! What one decision costs, all stages, in process and warm: real token, real Rego, real secret file, real audit file.
//!
//! `cargo run --release -p keyward-server --example decision_cost [decisions]` prints one line of JSON per kind of
//! request. The bar: p50 below 100 µs, p99 below 1 ms.

#![expect(clippy::unwrap_used, reason = "an example may end by a panic")]

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use fixture::Fixture;
use keyward_server::check::Engine;
use keyward_server::run::Service;
use keyward_server::snapshot::Snapshots;
use serde_json::json;

#[tokio::main]
async fn main() {
    let decisions = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(20_000);
    let fixture = Fixture::new("decision-cost");
    let snapshots = Snapshots::load(&fixture.configuration()).unwrap();
    let service = Service::prepare(snapshots).await.unwrap();
    let engine = service.engine();
    let token = fixture.token(&json!({}));
    let same = |_| token.clone();
    // A second's worth of different tokens: nothing that is remembered helps.
    let tokens: Vec<String> = (0..2000).map(|n| fixture.token(&json!({"jti": n}))).collect();
    report("one_token_400_bytes", &measure(&engine, decisions, 400, same).await);
    report("one_token_16_kib", &measure(&engine, decisions / 4, 16 * 1024, same).await);
    report(
        "new_token_each_400_bytes",
        &measure(&engine, tokens.len(), 400, |n| tokens[n % tokens.len()].clone()).await,
    );
    report("denied_400_bytes", &measure(&engine, decisions, 400, |_| "no.such.token".to_owned()).await);
}

async fn measure(
    engine: &Engine,
    decisions: usize,
    body_bytes: usize,
    token: impl Fn(usize) -> String,
) -> Vec<Duration> {
    let mut took = Vec::with_capacity(decisions);
    for n in 0..decisions {
        let message = message(&token(n), body_bytes);
        let began = Instant::now();
        let answer = engine.check(&message).await;
        took.push(began.elapsed());
        drop(answer);
        if n % 256 == 0 {
            let _ = engine.audit().flush(Duration::from_secs(1));
        }
    }
    took.sort_unstable();
    took
}

fn report(name: &str, took: &[Duration]) {
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank"
        )]
        let rank = ((took.len() as f64 * share) as usize).min(took.len() - 1);
        took[rank].as_secs_f64() * 1e6
    };
    let line =
        json!({"request": name, "decisions": took.len(), "p50_us": at(0.5), "p99_us": at(0.99), "max_us": at(1.0)});
    println!("{line}");
}

fn message(token: &str, body_bytes: usize) -> CheckRequest {
    let call = |text: &str| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "echo", "arguments": {"message": text}}})
        .to_string()
    };
    let body = call(&"x".repeat(body_bytes.saturating_sub(call("").len())));
    let headers = [
        ("authorization", format!("Bearer {token}")),
        ("content-type", "application/json".into()),
        ("accept", "application/json, text/event-stream".into()),
        ("mcp-protocol-version", "2025-11-25".into()),
        ("user-agent", "decision-cost".into()),
        ("x-request-id", "b7d0ff8f-3f09-4a44-9f36-5fcd7c2ad1a2".into()),
    ];
    let http = HttpRequest {
        method: "POST".into(),
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        path: "/mcp".into(),
        host: "mcp.example".into(),
        scheme: "https".into(),
        raw_body: body.into_bytes(),
        ..HttpRequest::default()
    };
    let extensions = [("keyward.contract", "1"), ("keyward.server", "demo")];
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(attribute_context::Request { http: Some(http), ..attribute_context::Request::default() }),
            context_extensions: extensions
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect::<HashMap<_, _>>(),
            ..AttributeContext::default()
        }),
    }
}
