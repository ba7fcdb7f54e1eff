//! Without a good token nothing goes.

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::issuer::{Algorithm, Issuer, Token};
use keyward_tests::stack::{ROLE, SUBJECT, Stack};
use serde_json::{Value, json};

use crate::expect;

fn honest() -> Token {
    Token::new(SUBJECT, &[ROLE])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_gets_a_challenge() {
    let stack = Stack::builder("deny-no-token").start().await.unwrap();
    let answer = stack.send_bare(agent::tool_call(7, "echo", json!({"message": "hello"}))).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::Unauthenticated, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_of_another_kind_are_no_token() {
    let stack = Stack::builder("deny-other-credentials").start().await.unwrap();
    let basic = "Basic YWxpY2U6cGFzc3dvcmQ=";
    let call = || agent::tool_call("a", "echo", json!({"message": "hello"}));
    let answer = stack.send_bare(call().header("authorization", basic)).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::Unauthenticated, "a").await;

    let answer = stack.send_bare(call().header("x-api-key", &stack.secret)).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::Unauthenticated, "a").await;

    // Two tokens in one request: which one would a later reader take?
    let answer = stack.send_bare(call().bearer(&stack.token).bearer("other")).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::InvalidToken, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_token_is_refused() {
    let stack = Stack::builder("deny-hostile-tokens").start().await.unwrap();
    let stranger = Issuer::new().unwrap();
    let sign = |token: Token| stack.issuer.sign(&token).unwrap();
    let cases: Vec<(&str, String)> = vec![
        ("bad signature", sign(honest().broken_signature())),
        ("signed by a stranger under a known key id", stranger.sign(&honest()).unwrap()),
        ("alg none", sign(honest().algorithm(Algorithm::None))),
        ("HS256 with the public key", sign(honest().algorithm(Algorithm::Hs256WithPublicKey))),
        ("key of another algorithm", sign(honest().key_id("rs256"))),
        ("unknown key id", sign(honest().key_id("nobody"))),
        ("wrong audience", sign(honest().claim("aud", "https://other.example/mcp"))),
        ("no audience", sign(honest().claim("aud", Value::Null))),
        ("empty list of audiences", sign(honest().claim("aud", json!([])))),
        ("wrong issuer", sign(honest().claim("iss", "https://evil.example"))),
        ("no issuer", sign(honest().claim("iss", Value::Null))),
        ("expired", sign(honest().lifetime(-7200, -3600))),
        ("no expiry", sign(honest().claim("exp", Value::Null))),
        ("expiry that is text", sign(honest().claim("exp", "9999999999"))),
        ("not valid yet", sign(honest().lifetime(3600, 7200))),
        ("no subject", sign(honest().claim("sub", Value::Null))),
        ("empty subject", sign(honest().claim("sub", ""))),
        ("subject that is a list", sign(honest().claim("sub", json!([SUBJECT])))),
        ("not a token", "abc".to_owned()),
        ("two parts", "YQ.YQ".to_owned()),
        ("longer than the limit", format!("{}.{}", sign(honest()), "A".repeat(16 * 1024))),
    ];
    for (case, token) in cases {
        let call = agent::tool_call(case, "echo", json!({"message": "hello"})).bearer(&token);
        let answer = stack.send_bare(call).await.unwrap();
        eprintln!("{case}: {} {}", answer.status, answer.text());
        expect::unauthenticated(&stack, &answer, Reason::InvalidToken, case).await;
        assert!(!answer.text().contains(&token), "{case}: the answer repeats the token");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn honest_tokens_of_every_configured_algorithm_pass() {
    let stack = Stack::builder("deny-honest-tokens").start().await.unwrap();
    for algorithm in [Algorithm::Es256, Algorithm::Rs256, Algorithm::EdDsa] {
        let token = stack.issuer.sign(&honest().algorithm(algorithm)).unwrap();
        let call = agent::tool_call(1, "echo", json!({"message": "hello"})).bearer(&token);
        let answer = stack.send_bare(call).await.unwrap();
        expect::allowed(&stack, &answer).await;
        stack.upstream.reset().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_never_comes_from_a_header_that_a_client_can_set() {
    let stack = Stack::builder("deny-spoofed-identity").start().await.unwrap();
    let mut call = agent::tool_call(1, "echo", json!({"message": "hello"}));
    for name in [
        "x-forwarded-user",
        "x-auth-request-user",
        "x-keyward-principal",
        "x-jwt-payload",
        "x-forwarded-authorization",
        "x-authorization",
        "x-forwarded-client-cert",
    ] {
        call = call.header(name, format!("Bearer {}", stack.token));
    }
    let answer = stack.send_bare(call).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::Unauthenticated, 1).await;
}
