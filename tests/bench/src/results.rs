//! What came out: ratios between variants, a table, and `latest.json`.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::measure::{Cell, Load, Plan, Sample, median};
use crate::variants::{EXT_AUTHZ, KEYWARD, MCP_RBAC, ROUTER};

/// A variant set in relation to another, under one load.
#[derive(Clone, Debug)]
pub struct Ratio {
    /// The variant above the line.
    pub of: String,
    /// The variant below the line.
    pub to: &'static str,
    /// The figure.
    pub figure: &'static str,
    /// The load.
    pub load: Load,
    /// The median of the rounds' ratios.
    pub value: f64,
    /// The least and the greatest of them.
    pub range: (f64, f64),
}

type Figure = (&'static str, fn(&Sample) -> f64);

const CPU: Figure = ("envoy_cpu", |sample| sample.envoy_cpu_us);
const OTHERS: [Figure; 3] =
    [("rps", |sample| sample.requests_per_sec), ("p50", |sample| sample.p50_us), ("p99", |sample| sample.p99_us)];

// === impl Ratio ===

impl Ratio {
    /// Its key in `latest.json`, for example `keyward_vs_ext_authz_envoy_cpu_c32_400b_json`.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}_vs_{}_{}_{}", self.of, self.to, self.figure, self.load.name())
    }
}

/// All ratios: Envoy's CPU of every variant to the router and to native `ext_authz`, of Keyward also to `mcp` and `rbac`;
/// and throughput and latency to native `ext_authz`.
#[must_use]
pub fn ratios(cells: &[Cell]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for cell in cells {
        let mut add = |to: &'static str, figure: Figure| {
            let other = cells.iter().find(|other| other.variant == to && other.load == cell.load);
            ratios.extend(other.filter(|_| to != cell.variant).map(|other| ratio(cell, to, other, figure)));
        };
        add(ROUTER, CPU);
        add(EXT_AUTHZ, CPU);
        if cell.variant == KEYWARD {
            add(MCP_RBAC, CPU);
        }
        for figure in OTHERS {
            add(EXT_AUTHZ, figure);
        }
    }
    ratios
}

/// Rounds are paired: both sides of a ratio were measured within seconds of each other.
fn ratio(cell: &Cell, to: &'static str, other: &Cell, (figure, of): Figure) -> Ratio {
    let pairs = cell.samples.iter().zip(&other.samples);
    let each: Vec<f64> = pairs.map(|(sample, other)| of(sample) / of(other)).collect();
    let least = each.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = each.iter().copied().fold(0.0, f64::max);
    Ratio { of: cell.variant.clone(), to, figure, load: cell.load, value: median(each), range: (least, greatest) }
}

/// One line for each variant and load: the figures, and Envoy's CPU in relation to native `ext_authz`.
#[must_use]
pub fn table(cells: &[Cell], ratios: &[Ratio]) -> String {
    let mut text = format!(
        "{:18} {:14} {:>9} {:>9} {:>9} {:>8} {:>9} {:>14}\n",
        "variant", "load", "envoy µs", "server µs", "req/s", "p50 µs", "p99 µs", "cpu/ext_authz"
    );
    for cell in cells {
        let sample = Sample::median(&cell.samples);
        let ratio = ratios.iter().find(|ratio| {
            ratio.of == cell.variant && ratio.load == cell.load && ratio.to == EXT_AUTHZ && ratio.figure == CPU.0
        });
        let ratio = ratio.map(|ratio| format!("{:.2} ({:.2}-{:.2})", ratio.value, ratio.range.0, ratio.range.1));
        text += &format!(
            "{:18} {:14} {:>9.1} {:>9.1} {:>9.0} {:>8.0} {:>9.0} {:>17}\n",
            cell.variant,
            cell.load.name(),
            sample.envoy_cpu_us,
            sample.server_cpu_us,
            sample.requests_per_sec,
            sample.p50_us,
            sample.p99_us,
            ratio.unwrap_or_default(),
        );
    }
    text
}

/// The whole run as one JSON object: `ratios`, `spread`, `cells` and the facts of machine and run.
#[must_use]
pub fn document(cells: &[Cell], ratios: &[Ratio], plan: Plan, envoy: &Path) -> Value {
    let round = |value: f64, digits: i32| (value * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
    let values: Map<String, Value> = ratios.iter().map(|ratio| (ratio.key(), json!(round(ratio.value, 3)))).collect();
    let spread: Map<String, Value> =
        ratios.iter().map(|ratio| (ratio.key(), json!([round(ratio.range.0, 3), round(ratio.range.1, 3)]))).collect();
    let cells: Vec<Value> = cells
        .iter()
        .map(|cell| {
            json!({
                "variant": cell.variant,
                "load": cell.load.name(),
                "connections": cell.load.connections,
                "answer_bytes": cell.load.answer.bytes,
                "median": Sample::median(&cell.samples),
                "rounds": cell.samples,
            })
        })
        .collect();
    json!({"ratios": values, "spread": spread, "plan": plan, "machine": machine(envoy), "cells": cells})
}

fn machine(envoy: &Path) -> Value {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let version = std::process::Command::new(envoy).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    json!({
        "cpu": model.map_or("unknown", |(_, model)| model),
        "cores": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "kernel": kernel.trim(),
        "load_average_at_end": load.trim(),
        "envoy": version.rsplit_once("version: ").map_or(version.as_str(), |(_, version)| version),
        "envoy_workers": 1,
    })
}

/// Writes a file, and the folders above it.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, text: &str) -> Result<()> {
    use anyhow::Context;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("creating `{}`", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::{Answer, Kind};

    fn cell(variant: &str, cpu: [f64; 3]) -> Cell {
        let load = Load { connections: 32, answer: Answer { bytes: 400, kind: Kind::Json } };
        let sample = |envoy_cpu_us| Sample {
            requests: 10,
            requests_per_sec: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            envoy_cpu_us,
            server_cpu_us: 0.0,
        };
        Cell { variant: variant.to_owned(), load, samples: cpu.map(sample).to_vec() }
    }

    #[test]
    fn ratios_pair_the_rounds() {
        let cells = [cell(EXT_AUTHZ, [100.0, 200.0, 400.0]), cell(KEYWARD, [110.0, 240.0, 400.0])];
        let ratios = ratios(&cells);
        let key = "keyward_vs_ext_authz_envoy_cpu_c32_400b_json";
        let ratio = ratios.iter().find(|ratio| ratio.key() == key).unwrap();
        assert!((ratio.value - 1.1).abs() < 1e-9 && (ratio.range.1 - 1.2).abs() < 1e-9);
        let document = document(&cells, &ratios, Plan::QUICK, Path::new("no-such-envoy"));
        assert_eq!(document["ratios"][key], 1.1);
        assert!(table(&cells, &ratios).contains("1.10 (1.00-1.20)"));
    }
}
