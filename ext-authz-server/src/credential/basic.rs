//! HTTP Basic authentication (RFC 7617): user name and password, UTF-8, in `authorization`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName, header};
use crate::caller::Caller;
use crate::config::BasicCredential;
use crate::freshness::Key;
use crate::sources::Sources;

/// The header that carries it.
pub const HEADER: &str = "authorization";

/// The field of the user name, where a store holds it.
const USERNAME: &str = "username";

/// A user name and a password out of a store.
#[derive(Clone, Debug)]
pub struct Basic(pub BasicCredential);

impl Credential for Basic {
    fn kind(&self) -> &'static str {
        "basic"
    }

    fn places(&self) -> Vec<SlotName> {
        vec![SlotName::Header(HEADER.to_owned())]
    }

    fn references(&self) -> Vec<String> {
        let names = self.0.username_secret.iter().map(|source| source.reference.clone());
        std::iter::once(self.0.secret.reference.clone()).chain(names).collect()
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        Box::pin(async move {
            let BasicCredential { username, username_secret, secret } = &self.0;
            let mut wanted = vec![secret];
            wanted.extend(username_secret);
            // Together: a name and a password of one lease must not be of two.
            let mut secrets = sources.secrets.get_all(&wanted, &caller).await?.into_iter();
            let mut material = Material::new();
            if let Some(password) = secrets.next() {
                material = material.stored(header::SECRET, &password);
            }
            if let Some(name) = secrets.next() {
                return Ok(material.plain(USERNAME, name.value.expose()));
            }
            Ok(material.plain(USERNAME, username.clone().unwrap_or_default()))
        })
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let password = header::text(material)?;
        let username = material.get(USERNAME).ok_or(CredentialError::Missing("user name"))?;
        let username = std::str::from_utf8(username).map_err(|_| CredentialError::NotUtf8)?;
        if username.contains(':') {
            return Err(CredentialError::UsernameColon);
        }
        if username.chars().chain(password.chars()).any(char::is_control) {
            return Err(CredentialError::Control);
        }
        let mut pair = Zeroizing::new(Vec::with_capacity(username.len() + 1 + password.len()));
        pair.extend_from_slice(username.as_bytes());
        pair.push(b':');
        pair.extend_from_slice(password.as_bytes());
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_slice()));
        let mut value = Zeroizing::new(String::with_capacity(6 + encoded.len()));
        value.push_str("Basic ");
        value.push_str(&encoded);
        // The pair before the encoding, and the encoding itself, which an upstream may echo.
        outgoing.scrub(&pair);
        outgoing.scrub(encoded.as_bytes());
        outgoing.set_header(HEADER, &value)
    }
}
