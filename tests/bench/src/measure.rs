//! Measures every variant under every load, in turn and several times over, so that what else the machine does meets all
//! variants alike.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::answers::Answer;
use crate::load::{self, Slice};
use crate::process::cpu_time;
use crate::variants::{Stage, Variant};

/// Connections that are measured.
pub const CONNECTIONS: [usize; 2] = [1, 32];

/// How long and how often.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Plan {
    /// Rounds; in each round every variant is measured once under every load.
    pub rounds: usize,
    /// Warm-up before each measurement, in milliseconds.
    pub warm_up_ms: u64,
    /// Each measurement, in milliseconds.
    pub measured_ms: u64,
}

/// The result of one measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Requests measured.
    pub requests: usize,
    /// Requests per second.
    pub requests_per_sec: f64,
    /// Half of the requests took no longer, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 requests took no longer, in microseconds.
    pub p99_us: f64,
    /// CPU time of the Envoy process for each request, in microseconds.
    pub envoy_cpu_us: f64,
    /// CPU time of the server process for each request, in microseconds; 0 where none is asked.
    pub server_cpu_us: f64,
}

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections, each with one request under way.
    pub connections: usize,
    /// The answer.
    pub answer: Answer,
}

/// All measurements of one variant under one load, one a round.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The variant's name.
    pub variant: String,
    /// The load.
    pub load: Load,
    /// In the order of the rounds.
    pub samples: Vec<Sample>,
}

// === impl Plan ===

impl Plan {
    /// About six minutes.
    pub const FULL: Plan = Plan { rounds: 5, warm_up_ms: 150, measured_ms: 1000 };
    /// About a minute.
    pub const QUICK: Plan = Plan { rounds: 2, warm_up_ms: 60, measured_ms: 350 };
}

// === impl Load ===

impl Load {
    /// Every load.
    #[must_use]
    pub fn all() -> Vec<Load> {
        let with = |connections| Answer::all().into_iter().map(move |answer| Load { connections, answer });
        CONNECTIONS.into_iter().flat_map(with).collect()
    }

    /// Its name, for example `c32_400b_json`.
    #[must_use]
    pub fn name(self) -> String {
        format!("c{}_{}", self.connections, self.answer.name())
    }
}

// === impl Sample ===

impl Sample {
    /// The median of each figure by itself.
    #[must_use]
    pub fn median(samples: &[Sample]) -> Sample {
        let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure).collect());
        Sample {
            requests: samples.iter().map(|sample| sample.requests).sum(),
            requests_per_sec: of(|sample| sample.requests_per_sec),
            p50_us: of(|sample| sample.p50_us),
            p99_us: of(|sample| sample.p99_us),
            envoy_cpu_us: of(|sample| sample.envoy_cpu_us),
            server_cpu_us: of(|sample| sample.server_cpu_us),
        }
    }
}

/// The middle of the values; of an even number the mean of the two in the middle; 0 of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 }
}

/// Measures everything.
///
/// # Errors
/// Where any request fails.
pub async fn measure(stage: &Stage, plan: Plan, loads: &[Load]) -> Result<Vec<Cell>> {
    let mut cells = Vec::new();
    for load in loads {
        for variant in &stage.variants {
            cells.push(Cell { variant: variant.name.clone(), load: *load, samples: Vec::new() });
        }
    }
    for round in 1..=plan.rounds {
        let mut cells = cells.iter_mut();
        for load in loads {
            print!("\rround {round} of {}: {:16}", plan.rounds, load.name());
            std::io::stdout().flush()?;
            for variant in &stage.variants {
                let sample = sample(variant, &stage.token, *load, plan)
                    .await
                    .with_context(|| format!("variant `{}` under load `{}`", variant.name, load.name()))?;
                if let Some(cell) = cells.next() {
                    cell.samples.push(sample);
                }
            }
        }
    }
    println!();
    Ok(cells)
}

async fn sample(variant: &Variant, token: &str, load: Load, plan: Plan) -> Result<Sample> {
    let slice = Slice {
        connections: load.connections,
        answer: load.answer,
        warm_up: Duration::from_millis(plan.warm_up_ms),
        measured: Duration::from_millis(plan.measured_ms),
    };
    let mut marks = Vec::new();
    let mut mark = || {
        let server = variant.server.as_ref().map_or(Ok(Duration::ZERO), |server| cpu_time(server))?;
        marks.push((cpu_time(&variant.envoy)?, server));
        Ok(())
    };
    let measured = load::run(variant.address, token, slice, &mut mark).await?;
    let (start, end) = (marks.first().copied().unwrap_or_default(), marks.last().copied().unwrap_or_default());
    let requests = measured.requests as f64;
    let each = |before: Duration, after: Duration| micros(after.saturating_sub(before)) / requests;
    Ok(Sample {
        requests: measured.requests,
        requests_per_sec: requests / measured.elapsed.as_secs_f64(),
        p50_us: micros(measured.quantile(0.5)),
        p99_us: micros(measured.quantile(0.99)),
        envoy_cpu_us: each(start.0, end.0),
        server_cpu_us: each(start.1, end.1),
    })
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, middle) in [(vec![], 0.0), (vec![3.0], 3.0), (vec![9.0, 1.0], 5.0), (vec![7.0, 1.0, 2.0], 2.0)] {
            assert!((median(values.clone()) - middle).abs() < 1e-9, "{values:?}");
        }
    }

    #[test]
    fn loads_are_named_by_connections_size_and_kind() {
        let names: Vec<String> = Load::all().into_iter().map(Load::name).collect();
        assert_eq!(names.len(), 12);
        assert!(names.contains(&"c32_400b_json".to_owned()) && names.contains(&"c1_256k_sse".to_owned()));
    }
}
