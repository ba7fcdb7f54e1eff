//! `keyward bindings`: what is bound to what, as cards without secrets, and where each binding stands.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::lifecycle::{Step, history, step};
use super::{CommandError, ConfigFile, book, borrowing, load, look};
use crate::caller::Caller;
use crate::config::{Binding, Principals, Risk};
use crate::credential::{kinds, try_out};
use crate::lifecycle::{Action as StepAction, Book, Gate, State as Stands};
use crate::snapshot::Snapshot;
use crate::sources::Sources;

#[derive(Debug, Args)]
pub(super) struct Bindings {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print one line a binding: where it stands, whose it is, for which servers and hosts, and whether its secrets are set.
    List {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print one binding, as JSON.
    Show {
        /// The `id` of the binding in the configuration; `keyward bindings list` shows all.
        id: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Print all bindings, as a JSON array.
    Export {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Agree to a binding as it is written now. Who changes it asks anew.
    Approve(Step),
    /// Let an approved binding serve, or a disabled one again. Servers follow within a second.
    Activate(Step),
    /// Stop a binding, whatever its definition, until somebody activates it. Servers follow within a second.
    Disable(Step),
    /// Stop a binding for good, whatever its definition. Servers follow within a second.
    Revoke(Step),
    /// Print every step that was taken with a binding, oldest first.
    History {
        /// The `id` of the binding.
        id: String,
        #[command(flatten)]
        file: ConfigFile,
    },
}

/// What may be shown of a binding.
#[derive(Debug, Serialize)]
struct Card<'a> {
    id: &'a str,
    actor: Actor<'a>,
    mode: &'static str,
    /// Absent where bindings have no lifecycle.
    #[serde(skip_serializing_if = "Option::is_none")]
    lifecycle: Option<Lifecycle>,
    environment: &'a str,
    owner: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    risk: Option<&'static str>,
    /// Absent where there are no tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenants: Option<&'a [String]>,
    servers: &'a [String],
    /// Absent where it is for every tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a [String]>,
    hosts: &'a [String],
    credentials: Vec<CredentialCard>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    headers: &'a [String],
}

#[derive(Debug, Serialize)]
struct Lifecycle {
    state: &'static str,
    version: i64,
    definition: String,
    approvers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Actor<'a> {
    Everybody(&'static str),
    Named { users: &'a [String], agents: &'a [String], roles: &'a [String] },
}

#[derive(Debug, Serialize)]
struct CredentialCard {
    r#type: &'static str,
    places: Vec<String>,
    references: Vec<String>,
    state: State,
}

/// Whether a credential can be had now, here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Set,
    NotSet,
    /// It depends on who calls.
    PerCaller,
}

pub(super) fn run(command: &Bindings) -> Result<ExitCode, CommandError> {
    let file = match &command.action {
        Action::Approve(own) => return step(own, StepAction::Approve),
        Action::Activate(own) => return step(own, StepAction::Activate),
        Action::Disable(own) => return step(own, StepAction::Disable),
        Action::Revoke(own) => return step(own, StepAction::Revoke),
        Action::History { id, file } => return history(id, file),
        Action::List { file } | Action::Show { file, .. } | Action::Export { file } => file,
    };
    let snapshots = load(file)?;
    let snapshot = snapshots.current();
    let cards = borrowing(&snapshot, async {
        let book = looked_up(&snapshot).await;
        let mut cards = Vec::new();
        for binding in &snapshot.config.bindings {
            cards.push(card(binding, lifecycle(binding, &snapshot, book.as_ref()), &snapshot.sources).await);
        }
        cards
    })?;
    match &command.action {
        Action::List { .. } => {
            print!("{}", table(&cards));
        }
        Action::Show { id, .. } => match cards.iter().find(|card| card.id == id) {
            Some(card) => println!("{}", serde_json::to_string_pretty(card).unwrap_or_default()),
            None => return Err(CommandError::Other(format!("there is no binding `{id}`"))),
        },
        _ => println!("{}", serde_json::to_string_pretty(&cards).unwrap_or_default()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where bindings stand; absent where that cannot be read. Without a database, what lies there counts as not set.
async fn looked_up(snapshot: &Snapshot) -> Option<Arc<Book>> {
    snapshot.config.database.as_ref()?;
    match look(snapshot).await {
        Ok(state) => Some(book(state.as_deref()).await),
        Err(error) => {
            eprintln!("{error}");
            None
        }
    }
}

/// Where a binding stands; `unknown` where that cannot be read.
fn lifecycle(binding: &Binding, snapshot: &Snapshot, book: Option<&Arc<Book>>) -> Option<Lifecycle> {
    let gate = Gate::new(snapshot.config.lifecycle?, &snapshot.config.environment, book.cloned());
    let standing = book.and_then(|book| book.standing(&snapshot.config.environment, &binding.id));
    let entry = standing.and_then(|standing| standing.entry);
    Some(Lifecycle {
        state: gate.state(&binding.id, &binding.definition).map_or("unknown", Stands::as_str),
        version: gate.version(&binding.id),
        definition: binding.definition.clone(),
        approvers: entry.map(|entry| entry.record.approvers(&binding.definition).to_vec()).unwrap_or_default(),
    })
}

async fn card<'a>(binding: &'a Binding, lifecycle: Option<Lifecycle>, sources: &Arc<Sources>) -> Card<'a> {
    let Principals { users, agents, roles } = &binding.principals;
    let actor = if binding.principals.is_everybody() {
        Actor::Everybody("everybody")
    } else {
        Actor::Named { users, agents, roles }
    };
    let nobody = Arc::new(Caller::none(&binding.environment));
    let mut credentials = Vec::new();
    for credential in binding.credentials.iter().map(kinds::of) {
        let state = match try_out(&credential, &nobody, sources).await {
            Ok(()) => State::Set,
            Err(error) if error.needs_caller().is_some() => State::PerCaller,
            Err(_) => State::NotSet,
        };
        let places = credential.places().iter().map(ToString::to_string).collect();
        credentials.push(CredentialCard {
            r#type: credential.kind(),
            places,
            references: credential.references(),
            state,
        });
    }
    Card {
        id: &binding.id,
        actor,
        mode: binding.mode.as_str(),
        lifecycle,
        environment: &binding.environment,
        owner: &binding.owner,
        risk: binding.risk.map(Risk::as_str),
        tenants: binding.tenants.as_deref(),
        servers: &binding.servers,
        tools: binding.tools.as_deref(),
        hosts: &binding.hosts,
        credentials,
        headers: &binding.headers,
    }
}

/// The cards in columns, under a header.
fn table(cards: &[Card<'_>]) -> String {
    const HEADER: [&str; 9] = ["ID", "STATE", "VERSION", "MODE", "ENVIRONMENT", "OWNER", "SERVERS", "HOSTS", "SECRETS"];
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(cards.iter().map(Card::row));
    let widths: [usize; 9] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

// === impl Card ===

impl Card<'_> {
    fn row(&self) -> [String; 9] {
        let secrets = match self.credentials.as_slice() {
            [] => "none",
            credentials if credentials.iter().any(|credential| credential.state == State::NotSet) => "NOT SET",
            credentials if credentials.iter().any(|credential| credential.state == State::PerCaller) => "per caller",
            _ => "set",
        };
        let listed = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(",") };
        [
            self.id.to_owned(),
            self.lifecycle.as_ref().map_or("active", |own| own.state).to_owned(),
            self.lifecycle.as_ref().map_or("-".to_owned(), |own| own.version.to_string()),
            self.mode.to_owned(),
            self.environment.to_owned(),
            self.owner.to_owned(),
            listed(self.servers),
            listed(self.hosts),
            secrets.to_owned(),
        ]
    }
}
