//! `keyward bindings approve`, `activate`, `disable`, `revoke` and `history`.

use std::process::ExitCode;

use clap::Args;

use super::kept::{looking, with_state};
use super::{CommandError, ConfigFile, record_of};
use crate::audit::record::rfc3339;
use crate::audit::{Event, Record as AuditRecord};
use crate::database::from_unix_ms;
use crate::lifecycle::{Action, Entry, Outcome, Wish, WishError};
use crate::run::open_audit;
use crate::snapshot::Snapshot;
use crate::state::State;

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

/// Takes a step, where it can be taken.
pub(super) fn step(step: &Step, action: Action) -> Result<ExitCode, CommandError> {
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
    let user = system_user();
    let by = step.by.as_deref().unwrap_or(&user);
    // Opened first: what cannot be recorded is not done.
    let audit = open_audit(config).map_err(|error| CommandError::Other(error.to_string()))?;
    let wish = Wish { id: &step.id, action, by, user: &user, reason: &step.reason, version: step.version };
    let refused = |error: WishError| CommandError::Other(format!("binding `{}`: {error}", step.id));
    let outcome = wish.fulfil(state, config).await.map_err(refused)?;
    if let Outcome::Taken(entry) = &outcome {
        let mut record = AuditRecord::new(Event::BindingChanged, &config.environment, &snapshot.revision);
        record.binding = Some(entry.to_record());
        record_of(&audit, &record)?;
    }
    Ok(outcome)
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
pub(super) fn system_user() -> String {
    let id = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("uid-{id}"))
}
