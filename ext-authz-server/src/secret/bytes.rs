//! Bytes that stay in: no Debug, no Display, no Serialize, wiped on drop, compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// A secret value.
pub struct SecretBytes(SecretSlice<u8>);

// === impl SecretBytes ===

impl SecretBytes {
    /// Takes the bytes; they are wiped when this is dropped.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> SecretBytes {
        // A boxed slice of the exact length: shrinking in place could leave a copy behind in the old allocation.
        let exact: Box<[u8]> = bytes.as_slice().into();
        zeroize::Zeroize::zeroize(&mut bytes);
        SecretBytes(SecretSlice::from(exact))
    }

    /// The bytes. Every caller is a place to review.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// The length, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.expose().len()
    }

    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }

    /// Whether both are the same, in time that depends on the lengths only.
    #[must_use]
    pub fn ct_eq(&self, other: &SecretBytes) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }

    /// 96 bits of HMAC-SHA-256 under `key`, base64url: tells two versions apart in an audit trail, and no more.
    #[must_use]
    pub fn fingerprint(&self, key: &SecretBytes) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else { return String::new() };
        mac.update(self.expose());
        let digest = mac.finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(digest.get(..12).unwrap_or_default())
    }
}
