//! Certificates of a test's own.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm,
};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(crate) certificate: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = params("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { certificate: issuer.pem(), issuer }
    }

    /// A pair with P-256 of this common name, for `name` as a host, too.
    pub(crate) fn pair(&self, name: &str) -> Pair {
        self.pair_with(&params(name), &PKCS_ECDSA_P256_SHA256)
    }

    /// A pair with another kind of key, or with other names.
    pub(crate) fn pair_with(&self, params: &CertificateParams, kind: &'static SignatureAlgorithm) -> Pair {
        let key = key(kind);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// What a certificate of this common name says, for `name` as a host, too; it is good for two days.
pub(crate) fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    let now = SystemTime::now();
    (params.not_before, params.not_after) = (now.into(), (now + Duration::from_secs(2 * 86_400)).into());
    params
}

fn key(kind: &'static SignatureAlgorithm) -> KeyPair {
    if kind == &PKCS_ED25519 {
        // `rcgen` writes version 2 of PKCS #8 for this kind, which Envoy's BoringSSL does not read.
        let key = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        return KeyPair::try_from(key.as_ref()).unwrap();
    }
    KeyPair::generate_for(kind).unwrap()
}
