//! The command line.
//!
//! Exit codes: 0 done (for `explain`: allowed), 1 a problem was found (for `explain`: denied), 2 wrong usage.

mod aws;
mod bindings;
mod doctor;
mod explain;
mod kept;
mod lifecycle;
mod revoke;
mod sessions;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::audit::{Record, Writer};
use crate::caller::Caller;
use crate::config::{self, ConfigError, Loaded, Problem, json_schema, reference};
use crate::credential::{kinds, try_out};
use crate::doctor::{Hint, hints, remedied};
use crate::hygiene;
use crate::lifecycle::Book;
use crate::log::{self, Format};
use crate::run::{Service, audit_key, read_book};
use crate::snapshot::{Snapshot, Snapshots, watch};
use crate::state::{State, StateError};

/// Credentials for AI agents that never hold them: the ext_authz server and its tools.
#[derive(Debug, Parser)]
#[command(
    name = "keyward",
    version,
    after_help = "Start with `keyward check-config --config keyward.yaml`; README.md and docs/configuration.md say more.\n\
                  Exit codes: 0 done, or allowed; 1 a problem was found, or denied; 2 wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve decisions to Envoy until SIGTERM or SIGINT. Prints the addresses as one line of JSON; picks up changed files.
    Serve(Serve),
    /// Check the configuration, and the policy and key files that it names; print what is wrong, where, and what to do. What
    /// a server starts with all the same is a warning.
    CheckConfig(CheckConfig),
    /// Say how one request would be decided: by which stage, rule and binding. The upstream is not called, no secret is shown.
    Explain(Box<explain::Explain>),
    /// Look whether everything that the configuration names works: stores, issuers, credentials, policy, audit file. Says
    /// what to do where it does not.
    Doctor(doctor::Doctor),
    /// Print the JSON Schema of keyward.yaml, for editors and other checks.
    Schema {
        /// Print every key as tables instead, for people.
        #[arg(long)]
        markdown: bool,
    },
    /// Show which credential goes where and for whom, without the secrets; approve, activate, disable and revoke.
    Bindings(bindings::Bindings),
    /// What trust policies in AWS need, and whether they work.
    Aws(aws::Command),
    /// Put, list and delete secrets of the built-in store.
    Secrets(kept::Secrets),
    /// List and revoke what people have connected.
    Grants(kept::Grants),
    /// List the MCP sessions that servers with a database know, and end them.
    Sessions(sessions::Sessions),
    /// Revoke access: of a tenant, a person, an agent, a workload, a binding, a token or a key; list and lift revocations.
    Revoke(Box<revoke::Revoke>),
    /// Rotate the keys that seal everything.
    Keys(kept::Keys),
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// The configuration file. Relative paths in it start from its directory.
    #[arg(long, env = "KEYWARD_CONFIG", default_value = "keyward.yaml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// The least severe events to log: error, warn, info, debug or trace; or by module, `info,keyward_server=debug`.
    #[arg(long, env = "KEYWARD_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// The form of the log lines, which go to standard error.
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
    /// Also look whether each secret can be had, in this environment and by this user; no value is shown, and no database is
    /// made or brought up to date.
    #[arg(long)]
    secrets: bool,
    /// Print problems and warnings as one JSON array instead, on standard output; it is empty where there are none.
    #[arg(long)]
    json: bool,
}

/// A problem or a warning, for programs.
#[derive(Debug, Serialize)]
struct Said<'a> {
    severity: &'static str,
    file: String,
    /// From 1; 0 where there is none.
    line: u64,
    /// From 1; 0 where there is none.
    column: u64,
    /// Empty where there is none.
    key: &'a str,
    message: &'a str,
    remedy: &'a str,
}

/// What ends a command early.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The configuration, the policy or a key file.
    #[error(transparent)]
    Problems(ConfigError),
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
        Command::Doctor(command) => doctor::run(&command),
        Command::Schema { markdown } => {
            let text = if markdown { reference(&json_schema()) } else { schema_text() };
            println!("{}", text.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        Command::Bindings(command) => bindings::run(&command),
        Command::Aws(command) => aws::run(&command),
        Command::Secrets(command) => kept::secrets(&command),
        Command::Grants(command) => kept::grants(&command),
        Command::Sessions(command) => sessions::run(&command),
        Command::Revoke(command) => revoke::run(&command),
        Command::Keys(command) => kept::keys(&command),
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
    let served = runtime.block_on(async {
        let service = Service::prepare(snapshots.clone()).await.map_err(|error| other(&error))?;
        let revision = snapshots.current().revision.clone();
        // One line of JSON, for whoever started this with port 0.
        println!("{}", service.addresses());
        tracing::info!(addresses = service.addresses(), revision, "serving");
        let engine = service.engine();
        let watching = tokio::spawn(watch(snapshots, move |error| {
            // A record is one line.
            engine.refused(&error.to_string().replace('\n', "; "));
        }));
        let result = service.run().await;
        watching.abort();
        result.map_err(|error| other(&error))
    });
    // A look at files on a file system that hangs does not keep it from ending.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map(|()| ExitCode::SUCCESS)
}

fn check_config(command: &CheckConfig) -> Result<ExitCode, CommandError> {
    let mut warned = Vec::new();
    let checked = checked(command, &mut warned);
    if command.json {
        let problems = match checked {
            Ok(_) => Vec::new(),
            Err(CommandError::Problems(found)) => found.problems,
            Err(other) => return Err(other),
        };
        let warned = warned.iter().map(|problem| Said::new("warning", problem));
        let said: Vec<Said<'_>> = warned.chain(problems.iter().map(|problem| Said::new("error", problem))).collect();
        println!("{}", serde_json::to_string_pretty(&said).unwrap_or_default());
        return Ok(ExitCode::from(u8::from(!problems.is_empty())));
    }
    for Problem { message, .. } in &mut warned {
        message.insert_str(0, "warning: ");
    }
    warned.iter().for_each(|warning| eprintln!("{warning}"));
    println!("{}: ok, revision {}", command.file.config.display(), checked?);
    Ok(ExitCode::SUCCESS)
}

/// The revision of a configuration without problems. Warnings are noted, whether it has any or not.
fn checked(command: &CheckConfig, warned: &mut Vec<Problem>) -> Result<String, CommandError> {
    let snapshots = load(&command.file)?;
    let snapshot = snapshots.current();
    let loaded = config::load(&command.file.config).map_err(CommandError::Problems)?;
    *warned = warnings(&loaded);
    if command.secrets {
        let problems = borrowing(&snapshot, missing_secrets(&loaded, &snapshot))?;
        if !problems.is_empty() {
            return Err(CommandError::Problems(ConfigError { problems }));
        }
    }
    Ok(snapshot.revision.clone())
}

/// What keeps a binding from serving, at its place; a server starts all the same.
fn warnings(loaded: &Loaded) -> Vec<Problem> {
    // Where bindings have a lifecycle, which of those that fit equally are active is not known here.
    let hints = hints(&loaded.config, |_| loaded.config.lifecycle.is_none()).into_iter();
    let warning = |hint: Hint<'_>| {
        let key = format!("bindings[{}].{}", hint.index, hint.key);
        loaded.problem(&key, hint.seen, hint.remedy)
    };
    hints.map(warning).collect()
}

