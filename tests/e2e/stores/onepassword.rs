//! 1Password Connect: vaults, items, sections and fields by name or id.

use std::time::Duration;

use keyward_tests::stores::{Kind, Store};
use serde_json::{Value, json};

use super::{builder, caching, call, call_until, denied, echo, received, written_nowhere};

const TOKEN: &str = "canary-connect-token-31ee";

async fn connect(test: &str) -> (Store, Value) {
    let store = Store::start(Kind::OnePassword, test).unwrap();
    store.tell("token", json!({"token": TOKEN, "vaults": ["Gateways"]})).await.unwrap();
    let ids = put(&store, "Gateways", "canary-value-in-connect").await;
    put(&store, "Private", "canary-private-in-connect").await;
    (store, ids)
}

async fn put(store: &Store, vault: &str, value: &str) -> Value {
    let fields = json!([
        [null, "password", value],
        ["prod", "key", "canary-prod-in-connect"],
        ["test", "key", "canary-test-in-connect"]
    ]);
    store.tell("put", json!({"vault": vault, "item": "Jira \"main\"", "fields": fields})).await.unwrap()
}

fn configured(store: &Store) -> Value {
    json!({"op": {"type": "onepassword", "address": store.url(), "caching": caching(), "token": {"ref": "env://OP_TOKEN"}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_found_by_name_or_id_and_follow_the_item() {
    let (store, ids) = connect("stores-onepassword").await;
    let by_id = format!("op://{}/{}/password", ids[0].as_str().unwrap(), ids[1].as_str().unwrap());
    let headers = [
        ("x-key", json!({"ref": "op://Gateways/Jira \"main\"/password"})),
        ("x-prod", json!({"ref": "op://Gateways/Jira \"main\"/prod/key"})),
        ("x-by-id", json!({"ref": by_id})),
    ];
    let stack = builder("stores-onepassword", configured(&store), &headers).variable("OP_TOKEN", TOKEN);
    let stack = stack.variable("KEYWARD_LOG", "debug").start().await.unwrap();
    assert_eq!(call(&stack, "x-key").await, "canary-value-in-connect");
    assert_eq!(received(&stack, "x-prod").await, ["canary-prod-in-connect"]);
    assert_eq!(received(&stack, "x-by-id").await, ["canary-value-in-connect"]);
    put(&store, "Gateways", "canary-rotated-in-connect").await;
    call_until(&stack, "x-key", "canary-rotated-in-connect", Duration::from_secs(4)).await;
    written_nowhere(&stack, &["canary-value-in-connect", "canary-prod-in-connect", "canary-rotated-in-connect", TOKEN])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_fit_twice_and_vaults_out_of_scope_are_denied() {
    let (store, _) = connect("stores-onepassword-denied").await;
    let fields = json!([[null, "password", "canary-duplicate-in-connect"]]);
    store.tell("duplicate", json!({"vault": "Gateways", "item": "Jira \"main\"", "fields": fields})).await.unwrap();
    let headers = [("x-key", json!({"ref": "op://Gateways/Jira \"main\"/password"}))];
    let stack = builder("stores-onepassword-denied", configured(&store), &headers).variable("OP_TOKEN", TOKEN);
    let mut stack = stack.start().await.unwrap();
    let cause = denied(&stack, echo().bearer(&stack.token)).await;
    assert!(cause.contains("more than one item"), "{cause}");
    let private = json!("op://Private/Jira \"main\"/password");
    stack.change_config(|config| config["bindings"][0]["credentials"][1]["secret"]["ref"] = private).unwrap();
    super::until_denied_because(&stack, "there is no such vault").await;
}
