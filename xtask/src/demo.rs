//! `cargo xtask demo [--once]`: the whole chain on this machine, with a tour that checks what it shows.

mod tour;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use keyward_tests::stack::Stack;
use keyward_tests::{files, tools};
use serde_json::json;

use crate::{build, cargo};

/// How long the demo's token is valid.
const TOKEN_SECS: i64 = 8 * 3600;

/// What the demo's credential is rotated to.
const NEXT_SECRET: &str = "demo+key/next-5d0c8f3b71";

/// The demo's options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End after the tour, with 0 only if each step came out right.
    #[arg(long)]
    once: bool,
}

/// Where the demo listens, on 127.0.0.1. Each port can be set by the variable that has its name.
struct Ports {
    agents: SocketAddr,
    grpc: SocketAddr,
    admin: SocketAddr,
    envoy_admin: SocketAddr,
    upstream: SocketAddr,
    upstream_report: SocketAddr,
}

/// `cargo xtask demo`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let ports = Ports::read()?;
    build::run_all()?;
    cargo::step("looking for Envoy; the first time it is fetched into target/tools, which takes a minute or two");
    tools::envoy()?;
    cargo::step("starting the upstream, the server and Envoy");
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(show(arguments, &ports))
}

async fn show(arguments: &Arguments, ports: &Ports) -> Result<()> {
    let folder = files::target().join("demo");
    let mut stack = Stack::builder("demo")
        .folder(folder.clone())
        .unbounded()
        .token_secs(TOKEN_SECS)
        .config(|config| {
            config["servers"]["demo"]["leak_guard"] = json!({"arguments": "block"});
            config["listen"] = json!({"grpc": ports.grpc.to_string(), "admin": ports.admin.to_string()});
        })
        .envoy(|envoy| {
            envoy.listen = ports.agents;
            envoy.admin = ports.envoy_admin;
        })
        .upstream(|upstream| {
            upstream.listen = ports.upstream;
            upstream.next_secret = Some(NEXT_SECRET.to_owned());
            upstream.report = ports.upstream_report;
        })
        .start()
        .await?;
    write_environment(&stack, &folder.join("env"))?;

    let tour = tour::run(&stack).await;
    if arguments.once || tour.is_err() {
        stack.stop();
        return tour;
    }
    println!("\nUp until Ctrl-C. In another terminal, in {}:\n", files::workspace().display());
    println!("{}", usage());
    let ended = wait_for_the_end(&mut stack).await;
    stack.stop();
    ended
}

/// What to paste while the demo is up: the README's own lines, so that there is one example and the tour runs it.
fn usage() -> &'static str {
    let blocks = include_str!("../../README.md").split("```sh\n").skip(1);
    blocks
        .filter_map(|rest| rest.split("```").next())
        .find(|block| block.starts_with(". target/demo/env"))
        .unwrap_or_default()
}

/// Waits for Ctrl-C or SIGTERM, or for a part that ends by itself.
async fn wait_for_the_end(stack: &mut Stack) -> Result<()> {
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = tick.tick() => {
                let parts = [
                    ("Envoy", &mut stack.envoy.process),
                    ("the server", &mut stack.server.process),
                    ("the upstream", &mut stack.upstream.process),
                ];
                for (name, process) in parts {
                    if let Some(status) = process.exit_status() {
                        bail!("{name} ended with {status}; its log:\n{}", process.log());
                    }
                }
            }
        }
    }
}

fn write_environment(stack: &Stack, path: &Path) -> Result<()> {
    let variables = [
        ("KEYWARD_URL", format!("http://{}/mcp", stack.agents)),
        ("KEYWARD_TOKEN", stack.token.clone()),
        ("KEYWARD_ADMIN", format!("http://{}", stack.server.admin)),
        ("ENVOY_ADMIN", format!("http://{}", stack.envoy.admin)),
        ("UPSTREAM_REPORT", format!("http://{}/last", stack.upstream.report)),
        ("UPSTREAM_SECRET", stack.secret.clone()),
        ("AUDIT_LOG", stack.folder.join("audit.jsonl").display().to_string()),
    ];
    let lines = variables.map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''")));
    files::replace(path, lines.concat())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).with_context(|| format!("`{}`", path.display()))
}

// === impl Ports ===

impl Ports {
    fn read() -> Result<Self> {
        // Held until all are known, so that two variables cannot name one port.
        let mut held = Vec::new();
        Ok(Self {
            agents: port("KEYWARD_PORT", 10000, &mut held)?,
            grpc: port("KEYWARD_GRPC_PORT", 9191, &mut held)?,
            admin: port("KEYWARD_ADMIN_PORT", 9192, &mut held)?,
            envoy_admin: port("ENVOY_ADMIN_PORT", 9901, &mut held)?,
            upstream: port("UPSTREAM_PORT", 9000, &mut held)?,
            upstream_report: port("UPSTREAM_REPORT_PORT", 9001, &mut held)?,
        })
    }
}

/// The port that a variable names, checked to be free.
fn port(variable: &str, default: u16, held: &mut Vec<TcpListener>) -> Result<SocketAddr> {
    let port = match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{variable}, `{text}`, is not a port (0 to 65535; 0: any free one)"))?,
        Err(_) => default,
    };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    match TcpListener::bind(address) {
        Ok(listener) => {
            held.push(listener);
            Ok(address)
        }
        Err(error) => bail!("port {port} cannot be used ({error}): set {variable} to a free one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_paste_is_a_whole_call_of_the_newest_revision() {
        let body = usage().split_once("-d '").and_then(|(_, rest)| rest.split_once('\'')).unwrap().0;
        let message: serde_json::Value = serde_json::from_str(body).unwrap();
        let meta = &message["params"]["_meta"];
        let revision = meta["io.modelcontextprotocol/protocolVersion"].as_str().unwrap();
        assert!(
            revision == keyward_tests::agent::NEWEST && meta["io.modelcontextprotocol/clientCapabilities"].is_object()
        );
        let (method, name) = (message["method"].as_str().unwrap(), message["params"]["name"].as_str().unwrap());
        for header in [
            format!("'MCP-Protocol-Version: {revision}'"),
            format!("'Mcp-Method: {method}'"),
            format!("'Mcp-Name: {name}'"),
            "'Accept: application/json, text/event-stream'".to_owned(),
            "\"Authorization: Bearer $KEYWARD_TOKEN\"".to_owned(),
        ] {
            assert!(usage().contains(&header), "{header}");
        }
    }

    #[test]
    fn a_busy_port_names_its_variable() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = busy.local_addr().unwrap().port();
        let error = port("NO_SUCH_PORT_VARIABLE", number, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("NO_SUCH_PORT_VARIABLE") && error.contains(&number.to_string()), "{error}");
    }
}
