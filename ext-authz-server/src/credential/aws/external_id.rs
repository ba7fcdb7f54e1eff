//! The external id of a tenant: what a role's trust policy demands, so that one tenant's role is never assumed for another
//! (IAM user guide, "The confused deputy problem"). It comes from configuration and the tenant, and from nothing in a request.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The shortest key to derive external ids with, in bytes.
pub const MIN_KEY_BYTES: usize = 32;
/// The shortest external id that a tenant may bring: shorter ones can be guessed.
pub const MIN_LISTED: usize = 16;
/// The longest that STS takes.
pub const MAX_LISTED: usize = 1224;

/// The tenant's external id under this key; `None` where the key is too short.
#[must_use]
pub fn derive(key: &[u8], tenant: &str) -> Option<String> {
    if key.len() < MIN_KEY_BYTES {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(b"keyward aws external id 1\0");
    mac.update(tenant.as_bytes());
    Some(format!("keyward-{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())))
}

/// Whether STS takes it and nobody guesses it: 16 to 1224 of `[\w+=,.@:/-]`.
#[must_use]
pub fn is_usable(external_id: &str) -> bool {
    (MIN_LISTED..=MAX_LISTED).contains(&external_id.len())
        && external_id.chars().all(|char| char.is_ascii_alphanumeric() || "_+=,.@:/-".contains(char))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tenant_has_its_own_under_each_key() {
        let key = [7; 32];
        let one = derive(&key, "acme").unwrap();
        assert_eq!(derive(&key, "acme").unwrap(), one);
        assert!(is_usable(&one) && one.len() == 51, "{one}");
        for other in ["Acme", "acme ", "acm", "acme\0", ""] {
            assert_ne!(derive(&key, other).unwrap(), one, "{other:?}");
        }
        assert_ne!(derive(&[8; 32], "acme").unwrap(), one);
        assert_eq!(derive(&[7; 31], "acme"), None);
    }

    #[test]
    fn a_short_or_foreign_one_is_not_usable() {
        assert!(is_usable("0123456789abcdef") && is_usable(&"x".repeat(1224)));
        for bad in ["0123456789abcde", "0123456789abcde*", "0123456789 abcdef", &"x".repeat(1225)] {
            assert!(!is_usable(bad), "{bad}");
        }
    }
}
