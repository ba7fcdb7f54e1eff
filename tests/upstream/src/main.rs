//! An MCP server that demands an API key, gives it away in every way the tests need, and reports what it received.

mod body;
mod carrier;
mod credential;
mod form;
mod front;
mod large;
mod mcp;
mod plain;
mod record;
mod report;
mod tools;
mod wire;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::credential::{KeyCheck, Variant};
use crate::front::{Front, Side};
use crate::mcp::Mcp;
use crate::record::Recorder;

const STOP_WITHIN: Duration = Duration::from_secs(2);

/// An MCP server for demonstrations and tests: it demands an API key and can leak it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address for MCP (/mcp) and plain HTTP (/plain/...); port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the side port that reports what was received.
    #[arg(long, default_value = "127.0.0.1:0")]
    report_listen: SocketAddr,
    /// Name of the environment variable that holds an expected key; repeatable: each of the keys is taken.
    #[arg(long, value_name = "NAME", required = true)]
    api_key_env: Vec<String>,
    /// Where the key is expected.
    #[arg(long, value_enum, default_value = "header")]
    variant: Variant,
    /// Header of the variant `header`.
    #[arg(long, default_value = "x-api-key")]
    header_name: http::HeaderName,
    /// Query parameter of the variant `query`.
    #[arg(long, default_value = "apiKey")]
    query_name: String,
    /// User of the variant `basic`.
    #[arg(long, default_value = "svc")]
    username: String,
    /// Authority that may stand in Host and Origin besides loopback, with or without port; repeatable.
    #[arg(long = "allowed-host", value_name = "AUTHORITY")]
    allowed_hosts: Vec<String>,
    /// Answer with JSON instead of an event stream where the revision knows no sessions.
    #[arg(long)]
    json_responses: bool,
    /// End when standard input closes.
    #[arg(long)]
    exit_with_stdin: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let key_check = key_check(&arguments)?;
    let recorder = Arc::new(Recorder::default());
    let mcp = Mcp::new(Arc::clone(&recorder), &arguments.allowed_hosts, arguments.json_responses);
    let front = Arc::new(Front { key_check, recorder, mcp });
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on `{address}`"))
    };
    let (upstream, side_port) = (bind(arguments.listen).await?, bind(arguments.report_listen).await?);
    // Whoever has read the addresses may already stop the process.
    let terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let interrupted = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let addresses = serde_json::json!({
        "mcp": upstream.local_addr()?.to_string(),
        "report": side_port.local_addr()?.to_string(),
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{addresses}").and_then(|()| stdout.flush()).context("cannot write to standard output")?;

    let (stop, stopped) = watch::channel(false);
    let mut listeners = tokio::task::JoinSet::new();
    for (listener, side) in [(upstream, Side::Upstream), (side_port, Side::Report)] {
        listeners.spawn(front::accept(listener, side, Arc::clone(&front), stopped.clone()));
    }
    until_told(terminated, interrupted, arguments.exit_with_stdin).await;
    stop.send_replace(true);
    front.mcp.stop();
    // What is still under way after that is cut off.
    let _ = tokio::time::timeout(STOP_WITHIN, listeners.join_all()).await;
    Ok(())
}

fn key_check(arguments: &Arguments) -> anyhow::Result<KeyCheck> {
    let mut keys = Vec::new();
    for name in &arguments.api_key_env {
        let key = std::env::var(name).with_context(|| format!("no API key in the environment variable `{name}`"))?;
        if key.is_empty() || key.chars().any(char::is_control) {
            bail!("the API key in the environment variable `{name}` is empty or has control characters");
        }
        keys.push(key);
    }
    Ok(KeyCheck {
        variant: arguments.variant,
        header_name: arguments.header_name.clone(),
        query_name: arguments.query_name.clone(),
        username: arguments.username.clone(),
        keys,
    })
}

async fn until_told(mut terminated: Signal, mut interrupted: Signal, exit_with_stdin: bool) {
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = stdin_closed(), if exit_with_stdin => {}
    }
}

// Reading standard input blocks a thread of its own, which ends with the process.
async fn stdin_closed() {
    let (closed, is_closed) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin();
        while stdin.read(&mut [0; 64]).is_ok_and(|bytes| bytes > 0) {}
        drop(closed);
    });
    let _ = is_closed.await;
}
