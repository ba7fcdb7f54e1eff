//! The database, and what lies in it: its tables fit, its data keys can be opened, and how the grants of each provider are.
//! Nothing is made, changed or wrapped anew.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Findings, Seen, Wrong};
use crate::config::{Database, Provider};
use crate::database::{LATEST_VERSION, unix_ms};
use crate::lifecycle::Book;
use crate::snapshot::Snapshot;
use crate::state::{State, StateError};

/// What there is to look into.
enum Found {
    /// Nobody has kept anything yet.
    Nothing,
    /// Tables of an earlier version.
    Older,
    Open(Arc<State>),
}

/// Looks at the database, and lets the checks after this one find it where it can be used. Returns where bindings
/// stand, where that is known.
pub(super) async fn examine(snapshot: &Snapshot, config: &Database, findings: &mut Findings) -> Option<Arc<Book>> {
    let mut found = None;
    let check = async {
        let (seen, own) = database(snapshot, config).await?;
        found = Some(own);
        Ok(seen)
    };
    findings.check("database", check).await;
    let state = match found? {
        Found::Nothing => return Some(Arc::default()),
        Found::Older => return None,
        Found::Open(state) => state,
    };
    let _ = snapshot.sources.secrets.state().set(state.clone());
    let mut book = None;
    if snapshot.config.lifecycle.is_some() {
        let check = async {
            let seen = history(snapshot, &state).await?;
            book = Some(state.book.clone());
            Ok(seen)
        };
        findings.check("lifecycle of bindings", check).await;
    }
    for (name, provider) in &snapshot.config.providers {
        findings.check(&format!("grants of `{name}`"), grants(name, provider, &state)).await;
    }
    book
}

async fn database(snapshot: &Snapshot, config: &Database) -> Result<(String, Found), Wrong> {
    let looked = State::look(config, &snapshot.sources.secrets).await;
    let (state, version) = looked.map_err(|error| {
        let remedy = match &error {
            StateError::Secret { .. } => "set it where `keyward serve` runs",
            _ => "check the address, that the database runs, and that this user may read and write it",
        };
        Wrong::failed(error.to_string(), remedy)
    })?;
    let Some(state) = state else {
        return Ok(("there is none yet; `keyward serve` makes it".to_owned(), Found::Nothing));
    };
    if version > LATEST_VERSION {
        let seen = format!("its tables are of version {version}, of which this `keyward` knows {LATEST_VERSION}");
        return Err(Wrong::failed(seen, "run the newest `keyward` that has used it"));
    }
    if version < LATEST_VERSION {
        let seen = format!(
            "its tables are of version {version}; `keyward serve` brings them to version {LATEST_VERSION} when it starts"
        );
        return Ok((seen, if version == 0 { Found::Nothing } else { Found::Older }));
    }
    let (count, behind) = state.sealer.look().await.map_err(|error| {
        let remedy = "add the key-encryption key that was in use before to `database.encryption_keys`, after the first";
        Wrong::failed(error.to_string(), remedy)
    })?;
    let waiting = match behind {
        0 => String::new(),
        behind => format!(", {behind} of them with an older key; `keyward keys rotate` wraps them anew"),
    };
    Ok((format!("tables of version {version}; all {count} data keys can be opened{waiting}"), Found::Open(state)))
}

/// Whether the newest step of each binding can be opened.
async fn history(snapshot: &Snapshot, state: &State) -> Seen {
    let remedy = "restore the table `binding_history` from a copy, or declare the binding with another id";
    let newest = state.bindings.newest().await.map_err(|error| Wrong::failed(error.to_string(), remedy))?;
    let own: Vec<_> = newest.iter().filter(|own| own.environment == snapshot.config.environment).collect();
    let broken: Vec<&str> = own.iter().filter(|own| own.entry.is_err()).map(|own| own.id.as_str()).collect();
    if !broken.is_empty() {
        let seen = format!("the newest step cannot be opened of `{}`", broken.join("`, `"));
        return Err(Wrong::failed(seen, remedy));
    }
    state.book.read(&state.bindings).await.map_err(|error| Wrong::failed(error.to_string(), remedy))?;
    Ok(format!("{} bindings have a history", own.len()))
}

/// How many people have connected, how many of these connections have ended, and how many cover too little. No names.
async fn grants(name: &str, provider: &Provider, state: &State) -> Seen {
    let refused = |error: String| {
        Wrong::failed(error, "check `database.encryption_keys`; what cannot be opened, people have to connect again")
    };
    let ended = state.database.ended_grants(name, unix_ms(SystemTime::now())).await;
    let ended = ended.map_err(|error| refused(error.to_string()))?;
    let cards = state.grants.list(None).await.map_err(|error| refused(error.to_string()))?;
    let own: Vec<_> = cards.iter().filter(|card| card.key.provider == name).collect();
    let lacking = match provider {
        Provider::Oauth(provider) => {
            // These two are about the login and the refresh token, and not every server lists them among what it granted.
            let wanted = provider.scopes.iter().filter(|scope| !["openid", "offline_access"].contains(&scope.as_str()));
            let wanted: Vec<&String> = wanted.collect();
            own.iter().filter(|card| wanted.iter().any(|scope| !card.scopes.contains(scope))).count()
        }
        Provider::ApiKey(_) => 0,
    };
    Ok(format!("{} in use, {ended} ended, {lacking} need consent again for a scope they lack", own.len()))
}
