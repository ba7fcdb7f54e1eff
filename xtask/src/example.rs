//! `cargo xtask example [--once]`: the stock-price server of `docs/guide.md`, on this machine.

use anyhow::{Result, bail};
use keyward_tests::example::Example;
use keyward_tests::{files, tools};

use crate::{build, cargo};

/// The example's options.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// End after the first price, with 0 only if it came.
    #[arg(long)]
    once: bool,
}

/// `cargo xtask example`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    build::run_all()?;
    cargo::step("looking for Envoy and Node; the first time they are fetched into target/tools");
    tools::envoy()?;
    tools::node_peers()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(show(arguments))
}

async fn show(arguments: &Arguments) -> Result<()> {
    let mut example = Example::start(&files::target().join("example"), |builder| builder.unbounded()).await?;
    println!("\nAn analyst's agent calls the tool `price` of the MCP server, through Envoy and Keyward:");
    let answer = example.ask("ACME").await?;
    println!("   {}", answer.text().trim());
    let text = answer.text();
    if answer.result().is_err() || !text.contains("41.5") || text.contains(&example.key) {
        bail!("the price did not come; logs: {}", example.stack.folder.display());
    }
    println!("The API repeated its key in `next_url`; neither the MCP server nor the agent has seen it.");
    println!("Configuration, policy, keys, audit trail and logs: {}", example.stack.folder.display());
    if arguments.once {
        example.stack.stop();
        return Ok(());
    }
    println!("\nUp until Ctrl-C. MCP clients: http://{}/stocks, with this token of alice:", example.stack.agents);
    println!("{}", example.stack.token_for("alice", &["analyst"])?);
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(500));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = terminated.recv() => break,
            _ = tick.tick() => {
                for process in example.processes() {
                    if let Some(status) = process.exit_status() {
                        bail!("a part ended with {status}; its log:\n{}", process.log());
                    }
                }
            }
        }
    }
    example.stack.stop();
    Ok(())
}
