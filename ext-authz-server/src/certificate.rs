//! A certificate chain and its key: whether they can be read, belong together and are in date.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::audit::record::rfc3339;
use crate::calendar::unix_secs;

/// The most certificates of one chain.
const MAX_CHAIN: usize = 16;
/// A kind of name (RFC 5280, appendix A.1), by the content of its object identifier.
const KINDS: [(&[u8], &str); 3] =
    [(&[0x55, 0x04, 0x03], "CN"), (&[0x55, 0x04, 0x0a], "O"), (&[0x55, 0x04, 0x0b], "OU")];

/// A chain and its key that may be used. No `Debug`: it holds a key.
pub struct Pair {
    /// Ready for a handshake.
    pub certified: Arc<CertifiedKey>,
    /// When the first certificate of the chain begins to be good.
    pub begins: SystemTime,
    /// When it ends.
    pub ends: SystemTime,
}

/// Why a chain and a key cannot be used. Holds nothing of either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a chain in PEM.
    #[error("the certificate cannot be read: {0}; write PEM, the certificate itself first")]
    Certificate(&'static str),
    /// Not a key in PEM.
    #[error("the key cannot be read; write an unencrypted key in PEM (PKCS #8, PKCS #1 or SEC 1)")]
    Key,
    /// A key of a kind that is not known.
    #[error("the key cannot be used; make one with RSA or P-256")]
    UnknownKey,
    /// Of two pairs.
    #[error("certificate and key do not belong together; write both of one pair")]
    Mismatch,
    /// In the future.
    #[error("the certificate is not good before {}; check the clock", rfc3339(*.0))]
    Early(SystemTime),
    /// In the past.
    #[error("the certificate has ended on {}; renew it", rfc3339(*.0))]
    Ended(SystemTime),
}

/// The algorithms of every handshake of the server's.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

// === impl Pair ===

impl Pair {
    /// A chain and a key in PEM, good at this moment.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(certificate: &[u8], key: &[u8], now: SystemTime) -> Result<Pair, CertificateError> {
        let chain = chain(certificate)?;
        let first = chain.first().ok_or(CertificateError::Certificate("there is none"))?;
        let unreadable = CertificateError::Certificate("one of them is no X.509 certificate");
        let (begins, ends) = validity(first).ok_or(unreadable.clone())?;
        if chain.iter().any(|certificate| validity(certificate).is_none()) {
            return Err(unreadable);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch,
            rustls::Error::InvalidCertificate(_) => unreadable,
            _ => CertificateError::UnknownKey,
        })?;
        let pair = Pair { certified: Arc::new(certified), begins, ends };
        pair.check(now)?;
        Ok(pair)
    }

    /// Whether it is in date.
    ///
    /// # Errors
    /// Not yet, or not any more.
    pub fn check(&self, now: SystemTime) -> Result<(), CertificateError> {
        if now < self.begins {
            return Err(CertificateError::Early(self.begins));
        }
        if now >= self.ends {
            return Err(CertificateError::Ended(self.ends));
        }
        Ok(())
    }

    /// When it ends, for people: the day, and how many are left.
    #[must_use]
    pub fn end(&self, now: SystemTime) -> String {
        let days = self.ends.duration_since(now).unwrap_or_default().as_secs() / 86_400;
        let end = rfc3339(self.ends);
        format!("the certificate ends on {}, in {days} days", end.get(..10).unwrap_or_default())
    }
}

/// The certificates of a PEM text, in order.
///
/// # Errors
/// It is no PEM, or too long.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MAX_CHAIN + 1).collect();
    let chain = chain.map_err(|_| CertificateError::Certificate("it is no PEM"))?;
    if chain.len() > MAX_CHAIN {
        return Err(CertificateError::Certificate("the chain is too long"));
    }
    Ok(chain)
}

/// From when to when a certificate is good (RFC 5280, 4.1.2.5).
fn validity(certificate: &[u8]) -> Option<(SystemTime, SystemTime)> {
    // After serial number, algorithm and issuer.
    let (kind, begins, rest) = element(field(certificate, 3)?)?;
    let begins = time(kind, begins)?;
    let (kind, ends, _) = element(rest)?;
    Some((begins, time(kind, ends)?))
}

/// The subject of a certificate (RFC 5280, 4.1.2.6): its common names, organisations and units.
pub(crate) fn subject(certificate: &[u8]) -> Option<String> {
    // After serial number, algorithm, issuer and validity.
    let mut names = field(certificate, 4)?;
    let mut shown = Vec::new();
    while !names.is_empty() {
        let (_, mut set, rest) = element(names)?;
        names = rest;
        while !set.is_empty() {
            let (_, name, rest) = element(set)?;
            set = rest;
            let (_, kind, value) = element(name)?;
            let (_, value, _) = element(value)?;
            if let Some((_, kind)) = KINDS.iter().find(|(own, _)| *own == kind) {
                shown.push(format!("{kind}={}", String::from_utf8_lossy(value)));
            }
        }
    }
    Some(shown.join(", "))
}

/// The content of the field of a certificate that stands after this many others.
fn field(certificate: &[u8], after: usize) -> Option<&[u8]> {
    let (_, signed, _) = element(certificate)?;
    let (_, mut fields, _) = element(signed)?;
    // The version stands in front where it is not 1.
    let version = usize::from(fields.first() == Some(&0xa0));
    for _ in 0..version + after {
        (_, _, fields) = element(fields)?;
    }
    let (_, content, _) = element(fields)?;
    Some(content)
}

/// The first element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        // The indefinite form does not occur in DER.
        0x81..=0x83 => {
            let (long, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (long.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// A UTCTime (`YYMMDDHHMMSSZ`) or a GeneralizedTime (`YYYYMMDDHHMMSSZ`).
fn time(kind: u8, text: &[u8]) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    let (year, rest) = match kind {
        0x17 => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year), rest)
        }
        _ => return None,
    };
    let parts: Vec<i64> = rest.chunks(2).map(number).collect();
    let &[month, day, hours, minutes, seconds] = parts.as_slice() else { return None };
    let secs = unix_secs(year, month, day, hours, minutes, seconds)?;
    // What began before 1970 has begun.
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(secs).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
