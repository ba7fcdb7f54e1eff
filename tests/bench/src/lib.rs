//! Keyward's benchmark: the whole chain beside what Envoy does natively, side by side and alternating in one run.
//!
//! Only ratios mean something from one machine to another. Nothing here fails because something was slow; it fails when a
//! request is not answered with 200 and exactly the bytes that the upstream sent.

use std::path::PathBuf;

use anyhow::{Context, Result};

pub mod always_yes;
pub mod answers;
pub mod bootstrap;
pub mod keyward;
pub mod load;
pub mod measure;
pub mod plot;
pub mod process;
pub mod replicas;
pub mod results;
pub mod upstream;
pub mod variants;

use measure::{Load, Plan};
use variants::Stage;

/// Calls that meet a credential that nobody has minted yet.
const FIRST_CALLS: usize = 1000;

/// What to measure, and with what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Envoy.
    pub envoy: PathBuf,
    /// Keyward's filter; absent: Keyward is left out.
    pub filter: Option<PathBuf>,
    /// The program `keyward`; absent: the filter is measured against the always-yes server only.
    pub server: Option<PathBuf>,
    /// Further filters to measure against the always-yes server, by name.
    pub trials: Vec<(String, PathBuf)>,
    /// The program with the subcommands `upstream` and `always-yes`: this benchmark's own.
    pub own_program: PathBuf,
    /// Where `latest.json`, `latest.svg` and the run's files go.
    pub folder: PathBuf,
    /// How long and how often.
    pub plan: Plan,
    /// Loads by name, for example `c32_400b_json`; empty: all.
    pub loads: Vec<String>,
}

/// Runs the benchmark, prints the table, and writes `latest.json` and `latest.svg`.
///
/// # Errors
/// Where something does not start, or any request fails.
pub async fn run(options: &Options) -> Result<()> {
    let loads = loads(&options.loads)?;
    let stage = Stage::start(options, &options.folder.join("run"))?;
    first_calls(&stage).await?;
    let cells = measure::measure(&stage, options.plan, &loads).await?;
    let ratios = results::ratios(&cells);
    print!("{}", results::table(&cells, &ratios));
    for ratio in ratios.iter().filter(|ratio| ratio.figure == "envoy_cpu") {
        println!("{} {:.3}", ratio.key(), ratio.value);
    }
    let document = results::document(&cells, &ratios, options.plan, &options.envoy);
    let (json, svg) = (options.folder.join("latest.json"), options.folder.join("latest.svg"));
    results::write(&json, &format!("{document:#}\n"))?;
    results::write(&svg, &plot::svg(&cells))?;
    println!("{} and {}", json.display(), svg.display());
    Ok(())
}

/// A burst of first calls, before anything was minted: exactly one mint serves them all.
async fn first_calls(stage: &Stage) -> Result<()> {
    let Some(variant) = stage.variants.iter().find(|variant| variant.name == variants::KEYWARD_OAUTH) else {
        return Ok(());
    };
    let answer = answers::Answer::all().into_iter().min().context("there is no answer")?;
    let before = variants::minted(stage.mints)?;
    let took = load::first_calls(variant.address, &stage.token, FIRST_CALLS, answer).await?;
    let mints = variants::minted(stage.mints)? - before;
    println!("{FIRST_CALLS} concurrent first calls: {mints} mint, all answered within {} ms", took.as_millis());
    anyhow::ensure!(mints == 1, "{mints} mints instead of one");
    Ok(())
}

fn loads(names: &[String]) -> Result<Vec<Load>> {
    let all = Load::all();
    let unknown = names.iter().find(|name| !all.iter().any(|load| load.name() == **name));
    if let Some(unknown) = unknown {
        let known: Vec<String> = all.iter().map(|load| load.name()).collect();
        anyhow::bail!("no load is named `{unknown}`; there are {}", known.join(", "));
    }
    Ok(all.into_iter().filter(|load| names.is_empty() || names.contains(&load.name())).collect())
}
