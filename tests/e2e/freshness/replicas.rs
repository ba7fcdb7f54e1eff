//! Two replicas on one database: what one of them has minted serves the other.

use keyward_tests::stack::Stack;
use serde_json::json;

use super::{Servers, burst_at, call, name, stack};
use crate::expect;
use crate::replica::Replica;

const CALLS: usize = 100;

async fn two(test: &str, life_secs: u64) -> (std::sync::Arc<Servers>, Stack, Replica) {
    let (servers, authority, api) = Servers::start(life_secs).await;
    let builder =
        stack(test, authority, api).variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let builder =
        builder.config(|config| config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]}));
    let stack = builder.start().await.unwrap();
    let replica = Replica::start(&stack).await;
    (servers, stack, replica)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_first_calls_at_both_makes_one_mint() {
    let (servers, stack, replica) = two("freshness-replicas", 3600).await;
    let (here, there) =
        tokio::join!(burst_at(stack.agents, &stack.token, CALLS), burst_at(replica.agents, &stack.token, CALLS));
    for answer in here.iter().chain(&there) {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!((servers.minted(), servers.received.lock().unwrap().len()), (1, 2 * CALLS));
    let metrics = [stack.server.metrics().await.unwrap(), replica.server.metrics().await.unwrap()];
    let minted = |text: &String| text.contains(r#"keyward_mints{result="minted"} 1"#);
    assert_eq!(metrics.iter().filter(|text| minted(text)).count(), 1, "both or none minted");
    expect::nothing_written(&stack, &[&name(1), "client-secret-of-keyward-4be2"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_at_both_makes_one_mint_each_time() {
    let (servers, stack, replica) = two("freshness-replicas-renewal", 8).await;
    let began = std::time::Instant::now();
    while servers.minted() < 4 {
        assert_eq!(stack.send(call()).await.unwrap().status, 200);
        assert_eq!(replica.send(call(), &stack.token).await.status, 200);
        assert!(began.elapsed() < std::time::Duration::from_secs(40), "only {} mints", servers.minted());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Each token serves four of its eight seconds at most, and both renew ahead of that, one for both.
    println!("{} mints in {:?}", servers.minted(), began.elapsed());
    assert!(
        began.elapsed() > std::time::Duration::from_secs(5),
        "{:?} for 4 mints: each minted its own",
        began.elapsed()
    );
}
