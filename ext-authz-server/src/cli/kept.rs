//! `keyward secrets`, `keyward grants` and `keyward keys`: what lies in the database, without ever showing a value.

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::{CommandError, ConfigFile, block_on, load, look, record_of};
use crate::audit::record::rfc3339;
use crate::audit::{Event, Record, Writer};
use crate::credential::check_secret;
use crate::grants::{self, GrantCard, GrantKey, Revoked, Told};
use crate::run::{open_audit, open_state};
use crate::secret::{MAX_SECRET_BYTES, is_path};
use crate::snapshot::Snapshot;
use crate::state::State;

#[derive(Debug, Args)]
pub(super) struct Secrets {
    #[command(subcommand)]
    action: SecretsAction,
}

#[derive(Debug, Subcommand)]
enum SecretsAction {
    /// Store what comes on standard input, byte for byte, as `keyward://PATH`. It is never shown again.
    Put {
        /// Segments of letters, digits, `-`, `_`, `.` and `~`, joined by `/`.
        path: String,
        /// Take one line feed off the end.
        #[arg(long)]
        trim_newline: bool,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print the paths, versions and times of all secrets.
    List {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Delete a secret. Replicas stop using it within a second.
    Delete {
        /// The path.
        path: String,
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Debug, Args)]
pub(super) struct Grants {
    #[command(subcommand)]
    action: GrantsAction,
}

#[derive(Debug, Subcommand)]
enum GrantsAction {
    /// Print who has connected which account, with scopes and times.
    List {
        /// Only of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Delete a grant here and, where the provider can be told, there. Replicas stop using it within a second.
    Revoke {
        /// The principal's key, as `list` prints it.
        principal: String,
        /// The provider.
        provider: String,
        /// The tenant, as `list` prints it.
        #[arg(long)]
        tenant: String,
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    action: KeysAction,
}

#[derive(Debug, Subcommand)]
enum KeysAction {
    /// Wrap every data key under the first of `database.encryption_keys`; what is sealed stays as it is. Afterwards the other keys
    /// can be removed from the configuration.
    Rotate {
        #[command(flatten)]
        file: ConfigFile,
    },
}

pub(super) fn secrets(command: &Secrets) -> Result<ExitCode, CommandError> {
    match &command.action {
        SecretsAction::Put { path, trim_newline, file } => {
            if !is_path(path) {
                return Err(CommandError::Other(format!("`{path}` is not the path of a secret")));
            }
            let value = standard_input(*trim_newline)?;
            check_usable(&value)?;
            let version = with_state(file, async |state, snapshot| {
                // Opened first, here and below: what cannot be recorded is not done.
                let audit = open_audit(&snapshot.config).map_err(other)?;
                let version = state.secrets.put(path, &value).await.map_err(other)?;
                leave(&audit, Event::SecretStored, format!("keyward://{path}: version {version}"), &snapshot)?;
                Ok(version)
            })?;
            println!("keyward://{path}: version {version}");
        }
        SecretsAction::List { file } => {
            for card in looking(file, async |state, _| state.secrets.list().await.map_err(other))? {
                println!("keyward://{}  version {}  {}", card.path, card.version, rfc3339(card.changed));
            }
        }
        SecretsAction::Delete { path, file } => {
            with_state(file, async |state, snapshot| {
                let audit = open_audit(&snapshot.config).map_err(other)?;
                if !state.secrets.delete(path).await.map_err(again)? {
                    return Err(CommandError::Other(format!("there is no secret `{path}`")));
                }
                leave(&audit, Event::SecretDeleted, format!("keyward://{path}"), &snapshot)
            })?;
            println!("keyward://{path}: deleted");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn grants(command: &Grants) -> Result<ExitCode, CommandError> {
    match &command.action {
        GrantsAction::List { tenant, file } => {
            let cards = looking(file, async |state, _| state.grants.list(tenant.as_deref()).await.map_err(other))?;
            cards.iter().for_each(|card| println!("{}", line(card)));
        }
        GrantsAction::Revoke { principal, provider, tenant, file } => {
            let key = GrantKey::new(tenant, principal, provider);
            let told = with_state(file, async |state, snapshot| revoke(&state, &snapshot, &key).await)?;
            println!("deleted; {told}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn keys(command: &Keys) -> Result<ExitCode, CommandError> {
    let KeysAction::Rotate { file } = &command.action;
    let audit = open_audit(&load(file)?.current().config).map_err(other)?;
    // Opening wraps anew already; what is left is to say how the keys are now.
    let count = with_state(file, async |state, snapshot| {
        state.sealer.rewrap().await.map_err(other)?;
        let count = state.sealer.count().await.map_err(other)?;
        leave(&audit, Event::KeysRotated, format!("{count} data keys"), &snapshot)?;
        Ok(count)
    })?;
    println!("all {count} data keys are wrapped under the first of `database.encryption_keys`");
    Ok(ExitCode::SUCCESS)
}

/// Leaves the record of what a command has done, where a detail says it all; never a value.
pub(super) fn leave(audit: &Writer, event: Event, detail: String, snapshot: &Snapshot) -> Result<(), CommandError> {
    let record = Record::new(event, &snapshot.config.environment, &snapshot.revision);
    record_of(audit, &Record { detail, ..record })
}

/// Takes a grant back and leaves a record. Returns what the provider was told.
async fn revoke(state: &State, snapshot: &Snapshot, key: &GrantKey) -> Result<Told, CommandError> {
    // Opened first: what cannot be recorded is not done.
    let audit = open_audit(&snapshot.config).map_err(other)?;
    let revoked = grants::revoke(key, state, snapshot).await.map_err(again)?;
    let Revoked { grant, told } = revoked.ok_or_else(|| CommandError::Other("there is no such grant".to_owned()))?;
    if let Told::Failed(cause) = &told {
        eprintln!("the provider could not be told: {cause}");
    }
    let record = Record::new(Event::GrantRevoked, &snapshot.config.environment, &snapshot.revision);
    record_of(&audit, &Record { grant: Some(grant), detail: told.to_string(), ..record })?;
    Ok(told)
}

fn line(card: &GrantCard) -> String {
    let GrantCard { key, scopes, account, given, changed, expires } = card;
    let account = account.as_deref().unwrap_or("-");
    let scopes = if scopes.is_empty() { "-".to_owned() } else { scopes.join(" ") };
    let expires = expires.map_or_else(|| "-".to_owned(), rfc3339);
    format!(
        "tenant={} principal={} provider={} account={account:?} scopes={scopes:?} given={} changed={} expires={expires}",
        key.tenant,
        key.principal,
        key.provider,
        rfc3339(*given),
        rfc3339(*changed),
    )
}

/// Opens the state of a configuration for one command.
pub(super) fn with_state<T>(
    file: &ConfigFile,
    work: impl AsyncFnOnce(Arc<State>, Arc<Snapshot>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let snapshot = load(file)?.current();
    block_on(async {
        let state = open_state(&snapshot).await.map_err(other)?;
        let state = state.ok_or_else(no_database)?;
        let result = work(state.clone(), snapshot.clone()).await;
        snapshot.sources.close().await;
        state.database.close().await;
        result
    })?
}

/// Opens it for one that only looks: no database is made or brought up to date. Where there is none yet, nothing is found.
pub(super) fn looking<T: Default>(
    file: &ConfigFile,
    work: impl AsyncFnOnce(Arc<State>, Arc<Snapshot>) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let snapshot = load(file)?.current();
    if snapshot.config.database.is_none() {
        return Err(no_database());
    }
    block_on(async {
        let Some(state) = look(&snapshot).await.map_err(other)? else { return Ok(T::default()) };
        let result = work(state.clone(), snapshot.clone()).await;
        snapshot.sources.close().await;
        state.database.close().await;
        result
    })?
}

fn no_database() -> CommandError {
    CommandError::Other("there is no `database` in the configuration".to_owned())
}

fn standard_input(trim_newline: bool) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let mut value = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    std::io::stdin().take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut value).map_err(other)?;
    if trim_newline && value.ends_with(b"\n") {
        value.pop();
        if value.ends_with(b"\r") {
            value.pop();
        }
    }
    match value.len() {
        0 => Err(CommandError::Other("standard input is empty".to_owned())),
        length if length > MAX_SECRET_BYTES => {
            Err(CommandError::Other(format!("the secret is longer than {MAX_SECRET_BYTES} bytes")))
        }
        _ => Ok(value),
    }
}

/// Refuses what no credential takes as a secret: it could not be told from ordinary text in an answer.
fn check_usable(value: &[u8]) -> Result<(), CommandError> {
    let unusable =
        |error| CommandError::Other(format!("{error}, so that it is never used; a user name goes into `username`"));
    check_secret(value).map_err(unusable)
}

/// What was to be deleted may still be there, and replicas may still use it.
fn again(error: impl ToString) -> CommandError {
    CommandError::Other(format!("{}; replicas may go on using it: run this again", error.to_string()))
}

pub(super) fn other(error: impl ToString) -> CommandError {
    CommandError::Other(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_never_be_used_is_not_stored() {
        for (value, says) in
            [("seven77", "shorter than 8 bytes"), ("ababcabc\n", ""), ("abcabcabc", "fewer than 4 different")]
        {
            let error = check_usable(value.as_bytes()).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(says) && error.is_empty() == says.is_empty(), "{error}");
            assert!(!error.contains(value), "{error}");
        }
    }
}
