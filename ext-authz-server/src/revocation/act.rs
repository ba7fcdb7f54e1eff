//! Revoking and lifting, for whoever may: the command line and the operator API.

use std::time::{Duration, SystemTime};

use keyward_contract::revocation::REVOKED_MAX;

use super::{Act, Entry, Kind, MAX_REASON_BYTES, Subject, SubjectError};
use crate::config::Config;
use crate::database::{LogError, unix_ms};
use crate::state::State;

/// The longest time for which something is revoked, where it is not for good.
const MAX_SECS: u64 = 10 * 366 * 86_400;

/// Who acts, and why.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Who says to do it.
    pub by: &'a str,
    /// What the system knows of them.
    pub user: &'a str,
    /// Why.
    pub reason: &'a str,
}

/// Why nothing was revoked or lifted.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// Nobody would care.
    #[error("there is no `revocation` in the configuration, so that no server would care")]
    NotConfigured,
    /// The subject.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// It names something that the configuration does not have.
    #[error("there is no {0} `{1}` in the configuration")]
    Unknown(&'static str, String),
    /// The reason cannot be kept.
    #[error("the reason is longer than {MAX_REASON_BYTES} bytes, or has control characters")]
    Reason,
    /// The time.
    #[error("the time is not from 1 to {MAX_SECS} seconds")]
    Time,
    /// There is none to lift.
    #[error("no revocation {0} stands in this environment")]
    NotStanding(i64),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Revokes something, for so many seconds or until it is lifted. Servers and filters follow within a second.
///
/// # Errors
/// It cannot be; nothing is revoked, unless the database did not answer.
pub async fn revoke(
    subject: Subject,
    secs: Option<u64>,
    who: Who<'_>,
    state: &State,
    config: &Config,
) -> Result<Entry, ActError> {
    begin(who, config)?;
    subject.check()?;
    known(&subject, config)?;
    if secs.is_some_and(|secs| secs == 0 || secs > MAX_SECS) {
        return Err(ActError::Time);
    }
    state.revoked.read(&state.revocations).await?;
    if state.revoked.count() >= REVOKED_MAX {
        return Err(LogError::Full.into());
    }
    let now = SystemTime::now();
    let until_ms = secs.map(|secs| unix_ms(now + Duration::from_secs(secs)));
    Ok(state.revocations.add(entry(Act::Revoke { subject, until_ms }, who, config, now)).await?)
}

/// Lifts a revocation. Another one of the same subject stays.
///
/// # Errors
/// It cannot be.
pub async fn lift(number: i64, who: Who<'_>, state: &State, config: &Config) -> Result<Entry, ActError> {
    begin(who, config)?;
    state.revoked.read(&state.revocations).await?;
    let standing = state.revoked.standing(&config.environment);
    if !standing.iter().any(|standing| standing.entry.number == number) {
        return Err(ActError::NotStanding(number));
    }
    Ok(state.revocations.add(entry(Act::Lift { number }, who, config, SystemTime::now())).await?)
}

fn begin(who: Who<'_>, config: &Config) -> Result<(), ActError> {
    config.revocation.ok_or(ActError::NotConfigured)?;
    if who.reason.len() > MAX_REASON_BYTES || who.reason.chars().any(char::is_control) {
        return Err(ActError::Reason);
    }
    Ok(())
}

/// A name that nothing has would revoke nothing, and nobody would notice. Whom an issuer knows is not known here.
fn known(subject: &Subject, config: &Config) -> Result<(), ActError> {
    if let Some(name) = &subject.issuer
        && !config.identity.issuers.iter().any(|issuer| issuer.name == *name)
    {
        return Err(ActError::Unknown("issuer", name.clone()));
    }
    if let Some(name) = &subject.server
        && !config.servers.contains_key(name)
    {
        return Err(ActError::Unknown("server", name.clone()));
    }
    if subject.kind == Kind::Binding && !config.bindings.iter().any(|binding| binding.id == subject.id) {
        return Err(ActError::Unknown("binding", subject.id.clone()));
    }
    Ok(())
}

fn entry(act: Act, who: Who<'_>, config: &Config, now: SystemTime) -> Entry {
    Entry {
        environment: config.environment.clone(),
        number: 0,
        act,
        by: who.by.to_owned(),
        user: who.user.to_owned(),
        reason: who.reason.to_owned(),
        at_ms: unix_ms(now),
    }
}
