//! A static credential in a header: a template with exactly one `{secret}`.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName};
use crate::caller::Caller;
use crate::config::{HeaderCredential, SecretSource};
use crate::freshness::Key;
use crate::sources::Sources;

/// What the template holds where the secret goes.
pub const PLACEHOLDER: &str = "{secret}";

/// The field of the material that the static kinds use.
pub(super) const SECRET: &str = "secret";

/// A header whose value is a secret out of a store.
#[derive(Clone, Debug)]
pub struct Header(pub HeaderCredential);

impl Credential for Header {
    fn kind(&self) -> &'static str {
        "header"
    }

    fn places(&self) -> Vec<SlotName> {
        vec![SlotName::Header(self.0.name.clone())]
    }

    fn references(&self) -> Vec<String> {
        vec![self.0.secret.reference.clone()]
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        fetch(self.0.secret.clone(), caller, sources)
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let secret = text(material)?;
        // The composed value holds the secret as it is: finding the secret finds it.
        outgoing.set_header(&self.0.name, &fill(&self.0.template, secret)?)
    }
}

/// The secret behind a source, as the material of a static kind.
pub(super) fn fetch(source: SecretSource, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
    Box::pin(async move { Ok(Material::new().stored(SECRET, &sources.secrets.get(&source, &caller).await?)) })
}

/// The secret as text.
pub(super) fn text(material: &Material) -> Result<&str, CredentialError> {
    let secret = material.get(SECRET).ok_or(CredentialError::Missing("secret"))?;
    std::str::from_utf8(secret).map_err(|_| CredentialError::NotUtf8)
}

/// The template with the secret in its place.
pub(super) fn fill(template: &str, secret: &str) -> Result<Zeroizing<String>, CredentialError> {
    let (before, after) = template.split_once(PLACEHOLDER).ok_or(CredentialError::Template)?;
    if after.contains(PLACEHOLDER) {
        return Err(CredentialError::Template);
    }
    // Exactly as long as needed: the buffer never moves, so no copy of the secret stays behind.
    let mut value = Zeroizing::new(String::with_capacity(template.len() + secret.len()));
    value.push_str(before);
    value.push_str(secret);
    value.push_str(after);
    Ok(value)
}

/// Refuses what could end the header, be trimmed or be read in two ways (RFC 9110, 5.5).
pub(super) fn check_value(value: &str) -> Result<(), CredentialError> {
    if value.chars().any(char::is_control) {
        return Err(CredentialError::Control);
    }
    if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        return Err(CredentialError::OuterSpace);
    }
    Ok(())
}
