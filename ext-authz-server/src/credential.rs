//! Having the credentials of the chosen bindings, and putting them on the request.
//!
//! A kind of credential is one file here: what it is made of, how that is had, what it does to a request. [`inject`] is the
//! stage; [`kinds`] the list. What is had is kept by [`crate::freshness`], never by a kind.

pub mod aws;
pub mod basic;
pub mod client_certificate;
mod former;
pub mod gateway_proof;
pub mod header;
pub mod hmac;
pub mod kinds;
mod material;
pub mod oauth;
pub mod outgoing;
pub mod placeholder;
pub mod probed;
pub mod query;
pub mod slot;
pub mod template;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use keyward_contract::check::STRIPPED_HEADERS;
use keyward_contract::patterns::Guard;
use keyward_contract::reason::Reason;
use zeroize::Zeroizing;

use crate::binding::{Binding, Choice, Mode};
use crate::caller::Caller;
use crate::config::ClientCertificateCredential;
use crate::decision::{Denial, Stage};
use crate::freshness::{Key, MintError, MintErrorKind, Origin, Terms};
use crate::leak;
use crate::request::Request;
use crate::secret::{GRANT_SCHEME, SecretBytes};
use crate::sources::Sources;

pub use crate::freshness::Minting;
pub use former::Former;
pub use material::{Field, Material};
pub use outgoing::Outgoing;
pub use slot::{CredentialError, MIN_DISTINCT_BYTES, MIN_SECRET_BYTES, Slot, SlotName};

/// A look at a credential under way.
pub type Probing = Pin<Box<dyn Future<Output = Result<String, MintError>> + Send>>;

/// When a credential is applied: each turn reads what the ones before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It fills places of its own, or replaces what the client wrote.
    Fill,
    /// It names the path, which must be the one that leaves.
    Name,
    /// It covers what all others put on the request.
    Sign,
}

/// One kind of credential of one binding.
pub trait Credential: Send + Sync {
    /// The kind, as `type` in configuration names it.
    fn kind(&self) -> &'static str;

    /// The places in a request that are its own: whatever a client sends there goes, on every request to the binding's
    /// servers.
    fn places(&self) -> Vec<SlotName>;

    /// What it is made of, for people and audit records: references, roles, clients; no secret.
    fn references(&self) -> Vec<String>;

    /// Where the calling person gives what it is made of, for a credential that is a person's own: an entry of `providers`. As
    /// it stands, that is the `grant://NAME` among its references.
    fn provider(&self) -> Option<String> {
        let prefix = format!("{GRANT_SCHEME}://");
        self.references().iter().find_map(|reference| reference.strip_prefix(&prefix).map(str::to_owned))
    }

    /// What tells its materials apart: everything that changes one is a part of the key, so that no caller gets another's.
    /// `None` for what is had anew each time, such as a secret that its store keeps.
    fn key(&self, caller: &Caller) -> Option<Key>;

    /// How long a material is used.
    fn terms(&self) -> Terms {
        Terms::Minted
    }

    /// Has the material. Bounded in time by the caller.
    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting;

    /// Looks at what having and applying it does not show, for `keyward doctor`: for example whom the other side takes it
    /// for. The text says what was seen, without a value. `None`: there is nothing more to see.
    fn probe(self: Arc<Self>, _caller: Arc<Caller>, _sources: Arc<Sources>) -> Option<Probing> {
        None
    }

    /// What it is made of, for a credential that stands for several.
    fn parts(&self) -> &[Arc<dyn Credential>] {
        &[]
    }

    /// What a secret of its material says, where it is written in a way that no search would see through: the bytes of a key that
    /// is kept as digits.
    fn decoded(&self, _secret: &[u8]) -> Option<SecretBytes> {
        None
    }

    /// When it is applied.
    fn turn(&self) -> Turn {
        Turn::Fill
    }

    /// Puts it on the request. The secret fields of the material are scrubbed anyway; what is composed of them is told to
    /// [`Outgoing::scrub`].
    ///
    /// # Errors
    /// The value cannot go there, or this request cannot carry it.
    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError>;

    /// The texts that stand for a secret in what clients write, for the kind that has some: they must not leave to anywhere
    /// else.
    fn placeholders(&self) -> Vec<&str> {
        Vec::new()
    }

    /// What Envoy is to present, for the kind that is no part of a request.
    fn client_certificate(&self) -> Option<&ClientCertificateCredential> {
        None
    }

