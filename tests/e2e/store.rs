//! One life on both databases, SQLite and PostgreSQL; and a PostgreSQL that is restarted, cut off, or met by three replicas
//! at once.

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::Request;
use keyward_tests::files;
use keyward_tests::postgres::Postgres;
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, Stack};
use serde_json::json;

use crate::expect;
use crate::load::Load;

const ID: &str = "demo-api-key";
/// How long what is known serves while the database is away.
const MAX_STALE: Duration = Duration::from_secs(5);
/// How long anything may take that has to happen by itself.
const SOON: Duration = Duration::from_secs(20);

/// A stack that keeps its state there: its binding has a lifecycle, and its credential is a sealed secret.
pub(crate) fn kept_in(builder: Builder, postgres: Option<&Postgres>) -> Builder {
    let builder = builder.variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let is_shared = postgres.is_some();
    let builder = match postgres {
        Some(postgres) => builder.variable("DATABASE_URL", &postgres.url()),
        None => builder,
    };
    builder.config(move |config| {
        config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
        if is_shared {
            config["database"]["url_secret"] = json!({"ref": "env://DATABASE_URL"});
        }
        config["lifecycle"] = json!({"approvals": 0, "max_stale_secs": MAX_STALE.as_secs()});
        config["bindings"][0]["credentials"][0]["secret"] = json!({"ref": "keyward://team/demo"});
    })
}

pub(crate) fn echo(stack: &Stack) -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"})).bearer(&stack.token)
}

/// Runs a command of the program on the stack's configuration, which has to succeed.
pub(crate) fn run(stack: &Stack, arguments: &str, input: &str) -> String {
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let mut all: Vec<&str> = arguments.split(' ').collect();
    all.extend(["--config", &config]);
    let output = Server::run_with_input(&all, stack.variables(), input).unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{arguments}: {text}");
    text
}

/// Waits until a call is answered as wanted; meanwhile it may be answered otherwise. Returns after how long.
pub(crate) async fn until(stack: &Stack, wanted: impl Fn(&str) -> bool) -> Duration {
    let began = Instant::now();
    loop {
        stack.upstream.reset().await.unwrap();
        let answer = echo(stack).send(stack.agents).await.unwrap();
        if wanted(&answer.text()) {
            let is_denied = answer.result().is_err();
            assert_eq!(stack.upstream.count().await.unwrap(), u64::from(!is_denied), "{}", answer.text());
            return began.elapsed();
        }
        assert!(began.elapsed() < SOON, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_served(text: &str) -> bool {
    text.contains("\"result\"")
}

fn is_denied_for(reason: Reason) -> impl Fn(&str) -> bool {
    move |text| text.contains(reason.code())
}

/// Secrets are put, replaced and deleted, and a binding is stopped and started, all by commands beside a server that serves.
async fn life(postgres: Option<&Postgres>, name: &str) {
    let mut stack = kept_in(Stack::builder(name), postgres).start().await.unwrap();
    // Nothing was put yet.
    let answer = echo(&stack).send(stack.agents).await.unwrap();
    expect::denied(&stack, &answer, Reason::CredentialUnavailable, 1).await;
    run(&stack, "secrets put team/demo", &stack.secret);
    until(&stack, is_served).await;
    assert!(run(&stack, "secrets list", "").contains("team/demo"));

    run(&stack, &format!("bindings disable {ID} --by carol"), "");
    until(&stack, is_denied_for(Reason::BindingInactive)).await;
    // After a restart it is what it was.
    stack.restart_server().unwrap();
    let answer = echo(&stack).send(stack.agents).await.unwrap();
    expect::json_rpc_error(&answer, Reason::BindingInactive, &json!(1));
    run(&stack, &format!("bindings activate {ID} --by carol"), "");
    until(&stack, is_served).await;
    assert_eq!(run(&stack, &format!("bindings history {ID}"), "").lines().count(), 2);

    run(&stack, "secrets delete team/demo", "");
    until(&stack, is_denied_for(Reason::CredentialUnavailable)).await;
    expect::nothing_written(&stack, &[&stack.secret]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_on_sqlite() {
    life(None, "store-sqlite").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_on_postgres() {
    let postgres = Postgres::start(&files::run_folder("store-life").unwrap()).await.unwrap();
    life(Some(&postgres), "store-postgres").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_database_under_load_lets_nothing_fail() {
    let folder = files::run_folder("store-restart").unwrap();
    let mut postgres = Postgres::start(&folder).await.unwrap();
    let stack = kept_in(Stack::builder("store-restarted"), Some(&postgres)).start().await.unwrap();
    run(&stack, "secrets put team/demo", &stack.secret);
    until(&stack, is_served).await;
    let load = Load::start(stack.agents, &echo(&stack));
    tokio::time::sleep(Duration::from_millis(500)).await;
    postgres.restart(&folder).await.unwrap();
    // What is said after that reaches the server: it listens to the database again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answers = load.stop().await;
    run(&stack, &format!("bindings disable {ID} --by carol"), "");
    let took = until(&stack, is_denied_for(Reason::BindingInactive)).await;
    let failed: Vec<_> = answers.iter().filter(|(_, answer)| answer.result().is_err()).collect();
    println!("{} calls, {} failed; a step afterwards was known after {took:?}", answers.len(), failed.len());
    assert!(answers.len() > 50, "{}", answers.len());
    assert!(failed.is_empty(), "{}", failed[0].1.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off_denies_in_time_and_serves_again() {
    let postgres = Postgres::start(&files::run_folder("store-cut").unwrap()).await.unwrap();
    let stack = kept_in(Stack::builder("store-partition"), Some(&postgres)).start().await.unwrap();
    run(&stack, "secrets put team/demo", &stack.secret);
    until(&stack, is_served).await;
    postgres.relay.cut();
    let denied = until(&stack, is_denied_for(Reason::DecisionUnavailable)).await;
    // From now on nothing gets through, however long it lasts; and nobody waits for it.
    stack.upstream.reset().await.unwrap();
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let answer = echo(&stack).send(stack.agents).await.unwrap();
        longest = longest.max(began.elapsed());
        expect::denied(&stack, &answer, Reason::DecisionUnavailable, 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let readiness = Request::new(http::Method::GET, "/readyz").send(stack.server.admin).await.unwrap();
    assert_eq!(readiness.status, 503, "{}", readiness.text());
    postgres.relay.mend();
    let served = until(&stack, is_served).await;
    println!("cut: denied after {denied:?}, each call within {longest:?}; mended: served after {served:?}");
    assert!(denied > MAX_STALE - Duration::from_secs(2), "{denied:?}");
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_that_start_at_once_on_an_empty_database_all_serve() {
    let postgres = Postgres::start(&files::run_folder("store-empty").unwrap()).await.unwrap();
    let stack = kept_in(Stack::builder("store-three"), Some(&postgres)).servers(3).start().await.unwrap();
    run(&stack, "secrets put team/demo", &stack.secret);
    // Each by itself is ready, and has been asked.
    for admin in stack.replicas.iter().chain([&stack.server]).map(|replica| replica.admin) {
        let answer = Request::new(http::Method::GET, "/readyz").send(admin).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    until(&stack, is_served).await;
    assert!(run(&stack, "secrets list", "").contains("team/demo"));
}