/// A problem for each secret that cannot be had, or cannot be used, at its place.
async fn missing_secrets(loaded: &Loaded, snapshot: &Arc<Snapshot>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |key: &str, error: &str| {
        let (message, remedy) = remedied(error);
        problems.push(loaded.problem(key, message.to_owned(), remedy));
    };
    let opened = async {
        if let Some(state) = look(snapshot).await? {
            state.sealer.look().await?;
            // What servers have minted is taken as it is.
            snapshot.sources.freshness().share(Arc::new(state.shared.clone()));
        }
        Ok::<_, StateError>(())
    };
    if let Err(error) = opened.await {
        add("database", &error.to_string());
    }
    if let Err(cause) = audit_key(snapshot).await {
        add("audit.hmac_key", &cause);
    }
    let identity = &loaded.config.identity;
    let introspections = identity.issuers.iter().enumerate().filter_map(|(index, issuer)| {
        let secret = &issuer.introspection.as_ref()?.client_secret;
        Some((format!("identity.issuers[{index}].introspection.client_secret"), secret))
    });
    let nonce_key = identity.dpop_nonce_key.iter().map(|key| ("identity.dpop_nonce_key".to_owned(), key));
    for (key, source) in introspections.chain(nonce_key) {
        if let Err(error) = snapshot.sources.secrets.resolve(source).await {
            add(&key, &error.to_string());
        }
    }
    for (index, binding) in loaded.config.bindings.iter().enumerate() {
        for (inner, credential) in binding.credentials.iter().enumerate() {
            let nobody = Arc::new(Caller::none(&binding.environment));
            match try_out(&kinds::of(credential), &nobody, &snapshot.sources).await {
                Err(error) if error.needs_caller().is_none() => {
                    add(&format!("bindings[{index}].credentials[{inner}]"), &error.to_string());
                }
                _ => {}
            }
        }
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems
}

fn load(file: &ConfigFile) -> Result<Arc<Snapshots>, CommandError> {
    Snapshots::load(&file.config).map_err(CommandError::Problems)
}

/// Opens what is kept for a command that only looks, and lets credentials find it: no database is made or brought up to
/// date. `None` where there is none yet; what would lie in it counts as not set.
async fn look(snapshot: &Snapshot) -> Result<Option<Arc<State>>, StateError> {
    let Some(config) = &snapshot.config.database else { return Ok(None) };
    let state = State::read(config, &snapshot.sources.secrets).await?;
    if let Some(state) = &state {
        // It is set once: this is the start.
        let _ = snapshot.sources.secrets.state().set(state.clone());
    }
    Ok(state)
}

/// Where bindings stand in what [`look`] found.
async fn book(state: Option<&State>) -> Arc<Book> {
    let Some(state) = state else {
        // Nobody has taken a step yet.
        let book = Arc::new(Book::default());
        book.confirm();
        return book;
    };
    read_book(Some(state)).await;
    if let Err(error) = state.revoked.read(&state.revocations).await {
        eprintln!("revocations: {error}");
    }
    state.book.clone()
}

/// Leaves the record of what a command has done, and ends the trail.
fn record_of(audit: &Writer, record: &Record) -> Result<(), CommandError> {
    let accepted = audit.accept(record);
    if audit.close() && accepted.is_ok() {
        return Ok(());
    }
    Err(CommandError::Other("it is done, but its audit record could not be written: see `audit.file`".to_owned()))
}

/// Runs a look at credentials to its end, then gives back what stores lent for it.
fn borrowing<F: Future>(snapshot: &Snapshot, looking: F) -> Result<F::Output, CommandError> {
    block_on(async {
        let seen = looking.await;
        snapshot.sources.close().await;
        seen
    })
}

/// Runs a future to its end on a small runtime.
fn block_on<F: Future>(future: F) -> Result<F::Output, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| CommandError::Other(error.to_string()))?.block_on(future))
}

// === impl Said ===

impl<'a> Said<'a> {
    fn new(severity: &'static str, problem: &'a Problem) -> Said<'a> {
        let Problem { file, line, column, key, message, remedy } = problem;
        Said { severity, file: file.display().to_string(), line: *line, column: *column, key, message, remedy }
    }
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
