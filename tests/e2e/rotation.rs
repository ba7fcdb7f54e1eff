//! A credential changes under load: no call fails, the value before is scrubbed as long as it may come back, and a new value
//! that the upstream does not take changes nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyward_tests::client::{Answer, Request};
use keyward_tests::stack::{Builder, Stack};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{expect, leak, scripted};

const OLD: &str = "old-credential-5f1c8a2e";
const NEW: &str = "new-credential-93b7d604";
const BAD: &str = "bad-credential-17e0c94d";
/// How long an API takes the key before beside the new one, here: the calls that were on their way with it come to an end.
const OVERLAP: Duration = Duration::from_millis(500);

/// An API that takes some keys, as one does while they are rotated, and shows what it was told to.
#[derive(Default)]
struct Api {
    /// It answers 403 where others answer 401.
    forbids: AtomicBool,
    taken: Mutex<BTreeSet<String>>,
    shown: Mutex<String>,
    received: Mutex<Vec<String>>,
    probes: AtomicUsize,
}

// === impl Api ===

impl Api {
    async fn start(keys: &[&str]) -> (Arc<Api>, SocketAddr) {
        let api = Arc::new(Api::default());
        api.take(keys);
        let own = api.clone();
        (api, scripted::start(move |request| own.answer(request)).await)
    }

    fn take(&self, keys: &[&str]) {
        *self.taken.lock().unwrap() = keys.iter().map(|key| (*key).to_owned()).collect();
    }

    fn answer(&self, request: &str) -> Vec<u8> {
        let key = scripted::header(request, "x-api-key").to_owned();
        let is_good = self.taken.lock().unwrap().contains(&key);
        if request.starts_with("GET /health") {
            self.probes.fetch_add(1, Ordering::SeqCst);
        } else {
            self.received.lock().unwrap().push(key);
        }
        let refusal = if self.forbids.load(Ordering::SeqCst) { "403 Forbidden" } else { "401 Unauthorized" };
        let status = if is_good { "200 OK" } else { refusal };
        let shown = self.shown.lock().unwrap().clone();
        let body = json!({"jsonrpc": "2.0", "id": 1, "result": {"resultType": "complete", "shown": shown}});
        scripted::response(status, "content-type: application/json\r\n", body.to_string().as_bytes())
    }

