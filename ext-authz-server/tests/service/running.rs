//! A server with a real configuration, real tokens and real Rego, asked over real gRPC, and the commands beside it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use keyward_server::check::Engine;
use keyward_server::run::Service;
use keyward_server::snapshot::Snapshots;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::fixture::Fixture;
use super::scene::{Answer, Ask, call};

pub(crate) struct Running {
    pub(crate) fixture: Fixture,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) client: AuthorizationClient<Channel>,
}

pub(crate) async fn serve(fixture: Fixture) -> Running {
    let snapshots = Snapshots::load(&fixture.configuration()).unwrap_or_else(|error| panic!("{error}"));
    let service = Service::prepare(snapshots.clone()).await.unwrap();
    let addresses: Value = serde_json::from_str(&service.addresses()).unwrap();
    let engine = service.engine();
    tokio::spawn(service.run());
    let grpc = format!("http://{}", addresses["grpc"].as_str().unwrap());
    let channel = Channel::from_shared(grpc).unwrap().connect().await.unwrap();
    Running { fixture, snapshots, engine, client: AuthorizationClient::new(channel) }
}

impl Running {
    pub(crate) async fn check(&mut self, ask: &Ask, claims: &Value) -> Answer {
        let mut headers = ask.headers.clone();
        headers.push(("authorization", format!("Bearer {}", self.fixture.token(claims))));
        let message = Ask { headers, token: None, body: ask.body.clone(), ..*ask }.message();
        Answer(self.client.check(message).await.unwrap().into_inner())
    }

    /// Why it is denied, or `allowed`.
    pub(crate) async fn reason(&mut self, ask: &Ask, claims: &Value) -> String {
        let answer = self.check(ask, claims).await;
        if answer.code() == 0 {
            return "allowed".into();
        }
        answer.denied().2["error"]["data"]["reason"].as_str().unwrap().to_owned()
    }

    /// Waits until calls of `echo` end like this; how long that took.
    pub(crate) async fn until(&mut self, expected: &str) -> Duration {
        let began = Instant::now();
        loop {
            let reason = self.reason(&call("echo"), &json!({})).await;
            if reason == expected {
                return began.elapsed();
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{reason} instead of {expected}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Runs `keyward …` with this on its standard input: the exit code, and what it printed.
pub(crate) fn keyward(fixture: &Fixture, arguments: &str, input: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_keyward"))
        .args(arguments.split(' '))
        .env("KEYWARD_CONFIG", fixture.configuration())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read it may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap().trim_end().to_owned())
}
