//! Who asks for a key, as the connection shows it; for the audit trail.

use std::net::SocketAddr;

use sha2::{Digest as _, Sha256};
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

use crate::audit::record::bounded;

/// A kind of name (RFC 5280, appendix A.1), by the content of its object identifier.
const KINDS: [(&[u8], &str); 3] =
    [(&[0x55, 0x04, 0x03], "CN"), (&[0x55, 0x04, 0x0a], "O"), (&[0x55, 0x04, 0x0b], "OU")];

/// The subject and the SHA-256 of the peer's certificate; where it needs none, how it came here.
pub(super) fn peer<T>(request: &Request<T>) -> String {
    let certificates = request.peer_certs();
    if let Some(own) = certificates.as_ref().and_then(|chain| chain.first()) {
        return of_certificate(own.as_ref());
    }
    if request.extensions().get::<UdsConnectInfo>().is_some() {
        return "unix socket".to_owned();
    }
    match request.remote_addr() {
        Some(address) => of_address(address),
        None => "unknown".to_owned(),
    }
}

fn of_address(address: SocketAddr) -> String {
    if address.ip().to_canonical().is_loopback() { "loopback".to_owned() } else { address.ip().to_string() }
}

fn of_certificate(certificate: &[u8]) -> String {
    let digest: String = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    // The digest is first: it is never what a long subject would cut off.
    format!("sha256:{digest} {}", bounded(&subject(certificate).unwrap_or_default())).trim_end().to_owned()
}

/// The subject of a certificate (RFC 5280, 4.1.2.6): its common names, organisations and units.
fn subject(certificate: &[u8]) -> Option<String> {
    let (_, signed, _) = element(certificate)?;
    let (_, mut fields, _) = element(signed)?;
    // The version stands in front where it is not 1; then come serial number, algorithm, issuer and validity.
    let before = if fields.first() == Some(&0xa0) { 5 } else { 4 };
    for _ in 0..before {
        (_, _, fields) = element(fields)?;
    }
    let (_, mut names, _) = element(fields)?;
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

/// The first element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let mut length = usize::from(short);
    if short & 0x80 != 0 {
        let (long, after) = rest.split_at_checked(usize::from(short & 0x7f))?;
        if long.is_empty() || long.len() > 4 {
            return None;
        }
        length = long.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        rest = after;
    }
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of DER with this content.
    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82], length.as_slice(), content].concat()
    }

    fn name(kind: &[u8], value: &str) -> Vec<u8> {
        let pair = [der(0x06, kind), der(0x0c, value.as_bytes())].concat();
        der(0x31, &der(0x30, &pair))
    }

    fn certificate(names: &[Vec<u8>], version: bool) -> Vec<u8> {
        let mut fields = if version { vec![der(0xa0, &der(0x02, &[2]))] } else { Vec::new() };
        fields.extend([der(0x02, &[1]), der(0x30, &[]), der(0x30, &name(KINDS[0].0, "issuer")), der(0x30, &[])]);
        fields.push(der(0x30, &names.concat()));
        der(0x30, &der(0x30, &fields.concat()))
    }

    #[test]
    fn a_subject_is_read_and_a_broken_one_costs_nothing_but_itself() {
        let names = [name(KINDS[1].0, "Payments"), name(&[0x55, 0x04, 0x06], "CH"), name(KINDS[0].0, "envoy-1\n")];
        for version in [true, false] {
            let whole = certificate(&names, version);
            assert_eq!(subject(&whole).as_deref(), Some("O=Payments, CN=envoy-1\n"));
            let shown = of_certificate(&whole);
            assert!(shown.starts_with("sha256:") && shown.ends_with(" O=Payments, CN=envoy-1\u{fffd}"), "{shown}");
            for length in 0..whole.len() {
                assert_eq!(subject(&whole[..length]), None);
            }
        }
        assert_eq!(of_certificate(b"nothing").len(), "sha256:".len() + 64);
    }

    #[test]
    fn this_machine_is_told_from_another_one() {
        for (address, expected) in [
            ("127.0.0.1:1", "loopback"),
            ("[::1]:1", "loopback"),
            ("[::ffff:127.0.0.1]:1", "loopback"),
            ("10.1.2.3:4", "10.1.2.3"),
        ] {
            assert_eq!(of_address(address.parse().unwrap()), expected);
        }
    }
}