    /// The public keys with which an upstream verifies what this kind signs (RFC 7517), those of the near past and future
    /// included.
    fn published_keys(self: Arc<Self>, _sources: Arc<Sources>, _now: SystemTime) -> Publishing {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// A future that [`Credential::published_keys`] returns; the error is for the operator.
pub type Publishing = Pin<Box<dyn Future<Output = Result<Vec<serde_json::Value>, String>> + Send>>;

/// All changes to the upstream request. No `Debug`: it holds secrets; they are wiped when it is dropped.
#[derive(Default)]
pub struct Injection {
    slots: Vec<Slot>,
    scrub: Vec<Zeroizing<Vec<u8>>>,
    target: Option<Zeroizing<String>>,
    body: Option<Zeroizing<Vec<u8>>>,
    remove_headers: Vec<String>,
    remove_query: Vec<String>,
    origins: Vec<Origin>,
    patterns: Vec<&'static str>,
}

/// Why a credential is not on the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// Its material could not be had.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// It cannot go where it is to go.
    #[error(transparent)]
    Apply(#[from] CredentialError),
}

// === impl Turn ===

impl Turn {
    /// All of them in order.
    pub(crate) const ALL: [Turn; 3] = [Turn::Fill, Turn::Name, Turn::Sign];
}

// === impl InjectError ===

impl InjectError {
    /// Why nothing can be said without a caller, where it is that: the credential may be had for one.
    #[must_use]
    pub fn needs_caller(&self) -> Option<&str> {
        match self {
            InjectError::Mint(MintError { kind: MintErrorKind::NeedsCaller | MintErrorKind::Consent, cause }) => {
                Some(cause)
            }
            _ => None,
        }
    }
}

// === impl Injection ===

impl Injection {
    /// Headers and query parameters to set, in order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// What must never come back, without repetition.
    pub fn scrub(&self) -> impl Iterator<Item = &[u8]> {
        self.scrub.iter().map(|value| value.as_slice())
    }

    /// Path and query, where they must leave exactly like this; query parameters to set are in them.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.target.as_ref().map(|target| target.as_str())
    }

    /// The body, where it is not the client's.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        self.body.as_ref().map(|body| body.as_slice())
    }

    /// Names of headers and of query parameters that leave the request.
    #[must_use]
    pub fn removals(&self) -> (Vec<String>, Vec<String>) {
        (self.remove_headers.clone(), self.remove_query.clone())
    }

    /// The kinds of credentials that the client's request seemed to hold, masked or let through.
    #[must_use]
    pub fn patterns(&self) -> &[&'static str] {
        &self.patterns
    }

    /// What to tell when the upstream refuses the credentials.
    #[must_use]
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }
}

/// Has every credential of the chosen bindings and applies them, signatures last. `authority` is what the upstream reads;
/// `guard` says what is looked for in what the client wrote.
///
/// `body` is the body that the upstream gets, where it is not the client's.
///
/// # Errors
/// What must not leave, or the first credential that cannot be had or applied; nothing is injected then.
pub async fn inject(
    choice: &Choice,
    request: &Request<'_>,
    authority: &str,
    body: Option<Vec<u8>>,
    guard: &Guard,
    caller: &Arc<Caller>,
    sources: &Arc<Sources>,
) -> Result<Injection, Denial> {
    check_query(choice, request.target.ok().and_then(|target| target.query))?;
    check_whole(choice, request)?;
    let mut outgoing = Outgoing::new(request, authority, &choice.server_slots);
    if let Some(body) = body {
        outgoing.set_body(body);
    }
    let known = sources.secrets.known();
    leak::check_encoding(&outgoing, known, &choice.foreign_placeholders, guard)?;
    leak::check_secrets(&outgoing, known)?;
    leak::check_placeholders(&outgoing, &choice.foreign_placeholders)?;
    let patterns = leak::check_patterns(&mut outgoing, guard)?.names().collect();
    let mut origins = Vec::new();
    let book = choice.gated.then(|| sources.secrets.state().get()).flatten().map(|state| &state.book);
    for turn in Turn::ALL {
        for binding in &choice.bindings {
            for credential in binding.credentials.iter().filter(|credential| credential.turn() == turn) {
                // Noted first: what is being had when the binding is stopped is dropped as well.
                if let Some(book) = book {
                    book.used().note(&binding.id, credential, caller);
                }
                let material = put(credential, &mut outgoing, caller, sources).await;
                let material = material.map_err(|error| denial(binding, &**credential, &error))?;
                leak::note(binding, credential, &material, Some(&caller.principal.key), known);
                for before in sources.secrets.former().note(&binding.id, credential, caller, &material) {
                    scrub(credential, before.expose(), &mut outgoing);
                }
                origins.extend_from_slice(material.origins());
            }
        }
    }
    let outgoing::Outcome { slots, scrub, target, body } = outgoing.finish();
    if body.is_some() && !request.from_filter {
        let cause = "a credential changes the body, which only Keyward's own filter can do";
        return Err(Denial::new(Stage::Credential, Reason::CredentialUnavailable, cause));
    }
    let mut injection = Injection { slots, scrub, target, body, origins, patterns, ..Injection::default() };
    remove_others(choice, &mut injection);
    Ok(injection)
}

/// Has one credential and applies it. Returns its material.
async fn put(
    credential: &Arc<dyn Credential>,
    outgoing: &mut Outgoing<'_>,
    caller: &Arc<Caller>,
    sources: &Arc<Sources>,
) -> Result<Arc<Material>, InjectError> {
    let material = sources.material(credential, caller).await?;
    for secret in material.secrets() {
        check_secret(secret.expose())?;
    }
    for value in material.scrub() {
        scrub(credential, value, outgoing);
    }
    credential.apply(&material, outgoing)?;
    Ok(material)
}

