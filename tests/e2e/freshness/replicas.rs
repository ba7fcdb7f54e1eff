//! Two replicas on one database: what one of them has minted serves the other.

use serde_json::json;

use super::{Servers, burst_at, name, stack};
use crate::expect;
use crate::replica::Replica;

const CALLS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_first_calls_at_both_makes_one_mint() {
    let (servers, authority, api) = Servers::start(3600).await;
    let key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let stack = stack("freshness-replicas", authority, api)
        .variable("ENCRYPTION_KEY", key)
        .config(|config| config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]}))
        .start()
        .await
        .unwrap();
    let replica = Replica::start(&stack).await;
    let (here, there) =
        tokio::join!(burst_at(stack.agents, &stack.token, CALLS), burst_at(replica.agents, &stack.token, CALLS));
    for answer in here.iter().chain(&there) {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!((servers.minted(), servers.received.lock().unwrap().len()), (1, 2 * CALLS));
    let metrics = [stack.server.metrics().await.unwrap(), replica.server.metrics().await.unwrap()];
    let minted = |text: &String| text.contains(r#"keyward_mints{result="made"} 1"#);
    assert_eq!(metrics.iter().filter(|text| minted(text)).count(), 1, "both or none minted");
    expect::nothing_written(&stack, &[&name(1), "client-secret-of-keyward-4be2"]).await;
}
