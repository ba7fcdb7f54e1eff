//! Server entries as OAuth 2.1 protected resources: where clients find them, which tokens are for which, and what a caller has
//! to prove.

mod certificates;
mod challenges;
mod discovery;
mod introspection;
mod issuers;
mod metadata;
mod possession;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyward_tests::agent;
use keyward_tests::client::{Answer, Request};
use keyward_tests::issuer::Token;
use keyward_tests::stack::{Builder, Stack};
use serde_json::{Value, json};

use crate::scripted;

/// Everything; scopes and proofs are not the policy's business here, but for one tool.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "everything", "required_scopes": scopes}

default scopes := []

scopes := ["audit"] if {
    input.operation.target == "leak"
    not "root" in input.principal.scopes
}
"#;

/// A port that nobody uses now: a resource has to know its address before it is there.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Two resources on one host: `demo` at `/mcp`, and `scripted` at `/scripted`.
struct World {
    stack: Stack,
    /// The address of the first.
    mcp: String,
    /// The address of the second.
    scripted: String,
    /// What the second one's upstream received.
    received: Arc<AtomicUsize>,
}

impl World {
    /// Starts both. `section` is what the first resource's section holds besides its address.
    async fn start(name: &str, section: Value, change: impl FnOnce(Builder) -> Builder) -> World {
        World::start_at("http", name, section, change).await
    }

    async fn start_at(scheme: &str, name: &str, section: Value, change: impl FnOnce(Builder) -> Builder) -> World {
        let listen = free_address();
        let (mcp, own) = (format!("{scheme}://{listen}/mcp"), format!("{scheme}://{listen}/scripted"));
        let received = Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        let upstream = scripted::start(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            let body = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "text", "text": "done"}]}});
            scripted::response("200 OK", "content-type: application/json\r\n", body.to_string().as_bytes())
        })
        .await;
        let builder = scripted::route(Stack::builder(name).policy(POLICY), upstream, "mcp");
        let builder = builder.envoy(|envoy| envoy.listen = listen).config(|config| {
            config["servers"]["demo"]["resource"] = section;
            config["servers"]["demo"]["resource"]["url"] = json!(mcp);
            config["servers"]["scripted"]["resource"] = json!({"url": own});
        });
        let stack = change(builder).start().await.unwrap();
        World { stack, mcp, scripted: own, received }
    }

    /// An honest token of alice for this resource, with these scopes.
    fn token(&self, resource: &str, scope: &str) -> Token {
        let token = Token::new("alice", &["demo-user"]).claim("aud", resource);
        // Two tokens of one second are not to be the same.
        let id = format!("{}-{}", self.stack.folder.display(), NEXT.fetch_add(1, Ordering::Relaxed));
        token.claim("scope", scope).claim("jti", id)
    }

    fn signed(&self, token: &Token) -> String {
        self.stack.issuer.sign(token).unwrap()
    }

    /// Calls `echo` of the first with this token.
    async fn call(&self, token: &str) -> Answer {
        self.send(call().bearer(token)).await
    }

    async fn send(&self, request: Request) -> Answer {
        self.stack.send_bare(request).await.unwrap()
    }

    /// Calls a tool of the second with this token.
    async fn call_scripted(&self, token: &str) -> Answer {
        let mut request = call().bearer(token);
        "/scripted".clone_into(&mut request.path);
        self.send(request).await
    }

    /// Neither upstream received anything.
    async fn untouched(&self) {
        assert_eq!(self.stack.upstream.count().await.unwrap(), 0);
        assert_eq!(self.received.load(Ordering::SeqCst), 0);
    }

    /// How often a refusal was counted as this event.
    async fn events(&self, event: &str) -> u64 {
        let metrics = self.stack.server.metrics().await.unwrap();
        let label = format!("event=\"{event}\"");
        let counts = metrics.lines().filter(|line| line.starts_with("keyward_security_events_total{"));
        let counts = counts.filter(|line| line.contains(&label));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

fn call() -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

/// The value of a parameter in a challenge.
fn parameter<'c>(challenge: &'c str, name: &str) -> &'c str {
    let found = challenge.split_once(&format!("{name}=\""));
    found.and_then(|(_, rest)| rest.split_once('"')).map_or("", |(value, _)| value)
}
