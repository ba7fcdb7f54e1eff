//! Where secrets come from, and the type that keeps them in.
//!
//! A reference is `STORE://rest`. `env` and `file` are always there and are read at each use; entries of `stores` are
//! remote for the most part and are used through [`Freshness`].

mod aws;
mod azure;
mod builtin;
mod bytes;
mod directory;
mod env;
mod error;
mod file;
mod gcp;
pub mod kinds;
mod kubernetes;
mod local;
mod onepassword;
mod recent;
mod remote;
#[cfg(test)]
mod tests;
mod vault;

pub use builtin::{BUILTIN_SCHEME, GRANT_SCHEME, is_path};
pub use bytes::SecretBytes;
pub use env::EnvStore;
pub use error::SecretError;
pub use file::FileStore;

use std::borrow::Cow;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keyward_contract::json;
use zeroize::Zeroizing;

use crate::caller::{self, Caller, PlaceholderError};
use crate::config::{self, Config, SecretSource};
use crate::credential::{Former, Material};
use crate::freshness::{Freshness, Key, MintError, Origin, Terms};
use crate::leak::Known;
use crate::outbound::Outbound;
use crate::sds;
use crate::session::Sessions;
use crate::state::StateDoor;
use builtin::{Builtin, Personal};
use recent::Recent;

/// The largest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;
/// The schemes that are there without configuration.
pub const LOCAL_SCHEMES: [&str; 2] = ["env", "file"];
/// Those, and the schemes of what Keyward itself keeps.
pub const RESERVED_SCHEMES: [&str; 5] = ["env", "file", BUILTIN_SCHEME, GRANT_SCHEME, crate::seal::KMS_SCHEME];
/// The field of the cached material that holds the whole content.
const CONTENT: &str = "content";

/// A future that a [`SecretStore`] returns.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Resolved, SecretError>> + Send + 'a>>;

/// What a store gave.
pub struct Resolved {
    /// The whole content.
    pub content: Arc<SecretBytes>,
    /// How long it is good, for what the store made and will end by itself.
    pub good_for: Option<Duration>,
}

/// One place where secrets are kept.
pub trait SecretStore: Send + Sync {
    /// Whether a reference has the right form, without opening anything. `rest` is what follows `scheme://`; it may hold
    /// placeholders.
    ///
    /// # Errors
    /// What is wrong with it, as [`SecretError::Reference`].
    fn check(&self, rest: &str) -> Result<(), SecretError>;

    /// The whole content as of now. `rest` holds no placeholder any more.
    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a>;

    /// The content for this caller, for a store whose contents belong to persons.
    fn resolve_for<'a>(&'a self, rest: &'a str, _caller: &'a Caller) -> Resolving<'a> {
        self.resolve(rest)
    }

    /// Whether its contents belong to persons: nothing of one caller's is ever remembered for another.
    fn is_personal(&self) -> bool {
        false
    }

    /// Whether names that differ in capital and small letters alone are one name there.
    fn ignores_case(&self) -> bool {
        false
    }

    /// How long a content is used; `None` for a local store, which is read at each use.
    fn terms(&self) -> Option<Terms> {
        None
    }

    /// When the content was last changed, for a store that knows.
    fn changed<'a>(&'a self, _rest: &'a str) -> Pin<Box<dyn Future<Output = Option<SystemTime>> + Send + 'a>> {
        Box::pin(async { None })
    }

    /// Whether the store can be reached and lets Keyward in: for `keyward doctor`. The text says what was seen.
    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<String, SecretError>> + Send + '_>> {
        Box::pin(async { Ok("there is nothing to reach".to_owned()) })
    }

    /// Gives back what the store lent for references, without `scheme://`, that are not in use any more. Returns these.
    fn retain<'a>(
        &'a self,
        _in_use: &'a (dyn Fn(&str) -> bool + Send + Sync),
    ) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>> {
        Box::pin(async { Vec::new() })
    }

    /// Gives back what the store lent, at the end of the process or of this store's configuration.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// A secret, ready to be used.
#[derive(Clone)]
pub struct Secret {
    /// The value.
    pub value: Arc<SecretBytes>,
    /// Earlier values that an upstream may still show.
    pub retired: Vec<Arc<SecretBytes>>,
    /// Until when it is good, where the store said so.
    pub expires: Option<SystemTime>,
    /// What to tell when an upstream refuses it; absent for local stores.
    pub origin: Vec<Origin>,
}

