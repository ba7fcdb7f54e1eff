//! Keyed digests: equal arguments can be recognised in the audit trail by whoever holds the key, and read by nobody.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::hex::hex;

/// HMAC-SHA256 (RFC 2104) under the audit key, which is one for all clones.
#[derive(Clone)]
pub struct Digester {
    keyed: Arc<ArcSwap<Hmac<Sha256>>>,
}

// === impl Digester ===

impl Digester {
    /// A digester under `key`. Any length is accepted; 32 random bytes are right.
    #[must_use]
    pub fn new(key: &[u8]) -> Digester {
        Digester { keyed: Arc::new(ArcSwap::from_pointee(keyed(key))) }
    }

    /// Uses another key from now on, in all clones.
    pub fn replace(&self, key: &[u8]) {
        self.keyed.store(Arc::new(keyed(key)));
    }

    /// A digester for one tenant, so that nobody who holds the records of two can tell that both asked for the same. Its key is
    /// HKDF-Expand of the audit key (RFC 5869, 2.3).
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Digester {
        let mut mac = Hmac::clone(&self.keyed.load());
        mac.update(b"keyward audit tenant\0");
        mac.update(tenant.as_bytes());
        mac.update(&[1]);
        Digester::new(&mac.finalize().into_bytes())
    }

    /// The digest of `bytes` as `hmac-sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> String {
        let mut mac = Hmac::clone(&self.keyed.load());
        mac.update(bytes);
        format!("hmac-sha256:{}", hex(&mac.finalize().into_bytes()))
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    // HMAC takes keys of every length: the error type is shared with MACs that do not.
    Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_have_keys_of_their_own_which_follow_the_audit_key() {
        let digester = Digester::new(b"an audit key of some bytes");
        let (one, two) = (digester.of_tenant("acme"), digester.of_tenant("zeta"));
        let digests = [&digester, &one, &two].map(|digester| digester.digest(b"{}"));
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
        assert_eq!(one.digest(b"{}"), digester.of_tenant("acme").digest(b"{}"));
        digester.replace(b"another audit key");
        assert_ne!(one.digest(b"{}"), digester.of_tenant("acme").digest(b"{}"));
    }

    #[test]
    fn gives_the_digest_of_rfc_4231_test_case_2() {
        assert_eq!(
            Digester::new(b"Jefe").digest(b"what do ya want for nothing?"),
            "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
