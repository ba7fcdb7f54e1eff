//! `keyward doctor`: one line for each thing that was looked at.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::{CommandError, ConfigFile, block_on, load};
use crate::doctor::{Finding, Outcome, examine};

#[derive(Debug, Args)]
#[command(after_help = "\
Looks at the policy, the audit file, each issuer's keys and clock, the database, each provider and its grants, each
store, where each binding stands, whether it can serve at all, and its credentials, from here and as this user: run it
where `keyward serve` runs. No value is shown. Exit codes: 0 no check failed; 1 a check failed; 2 the configuration
cannot be used.")]
pub(super) struct Doctor {
    #[command(flatten)]
    file: ConfigFile,
    /// Also look at Envoy's bootstrap: the fields without which the filter cannot work or does not protect, and the
    /// client certificates that it asks for.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// The form of the findings.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// One line for each, for people.
    Text,
    /// One JSON array.
    Json,
}

pub(super) fn run(command: &Doctor) -> Result<ExitCode, CommandError> {
    let snapshots = match load(&command.file) {
        Ok(snapshots) => snapshots,
        Err(problems) => {
            eprintln!("{problems}");
            return Ok(ExitCode::from(2));
        }
    };
    let findings = block_on(examine(&snapshots.current(), command.envoy.as_deref()))?;
    match command.format {
        Format::Text => findings.iter().for_each(|finding| println!("{}", line(finding))),
        Format::Json => println!("{}", serde_json::to_string_pretty(&findings).unwrap_or_default()),
    }
    let failed = findings.iter().filter(|finding| finding.outcome == Outcome::Fail).count();
    if let Format::Text = command.format {
        let of = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
        let (passed, warned, skipped) = (of(Outcome::Pass), of(Outcome::Warn), of(Outcome::Skip));
        let warnings = if warned > 0 { format!("{warned} warned, ") } else { String::new() };
        println!("{passed} passed, {warnings}{failed} failed, {skipped} skipped");
    }
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn line(finding: &Finding) -> String {
    let outcome = match finding.outcome {
        Outcome::Pass => "pass",
        Outcome::Warn => "WARN",
        Outcome::Fail => "FAIL",
        Outcome::Skip => "skip",
    };
    let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
    format!("{outcome}  {}: {}{remedy}", finding.check, finding.seen)
}
