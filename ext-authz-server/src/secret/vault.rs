//! HashiCorp Vault and OpenBao: KV version 2, and every engine that makes credentials with a lease.
//!
//! A credential with a lease is made when it is first asked for, renewed while it is used, and given back when no binding
//! names it any more and when the server stops. A lease ends with the login it was made under, so it is never used longer.

mod lease;
mod login;
mod reference;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward_contract::json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};
use zeroize::Zeroizing;

use super::local::Local;
use super::remote::{
    Answer, Call, Given, Grant, MAX_ANSWER_BYTES, Remote, RemoteStore, Session, StoreError, StoreErrorKind,
};
use super::{SecretBytes, Secrets};
use crate::config::{Caching, VaultAuth, VaultStore};
use crate::outbound::Outbound;
use lease::Lease;
use reference::Reference;

/// The most leases that are held at once, those included that were replaced and have not ended yet.
const MAX_LEASES: usize = 4096;
/// How long giving everything back may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);

const READ_REMEDY: &str = "give the login's policy the capability `read` on that path";

/// One Vault, or one namespace of it.
pub(super) struct Vault {
    name: String,
    config: VaultStore,
    remote: Remote,
    local: Local,
    session: Session,
    renewing: Mutex<()>,
    leases: Mutex<Leases>,
}

#[derive(Default)]
struct Leases {
    /// By what follows `NAME://`. The inner lock is held while one is made, so that one is made for however many ask.
    current: HashMap<String, Arc<Mutex<Option<Lease>>>>,
    /// Replaced ones that have not ended, each under what it was made for: a call that carries one may be under way.
    replaced: Vec<(String, Lease)>,
}

/// The lease of a reference, nobody else's while it is held.
type Held = OwnedMutexGuard<Option<Lease>>;

// === impl Vault ===

impl Vault {
    /// The store that configuration describes. `secrets` has the local stores, for what it logs in with.
    pub(super) fn new(name: &str, config: &VaultStore, secrets: &Arc<Secrets>, outbound: &Outbound) -> Vault {
        let remote = Remote::new(&config.address, config.ca_file.as_deref(), outbound);
        let (name, config, local) = (name.to_owned(), config.clone(), Local::new(secrets));
        let (session, renewing, leases) = (Session::default(), Mutex::default(), Mutex::default());
        Vault { name, config, remote, local, session, renewing, leases }
    }

    // === stored secrets ===

    async fn read_stored(
        &self,
        mount: &[String],
        path: &[String],
        version: Option<u64>,
    ) -> Result<Arc<SecretBytes>, StoreError> {
        let segments = ["v1"].into_iter().chain(mount.iter().map(String::as_str)).chain(["data"]);
        let segments = segments.chain(path.iter().map(String::as_str));
        let shown = format!("{}/data/{}", mount.join("/"), path.join("/"));
        let mut call = Call::get(segments, format!("read `{shown}`"));
        if let Some(version) = version {
            call = call.query("version", version.to_string());
        }
        let answer = self.authorized(self.call(call)).await?.1;
        let value = answer.json();
        match answer.status() {
            200 => {}
            403 => return Err(answer.error(StoreErrorKind::Refused, READ_REMEDY)),
            404 if value.as_ref().is_ok_and(|value| value.pointer("/data/metadata").is_some()) => {
                let cause = "this version was deleted or destroyed";
                return Err(answer.error_because(
                    StoreErrorKind::Missing,
                    cause,
                    "write a new version, or name another",
                ));
            }
            404 => {
                let remedy = "write it, or correct the mount, the path and the namespace";
                return Err(answer.error_because(StoreErrorKind::Missing, "there is nothing", remedy));
            }
            _ => return Err(answer.error(StoreErrorKind::Refused, "correct the reference")),
        }
        let value = value?;
        let fields = value.pointer("/data/data").filter(|fields| fields.as_object().is_some());
        fields
            .map(written)
            .ok_or_else(|| answer.malformed("there is no object at `/data/data`: is this engine KV version 2?"))
    }

