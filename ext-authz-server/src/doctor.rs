//! Looking whether everything that a configuration names works: one finding for each thing, with the remedy where it does
//! not. Nothing is changed, no value is shown, and what a store lent meanwhile is given back.

mod binding;
mod date;
mod envoy;
mod issuer;
mod kept;
mod provider;

pub(crate) use binding::{Hint, hints};

use std::fs::OpenOptions;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::ages::{self, Age};
use crate::caller::{Caller, is_template};
use crate::config::{Binding, Credential as Configured, Provider};
use crate::credential::{kinds, try_out};
use crate::freshness::{MintError, MintErrorKind};
use crate::roles;
use crate::run::audit_key;
use crate::snapshot::Snapshot;

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(12);
/// How long all of them may take; what is left then is skipped.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(90);

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It works.
    Pass,
    /// It works, and something has to be done.
    Warn,
    /// It does not.
    Fail,
    /// It could not be looked at.
    Skip,
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it ended.
    pub outcome: Outcome,
    /// What was looked at, for example "store `vault`".
    pub check: String,
    /// What was seen.
    pub seen: String,
    /// What to do, where it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Findings as they come.
struct Findings {
    all: Vec<Finding>,
    until: Instant,
}

/// What a check saw, or what is wrong and what to do.
type Seen = Result<String, Wrong>;

/// What is wrong.
enum Wrong {
    Failed { seen: String, remedy: String },
    Warned { seen: String, remedy: String },
    Unknown(String),
}

/// Looks at everything that this snapshot names, and at Envoy's bootstrap where one is given.
pub async fn examine(snapshot: &Arc<Snapshot>, envoy: Option<&Path>) -> Vec<Finding> {
    let mut findings = Findings { all: Vec::new(), until: Instant::now() + TOTAL_TIMEOUT };
    let servers = snapshot.config.servers.len();
    let bindings = snapshot.config.bindings.len();
    findings
        .note("configuration", Ok(format!("revision {}, {servers} servers, {bindings} bindings", snapshot.revision)));
    findings.note("policy", Ok(format!("`{}` compiles", snapshot.config.policy.directory.display())));
    for name in snapshot.tenant_policies.keys() {
        findings.note(&format!("policy of tenant `{name}`"), Ok("compiles".to_owned()));
    }
    findings.note("audit file", audit_file(&snapshot.config.audit.file));
    findings.check("audit key", key_of_audit(snapshot)).await;
    if let Some(tls) = &snapshot.config.listen.tls {
        findings.note("listen.tls", certificate_of_listener(tls));
    }
    for issuer in &snapshot.config.identity.issuers {
        let check = issuer::examine(issuer, &snapshot.sources.outbound, &mut findings);
        check.await;
    }
    let book = match &snapshot.config.database {
        Some(database) => kept::examine(snapshot, database, &mut findings).await,
        None => None,
    };
    for (name, provider) in &snapshot.config.providers {
        if let Provider::Oauth(own) = provider {
            findings.check(&format!("provider `{name}`"), provider::examine(own, &snapshot.sources)).await;
        }
    }
    for (name, store) in snapshot.sources.secrets.stores() {
        let probe = async { store.probe().await.map_err(|error| Wrong::said(&error.to_string())) };
        findings.check(&format!("store `{name}`"), probe).await;
    }
    binding::examine(&snapshot.config, book.as_deref(), &mut findings);
    for binding in &snapshot.config.bindings {
        for (position, credential) in binding.credentials.iter().enumerate() {
            let named = format!("binding `{}`, credential {position}", binding.id);
            findings.check(&named, credential_of(snapshot, binding, credential)).await;
            if let Some(aws) = roles::of(credential) {
                for tenant in aws.tenants(&snapshot.config.identity) {
                    let check = role_of(roles::probe(snapshot, binding, &aws, &tenant));
                    findings.check(&format!("{named}, tenant `{tenant}`"), check).await;
                }
            }
            if let Some(days) = binding.max_age_days {
                findings
                    .ages(&named, days, ages::of_credential(snapshot, (&binding.id, days), credential, false))
                    .await;
            }
        }
        if binding.probe.is_some() {
            findings.check(&format!("binding `{}`, probe", binding.id), probe_of(snapshot, binding)).await;
        }
    }
    if let Some(file) = envoy {
        envoy::examine(file, &snapshot.config, &mut findings);
    }
    // Leases that were taken to look are not kept.
    let _ = tokio::time::timeout(CHECK_TIMEOUT, snapshot.sources.close()).await;
    findings.all
}

