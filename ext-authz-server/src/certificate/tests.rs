use std::process::Command;

use super::*;
use crate::scratch::Scratch;

/// Two pairs, `one` and `two`, good for two days.
fn pairs() -> (Scratch, impl Fn(&str) -> Vec<u8>) {
    let dir = Scratch::new();
    for (name, key) in [("one", "ec"), ("two", "rsa")] {
        let options = if key == "ec" { "ec_paramgen_curve:P-256" } else { "rsa_keygen_bits:2048" };
        let subject = format!("/CN={name}");
        let (key_file, file) = (format!("{name}.key"), format!("{name}.pem"));
        let arguments =
            ["req", "-x509", "-newkey", key, "-pkeyopt", options, "-nodes", "-days", "2", "-subj", &subject];
        let mut openssl = Command::new("openssl");
        openssl.args(arguments).args(["-keyout", &key_file, "-out", &file]).current_dir(dir.path());
        assert!(openssl.output().unwrap().status.success());
    }
    let path = dir.path().to_owned();
    (dir, move |name: &str| std::fs::read(path.join(name)).unwrap())
}

fn refused(certificate: &[u8], key: &[u8], now: SystemTime) -> CertificateError {
    match Pair::read(certificate, key, now) {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

#[test]
fn a_pair_is_read_with_its_dates_and_one_that_is_none_is_refused() {
    let (_dir, file) = pairs();
    let now = SystemTime::now();
    let day = Duration::from_secs(86_400);
    for name in ["one", "two"] {
        let pair = Pair::read(&file(&format!("{name}.pem")), &file(&format!("{name}.key")), now).ok().unwrap();
        assert!(pair.begins <= now && pair.ends > now + day && pair.ends < now + 3 * day, "{name}");
        assert!(pair.end(now).ends_with("in 1 days"), "{}", pair.end(now));
        assert_eq!(pair.check(now + 3 * day), Err(CertificateError::Ended(pair.ends)));
    }
    let (certificate, key) = (file("one.pem"), file("one.key"));
    assert_eq!(refused(&certificate, &file("two.key"), now), CertificateError::Mismatch);
    assert!(matches!(refused(&certificate, &key, now + 3 * day), CertificateError::Ended(_)));
    assert!(matches!(refused(&certificate, &key, now - day), CertificateError::Early(_)));
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
