//! `keyward bindings approve`, `activate`, `disable`, `revoke` and `history`.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;

use super::kept::{looking, with_state};
use super::{CommandError, ConfigFile, record_of};
use crate::audit::record::rfc3339;
use crate::audit::{Event, Record as AuditRecord};
use crate::database::{from_unix_ms, unix_ms};
use crate::lifecycle::{Action, Entry, MAX_REASON_BYTES, Record, State as Stands};
use crate::run::open_audit;
use crate::snapshot::Snapshot;
use crate::state::State;

/// How often a step is tried that others are faster than.
const ATTEMPTS: usize = 16;

/// A step with one binding.
#[derive(Debug, Args)]
pub(super) struct Step {
    /// The `id` of the binding in the configuration; `keyward bindings list` shows all.
    id: String,
    /// Who does it: letters, digits, `.`, `_`, `-`, `+` and `@`. Default: the system's user.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only if the binding is still at this version, as `list` prints it; otherwise nothing is changed.
    #[arg(long, value_name = "N")]
    version: Option<i64>,
    /// Why, for the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    file: ConfigFile,
}

/// What came of a step.
enum Outcome {
    Taken(Box<Entry>),
    /// It was taken before. Where the binding stands, and its version.
    Nothing(Stands, i64),
}

/// Takes a step, where it can be taken.
pub(super) fn step(step: &Step, action: Action) -> Result<ExitCode, CommandError> {
    if step.reason.len() > MAX_REASON_BYTES || step.reason.chars().any(char::is_control) {
        let message = format!("--reason: longer than {MAX_REASON_BYTES} bytes, or with control characters");
        return Err(CommandError::Other(message));
    }
    let outcome = with_state(&step.file, async |state, snapshot| take(step, action, &state, &snapshot).await)?;
    match outcome {
        Outcome::Taken(entry) => {
            println!("binding `{}`: {} -> {}, version {}", entry.id, entry.from, entry.to, entry.version);
        }
        Outcome::Nothing(state, version) => {
            println!("binding `{}`: nothing has changed; it is {state}, version {version}", step.id);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn take(step: &Step, action: Action, state: &State, snapshot: &Snapshot) -> Result<Outcome, CommandError> {
    let config = &snapshot.config;
    let refused = |cause: String| CommandError::Other(format!("binding `{}`: {cause}", step.id));
    let missing = "there is no `lifecycle` in the configuration, so that no server would care";
    let rule = config.lifecycle.ok_or_else(|| refused(missing.to_owned()))?;
    let binding = config.bindings.iter().find(|binding| binding.id == step.id);
    let user = system_user();
    let by = step.by.clone().unwrap_or_else(|| user.clone());
    // Opened first: what cannot be recorded is not done.
    let audit = open_audit(config).map_err(|error| CommandError::Other(error.to_string()))?;
    for _ in 0..ATTEMPTS {
        let newest = newest(state, &config.environment, &step.id).await?;
        let version = newest.as_ref().map_or(0, |entry| entry.version);
        let record = newest.as_ref().map_or_else(Record::default, |entry| entry.record.clone());
        let definition = match (binding, &newest, action) {
            (Some(binding), ..) => binding.definition.clone(),
            // What is not declared any more can still be kept from coming back.
            (None, Some(entry), Action::Disable | Action::Revoke) => entry.definition.clone(),
            (None, ..) => return Err(refused("there is none in the configuration".to_owned())),
        };
        let stands = record.state(&definition, rule.approvals);
        if let Some(expected) = step.version
            && expected != version
        {
            return Err(refused(format!(
                "it is at version {version} and {stands}, not at version {expected}; nothing has changed"
            )));
        }
        let next =
            record.after(action, &definition, &by, rule.approvals).map_err(|error| refused(error.to_string()))?;
        let Some(next) = next else { return Ok(Outcome::Nothing(stands, version)) };
        let entry = Entry {
            environment: config.environment.clone(),
            id: step.id.clone(),
            version: version + 1,
            action,
            from: stands,
            to: next.state(&definition, rule.approvals),
            definition,
            by: by.clone(),
            user: user.clone(),
            reason: step.reason.clone(),
            at_ms: unix_ms(SystemTime::now()),
            record: next,
        };
        if state.bindings.add(&entry).await.map_err(|error| refused(error.to_string()))? {
            let mut record = AuditRecord::new(Event::BindingChanged, &config.environment, &snapshot.revision);
            record.binding = Some(entry.to_record());
            record_of(&audit, &record)?;
            return Ok(Outcome::Taken(Box::new(entry)));
        }
    }
    Err(refused("others are changing it all the time; nothing has changed".to_owned()))
}

/// The newest step of a binding.
async fn newest(state: &State, environment: &str, id: &str) -> Result<Option<Entry>, CommandError> {
    let other = |error: crate::database::HistoryError| CommandError::Other(format!("binding `{id}`: {error}"));
    let all = state.bindings.newest().await.map_err(other)?;
    match all.into_iter().find(|newest| newest.environment == environment && newest.id == id) {
        Some(found) => found.entry.map(Some).map_err(other),
        None => Ok(None),
    }
}

/// Prints every step of a binding.
pub(super) fn history(id: &str, file: &ConfigFile) -> Result<ExitCode, CommandError> {
    let entries = looking(file, async |state, snapshot| {
        let all = state.bindings.history(&snapshot.config.environment, id, 0).await;
        all.map_err(|error| CommandError::Other(format!("binding `{id}`: {error}")))
    })?;
    if entries.is_empty() {
        return Err(CommandError::Other(format!("binding `{id}`: nobody has taken a step with it")));
    }
    entries.iter().for_each(|entry| println!("{}", line(entry)));
    Ok(ExitCode::SUCCESS)
}

fn line(entry: &Entry) -> String {
    let digest = entry.definition.get(..12).unwrap_or(&entry.definition);
    let reason = if entry.reason.is_empty() { String::new() } else { format!("  {:?}", entry.reason) };
    format!(
        "{}  version {}  {}: {} -> {}  by {} (user {})  definition {digest}{reason}",
        rfc3339(from_unix_ms(entry.at_ms)),
        entry.version,
        entry.action.as_str(),
        entry.from,
        entry.to,
        entry.by,
        entry.user,
    )
}

/// The name of the user that runs this process, by its id and not by what the environment says.
fn system_user() -> String {
    let id = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid-{id}"))
}
