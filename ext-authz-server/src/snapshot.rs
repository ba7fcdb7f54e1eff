//! Configuration, policy and keys as one immutable snapshot with a revision; a bad one is refused whole.

mod watch;

pub use watch::watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};

use crate::config::{self, Config, ConfigError, Issuer, Loaded, Problem};
use crate::connect::Invitations;
use crate::hex::hex;
use crate::identity::{Identity, jwks::JwksError};
use crate::outbound::{Outbound, Tls, named_on_loopback};
use crate::perimeter::address::Allowance;
use crate::policy::{Limits, Policy, PolicyError, PolicySource};
use crate::secret::Secrets;
use crate::sources::Sources;

/// One consistent state of everything that decides. Never changes.
pub struct Snapshot {
    /// The first 12 hex digits of SHA-256 over configuration, policy and data.
    pub revision: String,
    /// The configuration.
    pub config: Config,
    /// The policy.
    pub policy: Policy,
    /// The policies of single tenants, which are asked besides.
    pub tenant_policies: BTreeMap<String, Policy>,
    /// The issuers and their keys.
    pub identity: Identity,
    /// The issuers of operators' tokens; absent where there is no operator API.
    pub operators: Option<Identity>,
    /// What credentials are made of: the secret stores, the network, what was minted before.
    pub sources: Arc<Sources>,
}

/// The snapshot in use, and how the next one gets there.
pub struct Snapshots {
    file: PathBuf,
    current: ArcSwap<Snapshot>,
    /// Of the last attempt; holding it is the right to reload.
    last: Mutex<Attempt>,
}

/// What the last reload saw, so that the same files are neither loaded nor complained about twice.
struct Attempt {
    stamp: Stamp,
    refused: Option<String>,
    /// What the last look saw, good or bad.
    seen: Option<Result<Stamp, String>>,
}

/// SHA-256 over every file that a snapshot is made of, key files included.
type Stamp = [u8; 32];

/// The files of a snapshot, read once.
struct Files {
    loaded: Loaded,
    policy: PolicySource,
    tenant_policies: Vec<(String, PolicySource)>,
    revision: String,
    stamp: Stamp,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// Nothing had changed.
    Unchanged,
    /// A new snapshot is in use.
    Changed {
        /// Its revision.
        revision: String,
        /// Settings that changed but take effect at the next start only, for example `listen.grpc`.
        needs_restart: Vec<&'static str>,
    },
}

// === impl Snapshots ===

impl Snapshots {
    /// Loads the first snapshot.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, the policy or a key file.
    pub fn load(file: &Path) -> Result<Arc<Snapshots>, ConfigError> {
        let files = Files::read(file, config::read(file)?)?;
        let stamp = files.stamp;
        let secrets = Secrets::standard(file.parent().unwrap_or(Path::new("")));
        let snapshot = files.into_snapshot(&secrets, None)?;
        Ok(Arc::new(Snapshots {
            file: file.to_owned(),
            current: ArcSwap::from_pointee(snapshot),
            last: Mutex::new(Attempt { stamp, refused: None, seen: None }),
        }))
    }

    /// The snapshot in use. Take it once per decision.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The configuration file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Loads everything anew and puts it in use, or keeps what is in use. Reads files: not for an async task.
    ///
    /// # Errors
    /// As [`Snapshots::load`]; the snapshot in use has not changed.
    pub fn reload(&self) -> Result<Reloaded, ConfigError> {
        let mut last = self.last();
        self.reload_files(&mut last, Files::read(&self.file, config::read(&self.file)?)?)
    }

