//! The JWS cases of others.

use super::*;

/// Project Wycheproof's JWS cases against the same reading and verifying that serves. Their payloads are not claims, so
/// this stops at the signature.
#[test]
fn wycheproof_json_web_signature() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/vectors/wycheproof_json_web_signature_test.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("SKIPPED: no Wycheproof vectors at ../shared/vectors");
        return;
    };
    let suite: Value = serde_json::from_str(&text).unwrap();
    let every = [
        Algorithm::ES256,
        Algorithm::ES384,
        Algorithm::EdDSA,
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    let (mut cases, mut accepted, mut hostile, mut refused) = (0, 0, 0, Vec::new());
    for group in suite["testGroups"].as_array().unwrap() {
        let jwk = group.get("public").unwrap_or(&group["private"]);
        let keys = key::KeySet::parse(json!({"keys": [jwk]}).to_string().as_bytes(), &every).unwrap_or_default();
        for case in group["tests"].as_array().unwrap() {
            cases += 1;
            let token = case["jws"].as_str().unwrap_or_default();
            let result = Unverified::read(token, 65536).and_then(|read| {
                assert!(read.payload().len() <= token.len());
                read.verify(&keys)
            });
            match (case["result"].as_str().unwrap(), result) {
                ("valid" | "acceptable", Ok(())) => accepted += 1,
                ("invalid", Err(_)) => hostile += 1,
                (_, Ok(())) => panic!("accepted: {case}"),
                (_, Err(error)) => {
                    let algorithm = jwk["alg"].as_str().or(jwk["kty"].as_str()).unwrap_or("?");
                    refused.push(format!("{algorithm} {} {error}", case["comment"].as_str().unwrap()));
                }
            }
        }
    }
    assert_eq!((cases, accepted + hostile + refused.len()), (401, 401));
    assert_eq!((accepted, hostile), (32, 355), "besides 14 that are valid and refused on purpose");
    // Valid, and refused on purpose: the HMAC family; P-521 (whose key names an algorithm that does not exist); a key made
    // for PS256 under a PS384 signature.
    refused.retain(|case| !case.starts_with("HS256 "));
    refused.sort();
    refused.dedup();
    let expected = [
        "ES521 Figure27 its algorithm is not accepted",
        "PS256 Figure20 no key of the issuer has its key id and algorithm",
    ];
    assert_eq!(refused, expected);
}
