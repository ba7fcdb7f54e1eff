use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate and its key, good for two days.
fn pair(kind: &'static SignatureAlgorithm) -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate_for(kind).unwrap();
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    (params.not_before, params.not_after) = (now.into(), (now + 2 * DAY).into());
    (params.self_signed(&key).unwrap().pem().into_bytes(), key.serialize_pem().into_bytes())
}

fn refused(certificate: &[u8], key: &[u8], now: SystemTime) -> CertificateError {
    match Pair::read(certificate, key, now) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

#[test]
fn a_pair_is_read_with_its_dates_and_one_that_is_none_is_refused() {
    let (one, two) = (pair(&PKCS_ECDSA_P256_SHA256), pair(&PKCS_RSA_SHA256));
    let now = SystemTime::now();
    for (name, (certificate, key)) in [("one", &one), ("two", &two)] {
        let pair = Pair::read(certificate, key, now).ok().unwrap();
        assert!(pair.begins <= now && pair.ends > now + DAY && pair.ends < now + 3 * DAY, "{name}");
        assert!(pair.end(now).ends_with("in 1 days"), "{}", pair.end(now));
        assert_eq!(pair.check(now + 3 * DAY), Err(CertificateError::Ended(pair.ends)));
    }
    let (certificate, key) = one;
    assert_eq!(refused(&certificate, &two.1, now), CertificateError::Mismatch);
    assert!(matches!(refused(&certificate, &key, now + 3 * DAY), CertificateError::Ended(_)));
    assert!(matches!(refused(&certificate, &key, now - DAY), CertificateError::Early(_)));
    assert_eq!(refused(&certificate, b"", now), CertificateError::Key);
    assert_eq!(refused(&certificate, &certificate, now), CertificateError::Key);
    for bad in [&b""[..], b"marked-value", &key, &certificate[..certificate.len() / 2]] {
        let error = refused(bad, &key, now);
        assert!(matches!(error, CertificateError::Certificate(_)) && !error.to_string().contains("marked"), "{error}");
    }
    let nothing = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for bad in [nothing.to_vec(), [&certificate[..], nothing].concat()] {
        assert!(matches!(refused(&bad, &key, now), CertificateError::Certificate(_)));
    }
}

#[test]
fn dates_of_both_forms_are_read() {
    let read = |kind, text: &str| {
        time(kind, text.as_bytes()).map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    };
    assert_eq!(read(0x17, "941106084937Z"), Some(784_111_777));
    assert_eq!(read(0x17, "240229120000Z"), Some(1_709_208_000));
    assert_eq!(read(0x18, "99991231235959Z"), Some(253_402_300_799));
    for (kind, text) in
        [(0x17, "2402291200Z"), (0x17, "240229120000"), (0x18, "x9991231235959Z"), (0x04, "941106084937Z")]
    {
        assert_eq!(read(kind, text), None, "{text}");
    }
}
