//! From snapshots to a running service: the audit trail, the engine, the listeners, and new snapshots as they come.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::ages;
use crate::api::Api;
use crate::assembly::{AssemblyError, assemble};
use crate::audit::{Digester, Event, Record, Sink, Writer};
use crate::check::Engine;
use crate::config::{Config, ListenAddress};
use crate::connect::Pages;
use crate::freshness::Freshness;
use crate::lifecycle::{Entry, unbind};
use crate::revocation;
use crate::roles;
use crate::secret::SecretBytes;
use crate::serve::{Address, Bound, Listen, ServeError, signals};
use crate::session;
use crate::snapshot::{Snapshot, Snapshots};
use crate::state::{State, StateError};
use crate::tls::Tls;

/// How often it is looked whether a new snapshot is in use.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(50);
/// How often it is looked whether keys of Keyward's own are other ones.
const KEY_INTERVAL: Duration = Duration::from_secs(1);
/// How often memory is swept, with and without a database.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long calls under way may still carry what a new snapshot does not need any more.
const GRACE: Duration = Duration::from_secs(5);
/// The shortest audit key, in bytes.
const MIN_AUDIT_KEY_BYTES: usize = 16;

/// Why the service could not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The first snapshot cannot serve.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// The audit key cannot be had.
    #[error("audit.hmac_key: {0}")]
    AuditKey(String),
    /// The keys of sealed sessions cannot be had.
    #[error(transparent)]
    SessionKeys(#[from] session::KeyError),
    /// The audit file cannot be opened.
    #[error("audit.file `{file}`: {cause}")]
    AuditFile {
        /// The file.
        file: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The admin address is not one.
    #[error("listen.admin `{0}`: only `ip:port` is possible")]
    Admin(String),
    /// What is kept cannot be opened.
    #[error(transparent)]
    State(#[from] StateError),
    /// A listener.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A service that is bound and about to serve.
pub struct Service {
    engine: Arc<Engine>,
    bound: Bound,
    snapshots: Arc<Snapshots>,
    digester: Digester,
    audit_key: Arc<SecretBytes>,
    serving: Arc<Snapshot>,
    state: Option<Arc<State>>,
    /// The newest step of each binding, as found at the start.
    found: Vec<Entry>,
}

// === impl Service ===

impl Service {
    /// Opens the audit trail and binds the listeners.
    ///
    /// # Errors
    /// Whatever keeps the service from starting.
    pub async fn prepare(snapshots: Arc<Snapshots>) -> Result<Service, RunError> {
        let snapshot = snapshots.current();
        let state = open_state(&snapshot).await?;
        let found = read_book(state.as_deref()).await;
        read_revocations(&snapshot, state.as_deref()).await;
        let audit_key = audit_key(&snapshot).await.map_err(RunError::AuditKey)?;
        let digester = Digester::new(audit_key.expose());
        session::start(&snapshot).await?;
        let plan = assemble(snapshot.clone(), digester.clone())?;
        let writer = open_audit(&snapshot.config)?;
        let engine = Arc::new(Engine::new(plan, writer, snapshot.config.listen.max_concurrent_checks));
        let mut bound = Bound::bind(engine.clone(), &listen(&snapshot.config)?).await?;
        if let (Some(ListenAddress::Tcp(address)), Some(state)) = (&snapshot.config.listen.connect, &state) {
            let pages = Pages::new(engine.clone(), snapshots.clone(), state.clone());
            bound = bound.and_pages(*address, Arc::new(pages)).await?;
        }
        if let Some(address) = &snapshot.config.listen.api {
            let api = Api::new(engine.clone(), snapshots.clone(), state.clone());
            bound = bound.and_api(&Address::from(address), api).await?;
        }
        Ok(Service { engine, bound, snapshots, digester, audit_key, serving: snapshot, state, found })
    }

    /// The engine, for what tells it about refused reloads.
    #[must_use]
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.clone()
    }

    /// The bound addresses as one line of JSON.
    #[must_use]
    pub fn addresses(&self) -> String {
        self.bound.addresses()
    }

    /// Says on standard output where it listens, then serves until SIGTERM or SIGINT, then drains. Snapshots that come into use meanwhile serve from then on.
    ///
    /// # Errors
    /// A listener failed, or signals cannot be received.
    pub async fn run(self) -> Result<(), RunError> {
        let Service { engine, bound, snapshots, digester, audit_key, serving, state, found } = self;
        let stop = signals(engine.clone())?;
        // Whoever started the process may have closed its end; that is no reason not to serve.
        let _ = writeln!(std::io::stdout(), "{}", bound.addresses());
        let freshness = serving.sources.freshness().clone();
        noticed(&engine, &snapshots, found);
        let notice = {
            let (engine, snapshots) = (engine.clone(), snapshots.clone());
            move |steps| noticed(&engine, &snapshots, steps)
        };
        let state = state.map(|state| (state.clone(), tokio::spawn(state.follow(freshness, notice))));
        let revoking = state.as_ref().map(|(state, _)| {
            let (engine, freshness) = (engine.clone(), serving.sources.freshness().clone());
            let notice = move |entries| in_force(&engine, &freshness, entries);
            tokio::spawn(state.clone().follow_revocations(notice))
        });
        let sweeping = tokio::spawn(serving.sources.secrets.keep_swept(SWEEP_INTERVAL));
        let ageing = tokio::spawn(ages::follow(engine.clone(), snapshots.clone()));
        let looking = tokio::spawn(roles::look(engine.clone(), serving.clone()));
        let following_keys = tokio::spawn(follow_encryption_keys(
            snapshots.clone(),
            serving.clone(),
            state.as_ref().map(|(state, _)| state.clone()),
        ));
        let following_key =
            tokio::spawn(follow_audit_key(engine.clone(), snapshots.clone(), digester.clone(), audit_key));
        let following_sessions = tokio::spawn(session::follow(snapshots.clone()));
        let following = tokio::spawn(follow(engine.clone(), snapshots, digester, serving));
        let result = bound.serve(stop).await;
        following.abort();
        if let Some(revoking) = revoking {
            revoking.abort();
        }
        ageing.abort();
        looking.abort();
        sweeping.abort();
        following_key.abort();
        following_keys.abort();
        following_sessions.abort();
        engine.plan().sources().close().await;
        if let Some((state, following)) = state {
            following.abort();
            state.database.close().await;
        }
        Ok(result?)
    }
}

/// What is revoked now, where anything can be. Where that cannot be read, every call is denied until it can.
pub(crate) async fn read_revocations(snapshot: &Snapshot, state: Option<&State>) {
    if let (Some(_), Some(state)) = (snapshot.config.revocation, state)
        && let Err(error) = state.revoked.read(&state.revocations).await
    {
        tracing::error!(%error, "what is revoked cannot be read");
    }
}

/// Leaves a record of each step in the lifecycle of a binding, and drops what is kept for a binding that serves no more.
fn noticed(engine: &Arc<Engine>, snapshots: &Arc<Snapshots>, steps: Vec<Entry>) {
    for step in steps {
        let plan = arc_swap::Guard::into_inner(engine.plan());
        if plan.catalogue().gate().is_none() || step.environment != plan.environment() {
            continue;
        }
        let mut record = Record::new(Event::BindingChangeInForce, plan.environment(), plan.revision());
        record.binding = Some(step.to_record());
        engine.record(record);
        let (binding, action, version) = (&step.id, step.action.as_str(), step.version);
        tracing::info!(binding, action, version, by = step.by, "a step in the lifecycle of a binding");
        if plan.catalogue().serves_now(&step.id) {
            continue;
        }
        let (engine, snapshots) = (engine.clone(), snapshots.clone());
        tokio::spawn(async move {
            // Again once no call is under way that had chosen the binding before.
            for wait in [Duration::ZERO, GRACE + Duration::from_secs(1)] {
                tokio::time::sleep(wait).await;
                let plan = arc_swap::Guard::into_inner(engine.plan());
                if !plan.catalogue().serves_now(&step.id) {
                    unbind(&step.id, &plan, &snapshots.current().config).await;
                }
            }
        });
    }
}

/// Leaves a record of each revocation and each end of one, and drops what was minted in the tenant of what was revoked.
fn in_force(engine: &Engine, freshness: &Freshness, entries: Vec<revocation::Entry>) {
    let plan = engine.plan();
    for entry in entries.into_iter().filter(|entry| entry.environment == plan.environment()) {
        let mut own = entry.to_record();
        if let Some(tenant) = own.tenant.as_deref().filter(|tenant| !tenant.is_empty()) {
            own.materials_dropped = Some(freshness.forget(&[("tenant", tenant)]));
        }
        tracing::info!(
            number = own.number,
            kind = own.kind,
            lifts = own.lifts,
            by = own.by,
            "a revocation is in force"
        );
        let record = Record::new(Event::RevocationInForce, plan.environment(), plan.revision());
        engine.record(Record { revocation: Some(own), ..record });
    }
}

/// Puts each new snapshot in use. One that cannot be assembled changes nothing and says why.
async fn follow(engine: Arc<Engine>, snapshots: Arc<Snapshots>, digester: Digester, mut serving: Arc<Snapshot>) {
    let mut in_use = serving.clone();
    loop {
        tokio::time::sleep(FOLLOW_INTERVAL).await;
        let current = snapshots.current();
        if Arc::ptr_eq(&current, &serving) {
            continue;
        }
        serving = current.clone();
        match assemble(current.clone(), digester.clone()) {
            Ok(plan) => {
                tracing::info!(revision = plan.revision(), "a new snapshot serves");
                engine.replace(plan);
                let before = std::mem::replace(&mut in_use, current.clone());
                tokio::spawn(give_back(before, current));
            }
            Err(error) => {
                tracing::error!(%error, "the new snapshot was refused; the last good one serves");
                engine.refused(&error.to_string());
            }
        }
    }
}

/// Gives back what stores lent for the snapshot before and not for the one that serves, once calls under way had time.
async fn give_back(before: Arc<Snapshot>, serving: Arc<Snapshot>) {
    tokio::time::sleep(GRACE).await;
    before.sources.secrets.close(Some(&serving.sources.secrets)).await;
    let credentials = serving.config.bindings.iter().flat_map(|binding| &binding.credentials);
    let sources = credentials.flat_map(|credential| credential.kind().secrets());
    let references: Vec<String> = sources.map(|(_, source)| source.reference.clone()).collect();
    serving.sources.secrets.retain(&references).await;
}

/// Opens what is kept, where a database is configured, and lets everything that needs it find it.
///
/// # Errors
/// It cannot be opened.
pub(crate) async fn open_state(snapshot: &Snapshot) -> Result<Option<Arc<State>>, StateError> {
    let Some(config) = &snapshot.config.database else { return Ok(None) };
    let secrets = &snapshot.sources.secrets;
    let state = State::open(config, secrets).await?;
    // Both are set once: this is the start.
    let _ = secrets.state().set(state.clone());
    secrets.freshness().share(Arc::new(state.shared.clone()));
    Ok(Some(state))
}

/// Where bindings stand now. Where that cannot be read, none that has a lifecycle serves until it can.
pub(crate) async fn read_book(state: Option<&State>) -> Vec<Entry> {
    let Some(state) = state else { return Vec::new() };
    state.book.read(&state.bindings).await.unwrap_or_else(|error| {
        tracing::error!(%error, "where bindings stand cannot be read");
        Vec::new()
    })
}

/// Uses whatever audit key there is now. Digests before and after it changed cannot be compared, so the trail says when that was.
async fn follow_audit_key(
    engine: Arc<Engine>,
    snapshots: Arc<Snapshots>,
    digester: Digester,
    mut key: Arc<SecretBytes>,
) {
    let mut said = String::new();
    loop {
        tokio::time::sleep(KEY_INTERVAL).await;
        match audit_key(&snapshots.current()).await {
            Ok(now) if now.ct_eq(&key) => said.clear(),
            Ok(now) => {
                said.clear();
                let detail = "another audit.hmac_key: digests before and after cannot be compared".to_owned();
                tracing::info!(detail);
                let plan = engine.plan();
                engine.record(Record {
                    detail,
                    ..Record::new(Event::ConfigReloaded, plan.environment(), plan.revision())
                });
                digester.replace(now.expose());
                key = now;
            }
            Err(cause) if cause != said => {
                tracing::error!(cause, "audit.hmac_key cannot be used; the one before stays in use");
                said = cause;
            }
            Err(_) => {}
        }
    }
}

/// Uses the key-encryption keys that the newest snapshot names, as soon as all of them can be had.
async fn follow_encryption_keys(snapshots: Arc<Snapshots>, serving: Arc<Snapshot>, state: Option<Arc<State>>) {
    let Some(state) = state else { return };
    let named = |snapshot: &Snapshot| {
        let database = snapshot.config.database.as_ref()?;
        Some((database.encryption_keys.clone(), database.tenant_encryption_keys.clone()))
    };
    let mut in_use = named(&serving);
    let mut said = String::new();
    loop {
        tokio::time::sleep(KEY_INTERVAL).await;
        let current = snapshots.current();
        let Some(database) = current.config.database.as_ref().filter(|_| named(&current) != in_use) else {
            said.clear();
            continue;
        };
        let replaced = async {
            let wrapping = State::wrapping(database, &current.sources.secrets).await?;
            Ok::<_, StateError>(state.sealer.replace(wrapping).await?)
        };
        match replaced.await {
            Ok(()) => {
                tracing::info!("other database.encryption_keys are in use");
                in_use = named(&current);
            }
            Err(error) => {
                let cause = error.to_string();
                if said != cause {
                    tracing::error!(cause, "database.encryption_keys cannot be used; those before stay in use");
                    said = cause;
                }
            }
        }
    }
}

/// The key of the digests in audit records, or why it cannot be used.
pub(crate) async fn audit_key(snapshot: &Snapshot) -> Result<Arc<SecretBytes>, String> {
    let key =
        snapshot.sources.secrets.resolve(&snapshot.config.audit.hmac_key).await.map_err(|error| error.to_string())?;
    if key.len() < MIN_AUDIT_KEY_BYTES {
        return Err(format!("the key is shorter than {MIN_AUDIT_KEY_BYTES} bytes"));
    }
    Ok(key)
}

/// Opens the audit trail of a configuration.
///
/// # Errors
/// The file cannot be opened.
pub(crate) fn open_audit(config: &Config) -> Result<Writer, RunError> {
    let file = &config.audit.file;
    let sink = if file == Path::new("-") { Sink::Stdout } else { Sink::File(file.clone()) };
    Writer::start(sink, config.audit.queue_records)
        .map_err(|cause| RunError::AuditFile { file: file.display().to_string(), cause })
}

fn listen(config: &Config) -> Result<Listen, RunError> {
    let listen = &config.listen;
    let ListenAddress::Tcp(admin) = listen.admin else { return Err(RunError::Admin(listen.admin.to_string())) };
    Ok(Listen {
        grpc: Address::from(&listen.grpc),
        admin,
        tls: listen.tls.as_ref().map(Tls::from),
        secrets_on_loopback: listen.secrets_on_loopback,
        drain: Duration::from_secs(listen.drain_secs),
    })
}
