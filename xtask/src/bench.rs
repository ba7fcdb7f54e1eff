//! `cargo xtask bench`: builds, then runs the benchmark in `tests/bench`.

use anyhow::Result;
use keyward_tests::{files, tools};

use crate::{build, cargo};

/// What the benchmark takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Measure 1, 2 and 4 replicas on one PostgreSQL, and warm and cold tokens, instead.
    #[arg(long)]
    replicas: bool,
    /// Passed on to the benchmark.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// `cargo xtask bench`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    build::run_all()?;
    cargo::run(&mut cargo::cargo(&["build", "--release", "-p", "keyward-bench"]))?;
    let mut command = std::process::Command::new(files::program("keyward-bench")?);
    if arguments.replicas {
        return cargo::run(command.arg("replicas"));
    }
    command.arg("run").arg("--envoy").arg(tools::envoy()?);
    command.arg("--filter").arg(files::filter_module()?).arg("--server").arg(files::program("keyward")?);
    cargo::run(command.args(&arguments.rest))
}
