//! Who asks for a key, as the connection shows it; for the audit trail.

use std::net::SocketAddr;

use sha2::{Digest as _, Sha256};
use tonic::Request;
use tonic::transport::server::UdsConnectInfo;

use crate::audit::record::bounded;
use crate::certificate::subject;
use crate::hex::hex;

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
    let digest = hex(&Sha256::digest(certificate));
    // The digest is first: it is never what a long subject would cut off.
    format!("sha256:{digest} {}", bounded(&subject(certificate).unwrap_or_default())).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const COUNTRY: &[u8] = &[0x55, 0x04, 0x06];
    const ORGANISATION: &[u8] = &[0x55, 0x04, 0x0a];

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
        fields.extend([der(0x02, &[1]), der(0x30, &[]), der(0x30, &name(COMMON_NAME, "issuer")), der(0x30, &[])]);
        fields.push(der(0x30, &names.concat()));
        der(0x30, &der(0x30, &fields.concat()))
    }

    #[test]
    fn a_subject_is_read_and_a_broken_one_costs_nothing_but_itself() {
        let names = [name(ORGANISATION, "Payments"), name(COUNTRY, "CH"), name(COMMON_NAME, "envoy-1\n")];
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
