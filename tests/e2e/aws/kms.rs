//! A key of KMS as the key-encryption key of what Keyward keeps.

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::moto::{AccessKey, Moto};
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, Stack};
use serde_json::{Value, json};

use super::scene;
use crate::expect;

const LOCAL_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A stack whose API key is kept by Keyward itself, sealed under these keys.
fn builder(name: &str, moto: &Moto, identity: &AccessKey, keys: Value) -> Builder {
    Stack::builder(name)
        .variable("AWS_ACCESS_KEY_ID", &identity.id)
        .variable("AWS_SECRET_ACCESS_KEY", &identity.secret)
        .variable("AWS_EC2_METADATA_DISABLED", "true")
        .variable("AWS_ENDPOINT_URL_KMS", &format!("http://{}", moto.address))
        .variable("LOCAL_KEY", LOCAL_KEY)
        .envoy(|envoy| envoy.plugin.push(("timeout_ms".to_owned(), json!(5000))))
        .config(|config| {
            config["database"] = json!({"encryption_keys": keys});
            config["bindings"][0]["credentials"][0]["secret"] = json!({"ref": "keyward://team/desk"});
        })
}

fn echo() -> keyward_tests::client::Request {
    agent::tool_call(1, "echo", json!({"message": "hello"}))
}

fn run(stack: &Stack, arguments: &[&str], input: &str) -> (bool, String) {
    let config = stack.folder.join("keyward.yaml");
    let config = config.to_str().unwrap();
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--config", config]).collect();
    let output = Server::run_with_input(&arguments, stack.variables(), input).unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

async fn served(stack: &Stack) {
    let started = Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = stack.send(echo()).await.unwrap();
        if answer.result().is_ok() {
            expect::allowed(stack, &answer).await;
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(15), "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// What KMS was asked to do.
async fn asked(moto: &Moto, action: &str) -> Vec<Value> {
    let target = format!("TrentService.{action}");
    let received = moto.received().await.unwrap().into_iter();
    received
        .filter(|request| request["headers"]["x-amz-target"] == target.as_str())
        .map(|request| serde_json::from_str(request["body"].as_str().unwrap()).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn data_keys_are_wrapped_by_kms_and_bound_to_their_place() {
    let (moto, gateway) = scene::prepared("aws-kms").await;
    let sealing = moto.user("sealing", &scene::allow(&["kms:Encrypt", "kms:Decrypt"])).await.unwrap();
    let made = moto.json("kms", "TrentService.CreateKey", &json!({})).await.unwrap();
    let arn = made["KeyMetadata"]["Arn"].as_str().unwrap();
    let kms = json!({"ref": format!("aws-kms://{arn}")});
    moto.enforce().await.unwrap();

    // From a local key to one of KMS, after which the local one can go.
    let mut stack = builder("aws-kms", &moto, &sealing, json!([{"ref": "env://LOCAL_KEY"}])).start().await.unwrap();
    let secret = stack.secret.clone();
    let (done, said) = run(&stack, &["secrets", "put", "team/desk"], &secret);
    assert!(done, "{said}");
    served(&stack).await;
    assert!(asked(&moto, "Encrypt").await.is_empty());
    stack
        .change_config(|config| config["database"]["encryption_keys"] = json!([kms, {"ref": "env://LOCAL_KEY"}]))
        .unwrap();
    let (done, said) = run(&stack, &["keys", "rotate"], "");
    assert!(done, "{said}");
    stack.change_config(|config| config["database"]["encryption_keys"] = json!([kms])).unwrap();
    stack.restart_server().unwrap();
    served(&stack).await;
    let wrapped = asked(&moto, "Encrypt").await;
    assert!(!wrapped.is_empty());
    for request in wrapped.iter().chain(&asked(&moto, "Decrypt").await) {
        assert_eq!(request["KeyId"], arn);
        assert!(!request["EncryptionContext"]["keyward"].as_str().unwrap().is_empty(), "it is bound to nothing");
    }
    let (done, said) = run(&stack, &["doctor"], "");
    assert!(done && said.contains("data keys can be opened"), "{said}");
    let written = stack.everything_written().await.unwrap();
    assert!(!written.contains(&sealing.secret) && !written.contains(LOCAL_KEY));

    // Who may not use the key opens nothing, and an operator is told what is missing.
    let refused = builder("aws-kms-refused", &moto, &gateway, json!([kms])).start().await.unwrap();
    let (done, said) = run(&refused, &["secrets", "put", "team/desk"], &refused.secret);
    assert!(!done && said.contains("kms:Encrypt"), "{said}");
    let answer = refused.send(echo()).await.unwrap();
    expect::denied(&refused, &answer, Reason::CredentialUnavailable, 1).await;
}
