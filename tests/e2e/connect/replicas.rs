//! Two replicas on one database: what a person gave to one serves at the other, and what was revoked serves at neither.

use std::path::Path;
use std::time::{Duration, Instant};

use keyward_tests::browser::Browser;
use keyward_tests::files;
use keyward_tests::postgres::Postgres;
use keyward_tests::server::Server;
use serde_json::json;

use super::World;
use crate::replica::Replica;

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_serves_at_both_and_its_revocation_reaches_both_within_a_second() {
    both("connect-replicas", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_on_postgres() {
    let folder = files::run_folder("connect-postgres").unwrap();
    let postgres = Postgres::start(&folder).await.unwrap();
    let file = folder.join("url");
    std::fs::write(&file, postgres.url()).unwrap();
    both("connect-replicas-postgres", Some(&file)).await;
}

/// `database` is a file with the address of a PostgreSQL; without one it is SQLite.
async fn both(name: &str, database: Option<&Path>) {
    let world = World::start(name, json!({}), |config| {
        if let Some(file) = database {
            config["database"]["url_secret"] = json!({"ref": format!("file://{}", file.display())});
        }
        // Without its own key the upstream refuses every call, and what is refused is minted anew.
        let secret = json!({"ref": "file://secrets/demo"});
        if let Some(credentials) = config["bindings"][0]["credentials"].as_array_mut() {
            credentials.push(json!({"type": "header", "name": "x-api-key", "template": "{secret}", "secret": secret}));
        }
    })
    .await;
    let replica = Replica::start(&world.stack).await;
    let token = world.token("alice").await;
    let mut browser = Browser::new();
    let page = world.connect(&mut browser, &world.invited(&token).await, "alice").await;
    assert_eq!(page.title(), "Connected", "{}", page.body);
    let echo = || keyward_tests::agent::tool_call(1, "echo", json!({"message": "hello"}));
    let at = async |agents| {
        let answer = echo().bearer(&token).send(agents).await.unwrap();
        answer.result().is_ok_and(|result| result["resultType"] != "input_required")
    };
    let both = [world.stack.agents, replica.agents];
    for agents in both {
        let answer = echo().bearer(&token).send(agents).await.unwrap();
        assert!(answer.result().is_ok_and(|result| result["resultType"] != "input_required"), "{}", answer.text());
    }
    let minted = world.provider.token_calls().await.unwrap().len();
    assert!(at(both[0]).await && at(both[1]).await);
    assert_eq!(world.provider.token_calls().await.unwrap().len(), minted, "what is kept was minted again");

    let config = world.stack.folder.join("keyward.yaml").display().to_string();
    let run = |arguments: &[&str]| {
        let output = Server::run(&[arguments, &["--config", &config]].concat(), world.stack.variables()).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let list = run(&["grants", "list"]);
    let principal = list.split_once("principal=").unwrap().1.split(' ').next().unwrap().to_owned();
    run(&["grants", "revoke", &principal, "calendar", "--tenant", "corporate"]);
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    for agents in both {
        while at(agents).await {
            assert!(began.elapsed() < Duration::from_secs(5), "a revoked grant still serves at {agents}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        longest = longest.max(began.elapsed());
    }
    println!("both replicas knew of a revocation {} ms after the command had ended", longest.as_millis());
    assert!(longest < Duration::from_millis(1500), "{longest:?}");
}