/// Whether records can be appended. A file that is not there yet is made and taken away again.
fn audit_file(file: &Path) -> Seen {
    if file == Path::new("-") {
        return Ok("records go to standard output".to_owned());
    }
    let result = match OpenOptions::new().append(true).open(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let made = OpenOptions::new().append(true).create_new(true).open(file);
            made.and_then(|_| std::fs::remove_file(file))
        }
        other => other.map(drop),
    };
    match result {
        Ok(()) => Ok(format!("`{}` can be written", file.display())),
        Err(cause) => {
            let remedy = "make its folder, and let the user of `keyward serve` write there";
            Err(Wrong::failed(format!("`{}` cannot be written: {cause}", file.display()), remedy))
        }
    }
}

async fn key_of_audit(snapshot: &Arc<Snapshot>) -> Seen {
    match audit_key(snapshot).await {
        Ok(_) => Ok("it can be had".to_owned()),
        Err(cause) => Err(Wrong::failed(cause, "set `audit.hmac_key` to at least 16 bytes where `keyward serve` runs")),
    }
}

/// Whether the files of the gRPC listener can serve, and for how long.
fn certificate_of_listener(tls: &crate::config::Tls) -> Seen {
    match crate::tls::Tls::from(tls).load() {
        Ok(serving) => Ok(serving.pair.end(SystemTime::now())),
        Err(error) => Err(Wrong::said(&error.to_string())),
    }
}

/// Whether a credential can be had and used, as far as that is known without a caller.
async fn credential_of(snapshot: &Arc<Snapshot>, binding: &Binding, configured: &Configured) -> Seen {
    let credential = kinds::of(configured);
    let references = credential.references().join("`, `");
    let nobody = Arc::new(Caller::none(&binding.environment));
    let depends = if credential.references().iter().any(|reference| is_template(reference)) {
        Some(format!("{} from `{references}` depends on the caller", credential.kind()))
    } else {
        match try_out(&credential, &nobody, &snapshot.sources).await {
            Ok(()) => None,
            Err(error) => match error.needs_caller() {
                Some(cause) => Some(format!("{} depends on the caller: {cause}", credential.kind())),
                None => return Err(Wrong::said(&error.to_string())),
            },
        }
    };
    let probed = match credential.clone().probe(nobody, snapshot.sources.clone()) {
        None => String::new(),
        Some(probe) => match probe.await {
            Ok(seen) => format!("; {seen}"),
            Err(error) => return Err(Wrong::said(&error.to_string())),
        },
    };
    match depends {
        Some(depends) => Err(Wrong::Unknown(format!("{depends}{probed}"))),
        None => Ok(format!("{} from `{references}` can be had and used{probed}", credential.kind())),
    }
}

/// Whether a tenant's role can be had, as far as that is known without a caller.
async fn role_of(probe: impl Future<Output = Result<String, MintError>>) -> Seen {
    match probe.await {
        Ok(seen) => Ok(seen),
        Err(MintError { kind: MintErrorKind::NeedsCaller, cause }) => {
            Err(Wrong::Unknown(format!("it depends on the caller: {cause}")))
        }
        Err(error) => Err(Wrong::said(&error.cause)),
    }
}

/// Whether the upstream takes the credentials that there are now.
async fn probe_of(snapshot: &Arc<Snapshot>, binding: &Binding) -> Seen {
    let nobody = Arc::new(Caller::none(&binding.environment));
    for credential in kinds::of_binding(binding) {
        if let Err(error) = try_out(&credential, &nobody, &snapshot.sources).await {
            let remedy = "put a value there that the upstream takes, or correct `probe`";
            return Err(match error.needs_caller() {
                Some(cause) => Wrong::Unknown(format!("it depends on the caller: {cause}")),
                None => Wrong::failed(error.to_string(), remedy),
            });
        }
    }
    Ok("the upstream takes the credentials that there are now".to_owned())
}

// === impl Wrong ===

