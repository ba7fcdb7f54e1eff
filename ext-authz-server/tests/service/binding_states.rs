//! Bindings that people approve, activate, disable and revoke: the commands, and a server that follows them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use keyward_server::database::LATEST_VERSION;
use keyward_server::grants::{Grant, GrantKey};
use keyward_server::secret::SecretBytes;
use keyward_server::snapshot::Snapshots;
use keyward_server::state::State;
use serde_json::{Value, json};

use super::fixture::Fixture;
use super::running::{keyward, serve};
use super::scene::call;

const ID: &str = "demo-api-key";

/// A folder whose bindings have a lifecycle.
fn fixture(name: &str, approvals: usize) -> Fixture {
    let fixture = Fixture::new(name);
    fixture.write("kek", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let config = std::fs::read_to_string(fixture.configuration()).unwrap();
    let more = format!(
        "database: {{ encryption_keys: [{{ ref: \"file://kek\" }}] }}\nlifecycle: {{ approvals: {approvals} }}\n"
    );
    fixture.write("keyward.yaml", &(config + &more));
    fixture
}

/// Runs `keyward bindings …`: the exit code, and what it printed.
fn bindings(fixture: &Fixture, arguments: &str) -> (i32, String) {
    keyward(fixture, &format!("bindings {arguments}"), "")
}

fn card(fixture: &Fixture) -> Value {
    let (code, text) = bindings(fixture, &format!("show {ID}"));
    assert_eq!(code, 0, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["lifecycle"].clone()
}

#[test]
fn two_people_approve_one_activates_and_each_step_is_kept() {
    let fixture = fixture("states-two", 2);
    let run = |arguments: &str| bindings(&fixture, arguments);
    assert_eq!(card(&fixture)["state"], "draft");
    for (arguments, code, expected) in [
        (
            "activate ID --by alice",
            1,
            "binding `ID`: it is draft, with 0 of 2 approvals of this definition; what can be done: approve, disable, revoke",
        ),
        ("approve ID --by alice --reason reviewed", 0, "binding `ID`: draft -> draft, version 1"),
        ("approve ID --by alice", 0, "binding `ID`: nothing has changed; it is draft, version 1"),
        ("approve ID --by Alice", 0, "binding `ID`: nothing has changed; it is draft, version 1"),
        (
            "activate ID --by alice",
            1,
            "binding `ID`: it is draft, with 1 of 2 approvals of this definition; what can be done: approve, disable, revoke",
        ),
        (
            "approve ID --by bob --version 7",
            1,
            "binding `ID`: it is at version 1 and draft, not at version 7; nothing has changed",
        ),
        ("approve ID --by bob --version 1", 0, "binding `ID`: draft -> approved, version 2"),
        ("approve ID --by carol", 0, "binding `ID`: nothing has changed; it is approved, version 2"),
        ("activate ID", 0, "binding `ID`: approved -> active, version 3"),
        ("activate ID", 0, "binding `ID`: nothing has changed; it is active, version 3"),
        ("disable ID", 0, "binding `ID`: active -> disabled, version 4"),
        ("activate ID", 0, "binding `ID`: disabled -> active, version 5"),
        ("revoke ID --by carol", 0, "binding `ID`: active -> revoked, version 6"),
        ("revoke ID --by carol", 0, "binding `ID`: nothing has changed; it is revoked, version 6"),
        (
            "activate ID",
            1,
            "binding `ID`: it is revoked, so that it cannot be activated; what can be done: nothing, declare a binding with another id",
        ),
        ("disable none", 1, "binding `none`: there is none in the configuration"),
        ("history none", 1, "binding `none`: nobody has taken a step with it"),
    ] {
        let (code_is, text) = run(&arguments.replace("ID", ID));
        assert_eq!((code_is, text), (code, expected.replace("ID", ID)), "{arguments}");
    }
    let (_, text) = run(&format!("history {ID}"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 6, "{text}");
    assert!(
        lines[0].contains("version 1  approve: draft -> draft  by alice (user ") && lines[0].ends_with("\"reviewed\"")
    );
    assert!(lines[5].contains("version 6  revoke: active -> revoked  by carol (user "));
    let (_, text) = run("list");
    assert!(text.contains("demo-api-key  revoked  6 "), "{text}");
    let audit = std::fs::read_to_string(fixture.directory.join("audit.jsonl")).unwrap();
    let records: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 6, "{audit}");
    let step = &records[1]["binding"];
    assert_eq!(records[1]["event"], "binding_changed");
    assert_eq!(
        (&step["id"], &step["from"], &step["to"], &step["version"], &step["by"]),
        (&json!(ID), &json!("draft"), &json!("approved"), &json!(2), &json!("bob"))
    );
    assert_eq!(step["definition"].as_str().map(str::len), Some(64));
}

#[test]
fn of_many_writers_of_one_version_exactly_one_wins() {
    let fixture = fixture("states-race", 0);
    let outcomes: Vec<(i32, String)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|number| {
                let action = if number % 2 == 0 { "disable" } else { "revoke" };
                let arguments = format!("{action} {ID} --version 0 --by writer-{number}");
                let fixture = &fixture;
                scope.spawn(move || bindings(fixture, &arguments))
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let won = outcomes.iter().filter(|(code, _)| *code == 0).count();
    assert_eq!(won, 1, "{outcomes:#?}");
    for (_, text) in outcomes.iter().filter(|(code, _)| *code != 0) {
        assert!(text.contains("it is at version 1 and "), "{text}");
    }
    assert_eq!(bindings(&fixture, &format!("history {ID}")).1.lines().count(), 1);
}

#[test]
fn without_a_lifecycle_there_is_no_step_and_without_a_database_no_lifecycle() {
    let plain = Fixture::new("states-none");
    assert_eq!(bindings(&plain, &format!("disable {ID}")).0, 1);
    let config = std::fs::read_to_string(plain.configuration()).unwrap();
    plain.write("keyward.yaml", &format!("{config}lifecycle: {{ approvals: 3 }}\n"));
    let (code, text) = bindings(&plain, "list");
    assert_eq!(code, 1);
    assert!(text.contains("`lifecycle`: there is nowhere to keep it; add the section `database`"), "{text}");
    assert!(text.contains("`lifecycle.approvals`: `3` is not from 0 to 2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_follows_and_a_changed_definition_is_a_draft_again() {
    let mut running = serve(fixture("states-serve", 1)).await;
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "binding_inactive");
    for (step, expected) in [
        ("approve", "binding_inactive"),
        ("activate", "allowed"),
        ("disable", "binding_inactive"),
        ("activate", "allowed"),
    ] {
        let (code, text) = bindings(&running.fixture, &format!("{step} {ID}"));
        assert_eq!(code, 0, "{text}");
        let took = running.until(expected).await;
        assert!(took < Duration::from_millis(1500), "{step}: {took:?}");
    }
    // Another owner is another definition; the one before needs no new approval.
    let before = std::fs::read_to_string(running.fixture.configuration()).unwrap();
    for (text, expected) in [
        (before.replace("owner: platform-team", "owner: another-team"), "binding_inactive"),
        (before.clone(), "allowed"),
    ] {
        running.fixture.write("keyward.yaml", &text);
        running.snapshots.reload().unwrap();
        running.until(expected).await;
    }
    // A definition that was approved and activated before it is rolled out serves from its first moment on.
    let next = before.replace("owner: platform-team", "owner: a-third-team");
    running.fixture.write("keyward.yaml", &next);
    for step in ["approve", "activate"] {
        assert_eq!(bindings(&running.fixture, &format!("{step} {ID}")).0, 0);
    }
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "allowed", "the definition that serves is not touched");
    tokio::time::sleep(Duration::from_millis(900)).await;
    running.snapshots.reload().unwrap();
    let revision = running.snapshots.current().revision.clone();
    while running.engine.plan().revision() != revision {
        assert_eq!(running.reason(&call("echo"), &json!({})).await, "allowed");
    }
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "allowed");
    let audit = std::fs::read_to_string(running.fixture.directory.join("audit.jsonl")).unwrap();
    let in_force = audit.lines().filter(|line| line.contains("\"binding_change_in_force\"")).count();
    assert_eq!(in_force, 6, "{audit}");
}

#[test]
fn doctor_says_where_a_binding_stands_and_the_command_that_lets_it_serve() {
    let fixture = fixture("states-doctor", 1);
    let second = std::fs::read_to_string(fixture.configuration()).unwrap();
    let (before, rest) = second.split_once("  - id: ").unwrap();
    let own = rest.split("database:").next().unwrap();
    let twice = format!("{before}  - id: {own}  - id: {rest}").replacen(ID, "second-key", 1);
    let denied = "calls that choose it are denied";
    let says = |expected: &str| {
        let (code, text) = keyward(&fixture, "doctor", "");
        assert_eq!(code, 0, "{text}");
        let expected = expected.replace("ID", ID);
        assert!(text.lines().any(|line| line == expected), "{expected}\n{text}");
        text
    };
    let activate = "`keyward bindings activate ID`";
    says(&format!(
        "WARN  binding `ID`, lifecycle: draft with 0 of 1 approvals of this definition, version 0: {denied}; \
         `keyward bindings approve ID` by each person who is still needed, then {activate}"
    ));
    assert!(!fixture.directory.join("keyward.db").exists(), "it was made by somebody who only looked");
    for (step, expected) in [
        ("approve", format!("WARN  binding `ID`, lifecycle: approved, version 1: {denied}; {activate}")),
        ("activate", "pass  binding `ID`, lifecycle: active, version 2".to_owned()),
        ("disable", format!("WARN  binding `ID`, lifecycle: disabled, version 3: {denied}; {activate}")),
        ("activate", "pass  binding `ID`, lifecycle: active, version 4".to_owned()),
    ] {
        assert_eq!(bindings(&fixture, &format!("{step} {ID}")).0, 0);
        says(&expected);
    }
    // Two that fit equally are a way to replace one by the other, as long as one is active.
    fixture.write("keyward.yaml", &twice);
    assert_eq!(keyward(&fixture, "check-config", "").1.lines().count(), 1);
    assert!(!says("pass  binding `ID`, lifecycle: active, version 4").contains("ambiguous_binding"));
    for step in ["approve", "activate"] {
        assert_eq!(bindings(&fixture, &format!("{step} second-key")).0, 0);
    }
    let text = says("pass  binding `second-key`, lifecycle: active, version 2");
    let ambiguous = format!("WARN  binding `{ID}`, principals: `second-key` fits the same callers of `demo`, ");
    assert!(text.contains(&ambiguous) && text.contains("(`ambiguous_binding`); "), "{text}");
    assert_eq!(bindings(&fixture, "revoke second-key").0, 0);
    let text = says(&format!(
        "WARN  binding `second-key`, lifecycle: revoked, version 3: {denied}; nothing brings it back: declare it under \
         another id, or take it out"
    ));
    assert!(!text.contains("ambiguous_binding"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_makes_no_database_and_leaves_another_version_as_it_is() {
    let fixture = fixture("states-look", 1);
    let file = fixture.directory.join("keyward.db");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"m"}}}"#;
    fixture.write("call.json", body);
    fixture.write("token", &fixture.token(&json!({})));
    let path = |name: &str| fixture.directory.join(name).display().to_string();
    let explain = format!("explain --server demo --token-file {} --request {}", path("token"), path("call.json"));
    let history = format!("bindings history {ID}");
    let (explain, history) = (explain.as_str(), history.as_str());
    let look = |arguments: &str| keyward(&fixture, arguments, "");
    for command in ["list", "export"] {
        let (code, text) = bindings(&fixture, command);
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("draft"), "{text}");
    }
    assert_eq!(card(&fixture)["state"], "draft");
    for (arguments, code, says) in [
        ("check-config --secrets", 0, "ok, revision "),
        (explain, 1, "database: there is none yet"),
        (explain, 1, "inactive_binding: binding `demo-api-key` is draft"),
        (history, 1, "nobody has taken a step with it"),
        ("secrets list", 0, ""),
        ("grants list", 0, ""),
    ] {
        let (is, text) = look(arguments);
        assert!(is == code && text.contains(says), "{arguments}: {text}");
    }
    assert!(!file.exists(), "it was made by somebody who only looked");
    assert_eq!(bindings(&fixture, &format!("approve {ID}")).0, 0);
    assert_eq!(card(&fixture)["state"], "approved");
    assert!(look(explain).1.contains("inactive_binding: binding `demo-api-key` is approved"));
    assert_eq!(bindings(&fixture, &format!("activate {ID}")).0, 0);
    for arguments in ["check-config --secrets", explain, history] {
        let (code, text) = look(arguments);
        assert_eq!(code, 0, "{arguments}: {text}");
    }

    // As an older program left it.
    sqlx::any::install_default_drivers();
    let database = sqlx::AnyPool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let older = "DELETE FROM _sqlx_migrations WHERE version = (SELECT MAX(version) FROM _sqlx_migrations)";
    assert_eq!(sqlx::query(older).execute(&database).await.unwrap().rows_affected(), 1);
    let newest = "SELECT MAX(version) FROM _sqlx_migrations";
    let before: i64 = sqlx::query_scalar(newest).fetch_one(&database).await.unwrap();
    let of_version = format!("its tables are of version {before}");
    let (code, text) = bindings(&fixture, "list");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&of_version) && text.contains("demo-api-key  unknown"), "{text}");
    for arguments in ["check-config --secrets", explain, history, "secrets list", "grants list"] {
        let (code, text) = look(arguments);
        let says =
            format!("{of_version}, and this `keyward` reads version {LATEST_VERSION}; `keyward serve` brings older");
        assert!(code == 1 && text.contains(&says), "{arguments}: {text}");
    }
    let (code, text) = look("doctor");
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("skip  binding `demo-api-key`, lifecycle: where it stands is not known"), "{text}");
    let version: i64 = sqlx::query_scalar(newest).fetch_one(&database).await.unwrap();
    assert_eq!(version, before, "it was changed by somebody who only looked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_be_told_of_is_not_taken_back_and_the_command_says_so() {
    let fixture = fixture("states-told", 0);
    let run = |arguments: &str| keyward(&fixture, arguments, "a value of enough bytes");
    assert_eq!(run("secrets put team/key").0, 0);
    let snapshots = Snapshots::load(&fixture.configuration()).unwrap_or_else(|error| panic!("{error}"));
    let snapshot = snapshots.current();
    let state = State::open(snapshot.config.database.as_ref().unwrap(), &snapshot.sources.secrets).await.unwrap();
    let key = GrantKey::new("acme", "alice", "calendar");
    let grant = Grant {
        secret: Arc::new(SecretBytes::new(b"what alice gave".to_vec())),
        scopes: Vec::new(),
        account: None,
        given: SystemTime::now(),
        expires: None,
    };
    state.grants.replace(&key, None, &grant).await.unwrap();
    let revoke = "grants revoke alice calendar --tenant acme";

    let url = format!("sqlite://{}", fixture.directory.join("keyward.db").display());
    sqlx::any::install_default_drivers();
    let database = sqlx::AnyPool::connect(&url).await.unwrap();
    sqlx::query("ALTER TABLE invalidations RENAME TO away").execute(&database).await.unwrap();
    for command in ["secrets delete team/key", revoke] {
        let (code, text) = run(command);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("run this again"), "{text}");
    }
    assert!(run("secrets list").1.contains("keyward://team/key  version 1 "));
    assert!(state.grants.load(&key).await.unwrap().is_some());
    sqlx::query("ALTER TABLE away RENAME TO invalidations").execute(&database).await.unwrap();

    // What cannot be recorded is not done.
    let config = std::fs::read_to_string(fixture.configuration()).unwrap();
    fixture.write("keyward.yaml", &config.replace("file: audit.jsonl", "file: missing/audit.jsonl"));
    for command in [revoke, "secrets put team/key", "secrets delete team/key", "keys rotate"] {
        let (code, text) = run(command);
        assert_eq!(code, 1, "{command}: {text}");
    }
    assert!(state.grants.load(&key).await.unwrap().is_some());
    fixture.write("keyward.yaml", &config);
    assert!(run("secrets list").1.contains("keyward://team/key  version 1 "));

    for command in ["secrets delete team/key", revoke, "keys rotate"] {
        let (code, text) = run(command);
        assert_eq!(code, 0, "{text}");
    }
    assert_eq!(run("secrets delete team/key").0, 1);
    assert!(state.grants.load(&key).await.unwrap().is_none());
    let audit = std::fs::read_to_string(fixture.directory.join("audit.jsonl")).unwrap();
    let records: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let details = |event: &str| -> Vec<&str> {
        let own = records.iter().filter(|record| record["event"] == event);
        own.map(|record| record["detail"].as_str().unwrap_or_default()).collect()
    };
    assert_eq!(details("grant_revoked").len(), 1, "{audit}");
    // Everything that was done to what is kept, once, and never a value.
    assert_eq!(details("secret_stored"), ["keyward://team/key: version 1"], "{audit}");
    assert_eq!(details("secret_deleted"), ["keyward://team/key"], "{audit}");
    assert_eq!(details("keys_rotated").len(), 1, "{audit}");
    assert!(!audit.contains("a value of enough bytes"), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_cannot_be_read_at_the_start_denies_until_it_can() {
    let fixture = fixture("states-unread", 0);
    assert_eq!(bindings(&fixture, &format!("disable {ID}")).0, 0);
    let url = format!("sqlite://{}", fixture.directory.join("keyward.db").display());
    sqlx::any::install_default_drivers();
    let database = sqlx::AnyPool::connect(&url).await.unwrap();
    sqlx::query("ALTER TABLE binding_history RENAME TO away").execute(&database).await.unwrap();
    let mut running = serve(fixture).await;
    assert_eq!(running.reason(&call("echo"), &json!({})).await, "decision_unavailable");
    assert!(running.engine.problems().iter().any(|problem| problem.contains("could not be read")));
    sqlx::query("ALTER TABLE away RENAME TO binding_history").execute(&database).await.unwrap();
    running.until("binding_inactive").await;
    assert!(running.engine.problems().is_empty(), "{:?}", running.engine.problems());
}
