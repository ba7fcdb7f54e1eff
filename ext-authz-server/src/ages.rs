//! How old stored secrets are, where a binding says how old they may become: a gauge, a line in the log once a day, and what
//! `keyward doctor` warns of.
//!
//! A file says when it was changed, the built-in store when a secret was put. For any other store it is the time at which this
//! deployment saw the value first, which lies in the database: without one, the age is not known.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::caller::is_template;
use crate::config::{Credential as Configured, SecretSource};
use crate::engine::Engine;
use crate::hex::hex;
use crate::snapshot::{Snapshot, Snapshots};

/// How often ages are looked at.
const LOOK: Duration = Duration::from_secs(3600);
/// How often one secret that is too old is said to be.
const SAY: Duration = Duration::from_secs(86_400);
/// How long one look at one secret may take.
const TIMEOUT: Duration = Duration::from_secs(10);
const DAY_SECS: u64 = 86_400;

/// One stored secret of one binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Age {
    /// The binding.
    pub binding: String,
    /// The reference, with the field of the content where one is named.
    pub reference: String,
    /// How old it may become.
    pub max: Duration,
    /// How old it is, or why that is not known.
    pub age: Result<Duration, String>,
}

// === impl Age ===

impl Age {
    /// Whether it is known to be too old.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.age.as_ref().is_ok_and(|age| *age > self.max)
    }
}

/// The ages of one credential's stored secrets, of a binding that says how old they may become. Those that depend on the caller
/// are left out. `notes` says whether a value that was never seen is noted as seen now.
pub async fn of_credential(
    snapshot: &Snapshot,
    (binding, max_days): (&str, u64),
    credential: &Configured,
    notes: bool,
) -> Vec<Age> {
    let max = Duration::from_secs(max_days.saturating_mul(DAY_SECS));
    let mut ages: Vec<Age> = Vec::new();
    for (_, source) in credential.kind().secrets() {
        let reference = match &source.json_key {
            Some(key) => format!("{} {key}", source.reference),
            None => source.reference.clone(),
        };
        if source.provider().is_some()
            || is_template(&source.reference)
            || ages.iter().any(|age| age.reference == reference)
        {
            continue;
        }
        let looked = tokio::time::timeout(TIMEOUT, since(snapshot, source, &reference, notes)).await;
        let since = looked.unwrap_or_else(|_| Err(format!("no answer within {} s", TIMEOUT.as_secs())));
        let age = since.map(|since| SystemTime::now().duration_since(since).unwrap_or_default());
        ages.push(Age { binding: binding.to_owned(), reference, max, age });
    }
    ages
}

/// Since when a secret has the value that it has.
async fn since(snapshot: &Snapshot, source: &SecretSource, reference: &str, notes: bool) -> Result<SystemTime, String> {
    let secrets = &snapshot.sources.secrets;
    if let Some(changed) = secrets.changed(source).await {
        return Ok(changed);
    }
    let Some(state) = secrets.state().get() else {
        return Err("its store says no time, and there is no database to note one in".to_owned());
    };
    let value = secrets.resolve(source).await.map_err(|error| error.to_string())?;
    let digest = hex(&Sha256::digest(value.expose()));
    let environment = &snapshot.config.environment;
    let known = state.ages.since(environment, reference, &digest).await.map_err(|error| error.to_string())?;
    match known {
        Some(since) => Ok(since),
        None if notes => state.ages.note(environment, reference, &digest).await.map_err(|error| error.to_string()),
        None => Err("its store says no time, and no server has seen the value yet".to_owned()),
    }
}

/// Looks at all ages every hour, without end.
pub async fn follow(engine: Arc<Engine>, snapshots: Arc<Snapshots>) {
    let mut said: HashMap<(String, String), Instant> = HashMap::new();
    loop {
        let snapshot = snapshots.current();
        let mut ages = Vec::new();
        for binding in &snapshot.config.bindings {
            let Some(days) = binding.max_age_days else { continue };
            for credential in &binding.credentials {
                ages.extend(of_credential(&snapshot, (&binding.id, days), credential, true).await);
            }
        }
        engine.metrics().secret_ages(&ages);
        for own in ages.iter().filter(|own| own.is_over()) {
            let key = (own.binding.clone(), own.reference.clone());
            if said.get(&key).is_some_and(|at| at.elapsed() < SAY) {
                continue;
            }
            said.insert(key, Instant::now());
            let days = |age: Duration| age.as_secs() / DAY_SECS;
            tracing::warn!(
                binding = own.binding,
                reference = own.reference,
                age_days = own.age.as_ref().ok().map(|age| days(*age)),
                max_age_days = days(own.max),
                "a stored secret is older than its binding allows; rotate it"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}