/// Every store, by scheme.
pub struct Secrets {
    stores: Vec<Entry>,
    freshness: Arc<Freshness>,
    recent: Arc<Recent>,
    state: StateDoor,
    known: Arc<Known>,
    former: Arc<Former>,
    presented: Arc<sds::InUse>,
    sessions: Arc<Sessions>,
}

struct Entry {
    scheme: String,
    /// Absent for the local ones.
    config: Option<config::Store>,
    store: Arc<dyn SecretStore>,
    /// What tells its contents in the cache from those of another configuration.
    identity: String,
}

// === impl Resolved ===

impl Resolved {
    /// A content that the store does not end by itself.
    #[must_use]
    pub fn lasting(content: Vec<u8>) -> Resolved {
        Resolved { content: Arc::new(SecretBytes::new(content)), good_for: None }
    }
}

// === impl Secrets ===

impl Secrets {
    /// The stores that are always there; relative files are relative to `base`.
    #[must_use]
    pub fn standard(base: &Path) -> Secrets {
        let local = |scheme: &str, store: Arc<dyn SecretStore>| Entry::new(scheme, None, store);
        let state = StateDoor::default();
        Secrets {
            stores: vec![
                local("env", Arc::new(EnvStore)),
                local("file", Arc::new(FileStore::new(base))),
                local(BUILTIN_SCHEME, Arc::new(Builtin(state.clone()))),
                local(GRANT_SCHEME, Arc::new(Personal(state.clone()))),
            ],
            freshness: Arc::default(),
            recent: Arc::default(),
            state,
            known: Arc::default(),
            former: Arc::default(),
            presented: Arc::default(),
            sessions: Arc::default(),
        }
    }

    /// The stores of a configuration, with nothing kept from before: to check it.
    #[must_use]
    pub fn of(config: &Config, base: &Path) -> Secrets {
        Secrets::standard(base).with(config, base, &Outbound::default())
    }

    /// The stores of a configuration. What was kept stays, and so do stores whose configuration is the same: their logins
    /// and leases go on.
    #[must_use]
    pub fn with(&self, config: &Config, base: &Path, outbound: &Outbound) -> Secrets {
        let mut stores: Vec<Entry> = self.local().stores;
        for (scheme, store) in &config.stores {
            let same = |entry: &&Entry| entry.scheme == *scheme && entry.config.as_ref() == Some(store);
            let store = match self.stores.iter().find(same) {
                Some(entry) => entry.store.clone(),
                None => kinds::of(scheme, store, &Arc::new(Secrets::standard(base)), outbound),
            };
            let config = config.stores.get(scheme).cloned();
            stores.push(Entry::new(scheme, config, store));
        }
        Secrets { stores, ..self.local() }
    }

    /// A store of a test's own under this scheme.
    #[must_use]
    pub fn and(mut self, scheme: &str, store: Arc<dyn SecretStore>) -> Secrets {
        self.stores.retain(|entry| entry.scheme != scheme);
        self.stores.push(Entry::new(scheme, None, store));
        self
    }

    fn local(&self) -> Secrets {
        let local = self.stores.iter().filter(|entry| RESERVED_SCHEMES.contains(&entry.scheme.as_str()));
        let entry = |entry: &Entry| Entry::new(&entry.scheme, None, entry.store.clone());
        let (freshness, recent) = (self.freshness.clone(), self.recent.clone());
        let (state, known, presented) = (self.state.clone(), self.known.clone(), self.presented.clone());
        let (stores, former) = (local.map(entry).collect(), self.former.clone());
        let sessions = self.sessions.clone();
        Secrets { stores, freshness, recent, state, known, former, presented, sessions }
    }

    /// Where the open state is, once it is open.
    #[must_use]
    pub fn state(&self) -> &StateDoor {
        &self.state
    }

    /// The cache beneath the remote stores.
    #[must_use]
    pub fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    /// What was brokered lately, and where it may go.
    #[must_use]
    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// What bindings used before.
    #[must_use]
    pub fn former(&self) -> &Arc<Former> {
        &self.former
    }

    /// Drops what nobody uses any more out of memory, this often; without end.
    pub fn keep_swept(&self, every: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (freshness, recent, former) = (self.freshness.clone(), self.recent.clone(), self.former.clone());
        async move {
            loop {
                tokio::time::sleep(every).await;
                let dropped = freshness.sweep();
                tracing::debug!(dropped, "what was kept and is of no use any more");
                recent.sweep();
                former.sweep();
            }
        }
    }