    /// The same, of files that were read.
    fn reload_files(&self, last: &mut Attempt, files: Files) -> Result<Reloaded, ConfigError> {
        if last.stamp == files.stamp {
            last.refused = None;
            return Ok(Reloaded::Unchanged);
        }
        let (stamp, revision) = (files.stamp, files.revision.clone());
        let before = self.current();
        let is_kept = before.config.lifecycle.is_some()
            || before.config.revocation.is_some()
            || before.sources.secrets.state().get().is_some();
        let added = &files.loaded.config;
        for (key, is_there) in [("lifecycle", added.lifecycle.is_some()), ("revocation", added.revocation.is_some())] {
            if is_there && !is_kept {
                let remedy = "add `database` alone and restart, then add this section";
                let problem = files.loaded.problem(key, "the running server has no open database".to_owned(), remedy);
                return Err(ConfigError { problems: vec![problem] });
            }
        }
        let after = files.into_snapshot(&before.sources.secrets, Some(&before))?;
        let needs_restart = needs_restart(&before.config, &after.config);
        self.current.store(Arc::new(after));
        *last = Attempt { stamp, refused: None, seen: None };
        tracing::info!(revision, "configuration and policy loaded");
        if !needs_restart.is_empty() {
            tracing::warn!(settings = needs_restart.join(", "), "changed settings that take effect at the next start");
        }
        Ok(Reloaded::Changed { revision, needs_restart })
    }

    /// Looks at the files. What changed is loaded when two looks in a row saw the same, so that nothing half written is used.
    /// An error that was returned before, for the same reason, is returned as `None`.
    fn look(&self) -> Result<Reloaded, Option<ConfigError>> {
        let mut last = self.last();
        let bytes = config::read(&self.file);
        // The same configuration names the same files: nothing needs to be parsed to see that none of them changed.
        if bytes.as_ref().is_ok_and(|bytes| stamp(bytes, &self.current().config) == Some(last.stamp)) {
            (last.refused, last.seen) = (None, None);
            return Ok(Reloaded::Unchanged);
        }
        let files = bytes.and_then(|bytes| Files::read(&self.file, bytes));
        let seen = Some(files.as_ref().map(|files| files.stamp).map_err(ToString::to_string));
        if last.seen != seen {
            last.seen = seen;
            return Ok(Reloaded::Unchanged);
        }
        let result = files.and_then(|files| self.reload_files(&mut last, files));
        last.told_once(result)
    }

    /// Loads everything anew, at once. An error that was returned before, for the same reason, is returned as `None`.
    fn reload_once(&self) -> Result<Reloaded, Option<ConfigError>> {
        let result = self.reload();
        self.last().told_once(result)
    }

    fn last(&self) -> MutexGuard<'_, Attempt> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settings that are read at start only.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let (b, a) = (&before.listen, &after.listen);
    let changes = [
        ("listen.grpc", b.grpc != a.grpc),
        ("listen.admin", b.admin != a.admin),
        ("listen.tls", b.tls != a.tls),
        ("listen.secrets_on_loopback", b.secrets_on_loopback != a.secrets_on_loopback),
        ("listen.max_concurrent_checks", b.max_concurrent_checks != a.max_concurrent_checks),
        ("listen.drain_secs", b.drain_secs != a.drain_secs),
        ("listen.connect", b.connect != a.connect),
        ("listen.api", b.api != a.api),
        ("database", opened(before) != opened(after)),
        ("audit.file", before.audit.file != after.audit.file),
        ("audit.queue_records", before.audit.queue_records != after.audit.queue_records),
    ];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

/// The section `database` without what changes while it is open.
fn opened(config: &Config) -> Option<config::Database> {
    config.database.clone().map(|database| config::Database {
        encryption_keys: Vec::new(),
        tenant_encryption_keys: BTreeMap::new(),
        ..database
    })
}

// === impl Attempt ===

impl Attempt {
    fn told_once(&mut self, result: Result<Reloaded, ConfigError>) -> Result<Reloaded, Option<ConfigError>> {
        result.map_err(|error| {
            let text = Some(error.to_string());
            if self.refused == text {
                return None;
            }
            self.refused = text;
            Some(error)
        })
    }
}

// === impl Files ===

impl Files {
    /// Those that a configuration names, of which the bytes were read.
    fn read(file: &Path, bytes: Vec<u8>) -> Result<Files, ConfigError> {
        let loaded = Loaded::parse(file, bytes)?;
        let mut problems = Vec::new();
        let policy = PolicySource::read(&loaded.config.policy.directory);
        let policy = policy.map_err(|error| problems.push(policy_problem(&loaded, "policy.directory", error))).ok();
        let mut tenant_policies = Vec::new();
        for (name, directory) in tenant_policies_of(&loaded.config) {
            match PolicySource::read(directory) {
                Ok(source) => tenant_policies.push((name.to_owned(), source)),
                Err(error) => problems.push(policy_problem(&loaded, &tenant_policy_key(name), error)),
            }
        }
        let mut keys = Vec::new();
        for path in key_files(&loaded.config) {
            match std::fs::read(path) {
                Ok(bytes) => keys.push(bytes),
                Err(cause) => problems.push(keys_problem(&loaded, &JwksError::Read { path: path.to_owned(), cause })),
            }
        }
        let Some(policy) = policy.filter(|_| problems.is_empty()) else {
            problems.sort_by_key(|problem| (problem.line, problem.column));
            return Err(ConfigError { problems });
        };
        let own = tenant_policies.iter().map(|(_, source)| source);
        let (revision, stamp) = digests(&loaded.bytes, std::iter::once(&policy).chain(own), &keys);
        Ok(Files { loaded, policy, tenant_policies, revision, stamp })
    }

