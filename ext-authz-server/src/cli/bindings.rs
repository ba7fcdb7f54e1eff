//! `keyward bindings`: what is bound to what, as cards without secrets.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CommandError, ConfigFile, block_on, load};
use crate::caller::Caller;
use crate::config::{Binding, Principals};
use crate::credential::{InjectError, kinds, try_out};
use crate::freshness::{MintError, MintErrorKind};
use crate::run::open_state;
use crate::sources::Sources;

#[derive(Debug, Args)]
pub(super) struct Bindings {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print one line a binding: whose it is, for which servers and hosts, and whether its secrets are set.
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
}

/// What may be shown of a binding.
#[derive(Debug, Serialize)]
struct Card<'a> {
    id: &'a str,
    actor: Actor<'a>,
    mode: &'static str,
    environment: &'a str,
    owner: &'a str,
    servers: &'a [String],
    hosts: &'a [String],
    credentials: Vec<CredentialCard>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    headers: &'a [String],
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
    let (Action::List { file } | Action::Show { file, .. } | Action::Export { file }) = &command.action;
    let snapshots = load(file)?;
    let snapshot = snapshots.current();
    let cards = block_on(async {
        // Without it, what lies there counts as not set.
        let _ = open_state(&snapshot).await;
        let mut cards = Vec::new();
        for binding in &snapshot.config.bindings {
            cards.push(card(binding, &snapshot.sources).await);
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
        Action::Export { .. } => println!("{}", serde_json::to_string_pretty(&cards).unwrap_or_default()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn card<'a>(binding: &'a Binding, sources: &Arc<Sources>) -> Card<'a> {
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
            Err(InjectError::Mint(MintError { kind: MintErrorKind::NeedsCaller | MintErrorKind::Consent, .. })) => {
                State::PerCaller
            }
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
        environment: &binding.environment,
        owner: &binding.owner,
        servers: &binding.servers,
        hosts: &binding.hosts,
        credentials,
        headers: &binding.headers,
    }
}

/// The cards in columns, under a header.
fn table(cards: &[Card<'_>]) -> String {
    const HEADER: [&str; 7] = ["ID", "MODE", "ENVIRONMENT", "OWNER", "SERVERS", "HOSTS", "SECRETS"];
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(cards.iter().map(Card::row));
    let widths: [usize; 7] =
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
    fn row(&self) -> [String; 7] {
        let secrets = match self.credentials.as_slice() {
            [] => "none",
            credentials if credentials.iter().any(|credential| credential.state == State::NotSet) => "NOT SET",
            credentials if credentials.iter().any(|credential| credential.state == State::PerCaller) => "per caller",
            _ => "set",
        };
        let listed = |list: &[String]| if list.is_empty() { "-".to_owned() } else { list.join(",") };
        [
            self.id.to_owned(),
            self.mode.to_owned(),
            self.environment.to_owned(),
            self.owner.to_owned(),
            listed(self.servers),
            listed(self.hosts),
            secrets.to_owned(),
        ]
    }
}
