//! The benchmark as a program, and the processes that it starts of itself.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use keyward_bench::measure::Plan;
use keyward_bench::{Options, always_yes, upstream};

#[derive(Parser)]
#[command(about = "Measures Keyward beside what Envoy does natively")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the benchmark.
    Run(Run),
    /// Measures 1, 2 and 4 replicas on one PostgreSQL, and warm and cold tokens.
    Replicas,
    /// Serves the bench upstream (started by `run`).
    Upstream,
    /// Serves the always-yes ext_authz server (started by `run`).
    AlwaysYes,
}

#[derive(Args)]
struct Run {
    /// Envoy.
    #[arg(long)]
    envoy: PathBuf,
    /// Keyward's filter, a .wasm file. Without it Keyward is left out.
    #[arg(long)]
    filter: Option<PathBuf>,
    /// The program `keyward`. Without it the filter is measured against the always-yes server only.
    #[arg(long, requires = "filter")]
    server: Option<PathBuf>,
    /// Another filter to measure against the always-yes server; may be repeated.
    #[arg(long, value_name = "NAME=FILE", value_parser = trial)]
    trial: Vec<(String, PathBuf)>,
    /// Where results go.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
    /// About a minute instead of about six.
    #[arg(long)]
    quick: bool,
    /// How many rounds, instead of the plan's own number.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Only this load, for example c32_400b_json; may be repeated.
    #[arg(long)]
    load: Vec<String>,
}

fn main() -> Result<()> {
    // One thread each: the load generator and the upstream stay out of the way of what is measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match Cli::parse().command {
        Command::Run(run) => runtime.block_on(keyward_bench::run(&run.options()?)),
        Command::Replicas => runtime.block_on(keyward_bench::replicas::run()),
        Command::Upstream => runtime.block_on(upstream::serve()),
        Command::AlwaysYes => runtime.block_on(always_yes::serve()),
    }
}

// === impl Run ===

impl Run {
    fn options(self) -> Result<Options> {
        let plan = if self.quick { Plan::QUICK } else { Plan::FULL };
        Ok(Options {
            envoy: self.envoy,
            filter: self.filter,
            server: self.server,
            trials: self.trial,
            own_program: std::env::current_exe().context("the path of this program")?,
            folder: self.folder,
            plan: Plan { rounds: self.rounds.map_or(plan.rounds, usize::from), ..plan },
            loads: self.load,
        })
    }
}

fn trial(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("not of the form NAME=FILE")?;
    if name.is_empty() || !name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') {
        return Err(format!("`{name}` is not a name of letters, digits and underscores"));
    }
    Ok((name.to_owned(), PathBuf::from(path)))
}
