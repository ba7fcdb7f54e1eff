//! Keyward's server as a process.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::Process;
use crate::{client, files};

/// A running `keyward serve`.
pub struct Server {
    /// Where Envoy asks.
    pub grpc: SocketAddr,
    /// Health, readiness and metrics.
    pub admin: SocketAddr,
    /// The operator API, where it listens on TCP.
    pub api: Option<SocketAddr>,
    /// The process.
    pub process: Process,
    audit_file: PathBuf,
}

// === impl Server ===

impl Server {
    /// Starts the server on `config`, with these variables in its environment. Returns when it listens.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start(config: &Path, environment: &[(String, String)], folder: &Path) -> Result<Self> {
        let mut command = Command::new(files::program("keyward")?);
        command.args(["serve", "--config"]).arg(config).envs(environment.iter().cloned());
        let mut process = Process::start("keyward", command, folder)?;
        let announced = process.announcement(Duration::from_secs(20))?;
        Ok(Self {
            grpc: address(&announced, "grpc")?,
            admin: address(&announced, "admin")?,
            api: address(&announced, "api").ok(),
            process,
            audit_file: folder.join("audit.jsonl"),
        })
    }

    /// Runs another command of the program, for example `check-config`, to its end.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn run(arguments: &[&str], environment: &[(String, String)]) -> Result<Output> {
        let mut command = Command::new(files::program("keyward")?);
        command.args(arguments).envs(environment.iter().cloned());
        command.output().context("starting `keyward`")
    }

    /// The same with something on its standard input.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn run_with_input(arguments: &[&str], environment: &[(String, String)], input: &str) -> Result<Output> {
        use std::io::Write as _;
        let mut command = Command::new(files::program("keyward")?);
        command.args(arguments).envs(environment.iter().cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting `keyward`")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that does not read its input has ended already, and says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().context("waiting for `keyward`")
    }

    /// The audit records so far, oldest first. A record that is only half written is left out.
    ///
    /// # Errors
    /// Names the line that is not JSON.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.audit_file).unwrap_or_default();
        let complete = text.get(..text.rfind('\n').unwrap_or(0)).unwrap_or_default();
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("audit record `{line}`"));
        complete.lines().map(parse).collect()
    }

    /// Waits up to 5 s for an audit record that `wanted` accepts.
    ///
    /// # Errors
    /// Shows the last records where none came.
    pub async fn audit_record(&self, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let started = Instant::now();
        loop {
            let records = self.audit()?;
            if let Some(found) = records.iter().rev().find(|record| wanted(record)) {
                return Ok(found.clone());
            }
            if started.elapsed() > Duration::from_secs(5) {
                let last: Vec<String> = records.iter().rev().take(5).map(Value::to_string).collect();
                bail!("no such audit record among {}; the last:\n{}", records.len(), last.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The decision record with this id.
    ///
    /// # Errors
    /// Where none came.
    pub async fn decision(&self, decision_id: &str) -> Result<Value> {
        let is_wanted =
            |record: &Value| record["event"] == "decision" && record["decision_id"].as_str() == Some(decision_id);
        self.audit_record(is_wanted).await.with_context(|| format!("decision `{decision_id}`"))
    }

    /// The metrics, in Prometheus' text format.
    ///
    /// # Errors
    /// Where the admin port does not answer.
    pub async fn metrics(&self) -> Result<String> {
        client::get(self.admin, "/metrics").await
    }

    /// Freezes it (a server that is slow without end), or lets it go on.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn freeze(&mut self, frozen: bool) -> Result<()> {
        self.process.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }
}

/// Reads an address out of an announcement.
pub(crate) fn address(announced: &Value, key: &str) -> Result<SocketAddr> {
    let text = announced.get(key).and_then(Value::as_str);
    let text = text.ok_or_else(|| anyhow!("the announcement `{announced}` has no `{key}`"))?;
    text.parse().with_context(|| format!("`{text}` is not an address"))
}
