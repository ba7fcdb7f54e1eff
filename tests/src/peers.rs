//! The scripts of `tests/node` and `tests/python`: MCP peers on the official SDKs, run on their pinned installations.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::Process;
use crate::server::address;
use crate::{files, tools};

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);

/// A server that runs on Node.
pub struct NodeServer {
    /// Where it serves MCP, at `/mcp`.
    pub address: SocketAddr,
    /// The process.
    pub process: Process,
}

// === impl NodeServer ===

impl NodeServer {
    /// Starts a script of `tests/node` that prints its address as `mcp`.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start(script: &str, environment: &[(&str, &str)], folder: &Path) -> Result<Self> {
        let mut command = node(folder)?;
        command.arg(script).envs(environment.iter().copied());
        Self::run(command, folder)
    }

    /// Starts any script that prints its address as `mcp`; it finds the packages of `tests/node`.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start_file(script: &Path, environment: &[(&str, &str)], folder: &Path) -> Result<Self> {
        let name = script.file_name().with_context(|| format!("`{}` names no file", script.display()))?;
        let mut command = node(folder)?;
        fs::copy(script, folder.join("node").join(name)).with_context(|| format!("copying `{}`", script.display()))?;
        command.arg(name).envs(environment.iter().copied());
        Self::run(command, folder)
    }

    /// Starts `@modelcontextprotocol/server-everything`, on loopback only.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start_everything(folder: &Path) -> Result<Self> {
        let mut command = node(folder)?;
        command.args(["--import", "./loopback.mjs"]);
        command.args(["node_modules/@modelcontextprotocol/server-everything/dist/index.js", "streamableHttp"]);
        Self::run(command, folder)
    }

    fn run(command: Command, folder: &Path) -> Result<Self> {
        let mut process = Process::start("node-server", command, folder)?;
        let announced = process.announcement(START)?;
        Ok(Self { address: address(&announced, "mcp")?, process })
    }
}

// === running ===

/// A command that runs Node where the scripts of `tests/node` lie beside the packages they import: in a folder `node`
/// within `folder`.
///
/// # Errors
/// Where the peers cannot be installed or the scripts not be copied.
pub fn node(folder: &Path) -> Result<Command> {
    let peers = tools::node_peers()?;
    let place = folder.join("node");
    let packages = place.join("node_modules");
    if !packages.exists() {
        fs::create_dir_all(&place).with_context(|| format!("making `{}`", place.display()))?;
        for entry in fs::read_dir(files::workspace().join("tests/node")).context("reading `tests/node`")? {
            let path = entry?.path();
            if let (Some("mjs"), Some(name)) = (path.extension().and_then(OsStr::to_str), path.file_name()) {
                fs::copy(&path, place.join(name)).with_context(|| format!("copying `{}`", path.display()))?;
            }
        }
        symlink(peers.folder.join("node_modules"), &packages)
            .with_context(|| format!("linking `{}`", packages.display()))?;
    }
    let mut command = Command::new(&peers.node);
    command.current_dir(place);
    Ok(command)
}

/// A command that runs a script of `tests/python`.
///
/// # Errors
/// Where the packages cannot be installed.
pub fn python(script: &str) -> Result<Command> {
    let mut command = Command::new(tools::python_clients()?);
    command.arg(files::workspace().join("tests/python").join(script));
    Ok(command)
}

/// Runs a script that prints one JSON object to its end.
///
/// # Errors
/// With the end of its log where it ends badly, or prints no such object, or takes longer than `limit`.
pub fn report(name: &str, command: Command, folder: &Path, limit: Duration) -> Result<Value> {
    let mut process = Process::start(name, command, folder)?;
    let status = process.finish(limit)?;
    let printed = process.stdout();
    let line = printed.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    match serde_json::from_str(line) {
        Ok(report) if status.success() => Ok(report),
        _ => bail!("`{name}` ended with {status}:\n{}", process.log()),
    }
}

/// Runs the conformance suite's server scenarios of a requirement set; the results go to the folder that is returned.
///
/// # Errors
/// Where the suite cannot be installed or takes longer than `limit`. Failed checks are no error.
pub fn conformance(url: &str, requirements: &str, folder: &Path, limit: Duration) -> Result<PathBuf> {
    let results = folder.join("results");
    let mut command = node(folder)?;
    command.arg("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    command.args(["server", "--url", url, "--requirements", requirements, "--output-dir"]).arg(&results);
    Process::start("conformance", command, folder)?.finish(limit)?;
    Ok(results)
}
