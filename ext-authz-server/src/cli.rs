//! The command line.
//!
//! Exit codes: 0 done (for `explain`: allowed), 1 a problem was found (for `explain`: denied), 2 wrong usage.

mod bindings;
mod explain;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Problem, json_schema};
use crate::log::{self, Format};
use crate::run::Service;
use crate::snapshot::{Snapshots, watch};
use crate::{hygiene, secret::SecretError};

/// Credentials for AI agents that never hold them: the ext_authz server and its tools.
#[derive(Debug, Parser)]
#[command(
    name = "keyward",
    version,
    after_help = "Exit codes: 0 done, or allowed; 1 a problem was found, or denied; 2 wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve decisions to Envoy until SIGTERM or SIGINT.
    Serve(Serve),
    /// Check configuration, policy and key files, and print everything that is wrong with its place and remedy.
    CheckConfig(CheckConfig),
    /// Say how a request would be decided: which stage, which rule, which binding; never a secret.
    Explain(Box<explain::Explain>),
    /// Print the JSON Schema of keyward.yaml.
    Schema,
    /// Show bindings, without their secrets.
    Bindings(bindings::Bindings),
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(long, env = "KEYWARD_CONFIG", default_value = "keyward.yaml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// What to log, as a tracing filter: error, warn, info, debug, trace.
    #[arg(long, env = "KEYWARD_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How log lines look on standard error.
    #[arg(long, env = "KEYWARD_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct CheckConfig {
    #[command(flatten)]
    file: ConfigFile,
    /// Also look whether each secret can be had; its value is not shown.
    #[arg(long)]
    secrets: bool,
}

/// What ends a command early.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The configuration, the policy or a key file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Runs the command of this process's arguments.
#[must_use]
pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Serve(command) => serve(&command),
        Command::CheckConfig(command) => check_config(&command),
        Command::Explain(command) => explain::run(&command),
        Command::Schema => {
            println!("{}", schema_text());
            Ok(ExitCode::SUCCESS)
        }
        Command::Bindings(command) => bindings::run(&command),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(1)
    })
}

/// The published schema, as `docs/keyward.schema.json` holds it, without the last line feed.
#[must_use]
pub fn schema_text() -> String {
    serde_json::to_string_pretty(&json_schema()).unwrap_or_default()
}

fn serve(command: &Serve) -> Result<ExitCode, CommandError> {
    let other = |error: &dyn std::error::Error| CommandError::Other(error.to_string());
    let format = match command.log_format {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
    };
    log::install(&command.log, format).map_err(|error| other(&error))?;
    hygiene::protect().map_err(|error| CommandError::Other(format!("protect the process: {error}")))?;
    let snapshots = load(&command.file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| other(&error))?;
    runtime.block_on(async {
        let service = Service::prepare(snapshots.clone()).await.map_err(|error| other(&error))?;
        let revision = snapshots.current().revision.clone();
        // One line of JSON, for whoever started this with port 0.
        println!("{}", service.addresses());
        tracing::info!(addresses = service.addresses(), revision, "serving");
        let engine = service.engine();
        let watching = tokio::spawn(watch(snapshots, move |error| engine.refused(&error.to_string())));
        let result = service.run().await;
        watching.abort();
        result.map_err(|error| other(&error))
    })?;
    Ok(ExitCode::SUCCESS)
}

fn check_config(command: &CheckConfig) -> Result<ExitCode, CommandError> {
    let snapshots = load(&command.file)?;
    let snapshot = snapshots.current();
    if command.secrets {
        let missing = block_on(async {
            let mut missing = Vec::new();
            let config = &snapshot.config;
            let bound = config.bindings.iter().flat_map(|binding| &binding.credentials).map(|one| one.secret());
            for source in bound.chain([&config.audit.hmac_key]) {
                missing
                    .extend(snapshot.secrets.resolve(source).await.err().map(|error: SecretError| error.to_string()));
            }
            missing
        })?;
        if !missing.is_empty() {
            return Err(CommandError::Other(missing.join("\n")));
        }
    }
    println!("{}: ok, revision {}", command.file.config.display(), snapshot.revision);
    Ok(ExitCode::SUCCESS)
}

fn load(file: &ConfigFile) -> Result<std::sync::Arc<Snapshots>, CommandError> {
    Snapshots::load(&file.config).map_err(|error| CommandError::Problems(error.problems()))
}

/// Runs a future to its end on a small runtime.
fn block_on<F: Future>(future: F) -> Result<F::Output, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| CommandError::Other(error.to_string()))?.block_on(future))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
