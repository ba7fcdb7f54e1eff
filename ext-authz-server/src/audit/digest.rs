//! Keyed digests: equal arguments can be recognised in the audit trail by whoever holds the key, and read by nobody.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// HMAC-SHA256 (RFC 2104) under the audit key.
#[derive(Clone)]
pub struct Digester {
    keyed: Hmac<Sha256>,
}

// === impl Digester ===

impl Digester {
    /// A digester under `key`. Any length is accepted; 32 random bytes are right.
    #[must_use]
    pub fn new(key: &[u8]) -> Digester {
        // HMAC takes keys of every length: the error type is shared with MACs that do not.
        let keyed = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
        Digester { keyed }
    }

    /// The digest of `bytes` as `hmac-sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> String {
        let mut mac = self.keyed.clone();
        mac.update(bytes);
        let mut text = String::with_capacity(76);
        text.push_str("hmac-sha256:");
        for byte in mac.finalize().into_bytes() {
            for digit in [byte >> 4, byte & 15] {
                text.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_digest_of_rfc_4231_test_case_2() {
        assert_eq!(
            Digester::new(b"Jefe").digest(b"what do ya want for nothing?"),
            "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