    /// The keys of sealed sessions, and what is remembered of sessions.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// The client certificates that Envoy presents.
    #[must_use]
    pub fn presented(&self) -> &Arc<sds::InUse> {
        &self.presented
    }

    /// Every configured store with its name.
    pub fn stores(&self) -> impl Iterator<Item = (&str, &Arc<dyn SecretStore>)> {
        self.stores.iter().filter(|entry| entry.config.is_some()).map(|entry| (entry.scheme.as_str(), &entry.store))
    }

    /// Gives back what the stores lent for references other than these, which may hold placeholders.
    pub async fn retain(&self, references: &[String]) {
        for entry in &self.stores {
            let own = |reference: &String| Some(reference.strip_prefix(&entry.scheme)?.strip_prefix("://")?.to_owned());
            let own: Vec<String> = references.iter().filter_map(own).collect();
            let in_use = |rest: &str| own.iter().any(|template| caller::could_be(template, rest));
            for rest in entry.store.retain(&in_use).await {
                self.freshness.forget(&[("store", &entry.scheme), ("reference", &rest)]);
            }
        }
    }

    /// Gives back what the stores lent that `successor` does not hold any more.
    pub async fn close(&self, successor: Option<&Secrets>) {
        for entry in &self.stores {
            let kept = |other: &Entry| Arc::ptr_eq(&other.store, &entry.store);
            if !successor.is_some_and(|successor| successor.stores.iter().any(kept)) {
                entry.store.close().await;
                self.freshness.forget(&[("store", &entry.scheme), ("configuration", &entry.identity)]);
            }
        }
    }

    /// Whether a source has the right form, without opening anything.
    ///
    /// # Errors
    /// [`SecretError::Reference`], a placeholder that does not exist, or two that nothing keeps apart.
    pub fn check(&self, source: &SecretSource) -> Result<(), SecretError> {
        let (entry, rest) = self.store(&source.reference)?;
        match caller::check(rest) {
            Ok(()) => entry.store.check(rest),
            Err(PlaceholderError::Touching) => Err(SecretError::Touching),
            Err(_) => Err(SecretError::Reference { cause: "it holds a brace that begins no placeholder" }),
        }
    }

    /// A secret that depends on no caller.
    ///
    /// # Errors
    /// Nothing there, unreadable, too large, or not of the form that the source says.
    pub async fn resolve(&self, source: &SecretSource) -> Result<Arc<SecretBytes>, SecretError> {
        Ok(self.find(source, &Caller::none("")).await?.value)
    }

    /// The secret for this caller, for a credential.
    ///
    /// # Errors
    /// As [`Secrets::resolve`].
    pub async fn get(&self, source: &SecretSource, caller: &Caller) -> Result<Secret, MintError> {
        self.find(source, caller).await.map_err(MintError::from)
    }

    /// When what lies behind a source was last changed; `None` where its store does not say.
    pub async fn changed(&self, source: &SecretSource) -> Option<SystemTime> {
        let (entry, rest) = self.store(&source.reference).ok()?;
        entry.store.check(rest).ok()?;
        entry.store.changed(rest).await
    }

    /// Several secrets, of which those with one reference come from one content.
    ///
    /// # Errors
    /// As [`Secrets::resolve`], for the first that cannot be had.
    pub async fn get_all(&self, sources: &[&SecretSource], caller: &Caller) -> Result<Vec<Secret>, MintError> {
        let mut contents: Vec<(&str, Secret)> = Vec::new();
        let mut secrets = Vec::with_capacity(sources.len());
        for source in sources {
            let content = match contents.iter().find(|(reference, _)| *reference == source.reference) {
                Some((_, content)) => content.clone(),
                None => {
                    let content = self.content(&source.reference, caller).await?;
                    contents.push((&source.reference, content.clone()));
                    content
                }
            };
            secrets.push(content.part(source)?);
        }
        Ok(secrets)
    }

    async fn find(&self, source: &SecretSource, caller: &Caller) -> Result<Secret, SecretError> {
        self.content(&source.reference, caller).await?.part(source)
    }

