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
    /// One line a binding.
    List {
        #[command(flatten)]
        file: ConfigFile,
    },
    /// One card, as JSON.
    Show {
        /// The binding.
        id: String,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// All cards, as a JSON array.
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
            for card in &cards {
                println!("{}", card.line());
            }
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

// === impl Card ===

impl Card<'_> {
    fn line(&self) -> String {
        let set = if self.credentials.iter().all(|credential| credential.set) { "set" } else { "NOT SET" };
        let (servers, hosts) = (self.servers.join(","), self.hosts.join(","));
        let Card { id, mode, environment, owner, .. } = self;
        format!("{id}  {mode}  {environment}  {owner}  {servers}  {hosts}  {set}")
    }
}