    fn into_snapshot(self, secrets: &Secrets, before: Option<&Snapshot>) -> Result<Snapshot, ConfigError> {
        let config = &self.loaded.config;
        let limits = Limits {
            timeout: Duration::from_millis(config.policy.evaluation_timeout_ms),
            max_instructions: config.policy.max_instructions,
        };
        let one = |problem| ConfigError { problems: vec![problem] };
        let policy = Policy::compile(&self.policy, limits);
        let policy = policy.map_err(|error| one(policy_problem(&self.loaded, "policy.directory", error)))?;
        let tenant_policies = self.tenant_policies.iter().map(|(name, source)| {
            let compiled = Policy::compile(source, limits);
            let compiled =
                compiled.map_err(|error| one(policy_problem(&self.loaded, &tenant_policy_key(name), error)))?;
            Ok((name.clone(), compiled))
        });
        let tenant_policies = tenant_policies.collect::<Result<_, ConfigError>>()?;
        let outbound = outbound(&self.loaded);
        let verifying = |issuers, before| {
            let identity = Identity::new(issuers, before, &outbound);
            identity.map_err(|error| one(keys_problem(&self.loaded, &error)))
        };
        let identity = verifying(&config.identity, before.map(|before| &before.identity))?;
        let operators = config
            .api
            .as_ref()
            .map(|api| verifying(&api.identity, before.and_then(|before| before.operators.as_ref())));
        let operators = operators.transpose()?;
        let identity = identity.with_resources(config.servers.values().filter_map(|server| server.resource.as_ref()));
        let base = self.loaded.file.parent().unwrap_or(Path::new(""));
        let secrets = secrets.with(config, base, &outbound);
        let invitations = Invitations::of(config, secrets.state());
        let sources = Sources::new(Arc::new(secrets)).with_outbound(outbound).with_invitations(invitations);
        let sources = sources.with_database(config.database.is_some()).with_sessions(config.sessions.rules());
        let sources = Arc::new(sources);
        let (revision, config) = (self.revision, self.loaded.config);
        Ok(Snapshot { revision, config, policy, tenant_policies, identity, operators, sources })
    }
}

/// The stamp of the files that a configuration names and of these bytes as its own; `None` where one cannot be read.
fn stamp(bytes: &[u8], config: &Config) -> Option<Stamp> {
    let own = tenant_policies_of(config).map(|(_, directory)| directory);
    let directories = std::iter::once(config.policy.directory.as_path()).chain(own);
    let policies: Vec<PolicySource> = directories.map(PolicySource::read).collect::<Result<_, _>>().ok()?;
    let keys: Vec<Vec<u8>> = key_files(config).map(std::fs::read).collect::<Result<_, _>>().ok()?;
    Some(digests(bytes, policies.iter(), &keys).1)
}

/// The directories of tenants' own policies, in the order of names.
fn tenant_policies_of(config: &Config) -> impl Iterator<Item = (&str, &Path)> {
    let tenants = config.tenants.iter().flatten();
    tenants.filter_map(|(name, tenant)| Some((name.as_str(), tenant.policy_directory.as_deref()?)))
}

fn tenant_policy_key(name: &str) -> String {
    format!("tenants.{name}.policy_directory")
}

fn key_files(config: &Config) -> impl Iterator<Item = &Path> {
    issuers(config).filter_map(|(_, issuer)| issuer.jwks.file.as_deref())
}

/// Every issuer, with the key at which it stands.
fn issuers(config: &Config) -> impl Iterator<Item = (String, &Issuer)> {
    let operators = config.api.iter().map(|api| ("api.identity", &api.identity));
    let sections = std::iter::once(("identity", &config.identity)).chain(operators);
    sections.flat_map(|(section, own)| {
        let numbered = own.issuers.iter().enumerate();
        numbered.map(move |(index, issuer)| (format!("{section}.issuers[{index}]"), issuer))
    })
}

/// The revision and the stamp.
fn digests<'a>(bytes: &[u8], policies: impl Iterator<Item = &'a PolicySource>, keys: &[Vec<u8>]) -> (String, Stamp) {
    let mut digest = Sha256::new();
    digest.update((bytes.len() as u64).to_be_bytes());
    digest.update(bytes);
    for (position, policy) in policies.enumerate() {
        // Which file belongs to which policy counts; one policy alone has the revision that it always had.
        if position > 0 {
            digest.update(b"policy");
        }
        policy.digest(&mut digest);
    }
    let revision = hex(digest.clone().finalize().iter().take(6));
    for bytes in keys {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    }
    (revision, digest.finalize().into())
}

