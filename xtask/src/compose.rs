//! `cargo xtask compose`: the demo as containers.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use keyward_tests::compose::{Containers, Options, missing_engine};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::build;

/// The options of the demo as containers.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End after the checks, with 0 only if each held. This runs beside a demo that is up, on a free port.
    #[arg(long)]
    once: bool,
    /// The port on this machine's loopback where agents connect.
    #[arg(long, env = "KEYWARD_PORT", default_value_t = Options::default().port)]
    port: u16,
}

/// `cargo xtask compose`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let options = if arguments.once {
        Options::for_one_run()
    } else {
        check_free(arguments.port)?;
        Options { port: arguments.port, ..Options::default() }
    };
    if let Some(why) = missing_engine() {
        bail!("there is no container engine with compose v2: {why} (docs/containers.md says what is needed)");
    }
    build::run_all()?;
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    runtime.block_on(show(arguments, &options))
}

async fn show(arguments: &Arguments, options: &Options) -> Result<()> {
    // From here on an interrupt ends the waiting and not this program, so that nothing stays up.
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;

    println!("building the images and starting the containers");
    let containers = tokio::task::spawn_blocking({
        let options = options.clone();
        move || Containers::start(&options)
    });
    let containers = containers.await.context("starting the containers")??;
    tokio::select! {
        checked = containers.check(|fact| println!("  ok  {fact}")) => checked?,
        () = asked_to_end(&mut interrupt, &mut terminate) => return Ok(()),
    }
    if arguments.once {
        return Ok(());
    }

    let variables = options.folder.join("env");
    write_variables(&variables, &containers)?;
    print_usage(&containers, &variables);
    asked_to_end(&mut interrupt, &mut terminate).await;
    println!("taking the containers down");
    drop(containers);
    Ok(())
}

fn check_free(port: u16) -> Result<()> {
    match TcpListener::bind(("127.0.0.1", port)) {
        Ok(_) => Ok(()),
        Err(error) => bail!("port {port} cannot be used ({error}): set KEYWARD_PORT to a free one"),
    }
}

async fn asked_to_end(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Shell variables for those who call the demo; only their owner may read them.
fn write_variables(path: &Path, containers: &Containers) -> Result<()> {
    use std::io::Write;
    let text = format!("KEYWARD_URL=http://{}/mcp\nKEYWARD_TOKEN={}\n", containers.agents, containers.token);
    let mut open = fs::File::options();
    let file = open.create(true).write(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).with_context(|| format!("writing `{}`", path.display()))
}

fn print_usage(containers: &Containers, variables: &Path) {
    println!(
        r#"
The agents' endpoint is http://{agents}/mcp. Its address and a token are in {variables}:

  . {variables}
  curl -s "$KEYWARD_URL" -H "Authorization: Bearer $KEYWARD_TOKEN" \
    -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \
    -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' -H 'Mcp-Name: echo' \
    -d '{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"message":"hello"}},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{{}}}}}}}}'

  docker compose exec upstream probe 9001 /last                    what the upstream received
  docker compose exec keyward probe 9192 /metrics                  the server's metrics
  docker compose exec keyward tail /var/lib/keyward/audit.jsonl    the audit records

Ctrl-C takes everything down, with volumes, images and staged files."#,
        agents = containers.agents,
        variables = variables.display(),
    );
}
