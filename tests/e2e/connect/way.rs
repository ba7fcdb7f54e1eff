//! The whole way, what is stored at its end, and what ends it again.

use std::time::{Duration, Instant};

use keyward_tests::browser::Browser;
use keyward_tests::server::Server;
use serde_json::json;

use super::World;

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_and_the_agents_next_call_goes_through() {
    let mut world = World::plain("connect-way").await;
    let token = world.token("alice").await;
    let answer = world.call(&token, json!({})).await;
    assert_eq!(world.count().await, 0, "{}", answer.text());
    let url = super::address(&answer.json().unwrap());
    assert!(url.starts_with(&format!("{}/connect/", world.pages)), "{url}");

    let mut browser = Browser::new();
    let page = world.connect(&mut browser, &url, "alice").await;
    assert_eq!((page.status, page.title().as_str()), (200, "Connected"), "{}", page.body);
    assert!(page.body.contains("alice@example.com") || page.body.contains("alice"), "{}", page.body);
    let record = world.recorded("connected", "").await;
    assert_eq!(record["grant"]["provider"], "calendar", "{record}");
    assert_eq!(record["grant"]["tenant"], "corporate", "{record}");

    world.call(&token, json!({})).await;
    assert_eq!(world.count().await, 1);
    let claims = world.received().await;
    assert_eq!((&claims["sub"], &claims["aud"]), (&json!("alice"), &json!("https://calendar.example")), "{claims}");

    // Somebody else's agent has nothing of it.
    let other = world.token("bob").await;
    let answer = world.call(&other, json!({})).await;
    assert_eq!(answer.json().unwrap()["result"]["resultType"], "input_required", "{}", answer.text());
    assert_eq!(world.count().await, 1);

    // A restart keeps the grant: no page, a fresh access token.
    let grants = world.provider.token_calls().await.unwrap().len();
    world.stack.restart_server().unwrap();
    world.stack.upstream.reset().await.unwrap();
    let started = Instant::now();
    while world.count().await == 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "no call goes through after the restart");
        world.call(&token, json!({})).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(world.received().await["sub"], "alice");
    assert!(world.provider.token_calls().await.unwrap().len() >= grants, "the material may be shared, or minted anew");

    // Nothing of it lies anywhere in the clear. Tokens of `oidc-provider` begin with `{"alg":`; three letters of that would be
    // found by chance in what is sealed, which is base64, too.
    const TOKEN: &str = "eyJhbGciOi";
    assert!(token.starts_with(TOKEN), "the tokens begin otherwise");
    let written = world.stack.everything_written().await.unwrap();
    for secret in [super::CLIENT_SECRET, &token, TOKEN] {
        assert!(!written.contains(secret), "`{secret}` was written somewhere");
    }
    for file in ["keyward.db", "keyward.db-wal"] {
        let bytes = std::fs::read(world.database().with_file_name(file)).unwrap_or_default();
        for secret in [TOKEN, "alice@", "offline_access", super::CLIENT_SECRET] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "`{secret}` lies in {file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_does_not_take_any_more_is_connected_again() {
    // The refresh token ends after a second.
    let world = World::start("connect-again", json!({"refresh_secs": 1}), |_| {}).await;
    let token = world.token("alice").await;
    let mut browser = Browser::new();
    let page = world.connect(&mut browser, &world.invited(&token).await, "alice").await;
    assert_eq!(page.title(), "Connected", "{}", page.body);
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let answer = world.call(&token, json!({})).await;
    assert_eq!(world.count().await, 0, "{}", answer.text());
    let again = super::address(&answer.json().unwrap());
    let calls = world.provider.token_calls().await.unwrap();
    assert!(calls.iter().any(|call| call["error"] == "invalid_grant"), "{calls:?}");

    // The same browser is logged in already; the way is shorter and ends well.
    let page = browser.open(&again, None).await.unwrap();
    assert_eq!(page.title(), "Connect Example Calendar?", "{}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_lists_and_revokes_grants_here_and_at_the_provider() {
    let world = World::plain("connect-revoke").await;
    let token = world.token("alice").await;
    let mut browser = Browser::new();
    world.connect(&mut browser, &world.invited(&token).await, "alice").await;
    world.call(&token, json!({})).await;
    assert_eq!(world.count().await, 1);

    let config = world.stack.folder.join("keyward.yaml");
    let config = config.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--config", config]).collect();
        let output = Server::run(&arguments, world.stack.variables()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let list = run(&["grants", "list"]);
    assert!(list.contains("provider=calendar") && list.contains("tenant=corporate"), "{list}");
    assert!(!list.contains("eyJhbGciOi"), "{list}");
    let principal = list.split("principal=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let said = run(&["grants", "revoke", principal, "calendar", "--tenant", "corporate"]);
    assert!(said.contains("the provider has revoked it, too"), "{said}");
    assert_eq!(run(&["grants", "list"]), "");
    world.recorded("grant_revoked", "the provider has revoked it").await;

    // Within a second no call goes through any more, although the access token would still be good.
    let started = Instant::now();
    loop {
        world.stack.upstream.reset().await.unwrap();
        let answer = world.call(&token, json!({})).await;
        if world.count().await == 0 {
            assert!(answer.text().contains("input_required"), "{}", answer.text());
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(1), "the grant is still in use");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The keys rotate under it.
    let said = run(&["keys", "rotate"]);
    assert!(said.contains("data keys are wrapped under the first"), "{said}");
}
