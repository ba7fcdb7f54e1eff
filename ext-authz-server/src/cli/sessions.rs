//! `keyward sessions`: which MCP sessions there are, as the database knows them, and ending them.

use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};

use super::kept::{leave, looking, other, with_state};
use super::{CommandError, ConfigFile};
use crate::audit::Event;
use crate::audit::record::rfc3339;
use crate::config::Config;
use crate::database::{SessionCard, SessionFilter, ended_detail, unix_ms};
use crate::run::open_audit;

#[derive(Debug, Args)]
pub(super) struct Sessions {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print one line a session of the configuration's environment: whose it is, at which server entry, since when and until
    /// when. One that was never used after it began is not known.
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// End sessions: their ids are not found any more. Servers follow within a second.
    End {
        /// The name of the session, as `list` and audit records show it.
        #[arg(required_unless_present_any = ["tenant", "principal", "server"])]
        id: Option<String>,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        file: ConfigFile,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Only of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only of this principal, by its key as `list` prints it.
    #[arg(long)]
    principal: Option<String>,
    /// Only at this server entry.
    #[arg(long)]
    server: Option<String>,
}

pub(super) fn run(command: &Sessions) -> Result<ExitCode, CommandError> {
    match &command.action {
        Action::List { which, file } => {
            let cards = looking(file, async |state, snapshot| {
                let filter = which.filter(None, &snapshot.config)?;
                state.sessions.rows.list(&filter, unix_ms(SystemTime::now())).await.map_err(other)
            })?;
            cards.iter().for_each(|card| println!("{}", line(card)));
        }
        Action::End { id, which, file } => {
            let ended = with_state(file, async |state, snapshot| {
                // Opened first: what cannot be recorded is not done.
                let audit = open_audit(&snapshot.config).map_err(other)?;
                let filter = which.filter(id.as_deref(), &snapshot.config)?;
                let ended = state.sessions.rows.end(&filter, unix_ms(SystemTime::now())).await.map_err(other)?;
                if ended.is_empty() {
                    return Err(CommandError::Other("there is no such session that goes on".to_owned()));
                }
                leave(&audit, Event::SessionsEnded, ended_detail(&ended, &filter), &snapshot)?;
                Ok(ended)
            })?;
            ended.iter().for_each(|id| println!("{id}: ended"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn line(card: &SessionCard) -> String {
    let ended = card.ended.map_or_else(|| "-".to_owned(), rfc3339);
    format!(
        "{}  tenant={} principal={} server={} began={} used={} ends={} ended={ended}",
        card.id,
        card.tenant,
        card.principal,
        card.server,
        rfc3339(card.issued),
        rfc3339(card.seen),
        rfc3339(card.expires),
    )
}

// === impl Which ===

impl Which {
    fn filter(&self, id: Option<&str>, config: &Config) -> Result<SessionFilter, CommandError> {
        let Which { tenant, principal, server } = self;
        let filter = SessionFilter {
            id: id.map(str::to_owned),
            environment: Some(config.environment.clone()),
            tenant: tenant.clone(),
            principal: principal.clone(),
            server: server.clone(),
        };
        if filter.names_nobody() {
            return Err(CommandError::Other("an empty text names nobody".to_owned()));
        }
        Ok(filter)
    }
}