impl Wrong {
    fn failed(seen: impl Into<String>, remedy: impl Into<String>) -> Wrong {
        Wrong::Failed { seen: seen.into(), remedy: remedy.into() }
    }

    fn warned(seen: impl Into<String>, remedy: impl Into<String>) -> Wrong {
        Wrong::Warned { seen: seen.into(), remedy: remedy.into() }
    }

    fn said(error: &str) -> Wrong {
        let (seen, remedy) = remedied(error);
        Wrong::failed(seen, remedy)
    }
}

/// What is wrong and what to do, which most errors say after their last semicolon.
pub(crate) fn remedied(error: &str) -> (&str, &str) {
    match error.rsplit_once("; ") {
        Some(parts) => parts,
        None if error.ends_with(" is not set") => (error, "set it where `keyward serve` runs"),
        None => (error, "correct what it names, then look again"),
    }
}

// === impl Findings ===

impl Findings {
    fn note(&mut self, check: &str, seen: Seen) {
        let (outcome, seen, remedy) = match seen {
            Ok(seen) => (Outcome::Pass, seen, None),
            Err(Wrong::Failed { seen, remedy }) => (Outcome::Fail, seen, Some(remedy)),
            Err(Wrong::Warned { seen, remedy }) => (Outcome::Warn, seen, Some(remedy)),
            Err(Wrong::Unknown(seen)) => (Outcome::Skip, seen, None),
        };
        self.all.push(Finding { outcome, check: check.to_owned(), seen, remedy });
    }

    /// Adds one finding for each stored secret whose age matters.
    async fn ages(&mut self, name: &str, max_days: u64, ages: impl Future<Output = Vec<Age>>) {
        let left = self.until.saturating_duration_since(Instant::now());
        let Ok(ages) = tokio::time::timeout(left.min(CHECK_TIMEOUT), ages).await else { return };
        for own in ages {
            let check = format!("age of {name}");
            let (outcome, seen, remedy) = match &own.age {
                Err(cause) => (Outcome::Skip, format!("`{}`: {cause}", own.reference), None),
                Ok(age) => {
                    let seen = format!("`{}` is {} days old", own.reference, age.as_secs() / 86_400);
                    let remedy = format!("rotate it: `max_age_days` is {max_days}");
                    if own.is_over() { (Outcome::Warn, seen, Some(remedy)) } else { (Outcome::Pass, seen, None) }
                }
            };
            self.all.push(Finding { outcome, check, seen, remedy });
        }
    }

    /// Runs a check within the time that one and that all may take.
    async fn check(&mut self, name: &str, check: impl Future<Output = Seen>) {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return self
                .note(name, Err(Wrong::Unknown(format!("{} s were not enough to get here", TOTAL_TIMEOUT.as_secs()))));
        }
        let seen = tokio::time::timeout(left.min(CHECK_TIMEOUT), check).await.unwrap_or_else(|_| {
            let seen = format!("no answer within {} s", CHECK_TIMEOUT.as_secs());
            Err(Wrong::failed(seen, "check that it runs and can be reached from here"))
        });
        self.note(name, seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_what_follows_the_last_semicolon() {
        let Wrong::Failed { seen, remedy } = Wrong::said("read `a`: status 403; it; give it") else { panic!() };
        assert_eq!((seen.as_str(), remedy.as_str()), ("read `a`: status 403; it", "give it"));
    }

    #[test]
    fn only_a_secret_that_is_not_set_is_to_be_set() {
        assert_eq!(remedied("secret `env://A` is not set").1, "set it where `keyward serve` runs");
        let short = "the secret is shorter than 8 bytes";
        assert_eq!(remedied(short), (short, "correct what it names, then look again"));
    }

    #[test]
    fn an_audit_file_is_looked_at_and_not_left_behind() {
        let dir = crate::scratch::Scratch::new();
        let file = dir.path().join("audit.jsonl");
        assert!(audit_file(&file).is_ok() && !file.exists());
        dir.write("audit.jsonl", "{}\n");
        assert!(audit_file(&file).is_ok());
        assert_eq!(std::fs::read(&file).unwrap(), b"{}\n");
        assert!(audit_file(&dir.path().join("none/audit.jsonl")).is_err());
    }
}
