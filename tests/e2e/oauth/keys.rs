//! Key pairs made on the spot: the private half as PEM, the public one as JWK; and what the latter verifies.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The private key as PEM (PKCS #8) and the public one as JWK.
pub(super) fn pair(algorithm: &str) -> (String, Value) {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match algorithm {
        "ES256" => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            let point = pair.public_key().as_ref();
            let (x, y) = (encode(&point[1..33]), encode(&point[33..65]));
            let jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "k", "x": x, "y": y});
            (pem(pair.to_pkcs8v1().unwrap().as_ref()), jwk)
        }
        "EdDSA" => {
            let pair = Ed25519KeyPair::generate().unwrap();
            let x = encode(pair.public_key().as_ref());
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k", "x": x});
            (pem(pair.to_pkcs8v1().unwrap().as_ref()), jwk)
        }
        _ => {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
            // PKCS #1 DER of a 2048-bit key: two headers and a zero byte, 256 bytes of modulus, the exponent 65537.
            let n = encode(&pair.public_key().as_ref()[9..265]);
            let jwk = json!({"kty": "RSA", "use": "sig", "alg": algorithm, "kid": "k", "n": n, "e": "AQAB"});
            (pem(AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap().as_ref()), jwk)
        }
    }
}

/// Header and claims of a JWT that the private half of this JWK signed as RS256; `None` for any other.
pub(super) fn verified(jwk: &Value, token: &str) -> Option<(Value, Value)> {
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let json = |text: &str| -> Option<Value> { serde_json::from_slice(&decode(text)?).ok() };
    let key = RsaPublicKeyComponents { n: decode(jwk["n"].as_str()?)?, e: decode(jwk["e"].as_str()?)? };
    let (signed, signature) = token.rsplit_once('.')?;
    key.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decode(signature)?).ok()?;
    let (header, claims) = signed.split_once('.')?;
    Some((json(header)?, json(claims)?))
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}