    /// The whole content behind a reference.
    async fn content(&self, reference: &str, caller: &Caller) -> Result<Secret, SecretError> {
        let (entry, template) = self.store(reference)?;
        let rest = if caller::is_template(template) {
            let unfit = |cause| SecretError::Caller { reference: reference.to_owned(), cause };
            let filled = caller.fill(template).map_err(unfit)?;
            let capitals = |text: &str| text.bytes().filter(u8::is_ascii_uppercase).count();
            if entry.store.ignores_case() && capitals(&filled) > capitals(template) {
                return Err(unfit(PlaceholderError::Capitals));
            }
            Cow::Owned(filled)
        } else {
            Cow::Borrowed(template)
        };
        entry.store.check(&rest)?;
        let Some(terms) = entry.store.terms() else {
            let Resolved { content, good_for } = entry.store.resolve_for(&rest, caller).await?;
            let is_personal = entry.store.is_personal();
            let retired = if is_personal { Vec::new() } else { self.recent.note(&entry.scheme, &rest, &content) };
            let expires = good_for.map(|left| SystemTime::now() + left);
            return Ok(Secret { value: content, retired, expires, origin: Vec::new() });
        };
        let key = Key::new("secret", caller.tenant())
            .with("store", &entry.scheme)
            .with("configuration", entry.identity.clone())
            .with("reference", rest.clone());
        let (store, rest) = (entry.store.clone(), rest.into_owned());
        let mint = move || -> crate::freshness::Minting {
            Box::pin(async move {
                let Resolved { content, good_for } = store.resolve(&rest).await?;
                let material = Material::new().shared_secret(CONTENT, content);
                Ok(match good_for {
                    Some(left) => material.until(SystemTime::now() + left),
                    None => material,
                })
            })
        };
        let material = self.freshness.get(key, terms, mint).await.map_err(SecretError::Kept)?;
        Secret::of(&material).ok_or_else(|| SecretError::NotSet { reference: reference.to_owned() })
    }

    fn store<'r>(&self, reference: &'r str) -> Result<(&Entry, &'r str), SecretError> {
        let refused = |cause| SecretError::Reference { cause };
        let (scheme, rest) = reference.split_once("://").ok_or(refused("there is no `://`"))?;
        let entry = self.stores.iter().find(|entry| entry.scheme == scheme);
        Ok((entry.ok_or(refused("what stands before `://` names no store"))?, rest))
    }
}

// === impl Entry ===

impl Entry {
    fn new(scheme: &str, config: Option<config::Store>, store: Arc<dyn SecretStore>) -> Entry {
        let identity = format!("{config:?}");
        Entry { scheme: scheme.to_owned(), config, store, identity }
    }
}

// === impl Secret ===

impl Secret {
    /// The content that the cache kept.
    fn of(material: &Material) -> Option<Secret> {
        let value = material.fields().iter().find(|field| field.name == CONTENT)?.value.clone();
        Some(Secret {
            value,
            retired: material.retired().to_vec(),
            expires: material.expires(),
            origin: material.origins().to_vec(),
        })
    }

    /// What a source wants of a content.
    fn part(self, source: &SecretSource) -> Result<Secret, SecretError> {
        if source.json_key.is_none() && !source.trim_newline {
            return Ok(self);
        }
        let retired = self.retired.iter().filter_map(|old| part(old.expose(), source).ok()).map(Arc::new).collect();
        Ok(Secret { value: Arc::new(part(self.value.expose(), source)?), retired, ..self })
    }
}

fn part(whole: &[u8], source: &SecretSource) -> Result<SecretBytes, SecretError> {
    let part = match &source.json_key {
        Some(json_key) => field(whole, json_key)
            .ok_or_else(|| SecretError::JsonKey { reference: source.reference.clone(), json_key: json_key.clone() })?,
        None => Cow::Borrowed(whole),
    };
    let mut part = Zeroizing::new(part.into_owned());
    if source.trim_newline && part.ends_with(b"\n") {
        part.pop();
        if part.ends_with(b"\r") {
            part.pop();
        }
    }
    if part.is_empty() {
        return Err(SecretError::NotSet { reference: source.reference.clone() });
    }
    Ok(SecretBytes::new(std::mem::take(&mut *part)))
}

/// The string in a field of a JSON object.
fn field<'a>(json: &'a [u8], key: &str) -> Option<Cow<'a, [u8]>> {
    match json::parse(json, &json::Limits::default()).ok()? {
        json::Value::Object(object) => match object.into_iter().find(|(name, _)| name == key)?.1 {
            json::Value::String(Cow::Borrowed(text)) => Some(Cow::Borrowed(text.as_bytes())),
            json::Value::String(Cow::Owned(text)) => Some(Cow::Owned(text.into_bytes())),
            _ => None,
        },
        _ => None,
    }
}
