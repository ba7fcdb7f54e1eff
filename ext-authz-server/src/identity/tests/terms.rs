//! Scopes, bindings to keys, lifetimes and types of tokens.

use super::*;

#[tokio::test]
async fn a_token_names_its_scopes_and_what_it_is_bound_to() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    let thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    let principal = async |changes: Value| verify(&identity, &signer.token(&with(changes))).await;
    for (changes, expected) in [
        (json!({}), vec![]),
        (json!({"scope": "read write read"}), vec!["read", "write"]),
        (json!({"scp": ["read", "write"]}), vec!["read", "write"]),
        (json!({"scp": "read"}), vec!["read"]),
        (json!({"scope": "", "scp": "admin"}), vec![]),
    ] {
        assert_eq!(principal(changes.clone()).await.unwrap().scopes, expected, "{changes}");
    }
    assert_eq!(principal(json!({})).await.unwrap().token.confirmation, None);
    let bound = principal(json!({"cnf": {"jkt": thumbprint}})).await.unwrap();
    assert_eq!(bound.token.confirmation, Some(Confirmation::Jkt(thumbprint.into())));
    let bound = principal(json!({"cnf": {"x5t#S256": thumbprint}})).await.unwrap();
    assert_eq!(bound.token.confirmation, Some(Confirmation::X5tS256(thumbprint.into())));
    for (changes, expected) in [
        (json!({"scope": {"read": true}}), "claim `scope`"),
        (json!({"scp": ["read", 1]}), "claim `scope`"),
        (json!({"cnf": {}}), "bound in a way"),
        (json!({"cnf": thumbprint}), "bound in a way"),
        (json!({"cnf": {"jwk": {"kty": "EC"}}}), "bound in a way"),
        (json!({"cnf": {"jkt": thumbprint, "x5t#S256": thumbprint}}), "bound in a way"),
        (json!({"cnf": {"jkt": thumbprint, "kid": "1"}}), "bound in a way"),
        (json!({"cnf": {"jkt": "short"}}), "bound in a way"),
        (json!({"cnf": {"jkt": 7}}), "bound in a way"),
        (json!({"cnf": {"JKT": thumbprint}}), "bound in a way"),
    ] {
        let error = principal(changes.clone()).await.unwrap_err();
        assert!(error.contains(expected), "{changes}: {error}");
    }
}

#[tokio::test]
async fn an_issuer_can_bound_lifetimes_and_insist_on_access_tokens() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let strict = with_terms(&dir, &[signer.jwk()], |issuer| {
        issuer.max_lifetime_secs = Some(605);
        issuer.token_type = TokenType::AtJwt;
        issuer.bootstrap = true;
    });
    let principal = verify(&strict, &signer.token(&claims())).await.unwrap();
    assert!(principal.token.bootstrap);
    for (changes, expected) in [
        (json!({"exp": NOW + 601}), "lives longer"),
        (json!({"iat": null}), "claim `iat`"),
        (json!({"iat": NOW + 20, "exp": NOW + 700}), "lives longer"),
    ] {
        let error = verify(&strict, &signer.token(&with(changes.clone()))).await.unwrap_err();
        assert!(error.contains(expected), "{changes}: {error}");
    }
    let payload = claims().to_string();
    for typ in [r#","typ":"JWT""#, r#","typ":"application/jwt""#, r#","typ":"oauth-id-jag+jwt""#, ""] {
        let token = signer.sign(&format!(r#"{{"alg":"ES256","kid":"one"{typ}}}"#), &payload);
        let error = verify(&strict, &token).await.unwrap_err();
        assert!(error.contains("its type"), "{typ}: {error}");
    }
    let token = signer.sign(r#"{"alg":"ES256","kid":"one","typ":"application/at+jwt"}"#, &payload);
    verify(&strict, &token).await.unwrap();
}

#[tokio::test]
async fn an_identity_assertion_is_no_access_token() {
    let (dir, signer) = (Scratch::new(), Signer::new("one"));
    let identity = identity(&dir, &[signer.jwk()]);
    for typ in ["oauth-id-jag+jwt", "application/oauth-id-jag+jwt", "OAUTH-ID-JAG+JWT"] {
        let header = json!({"alg": "ES256", "kid": "one", "typ": typ}).to_string();
        let error = verify(&identity, &signer.sign(&header, &claims().to_string())).await.unwrap_err();
        assert!(error.contains("its type"), "{typ}: {error}");
    }
}
