//! The demo upstream as a process, and what it reports.
//!
//! Everything that this harness assumes about its command line and its report stands in this file.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use http::Method;
use serde_json::Value;

use crate::client::{self, Request};
use crate::files;
use crate::process::Process;
use crate::server::address;

/// The authority under which the demo calls it.
pub const AUTHORITY: &str = "demo-upstream.internal:9000";
const KEY_VARIABLE: &str = "UPSTREAM_SECRET";
const NEXT_KEY_VARIABLE: &str = "UPSTREAM_NEXT_SECRET";

/// How the upstream wants its API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The whole value of this header.
    Header(String),
    /// The value of this query parameter.
    Query(String),
    /// The password of HTTP basic authentication with this user name.
    Basic(String),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where MCP is served. Default: a free port.
    pub listen: SocketAddr,
    /// The report's side port. Default: a free port.
    pub report: SocketAddr,
    /// Where the key is expected.
    pub slot: Slot,
    /// The key.
    pub secret: String,
    /// A key that it takes as well, as while keys are rotated.
    pub next_secret: Option<String>,
    /// The authority under which it may be called, besides loopback.
    pub authority: String,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// A running upstream.
pub struct Upstream {
    /// Where MCP is served, at `/mcp`.
    pub address: SocketAddr,
    /// The side port.
    pub report: SocketAddr,
    /// The process.
    pub process: Process,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: any_port,
            report: any_port,
            slot: Slot::Header("x-api-key".to_owned()),
            secret: String::new(),
            next_secret: None,
            authority: AUTHORITY.to_owned(),
            arguments: Vec::new(),
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// Starts it. Returns when it listens.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start(options: &Options, folder: &Path) -> Result<Self> {
        let mut command = Command::new(files::program("keyward-demo-upstream")?);
        command.args(["--listen", &options.listen.to_string(), "--report-listen", &options.report.to_string()]);
        match &options.slot {
            Slot::Header(name) => command.args(["--variant", "header", "--header-name", name]),
            Slot::Query(name) => command.args(["--variant", "query", "--query-name", name]),
            Slot::Basic(user) => command.args(["--variant", "basic", "--username", user]),
        };
        command.args(["--api-key-env", KEY_VARIABLE]).env(KEY_VARIABLE, &options.secret);
        if let Some(next) = &options.next_secret {
            command.args(["--api-key-env", NEXT_KEY_VARIABLE]).env(NEXT_KEY_VARIABLE, next);
        }
        command.args(["--allowed-host", &options.authority]).args(&options.arguments);
        let mut process = Process::start("upstream", command, folder)?;
        let announced = process.announcement(Duration::from_secs(20))?;
        Ok(Self { address: address(&announced, "mcp")?, report: address(&announced, "report")?, process })
    }

    /// How many requests it received since the start or the last reset, whether it accepted them or not.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn count(&self) -> Result<u64> {
        let counters: Value = serde_json::from_str(&client::get(self.report, "/count").await?)?;
        match counters.get("received").and_then(Value::as_u64) {
            Some(count) => Ok(count),
            None => bail!("the report `{counters}` has no `received`"),
        }
    }

    /// The last request it received: `method`, `path`, `query`, `headers` as a list of pairs, `body`, `trailers`; `null`
    /// where there was none.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn last(&self) -> Result<Value> {
        Ok(serde_json::from_str(&client::get(self.report, "/last").await?)?)
    }

    /// All requests it still remembers, oldest first.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn requests(&self) -> Result<Value> {
        Ok(serde_json::from_str(&client::get(self.report, "/requests").await?)?)
    }

    /// Forgets what it received.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn reset(&self) -> Result<()> {
        let answer = Request::new(Method::POST, "/reset").send(self.report).await?;
        if !answer.status.is_success() {
            bail!("the upstream's report could not be reset: {}", answer.status);
        }
        Ok(())
    }
}