    // === dynamic credentials ===

    /// The place of a reference's lease, held. It is one that will be found when leases are given back: who waited for a place
    /// that was taken away meanwhile begins anew.
    async fn hold(&self, rest: &str) -> Result<Held, StoreError> {
        loop {
            let cell = self.cell(rest).await?;
            let held = cell.clone().lock_owned().await;
            if self.leases.lock().await.current.get(rest).is_some_and(|now| Arc::ptr_eq(now, &cell)) {
                return Ok(held);
            }
        }
    }

    async fn cell(&self, rest: &str) -> Result<Arc<Mutex<Option<Lease>>>, StoreError> {
        let mut leases = self.leases.lock().await;
        let now = Instant::now();
        leases.replaced.retain(|(_, lease)| now < lease.ends());
        if leases.current.len() + leases.replaced.len() >= MAX_LEASES && !leases.current.contains_key(rest) {
            leases
                .current
                .retain(|_, cell| cell.try_lock().map_or(true, |lease| lease.as_ref().is_some_and(|l| now < l.ends())));
            if leases.current.len() >= MAX_LEASES {
                let cause = format!("more than {MAX_LEASES} leases are held");
                let remedy = "shorten the role's time to live";
                return Err(StoreError::new(StoreErrorKind::Outage, &self.name, cause, remedy));
            }
        }
        Ok(leases.current.entry(rest.to_owned()).or_default().clone())
    }

    async fn read_dynamic(&self, rest: &str, path: &[String]) -> Result<Given, StoreError> {
        let mut held = self.hold(rest).await?;
        let grant = self.grant().await?;
        if let Some(lease) = held.as_ref().filter(|lease| lease.is_live(&grant)) {
            if !lease.is_due() && self.is_there(lease, &grant).await? {
                return Ok((lease.secret.clone(), Some(lease.remaining(&grant))));
            }
            match self.renewed(lease, &grant).await {
                Ok(Some(renewed)) => {
                    let given = (renewed.secret.clone(), Some(renewed.remaining(&grant)));
                    *held = Some(renewed);
                    return Ok(given);
                }
                Ok(None) => {}
                // The store is away: what is left of this lease is all there is.
                Err(error) if error.kind() == StoreErrorKind::Outage => return Err(error),
                Err(error) => tracing::debug!(store = self.name, %error, "the lease is not renewed but replaced"),
            }
        }
        let (grant, lease) = self.new_lease(path).await?;
        let given = (lease.secret.clone(), Some(lease.remaining(&grant)));
        if let Some(before) = held.replace(lease) {
            let mut leases = self.leases.lock().await;
            if leases.replaced.len() < MAX_LEASES {
                leases.replaced.push((rest.to_owned(), before));
            }
        }
        Ok(given)
    }

