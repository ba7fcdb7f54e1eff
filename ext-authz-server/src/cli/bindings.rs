//! `keyward bindings`: what is bound to what, as cards without secrets.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{CommandError, ConfigFile, block_on, load};
use crate::config::{Binding, Credential, Principals};
use crate::secret::Secrets;

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
    credentials: Vec<CredentialCard<'a>>,
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
struct CredentialCard<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    r#ref: &'a str,
    set: bool,
}

pub(super) fn run(command: &Bindings) -> Result<ExitCode, CommandError> {
    let (Action::List { file } | Action::Show { file, .. } | Action::Export { file }) = &command.action;
    let snapshots = load(file)?;
    let snapshot = snapshots.current();
    let cards = block_on(async {
        let mut cards = Vec::new();
        for binding in &snapshot.config.bindings {
            cards.push(card(binding, &snapshot.secrets).await);
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

async fn card<'a>(binding: &'a Binding, secrets: &Secrets) -> Card<'a> {
    let Principals { users, agents, roles } = &binding.principals;
    let actor = if binding.principals.is_everybody() {
        Actor::Everybody("everybody")
    } else {
        Actor::Named { users, agents, roles }
    };
    let mut credentials = Vec::new();
    for credential in &binding.credentials {
        let (r#type, name, username) = match credential {
            Credential::Header { name, .. } => ("header", Some(name.as_str()), None),
            Credential::Query { name, .. } => ("query", Some(name.as_str()), None),
            Credential::Basic { username, .. } => ("basic", None, Some(username.as_str())),
        };
        let source = credential.secret();
        let set = secrets.resolve(source).await.is_ok();
        credentials.push(CredentialCard { r#type, name, username, r#ref: &source.reference, set });
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
            credentials if credentials.iter().all(|credential| credential.set) => "set",
            _ => "NOT SET",
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
