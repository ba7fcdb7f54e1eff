//! Configuration, policy and keys as one immutable snapshot with a revision; a bad one is refused whole.

mod watch;

pub use watch::watch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};

use crate::config::{self, Config, ConfigError, Loaded, Problem};
use crate::identity::{Identity, jwks::JwksError};
use crate::policy::{Limits, Policy, PolicyError, PolicySource};
use crate::secret::Secrets;

/// One consistent state of everything that decides. Never changes.
pub struct Snapshot {
    /// The first 12 hex digits of SHA-256 over configuration, policy and data.
    pub revision: String,
    /// The configuration.
    pub config: Config,
    /// The policy.
    pub policy: Policy,
    /// The issuers and their keys.
    pub identity: Identity,
    /// The secret stores.
    pub secrets: Arc<Secrets>,
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
    stamp: Option<Stamp>,
    refused: Option<String>,
}

/// SHA-256 over every file that a snapshot is made of, key files included.
type Stamp = [u8; 32];

/// The files of a snapshot, read once.
struct Files {
    loaded: Loaded,
    policy: PolicySource,
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

/// Why a snapshot was refused; the last good one stays in use.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A key file.
    #[error(transparent)]
    Jwks(#[from] JwksError),
}

// === impl Snapshots ===

impl Snapshots {
    /// Loads the first snapshot.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration, the policy or a key file.
    pub fn load(file: &Path) -> Result<Arc<Snapshots>, SnapshotError> {
        let files = Files::read(file)?;
        let stamp = Some(files.stamp);
        let secrets = Arc::new(Secrets::standard(file.parent().unwrap_or(Path::new(""))));
        let snapshot = files.into_snapshot(secrets, None)?;
        Ok(Arc::new(Snapshots {
            file: file.to_owned(),
            current: ArcSwap::from_pointee(snapshot),
            last: Mutex::new(Attempt { stamp, refused: None }),
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
    pub fn reload(&self) -> Result<Reloaded, SnapshotError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::read(&self.file)?;
        if last.stamp == Some(files.stamp) {
            last.refused = None;
            return Ok(Reloaded::Unchanged);
        }
        let (stamp, revision) = (files.stamp, files.revision.clone());
        let before = self.current();
        let after = files.into_snapshot(before.secrets.clone(), Some(&before.identity))?;
        let needs_restart = needs_restart(&before.config, &after.config);
        self.current.store(Arc::new(after));
        *last = Attempt { stamp: Some(stamp), refused: None };
        tracing::info!(revision, "configuration and policy loaded");
        if !needs_restart.is_empty() {
            tracing::warn!(settings = needs_restart.join(", "), "changed settings that take effect at the next start");
        }
        Ok(Reloaded::Changed { revision, needs_restart })
    }

    /// As [`Snapshots::reload`], but an error that was returned before, for the same reason, is returned as `None`.
    fn reload_once(&self) -> Result<Reloaded, Option<SnapshotError>> {
        self.reload().map_err(|error| {
            let text = error.to_string();
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.refused.as_ref() == Some(&text) {
                return None;
            }
            last.refused = Some(text);
            Some(error)
        })
    }
}

/// Settings that are read at start only.
fn needs_restart(before: &Config, after: &Config) -> Vec<&'static str> {
    let (b, a) = (&before.listen, &after.listen);
    let changes = [
        ("listen.grpc", b.grpc != a.grpc),
        ("listen.admin", b.admin != a.admin),
        ("listen.tls", b.tls != a.tls),
        ("listen.max_concurrent_checks", b.max_concurrent_checks != a.max_concurrent_checks),
        ("listen.drain_secs", b.drain_secs != a.drain_secs),
        ("audit", before.audit != after.audit),
    ];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}

// === impl Files ===

impl Files {
    fn read(file: &Path) -> Result<Files, SnapshotError> {
        let loaded = config::load(file)?;
        let policy = PolicySource::read(&loaded.config.policy.directory)?;
        let mut digest = Sha256::new();
        digest.update((loaded.bytes.len() as u64).to_be_bytes());
        digest.update(&loaded.bytes);
        policy.digest(&mut digest);
        let revision: Stamp = digest.clone().finalize().into();
        for path in loaded.config.identity.issuers.iter().filter_map(|issuer| issuer.jwks.file.as_deref()) {
            let bytes = std::fs::read(path).map_err(|cause| JwksError::Read { path: path.to_owned(), cause })?;
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        }
        let revision = revision.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Ok(Files { loaded, policy, revision, stamp: digest.finalize().into() })
    }

    fn into_snapshot(self, secrets: Arc<Secrets>, identity: Option<&Identity>) -> Result<Snapshot, SnapshotError> {
        let config = self.loaded.config;
        let limits = Limits {
            timeout: Duration::from_millis(config.policy.evaluation_timeout_ms),
            max_instructions: config.policy.max_instructions,
        };
        let policy = Policy::compile(&self.policy, limits)?;
        let identity = Identity::new(&config.identity, identity)?;
        Ok(Snapshot { revision: self.revision, config, policy, identity, secrets })
    }
}

// === impl SnapshotError ===

impl SnapshotError {
    /// What is wrong, one problem each.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |file: &Path, line, column, message: String, remedy: &str| {
            let (file, remedy) = (file.to_owned(), remedy.to_owned());
            vec![Problem { file, line, column, key: String::new(), message, remedy }]
        };
        match self {
            SnapshotError::Config(error) => error.problems.clone(),
            SnapshotError::Policy(PolicyError::Rego { path, line, column, cause }) => {
                problem(path, *line, *column, cause.clone(), "")
            }
            SnapshotError::Policy(PolicyError::Data { path, cause }) => problem(path, 0, 0, cause.clone(), ""),
            SnapshotError::Policy(
                error @ (PolicyError::Read { path, .. }
                | PolicyError::TooLarge { path, .. }
                | PolicyError::NotUtf8 { path }
                | PolicyError::Empty { path }
                | PolicyError::NoDecision { path }),
            ) => problem(path, 0, 0, error.to_string(), "see `policy.directory`"),
            SnapshotError::Jwks(error @ (JwksError::Read { path, .. } | JwksError::File { path, .. })) => {
                problem(path, 0, 0, error.to_string(), "see `identity.issuers`")
            }
        }
    }
}

#[cfg(test)]
mod tests;
