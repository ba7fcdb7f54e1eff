//! Secrets Manager and the Parameter Store as stores of other credentials, with their version stages.

use std::time::{Duration, Instant};

use keyward_tests::agent;
use keyward_tests::moto::{AccessKey, Moto, REGION};
use keyward_tests::stack::{Builder, Stack};
use serde_json::{Value, json};

use super::scene;
use crate::expect;

/// The demo stack whose API key comes from this reference.
fn builder(name: &str, moto: &Moto, gateway: &AccessKey, secret: Value) -> Builder {
    let endpoint = format!("http://{}", moto.address);
    Stack::builder(name)
        .variable("AWS_ACCESS_KEY_ID", &gateway.id)
        .variable("AWS_SECRET_ACCESS_KEY", &gateway.secret)
        .variable("AWS_EC2_METADATA_DISABLED", "true")
        .secret("database-password-1")
        .envoy(|envoy| envoy.plugin.push(("timeout_ms".to_owned(), json!(5000))))
        .config(|config| {
            let caching = json!({"refresh_secs": 1, "max_stale_secs": 3});
            config["stores"] = json!({
                "sm": {"type": "aws_secrets_manager", "region": REGION, "endpoint": endpoint, "caching": caching},
                "ssm": {"type": "aws_ssm", "region": REGION, "endpoint": endpoint, "caching": caching},
            });
            config["bindings"][0]["credentials"][0]["secret"] = secret;
        })
}

fn echo() -> keyward_tests::client::Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

/// What the upstream got as its key, at the next call.
async fn sent(stack: &Stack) -> String {
    let _ = stack.send(echo()).await.unwrap();
    let last = stack.upstream.last().await.unwrap();
    let headers = last["headers"].as_array().unwrap();
    let own = headers.iter().find(|header| header[0] == "x-api-key").unwrap();
    own[1].as_str().unwrap().to_owned()
}

async fn wait_for(stack: &Stack, expected: &str) {
    let started = Instant::now();
    loop {
        let now = sent(stack).await;
        if now == expected {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(15), "still `{now}`");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn secret_string(moto: &Moto, action: &str, body: Value) {
    moto.json("secretsmanager", &format!("secretsmanager.{action}"), &body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_secrets_manager_is_injected_and_rotates() {
    let (moto, gateway) = scene::prepared("aws-store").await;
    let stack = builder("aws-store", &moto, &gateway, json!({"ref": "sm://db"})).start().await.unwrap();
    expect::allowed(&stack, &stack.send(echo()).await.unwrap()).await;
    assert_eq!(sent(&stack).await, "database-password-1");
    // A new current version is taken up; the store is asked once per `refresh_secs`, not per call.
    secret_string(&moto, "PutSecretValue", json!({"SecretId": "db", "SecretString": "database-password-2"})).await;
    wait_for(&stack, "database-password-2").await;
    let written = stack.everything_written().await.unwrap();
    assert!(!written.contains("database-password") && !written.contains(&gateway.secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_chooses_the_stage() {
    let (moto, gateway) = scene::prepared("aws-stages").await;
    let json_secret = |value: &str| json!({"SecretId": "api", "SecretString": json!({"key": value}).to_string()});
    secret_string(&moto, "CreateSecret", json!({"Name": "api", "SecretString": r#"{"key":"version-one-key"}"#})).await;
    secret_string(&moto, "PutSecretValue", json_secret("version-two-key")).await;
    let mut pending = json_secret("version-three-key");
    pending["VersionStages"] = json!(["AWSPENDING"]);
    secret_string(&moto, "PutSecretValue", pending).await;
    let parameter =
        |value: &str| json!({"Name": "/api/key", "Type": "SecureString", "Value": value, "Overwrite": true});
    for value in ["parameter-one-key", "parameter-two-key"] {
        moto.json("ssm", "AmazonSSM.PutParameter", &parameter(value)).await.unwrap();
    }
    let mut stack = builder("aws-stages", &moto, &gateway, json!({"ref": "sm://db"})).start().await.unwrap();
    moto.enforce().await.unwrap();
    let cases = [
        (json!({"ref": "sm://api", "json_key": "key"}), "version-two-key"),
        (json!({"ref": "sm://api?stage=AWSCURRENT", "json_key": "key"}), "version-two-key"),
        (json!({"ref": "sm://api?stage=AWSPREVIOUS", "json_key": "key"}), "version-one-key"),
        (json!({"ref": "sm://api?stage=AWSPENDING", "json_key": "key"}), "version-three-key"),
        (json!({"ref": "ssm:///api/key"}), "parameter-two-key"),
        (json!({"ref": "ssm:///api/key?version=1"}), "parameter-one-key"),
        (json!({"ref": "ssm:///prod/db"}), "parameter-value-1"),
    ];
    for (source, expected) in cases {
        println!("{source}");
        stack.change_config(|config| config["bindings"][0]["credentials"][0]["secret"] = source).unwrap();
        wait_for(&stack, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_allowed_denies() {
    let (moto, _) = scene::prepared("aws-store-denied").await;
    let stranger = moto.user("stranger", &scene::allow(&["s3:*"])).await.unwrap();
    let stack = builder("aws-store-denied", &moto, &stranger, json!({"ref": "sm://db"})).start().await.unwrap();
    moto.enforce().await.unwrap();
    let answer = stack.send(echo()).await.unwrap();
    let decision = expect::denied(&stack, &answer, keyward_contract::reason::Reason::CredentialUnavailable, 1).await;
    let record = stack.server.decision(&decision).await.unwrap().to_string();
    assert!(record.contains("secretsmanager:GetSecretValue"), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_bridged_for_as_long_as_configured_and_then_denies() {
    let (mut moto, gateway) = scene::prepared("aws-outage").await;
    let stack = builder("aws-outage", &moto, &gateway, json!({"ref": "ssm:///prod/db"})).start().await.unwrap();
    assert_eq!(sent(&stack).await, "parameter-value-1");
    moto.process.stop(Duration::from_secs(5));
    let stopped = Instant::now();
    assert_eq!(sent(&stack).await, "parameter-value-1");
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        if stack.upstream.count().await.unwrap() == 0 {
            expect::denied(&stack, &answer, keyward_contract::reason::Reason::CredentialUnavailable, 1).await;
            return;
        }
        assert!(stopped.elapsed() < Duration::from_secs(20), "a stale secret is still in use");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