    async fn new_lease(&self, path: &[String]) -> Result<(Arc<Grant>, Lease), StoreError> {
        let segments = ["v1"].into_iter().chain(path.iter().map(String::as_str));
        let shown = path.join("/");
        let call = self.call(Call::get(segments, format!("read `{shown}`"))).once();
        let (grant, answer) = self.authorized(call).await?;
        match answer.status() {
            200 => {}
            403 => return Err(answer.error(StoreErrorKind::Refused, READ_REMEDY)),
            400 | 404 => {
                return Err(answer.error(StoreErrorKind::Missing, "correct the mount and the role in the reference"));
            }
            _ => return Err(answer.error(StoreErrorKind::Refused, "correct the reference")),
        }
        let value = answer.json()?;
        let fields = value.pointer("/data").filter(|fields| fields.as_object().is_some());
        let secret = fields.map(written).ok_or_else(|| answer.malformed("there is no object at `/data`"))?;
        let lifetime = seconds(&value, "/lease_duration").filter(|lifetime| !lifetime.is_zero());
        let lifetime = lifetime.ok_or_else(|| {
            let cause = "it has no lease: this path holds a stored secret";
            answer.error_because(
                StoreErrorKind::Setup,
                cause,
                "take `?dynamic` away, or name an engine that makes credentials",
            )
        })?;
        let id = value.pointer("/lease_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let renewable = !id.is_empty() && value.pointer("/renewable").and_then(Value::as_bool).unwrap_or(false);
        tracing::debug!(store = self.name, path = shown, ?lifetime, renewable, "got a lease");
        let (given, login) = (Instant::now(), grant.number());
        Ok((grant, Lease { id, secret, lifetime, given, first_lifetime: lifetime, renewable, login }))
    }

    /// Whether the store still knows a lease: an operator may have revoked it, or the login it belongs to.
    async fn is_there(&self, lease: &Lease, grant: &Grant) -> Result<bool, StoreError> {
        if lease.id.is_empty() {
            return Ok(true);
        }
        let call = Call::post(["v1", "sys", "leases", "lookup"], "look up a lease").json(&[("lease_id", &lease.id)]);
        let answer = self.remote.send(&call_with(self.call(call), grant)).await?;
        match answer.status() {
            400 | 404 => Ok(false),
            // Either the login is gone, and its leases with it, or its policy does not allow to look: then nothing is known.
            403 if self.is_alive(grant).await? => Ok(true),
            403 => {
                self.session.forget(grant).await;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// The lease extended; none where another one is to be had.
    async fn renewed(&self, lease: &Lease, grant: &Grant) -> Result<Option<Lease>, StoreError> {
        if !lease.renewable {
            return Ok(None);
        }
        let call = Call::post(["v1", "sys", "leases", "renew"], "renew a lease").json(&[("lease_id", &lease.id)]);
        let answer = self.remote.send(&call_with(self.call(call), grant)).await?;
        if answer.status() != 200 {
            return Err(answer.error(StoreErrorKind::Refused, "give the login's policy `update` on `sys/leases/renew`"));
        }
        let value = answer.json()?;
        let lifetime = seconds(&value, "/lease_duration").unwrap_or_default();
        let renewable = value.pointer("/renewable").and_then(Value::as_bool).unwrap_or(false);
        tracing::debug!(store = self.name, ?lifetime, "renewed a lease");
        Ok(lease.extended(lifetime, renewable))
    }

    async fn give_back(&self, leases: &[Lease]) {
        let now = Instant::now();
        let live = leases.iter().filter(|lease| !lease.id.is_empty() && now < lease.ends());
        for lease in live {
            let Ok(grant) = self.grant().await else { return };
            let call =
                Call::post(["v1", "sys", "leases", "revoke"], "give back a lease").json(&[("lease_id", &lease.id)]);
            self.told(&call_with(self.call(call), &grant)).await;
        }
    }

    /// Sends what nobody waits for; a failure is logged. Whether it was done.
    async fn told(&self, call: &Call) -> bool {
        let failed = match self.remote.send(call).await {
            Ok(answer) if answer.status() < 300 => return true,
            Ok(answer) => {
                let remedy = "give the login's policy `update` on that path; until then it ends by itself";
                answer.error(StoreErrorKind::Refused, remedy)
            }
            Err(error) => error,
        };
        tracing::warn!(store = self.name, error = %failed, "the store did not take it back");
        false
    }

    // === being logged in ===

    async fn grant(&self) -> Result<Arc<Grant>, StoreError> {
        let grant = self.session.grant(|| self.login()).await?;
        if grant.renewable && grant.is_due() {
            self.keep_alive(&grant).await;
            return self.session.grant(|| self.login()).await;
        }
        Ok(grant)
    }

    /// Sends a request with the login's token. Where the store refuses, there is one new login and one more attempt.
    async fn authorized(&self, call: Call) -> Result<(Arc<Grant>, Answer), StoreError> {
        let grant = self.grant().await?;
        let call = call_with(call, &grant);
        let answer = self.remote.send(&call).await?;
        // The same status says that the token is gone and that its policy lacks a path; only the first is healed by a login.
        if answer.status() != 403 || self.is_alive(&grant).await? {
            return Ok((grant, answer));
        }
        self.session.forget(&grant).await;
        let again = self.grant().await?;
        let answer = self.remote.send(&call_with(call, &again)).await?;
        Ok((again, answer))
    }

    async fn is_alive(&self, grant: &Grant) -> Result<bool, StoreError> {
        let call = Call::get(["v1", "auth", "token", "lookup-self"], "look up the token");
        Ok(self.remote.send(&call_with(self.call(call), grant)).await?.status() == 200)
    }

    fn call(&self, call: Call) -> Call {
        let call = call.header("x-vault-request", "true");
        match &self.config.namespace {
            Some(namespace) => call.header("x-vault-namespace", namespace),
            None => call,
        }
    }
}

impl RemoteStore for Vault {
    fn name(&self) -> &str {
        &self.name
    }

    fn caching(&self) -> Caching {
        self.config.caching
    }

    fn check_form(&self, rest: &str) -> Result<(), &'static str> {
        Reference::read(rest).map(drop)
    }

    async fn read(&self, rest: &str) -> Result<Given, StoreError> {
        let setup = |cause: &str| StoreError::new(StoreErrorKind::Setup, &self.name, cause, "correct the reference");
        match Reference::read(rest).map_err(setup)? {
            Reference::Stored { mount, path, version } => Ok((self.read_stored(&mount, &path, version).await?, None)),
            Reference::Dynamic { path } => self.read_dynamic(rest, &path).await,
        }
    }

    async fn try_login(&self) -> Result<String, StoreError> {
        let grant = self.grant().await?;
        let ends = grant.remaining().map_or("without end".to_owned(), |left| format!("for {} s", left.as_secs()));
        Ok(format!("{} accepts the login; it is good {ends}", self.remote.address()))
    }

    async fn give_back_unused(&self, in_use: &(dyn Fn(&str) -> bool + Send + Sync)) -> Vec<String> {
        let gone: Vec<_> = self.leases.lock().await.current.extract_if(|rest, _| !in_use(rest)).collect();
        let mut given_back = Vec::with_capacity(gone.len());
        for (rest, cell) in gone {
            if let Some(lease) = cell.lock().await.take() {
                self.give_back(&[lease]).await;
            }
            given_back.push(rest);
        }
        // After the others: whoever was making one has now put aside the one before it.
        let replaced: Vec<Lease> = {
            let mut leases = self.leases.lock().await;
            leases.replaced.extract_if(.., |(rest, _)| !in_use(rest)).map(|(_, lease)| lease).collect()
        };
        self.give_back(&replaced).await;
        given_back
    }

    async fn give_back_all(&self) {
        let closing = async {
            let leases = std::mem::take(&mut *self.leases.lock().await);
            let mut all: Vec<Lease> = leases.replaced.into_iter().map(|(_, lease)| lease).collect();
            for cell in leases.current.into_values() {
                all.extend(cell.lock().await.take());
            }
            if matches!(self.config.auth, VaultAuth::Token { .. }) {
                return self.give_back(&all).await;
            }
            // A login of our own takes its leases along.
            if let Some(grant) = self.session.take().await {
                let call = Call::post(["v1", "auth", "token", "revoke-self"], "give back the login").json(&[]);
                if self.told(&call_with(self.call(call), &grant)).await {
                    all.retain(|lease| lease.login != grant.number());
                }
            }
            if !all.is_empty() {
                self.give_back(&all).await;
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!(store = self.name, "the store took too long to take back leases; they end by themselves");
        }
    }
}

/// The same call with the token of this grant.
fn call_with(call: Call, grant: &Grant) -> Call {
    call.replace_header("x-vault-token", &grant.token)
}

/// A part of an answer as JSON text. The buffer has room for the largest answer: it never moves and leaves no copy behind.
fn written(value: &Value<'_>) -> Arc<SecretBytes> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
    value.write(&mut text);
    Arc::new(SecretBytes::new(std::mem::take(&mut *text)))
}

fn seconds(value: &Value<'_>, pointer: &str) -> Option<Duration> {
    value.pointer(pointer)?.as_number()?.as_u64().map(Duration::from_secs)
}
