//! AES-256-GCM with random nonces, and the keys that wrap other keys.

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::SealError;
use crate::hex::hex;
use crate::plan::Pending;

/// The first byte of everything that is sealed.
const FORMAT: u8 = 1;
/// The length of a nonce, in bytes.
const NONCE_BYTES: usize = 12;

/// A key that wraps data keys: a local one, or one that never leaves a key management service.
pub trait WrapKey: Send + Sync {
    /// The same for the same key, and another one for every other key.
    fn id(&self) -> &str;

    /// Wraps a data key; it opens with the same `bound_to` only.
    ///
    /// # Errors
    /// The key cannot be used now.
    fn wrap<'a>(&'a self, key: &'a [u8], bound_to: &'a [u8]) -> Pending<'a, Result<Vec<u8>, SealError>>;

    /// Opens what [`wrap`](Self::wrap) made.
    ///
    /// # Errors
    /// It was changed, or the key cannot be used now.
    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        bound_to: &'a [u8],
    ) -> Pending<'a, Result<Zeroizing<Vec<u8>>, SealError>>;
}

/// A key-encryption key in this process's memory, from any place a secret can come from.
pub struct LocalKey {
    id: String,
    aead: Aead,
}

/// AES-256-GCM under one key.
pub(super) struct Aead(RandomizedNonceKey);

// === impl LocalKey ===

impl LocalKey {
    /// The key of 32 bytes in base64; white space around it is not part of it.
    ///
    /// # Errors
    /// It is not 32 bytes in base64.
    pub fn parse(text: &[u8]) -> Result<LocalKey, SealError> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).map_err(|_| SealError::Key)?);
        if bytes.len() != 32 {
            return Err(SealError::Key);
        }
        let mut digest = Sha256::new();
        digest.update(b"keyward key-encryption key id\0");
        digest.update(&*bytes);
        let id = hex(digest.finalize().iter().take(8));
        Ok(LocalKey { id, aead: Aead::new(&bytes)? })
    }
}

impl WrapKey for LocalKey {
    fn id(&self) -> &str {
        &self.id
    }

    fn wrap<'a>(&'a self, key: &'a [u8], bound_to: &'a [u8]) -> Pending<'a, Result<Vec<u8>, SealError>> {
        Box::pin(std::future::ready(self.aead.seal(bound_to, key)))
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        bound_to: &'a [u8],
    ) -> Pending<'a, Result<Zeroizing<Vec<u8>>, SealError>> {
        Box::pin(std::future::ready(self.aead.open(bound_to, wrapped.to_vec())))
    }
}

// === impl Aead ===

impl Aead {
    pub(super) fn new(key: &[u8]) -> Result<Aead, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, key).map(Aead).map_err(|_| SealError::Key)
    }

    /// The format's number, a fresh nonce, the ciphertext and its tag.
    pub(super) fn seal(&self, associated: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
        // Encrypted in place; no plain copy is left behind by growth, and the buffer is ciphertext at the end.
        let mut text = Vec::with_capacity(value.len() + 16);
        text.extend_from_slice(value);
        let nonce =
            self.0.seal_in_place_append_tag(Aad::from(associated), &mut text).map_err(|_| SealError::Refused)?;
        let mut out = Vec::with_capacity(1 + NONCE_BYTES + text.len());
        out.push(FORMAT);
        out.extend_from_slice(nonce.as_ref());
        out.extend_from_slice(&text);
        Ok(out)
    }

    pub(super) fn open(&self, associated: &[u8], sealed: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let mut sealed = Zeroizing::new(sealed);
        let (head, text) = sealed.split_at_mut_checked(1 + NONCE_BYTES).ok_or(SealError::Refused)?;
        let (format, nonce) = head.split_first().ok_or(SealError::Refused)?;
        if *format != FORMAT {
            return Err(SealError::Refused);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Refused)?;
        let value = self.0.open_in_place(nonce, Aad::from(associated), text).map_err(|_| SealError::Refused)?;
        Ok(Zeroizing::new(value.to_vec()))
    }
}
