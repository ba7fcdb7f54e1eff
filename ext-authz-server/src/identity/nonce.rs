//! Nonces for proofs of possession (RFC 9449 section 9) that need no memory: a span of time under a key.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

/// How long one nonce is given out, in seconds; it is accepted for as long again.
pub(super) const SPAN_SECS: u64 = 120;
/// The shortest key that an operator may give, in bytes.
pub(super) const MIN_KEY_BYTES: usize = 32;
/// The bytes of the authenticator that are kept.
const MAC_BYTES: usize = 16;

/// The key that this process makes where none is configured. No `Debug`: it is a secret.
#[derive(Default)]
pub(super) struct OwnKey(OnceLock<[u8; 32]>);

// === impl OwnKey ===

impl OwnKey {
    /// The key; `None` where the system has no randomness.
    pub(super) fn get(&self) -> Option<&[u8; 32]> {
        if self.0.get().is_none() {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).ok()?;
            // Whoever was first made it for all.
            let _ = self.0.set(bytes);
        }
        self.0.get()
    }
}

/// The nonce for now.
pub(super) fn make(key: &[u8], unix_secs: u64) -> String {
    of_span(key, unix_secs / SPAN_SECS)
}

/// Whether it is the nonce of this span or the one before, or the next one's of a replica whose clock is ahead.
pub(super) fn is_fresh(key: &[u8], nonce: &str, unix_secs: u64) -> bool {
    let span = unix_secs / SPAN_SECS;
    let spans = [span.saturating_sub(1), span, span.saturating_add(1)];
    spans.iter().any(|span| of_span(key, *span).as_bytes().ct_eq(nonce.as_bytes()).into())
}

fn of_span(key: &[u8], span: u64) -> String {
    // HMAC takes keys of every length: the error type is shared with MACs that do not.
    let mut mac = <Hmac<Sha256>>::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
    mac.update(b"keyward dpop nonce\0");
    mac.update(&span.to_be_bytes());
    let mac = mac.finalize().into_bytes();
    let mut nonce = span.to_be_bytes().to_vec();
    nonce.extend(mac.iter().take(MAC_BYTES));
    URL_SAFE_NO_PAD.encode(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"a key of at least thirty-two bytes";
    const NOW: u64 = 1_785_240_000;

    #[test]
    fn a_nonce_serves_for_two_spans_and_under_its_key_only() {
        let nonce = make(KEY, NOW);
        for (later, fresh) in [(0, true), (SPAN_SECS, true), (2 * SPAN_SECS, false), (3 * SPAN_SECS, false)] {
            assert_eq!(is_fresh(KEY, &nonce, NOW + later), fresh, "{later}");
        }
        assert!(is_fresh(KEY, &nonce, NOW - SPAN_SECS), "the clock of a replica may be ahead");
        assert!(!is_fresh(KEY, &nonce, NOW - 2 * SPAN_SECS));
        assert!(!is_fresh(b"another key of thirty-two bytes!", &nonce, NOW));
        for other in ["", "x", &format!("{nonce}x"), &nonce.to_uppercase(), nonce.get(1..).unwrap()] {
            assert!(!is_fresh(KEY, other, NOW), "{other}");
        }
        assert_ne!(make(KEY, NOW), make(KEY, NOW + SPAN_SECS));
    }

    #[test]
    fn each_process_has_a_key_of_its_own() {
        let (one, two) = (OwnKey::default(), OwnKey::default());
        assert_eq!(one.get(), one.get());
        assert_ne!(one.get(), two.get());
    }
}
