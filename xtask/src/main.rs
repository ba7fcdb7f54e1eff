//! Everything a person runs: `cargo xtask demo`, `example`, `test`, `bench`, `build`, `compose`, `audit`.

mod audit;
mod bench;
mod build;
mod cargo;
mod compose;
mod demo;
mod example;
mod summary;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Keyward's tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds the filter, the server and the demo upstream.
    Build,
    /// Starts Envoy, the server and the upstream, shows each step of a tour, and stays up until interrupted.
    Demo(demo::Arguments),
    /// Runs the stock-price server of docs/guide.md.
    Example(example::Arguments),
    /// Runs every test: unit, contract, and end to end on two versions of Envoy; or one capability.
    Test(test::Arguments),
    /// Measures Keyward beside Envoy's own filters; writes target/bench/latest.json.
    Bench(bench::Arguments),
    /// Builds and starts the demo as containers.
    Compose(compose::Arguments),
    /// Checks licences, banned crates and sources of every dependency, and known vulnerabilities where possible.
    Audit,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Build => build::run_and_show(),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Example(arguments) => example::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Compose(arguments) => compose::run(&arguments),
        Task::Audit => audit::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
