//! `cargo xtask build`: the filter as Envoy loads it, the server, and the demo upstream.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use keyward_tests::files;

use crate::cargo::{cargo, run, step};

const TARGET: &str = "wasm32-wasip1";

/// Builds everything that runs; returns the path of the filter's module.
pub(crate) fn run_programs() -> Result<()> {
    step("building the server and the demo upstream; the first time takes several minutes");
    run(&mut cargo(&["build", "--release", "-p", "keyward-server", "-p", "keyward-demo-upstream"]))
}

/// Builds the filter.
pub(crate) fn run_filter() -> Result<PathBuf> {
    add_target()?;
    step("building the filter for Envoy; the first time takes a minute or two");
    run(&mut cargo(&["build", "--profile", "wasm", "--target", TARGET, "-p", "keyward-filter"]))?;
    files::filter_module()
}

/// Builds everything; returns the path of the filter's module.
pub(crate) fn run_all() -> Result<PathBuf> {
    run_programs()?;
    run_filter()
}

/// `cargo xtask build`.
pub(crate) fn run_and_show() -> Result<()> {
    let module = run_all()?;
    let bytes = std::fs::metadata(&module).map_or(0, |metadata| metadata.len());
    println!("{} ({} kB)", module.display(), bytes / 1000);
    for program in ["keyward", "keyward-demo-upstream"] {
        println!("{}", files::program(program)?.display());
    }
    Ok(())
}

/// Adds the Wasm target where the toolchain lacks it.
fn add_target() -> Result<()> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(files::workspace())
        .output()
        .context("`rustc` does not start")?;
    if std::path::Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() {
        return Ok(());
    }
    eprintln!("$ rustup target add {TARGET}");
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(files::workspace()).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`rustup target add {TARGET}` ended with {status}"),
        Err(_) => bail!(
            "the Rust target {TARGET} is missing and there is no `rustup` to add it: install it with the package manager \
             that brought Rust"
        ),
    }
}