/// Takes a secret of this credential out of the answer, in whatever way it is written.
fn scrub(credential: &Arc<dyn Credential>, secret: &[u8], outgoing: &mut Outgoing<'_>) {
    outgoing.scrub(secret);
    decoded(credential, secret).iter().for_each(|form| outgoing.scrub(form.expose()));
}

/// What a secret of this credential, or of one of its parts, says besides; see [`Credential::decoded`].
pub(crate) fn decoded(credential: &Arc<dyn Credential>, secret: &[u8]) -> Vec<SecretBytes> {
    let own = credential.decoded(secret).filter(|form| check_secret(form.expose()).is_ok());
    own.into_iter().chain(credential.parts().iter().flat_map(|part| decoded(part, secret))).collect()
}

/// Whether a credential can be had and applied now, to a request without anything particular. Nothing leaves.
///
/// # Errors
/// Why not.
pub async fn try_out(
    credential: &Arc<dyn Credential>,
    caller: &Arc<Caller>,
    sources: &Arc<Sources>,
) -> Result<(), InjectError> {
    let mut outgoing = Outgoing::plain("POST", "https", "upstream.invalid", "/", b"");
    match put(credential, &mut outgoing, caller, sources).await {
        // That request was made up.
        Ok(_) | Err(InjectError::Apply(CredentialError::Request(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Refuses a request of which only a part is here where a credential reads the whole of it.
fn check_whole(choice: &Choice, request: &Request<'_>) -> Result<(), Denial> {
    let reads =
        |credential: &Arc<dyn Credential>| credential.turn() == Turn::Sign || !credential.placeholders().is_empty();
    if !choice.bindings.iter().flat_map(|binding| &binding.credentials).any(reads) {
        return Ok(());
    }
    request.check_body(usize::MAX).map_err(|_| {
        let cause = "the request did not arrive whole, so that it can be neither signed nor changed";
        Denial::new(Stage::Credential, Reason::InvalidRequest, cause)
    })
}

/// Refuses a secret that cannot be scrubbed: too short to be found without false alarms, or so uniform that it is found
/// everywhere.
pub(crate) fn check_secret(secret: &[u8]) -> Result<(), CredentialError> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(CredentialError::TooShort);
    }
    if secret.iter().collect::<std::collections::BTreeSet<_>>().len() < MIN_DISTINCT_BYTES {
        return Err(CredentialError::TooUniform);
    }
    Ok(())
}

fn denial(binding: &Binding, credential: &dyn Credential, error: &InjectError) -> Denial {
    let cause = format!("binding `{}`: {error}", binding.id);
    let reason = match error {
        InjectError::Mint(MintError { kind: MintErrorKind::Consent, .. }) => {
            return Denial::new(Stage::Credential, Reason::ConsentRequired, cause).at_provider(credential.provider());
        }
        InjectError::Apply(CredentialError::Request(_)) => Reason::InvalidRequest,
        InjectError::Mint(_) | InjectError::Apply(_) => Reason::CredentialUnavailable,
    };
    Denial::new(Stage::Credential, reason, cause)
}

/// Removes what no client may send and every place of this server's credentials that is not filled now.
fn remove_others(choice: &Choice, injection: &mut Injection) {
    let filled = |name: &SlotName| injection.slots.iter().any(|slot| slot.name == *name);
    let let_through = |name: &str| {
        let mut passing = choice.bindings.iter().filter(|binding| binding.mode == Mode::Passthrough);
        passing.any(|binding: &Arc<Binding>| binding.passthrough.iter().any(|header| header.eq_ignore_ascii_case(name)))
    };
    let mut headers: Vec<String> = Vec::new();
    let mut parameters: Vec<String> = Vec::new();
    for name in STRIPPED_HEADERS {
        if !filled(&SlotName::Header(name.to_owned())) {
            headers.push(name.to_owned());
        }
    }
    for slot in &choice.server_slots {
        match slot {
            _ if filled(slot) => {}
            SlotName::Header(name) => {
                let name = name.to_ascii_lowercase();
                if !headers.contains(&name) && !let_through(&name) {
                    headers.push(name);
                }
            }
            // An exact target is without them already.
            SlotName::Query(_) if injection.target.is_some() => {}
            SlotName::Query(name) => parameters.push(name.clone()),
        }
    }
    injection.remove_headers = headers;
    injection.remove_query = parameters;
}

/// Refuses a query that names a credential's parameter in another spelling: Envoy compares raw names, an upstream decodes
/// them, splits at `;` or ignores case, and would read the client's value beside or instead of ours.
fn check_query(choice: &Choice, query: Option<&str>) -> Result<(), Denial> {
    let Some(query) = query else { return Ok(()) };
    for slot in &choice.server_slots {
        if let SlotName::Query(name) = slot
            && query::names_otherwise(query, name)
        {
            let cause = format!("the query names the {slot} in another spelling");
            return Err(Denial::new(Stage::Credential, Reason::InvalidRequest, cause));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