    fn last_key(&self) -> String {
        self.received.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

fn stack(name: &str, api: SocketAddr) -> Builder {
    scripted::route(Stack::builder(name).secret(OLD).policy(leak::POLICY), api, "http")
}

fn call() -> Request {
    Request::post("/scripted", &json!({}))
}

/// Calls that go on until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<Answer>>>,
}

// === impl Load ===

impl Load {
    fn start(stack: &Stack) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |_| {
            let (stop, agents, token) = (stop.clone(), stack.agents, stack.token.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    answers.push(call().bearer(&token).send(agents).await.unwrap());
                }
                answers
            })
        };
        Load { workers: (0..4).map(worker).collect(), stop }
    }

    async fn stop(self) -> Vec<Answer> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for worker in self.workers {
            answers.extend(worker.await.unwrap());
        }
        answers
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_and_a_reference_change_under_load_and_no_call_fails() {
    let (api, address) = Api::start(&[OLD, NEW]).await;
    let mut stack = stack("rotation-load", address).file("secrets/next", NEW).start().await.unwrap();
    let load = Load::start(&stack);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The value behind the reference, there and back. The API ends each overlap: whatever still goes out with the key before
    // fails from then on.
    for (key, before) in [(NEW, OLD), (OLD, NEW)] {
        stack.change_file("secrets/demo", key).unwrap();
        until(key, async || api.last_key() == key).await;
        tokio::time::sleep(OVERLAP).await;
        api.take(&[key]);
        tokio::time::sleep(Duration::from_millis(300)).await;
        api.take(&[key, before]);
    }
    // The reference.
    let reference = json!("file://secrets/next");
    stack.change_config(|config| config["bindings"][0]["credentials"][0]["secret"]["ref"] = reference).unwrap();
    until("the new reference", async || api.last_key() == NEW).await;
    tokio::time::sleep(OVERLAP).await;
    api.take(&[NEW]);
    let ended = api.received.lock().unwrap().len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answers = load.stop().await;
    let failed = answers.iter().filter(|answer| answer.status != 200).count();
    println!("{} calls, {failed} failed", answers.len());
    assert!(answers.len() > 50 && failed == 0, "{failed} of {} failed", answers.len());
    let received = api.received.lock().unwrap();
    assert!(received.len() > ended, "no call came after the end of the old key");
    assert!(received[ended..].iter().all(|key| key == NEW), "{:?}", &received[ended..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_before_is_still_scrubbed() {
    let (api, address) = Api::start(&[OLD, NEW]).await;
    let stack = stack("rotation-overlap", address).start().await.unwrap();
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    stack.change_file("secrets/demo", NEW).unwrap();
    // An upstream that logs, and shows its log.
    *api.shown.lock().unwrap() = format!("earlier {OLD}, now {NEW}");
    until("the new value", async || {
        assert_eq!(stack.send(call()).await.unwrap().status, 200);
        api.last_key() == NEW
    })
    .await;
    let answer = stack.send(call()).await.unwrap();
    let text = String::from_utf8_lossy(&answer.everything()).into_owned();
    assert!(text.contains("earlier") && !text.contains(OLD) && !text.contains(NEW), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_value_of_the_reference_before_is_still_scrubbed() {
    let (api, address) = Api::start(&[OLD, NEW]).await;
    let mut stack = stack("rotation-reference", address).file("secrets/next", NEW).start().await.unwrap();
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    *api.shown.lock().unwrap() = format!("earlier {OLD}, now {NEW}");
    let reference = json!("file://secrets/next");
    stack.change_config(|config| config["bindings"][0]["credentials"][0]["secret"]["ref"] = reference).unwrap();
    until("the new reference", async || {
        assert_eq!(stack.send(call()).await.unwrap().status, 200);
        api.last_key() == NEW
    })
    .await;
    let answer = stack.send(call()).await.unwrap();
    let text = String::from_utf8_lossy(&answer.everything()).into_owned();
    assert!(text.contains("earlier") && !text.contains(OLD) && !text.contains(NEW), "{text}");
}

fn probed(builder: Builder, api: SocketAddr, keep_secs: u64) -> Builder {
    builder.config(|config| {
        let url = format!("http://{api}/health");
        config["bindings"][0]["probe"] = json!({"url": url, "refresh_secs": 1, "max_stale_secs": keep_secs});
        if let Some(hosts) = config["bindings"][0]["hosts"].as_array_mut() {
            hosts.push(json!(api.to_string()));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_value_is_tried_first_and_the_one_before_stays_where_it_fails() {
    let (api, address) = Api::start(&[OLD]).await;
    let stack = probed(stack("rotation-probe", address), address, 3600).start().await.unwrap();
    let load = Load::start(&stack);
    until("the first call", async || api.last_key() == OLD).await;
    // A value that the upstream does not take: it is tried, and no call carries it.
    let probes = api.probes.load(Ordering::SeqCst);
    stack.change_file("secrets/demo", BAD).unwrap();
    until("a probe", async || api.probes.load(Ordering::SeqCst) > probes).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(api.last_key(), OLD);
    // One that it takes: used from then on.
    api.take(&[OLD, NEW]);
    stack.change_file("secrets/demo", NEW).unwrap();
    until("the new value", async || api.last_key() == NEW).await;
    let answers = load.stop().await;
    let failed = answers.iter().filter(|answer| answer.status != 200).count();
    assert!(answers.len() > 50 && failed == 0, "{failed} of {} failed", answers.len());
    assert!(!api.received.lock().unwrap().iter().any(|key| key == BAD), "a call carried the bad value");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_value_that_was_accepted_nothing_is_sent() {
    let (api, address) = Api::start(&[NEW]).await;
    let stack = probed(stack("rotation-refused", address), address, 3600).start().await.unwrap();
    let answer = stack.send(call()).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(api.received.lock().unwrap().is_empty(), "a call went out with a value that was not accepted");
    let cause = |record: &Value| record["explanation"].as_str().is_some_and(|text| text.contains("the probe"));
    let record = stack.server.audit_record(cause).await.unwrap();
    assert!(!record.to_string().contains(OLD), "{record}");
}

/// Looked at once an hour: only what the upstream answers makes it look again.
async fn seldom_looked_at(name: &str, api: SocketAddr) -> Stack {
    let builder = probed(stack(name, api), api, 3600);
    let seldom = builder.config(|config| config["bindings"][0]["probe"]["refresh_secs"] = json!(3600));
    seldom.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_refused_later_is_replaced_at_once() {
    for status in [401, 403] {
        let (api, address) = Api::start(&[OLD]).await;
        api.forbids.store(status == 403, Ordering::SeqCst);
        let stack = seldom_looked_at(&format!("rotation-{status}"), address).await;
        assert_eq!(stack.send(call()).await.unwrap().status, 200);
        stack.change_file("secrets/demo", NEW).unwrap();
        api.take(&[NEW]);
        let refused = stack.send(call()).await.unwrap();
        assert_eq!(refused.status.as_u16(), status, "{}", refused.text());
        until("the new value", async || stack.send(call()).await.unwrap().status == 200).await;
        assert_eq!(api.last_key(), NEW);
        let refusal = |record: &Value| record["event"] == "credential_refused" && record["http_status"] == status;
        stack.server.audit_record(refusal).await.unwrap();
        expect::nothing_written(&stack, &[OLD, NEW]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_shown_is_replaced_though_it_is_still_taken() {
    let (api, address) = Api::start(&[OLD, NEW]).await;
    let stack = seldom_looked_at("rotation-echo", address).await;
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    stack.change_file("secrets/demo", NEW).unwrap();
    // As long as nothing is shown, the value stays.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    assert_eq!(api.last_key(), OLD);
    *api.shown.lock().unwrap() = format!("your key is {OLD}");
    until("the new value", async || {
        let answer = stack.send(call()).await.unwrap();
        assert!(answer.status == 200 && !answer.text().contains(OLD), "{}", answer.text());
        api.last_key() == NEW
    })
    .await;
    let records = stack.server.audit().unwrap();
    assert!(records.iter().any(|record| record["event"] == "secret_echoed"));
    assert!(!records.iter().any(|record| record["event"] == "credential_refused"));
    expect::nothing_written(&stack, &[OLD, NEW]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_audit_digests_changes_and_a_bad_one_changes_nothing() {
    let builder = Stack::builder("rotation-audit").file("secrets/audit", "the-first-audit-key");
    let builder = builder.config(|config| config["audit"]["hmac_key"]["ref"] = json!("file://secrets/audit"));
    let stack = builder.start().await.unwrap();
    let digest = async || {
        let answer = stack.call_tool("echo", json!({"message": "the same"})).await.unwrap();
        assert!(answer.result().is_ok(), "{}", answer.text());
        let records = stack.server.audit().unwrap();
        let decision = records.iter().rev().find(|record| record["event"] == "decision").unwrap();
        decision["operations"][0]["arguments_digest"].as_str().unwrap().to_owned()
    };
    let first = digest().await;
    assert_eq!(digest().await, first);
    stack.change_file("secrets/audit", "short").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(digest().await, first);
    stack.change_file("secrets/audit", "the-second-audit-key").unwrap();
    until("another digest", async || digest().await != first).await;
    let said = |record: &Value| record["detail"].as_str().is_some_and(|text| text.contains("audit.hmac_key"));
    stack.server.audit_record(said).await.unwrap();
    // Back again: the digests of before can be compared again.
    stack.change_file("secrets/audit", "the-first-audit-key").unwrap();
    until("the first digest", async || digest().await == first).await;
}
