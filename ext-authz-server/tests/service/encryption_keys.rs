//! Key-encryption keys that change while a server runs.

use super::fixture::{Fixture, SECRET};
use super::running::{keyward, serve};
use super::scene::call;

use serde_json::json;

const OLD: &str = "{ ref: \"file://old.kek\" }";
const NEW: &str = "{ ref: \"file://new.kek\" }";

/// Lets these keys wrap.
fn configure(fixture: &Fixture, plain: &str, keys: &str) {
    let text = plain.replace("file://api.key", "keyward://team/key");
    fixture.write("keyward.yaml", &format!("{text}database: {{ encryption_keys: [{keys}] }}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_opens_with_the_new_key_what_another_process_has_wrapped_with_it() {
    let fixture = Fixture::new("encryption-keys");
    fixture.write("old.kek", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    fixture.write("new.kek", "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=");
    let plain = std::fs::read_to_string(fixture.configuration()).unwrap();
    configure(&fixture, &plain, OLD);
    let (code, said) = keyward(&fixture, "secrets put team/key", SECRET);
    assert_eq!(code, 0, "{said}");
    // It has opened no data key yet.
    let mut running = serve(fixture).await;

    configure(&running.fixture, &plain, &format!("{NEW}, {OLD}"));
    let (code, said) = keyward(&running.fixture, "keys rotate", "");
    assert_eq!(code, 0, "{said}");
    configure(&running.fixture, &plain, NEW);
    running.snapshots.reload().unwrap();
    running.until("allowed").await;
    let (set, _) = running.check(&call("echo"), &json!({})).await.allowed();
    assert!(set.contains(&("x-api-key".into(), SECRET.into())));

    // Keys that cannot be used change nothing.
    running.fixture.write("new.kek", "short");
    configure(&running.fixture, &plain, &format!("{NEW}, {OLD}"));
    running.snapshots.reload().unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "allowed");
}