/// The way out of a configuration: to the public Internet, to what it allows, and to loopback addresses it names itself.
fn outbound(loaded: &Loaded) -> Outbound {
    let mut allowed = loaded.config.outbound.allow.clone();
    allowed.extend(named_on_loopback(&String::from_utf8_lossy(&loaded.bytes)));
    // Each entry of the operator was checked when the file was read; one that cannot be used allows nothing.
    allowed.retain(|entry| Allowance::parse(std::slice::from_ref(entry)).is_ok());
    Outbound::new(Tls::default(), Allowance::parse(&allowed).unwrap_or_default())
}

/// What is wrong with a policy: in one of its files, or else at the key that names its directory.
fn policy_problem(loaded: &Loaded, key: &str, error: PolicyError) -> Problem {
    let at = |file, line, column, message| {
        let remedy = "correct the file; nothing of the policy is used until it compiles".to_owned();
        Problem { file, line, column, key: String::new(), message, remedy }
    };
    match error {
        PolicyError::Rego { path, line, column, cause } => at(path, line, column, cause),
        PolicyError::Data { path, cause } => at(path, 0, 0, cause),
        error => {
            let remedy = "name a directory with `*.rego` files that hold the rule `decision` of package `keyward`";
            loaded.problem(key, error.to_string(), remedy)
        }
    }
}

/// What is wrong with a key file, at the key that names it.
fn keys_problem(loaded: &Loaded, error: &JwksError) -> Problem {
    let (JwksError::Read { path, .. } | JwksError::File { path, .. }) = error;
    let named = issuers(&loaded.config).find(|(_, issuer)| issuer.jwks.file.as_ref() == Some(path));
    let key = named.map_or_else(|| "identity".to_owned(), |(key, _)| format!("{key}.jwks.file"));
    loaded.problem(&key, error.to_string(), "name a file with the issuer's public keys (RFC 7517)")
}

#[cfg(test)]
mod tests;
