//! `keyward revoke`: the end of access, for whom or what it names, at every server and filter within a second.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::kept::{looking, with_state};
use super::lifecycle::system_user;
use super::{CommandError, ConfigFile, record_of};
use crate::audit::record::rfc3339;
use crate::audit::{Event, Record};
use crate::database::from_unix_ms;
use crate::grants::{self, GrantKey};
use crate::revocation::{self, Act, Entry, Kind, Subject, Who};
use crate::run::open_audit;
use crate::snapshot::Snapshot;
use crate::state::State;

#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Everybody of a tenant.
    Tenant(Bare),
    /// A person, through whichever agent.
    Human(Actor),
    /// An agent, for whichever person.
    Agent(Actor),
    /// A workload.
    Workload(Actor),
    /// A binding, for whomever. `keyward bindings disable` is the same where bindings have a lifecycle.
    Binding {
        /// The `id` of the binding in the configuration.
        id: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// One access token.
    Token {
        /// Its `jti`, or `sha256:` and the lower-case hex of its SHA-256.
        id: String,
        /// The `name` of its issuer. May be left out where there is one.
        #[arg(long, value_name = "NAME")]
        issuer: Option<String>,
        /// The tenant. Default: the issuer's name, as it is where no claim names one.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// A proof-of-possession key: every token that is bound to it.
    Key {
        /// The thumbprint that stands in `cnf`: `jkt` (RFC 9449) or `x5t#S256` (RFC 8705).
        id: String,
        /// The tenant.
        #[arg(long, value_name = "NAME")]
        tenant: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Print the revocations that stand, oldest first.
    List {
        /// Only of this tenant.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        #[command(flatten)]
        file: ConfigFile,
    },
    /// Lift a revocation.
    Lift {
        /// Its number, as `list` prints it.
        number: i64,
        #[command(flatten)]
        why: Why,
    },
}

#[derive(Debug, Args)]
struct Bare {
    /// The tenant.
    tenant: String,
    #[command(flatten)]
    terms: Terms,
}

#[derive(Debug, Args)]
struct Actor {
    /// The subject, or the agent's client id, as tokens name it; never a display name.
    id: String,
    /// The `name` of the issuer that vouches for it. May be left out where there is one.
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// The tenant. Default: the issuer's name, as it is where no claim names one.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only at this entry of `servers`.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Also delete what this person or agent has connected, and tell the providers (RFC 7009). That is not undone by lifting.
    #[arg(long, conflicts_with = "server")]
    grants: bool,
    #[command(flatten)]
    terms: Terms,
}

#[derive(Debug, Args)]
struct Terms {
    /// For so many seconds. Default: until it is lifted.
    #[arg(long = "for", value_name = "SECONDS")]
    secs: Option<u64>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Why {
    /// Who does it. Default: the system's user.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(command: &Revoke) -> Result<ExitCode, CommandError> {
    let bare = |kind, tenant: &str, id: &str| Subject {
        kind,
        tenant: tenant.to_owned(),
        issuer: None,
        id: id.to_owned(),
        server: None,
    };
    match &command.action {
        Action::List { tenant, file } => return list(tenant.as_deref(), file),
        Action::Lift { number, why } => {
            let entry = with_state(&why.file, async |state, snapshot| {
                acted(why, &snapshot, async |who| revocation::lift(*number, who, &state, &snapshot.config).await).await
            })?;
            println!("revocation {number} is lifted by line {}", entry.number);
        }
        Action::Tenant(own) => revoke(&own.terms, false, |_| Ok(bare(Kind::Tenant, &own.tenant, "")))?,
        Action::Binding { id, terms } => revoke(terms, false, |_| Ok(bare(Kind::Binding, "", id)))?,
        Action::Key { id, tenant, terms } => revoke(terms, false, |_| Ok(bare(Kind::Key, tenant, id)))?,
        Action::Token { id, issuer, tenant, terms } => revoke(terms, false, |snapshot| {
            named(snapshot, Kind::Token, id, issuer.as_deref(), tenant.as_deref(), None)
        })?,
        Action::Human(own) => actor(Kind::Human, own)?,
        Action::Agent(own) => actor(Kind::Agent, own)?,
        Action::Workload(own) => actor(Kind::Workload, own)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn actor(kind: Kind, own: &Actor) -> Result<(), CommandError> {
    let Actor { id, issuer, tenant, server, .. } = own;
    revoke(&own.terms, own.grants, |snapshot| {
        named(snapshot, kind, id, issuer.as_deref(), tenant.as_deref(), server.as_deref())
    })
}

/// A subject that an issuer names.
fn named(
    snapshot: &Snapshot,
    kind: Kind,
    id: &str,
    issuer: Option<&str>,
    tenant: Option<&str>,
    server: Option<&str>,
) -> Result<Subject, CommandError> {
    let issuers = &snapshot.config.identity.issuers;
    let issuer = match (issuer, issuers.as_slice()) {
        (Some(issuer), _) => issuer,
        (None, [only]) => &only.name,
        (None, _) => return Err(CommandError::Other("there are several issuers: name one with --issuer".to_owned())),
    };
    let has_claim = issuers.iter().any(|own| own.name == issuer && own.tenant_claim.is_some());
    let tenant = match tenant {
        Some(tenant) => tenant,
        None if has_claim => {
            let message = "a claim names the tenants of this issuer: name one with --tenant";
            return Err(CommandError::Other(message.to_owned()));
        }
        None => issuer,
    };
    let own = |part: &str| part.to_owned();
    Ok(Subject { kind, tenant: own(tenant), issuer: Some(own(issuer)), id: own(id), server: server.map(own) })
}

fn revoke(
    terms: &Terms,
    with_grants: bool,
    subject: impl FnOnce(&Snapshot) -> Result<Subject, CommandError>,
) -> Result<(), CommandError> {
    let (entry, told) = with_state(&terms.why.file, async |state, snapshot| {
        let subject = subject(&snapshot)?;
        let entry = acted(&terms.why, &snapshot, async |who| {
            revocation::revoke(subject.clone(), terms.secs, who, &state, &snapshot.config).await
        })
        .await?;
        let told = if with_grants { Some(revoke_grants(&subject, &state, &snapshot).await?) } else { None };
        Ok((entry, told))
    })?;
    println!("{}", line(&entry));
    if let Some(told) = told {
        println!("{told}");
    }
    Ok(())
}

/// Does something with the log, and leaves the record.
async fn acted(
    why: &Why,
    snapshot: &Snapshot,
    act: impl AsyncFnOnce(Who<'_>) -> Result<Entry, revocation::ActError>,
) -> Result<Entry, CommandError> {
    // Opened first: what cannot be recorded is not done.
    let audit = open_audit(&snapshot.config).map_err(|error| CommandError::Other(error.to_string()))?;
    let user = system_user();
    let by = why.by.as_deref().unwrap_or(&user);
    let done = act(Who { by, user: &user, reason: &why.reason }).await;
    let entry = done.map_err(|error| CommandError::Other(error.to_string()))?;
    let record = Record::new(Event::RevocationChanged, &snapshot.config.environment, &snapshot.revision);
    record_of(&audit, &Record { revocation: Some(entry.to_record()), ..record })?;
    Ok(entry)
}

/// Deletes what a person, or an agent, has connected, and tells the providers. Says what came of it.
async fn revoke_grants(subject: &Subject, state: &State, snapshot: &Snapshot) -> Result<String, CommandError> {
    let other = |error: grants::GrantError| CommandError::Other(format!("access is revoked, but: {error}"));
    let cards = state.grants.list(Some(&subject.tenant)).await.map_err(other)?;
    let keys: Vec<GrantKey> =
        cards.into_iter().map(|card| card.key).filter(|key| subject.owns(&key.principal)).collect();
    let (mut deleted, mut told) = (0, 0);
    let audit = open_audit(&snapshot.config).map_err(|error| CommandError::Other(error.to_string()))?;
    for key in &keys {
        if let Some(revoked) = grants::revoke(key, state, snapshot).await.map_err(other)? {
            deleted += 1;
            told += usize::from(revoked.told == grants::Told::Revoked);
            let record = Record::new(Event::GrantRevoked, &snapshot.config.environment, &snapshot.revision);
            let record = Record { grant: Some(revoked.grant), detail: revoked.told.to_string(), ..record };
            audit.accept(&record).map_err(|error| CommandError::Other(error.to_string()))?;
        }
    }
    if !audit.close() {
        return Err(CommandError::Other("it is done, but its audit records could not be written".to_owned()));
    }
    Ok(format!("{deleted} grants deleted, {told} of them revoked at their providers, too"))
}

fn list(tenant: Option<&str>, file: &ConfigFile) -> Result<ExitCode, CommandError> {
    let lines = looking(file, async |state, snapshot| {
        let read = state.revoked.read(&state.revocations).await;
        read.map_err(|error| CommandError::Other(error.to_string()))?;
        state.revoked.age().map_err(|error| CommandError::Other(error.to_string()))?;
        state.revoked.expire();
        let standing = state.revoked.standing(&snapshot.config.environment);
        let of_tenant = |entry: &Entry| match (&entry.act, tenant) {
            (Act::Revoke { subject, .. }, Some(tenant)) => subject.tenant == tenant,
            _ => true,
        };
        let entries = standing.iter().map(|standing| &*standing.entry);
        Ok(entries.filter(|entry| of_tenant(entry)).map(line).collect::<Vec<_>>())
    })?;
    lines.iter().for_each(|line| println!("{line}"));
    Ok(ExitCode::SUCCESS)
}

fn line(entry: &Entry) -> String {
    let what = match &entry.act {
        Act::Revoke { subject, until_ms } => {
            let until = until_ms.map(|ms| format!(" until {}", rfc3339(from_unix_ms(ms)))).unwrap_or_default();
            format!("{subject}{until}")
        }
        Act::Lift { number } => format!("lifts {number}"),
    };
    let reason = if entry.reason.is_empty() { String::new() } else { format!("  {:?}", entry.reason) };
    let at = rfc3339(from_unix_ms(entry.at_ms));
    format!("revocation {}  {what}  {at}  by {:?} (user {}){reason}", entry.number, entry.by, entry.user)
}
