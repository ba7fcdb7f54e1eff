//! One suite, run against every kind of database.

mod throttles;

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::credential::Material;
use crate::freshness::{Key, Shared as _};
use crate::grants::{Grant, GrantKey, Grants as _, Replaced, Version};
use crate::lifecycle::{Action, Entry, Record, State};
use crate::scratch::Scratch;
use crate::seal::{LocalKey, SealError, Sealer};
use crate::secret::SecretBytes;

#[expect(unreachable_pub, reason = "the harness, which has these two files, is a library")]
#[path = "../../../tests/src/postgres/cluster.rs"]
mod cluster;
mod postgres;
#[expect(unreachable_pub, reason = "as above")]
#[path = "../../../tests/src/relay.rs"]
mod relay;

use cluster::Cluster;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A PostgreSQL server of its own, stopped when dropped.
struct Postgres {
    process: Child,
    cluster: Cluster,
}

impl Postgres {
    fn start(settings: &[&str], prepare: impl FnOnce(&Cluster)) -> Postgres {
        let programs = cluster::programs().expect(
            "there is no PostgreSQL here: `cargo xtask test` fetches it, or install it (Debian: `apt-get install postgresql`), \
             or name the folder of `initdb` in KEYWARD_TEST_POSTGRES_BIN",
        );
        let cluster = Cluster::new(&programs).unwrap();
        prepare(&cluster);
        let mut command = cluster.server();
        command.args(settings).stdout(Stdio::null()).stderr(Stdio::null());
        Postgres { process: command.spawn().unwrap(), cluster }
    }

    fn url(&self) -> String {
        self.cluster.url(self.cluster.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(rustix::process::Pid::from_raw);
        if pid.is_none_or(|pid| rustix::process::kill_process(pid, rustix::process::Signal::INT).is_err()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

async fn opened(url: &str) -> Database {
    for _ in 0..100 {
        if let Ok(database) = Database::open(url, 8).await {
            return database;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the database does not open");
}

fn sealer(database: &Database) -> Arc<Sealer> {
    Arc::new(Sealer::new(database.clone(), vec![Arc::new(LocalKey::parse(KEY.as_bytes()).unwrap())]).unwrap())
}

/// Runs everything below against one database.
async fn suite(url: &str) {
    let database = opened(url).await;
    let sealer = sealer(&database);
    grants_are_replaced_by_version(&database, &sealer).await;
    of_two_that_replace_at_once_one_wins(&database, &sealer).await;
    a_grant_ends_at_its_time(&database, &sealer).await;
    one_replica_has_the_right_to_use_a_grant_up(&database, &sealer).await;
    a_state_is_taken_once(&database, &sealer).await;
    secrets_are_put_listed_and_deleted(&database, &sealer).await;
    a_lease_has_one_holder(&database, &sealer).await;
    material_is_shared_until_it_ends(&database, &sealer).await;
    invalidations_arrive_in_order_at_every_replica(&database, &sealer).await;
    what_was_moved_to_another_row_cannot_be_opened(&database, &sealer).await;
    a_history_grows_by_one_step_at_a_time(&database, &sealer).await;
    a_step_that_was_moved_or_copied_cannot_be_opened(&database, &sealer).await;
    a_value_is_as_old_as_it_was_seen(&database, &sealer).await;
    throttles::of_many_that_count_at_once_as_many_pass_as_may(&database).await;
    a_second_replica_reads_what_the_first_one_sealed(url, &database, &sealer).await;
    assert!(database.tidy().await.unwrap() > 0);
    throttles::only_counters_that_have_run_down_are_gone(&database).await;
    database.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_holds_on_sqlite() {
    let folder = Scratch::new();
    let file = folder.path().join("state.db");
    suite(&format!("sqlite://{}", file.display())).await;
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"marked"), "a value lies in the file as it is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_holds_on_postgres() {
    let postgres = Postgres::start(&[], |_| {});
    suite(&postgres.url()).await;
}

#[tokio::test]
async fn an_address_that_is_none_is_not_shown() {
    for url in ["", "marked", "mysql://marked", "sqlite://", "postgres://user:marked@127.0.0.1:1/x"] {
        let error = Database::open(url, 1).await.err().unwrap().to_string();
        assert!(!error.contains("marked"), "{error}");
    }
}

fn grant(secret: &str) -> Grant {
    Grant {
        secret: Arc::new(SecretBytes::new(secret.as_bytes().to_vec())),
        scopes: vec!["read".into(), "write".into()],
        account: Some("alice@provider".into()),
        given: from_unix_ms(1_700_000_000_000),
        expires: None,
    }
}

async fn grants_are_replaced_by_version(database: &Database, sealer: &Arc<Sealer>) {
    let grants = DatabaseGrants::new(database.clone(), sealer.clone()).unwrap();
    let key = GrantKey::new("tenant", "alice", "calendar");
    assert!(grants.load(&key).await.unwrap().is_none());
    let first = grants.replace(&key, None, &grant("marked-one")).await.unwrap();
    let Replaced::Stored(first) = first else { unreachable!("there was nothing before") };
    assert_eq!(grants.replace(&key, None, &grant("marked-no")).await.unwrap(), Replaced::Lost);
    let (loaded, version) = grants.load(&key).await.unwrap().unwrap();
    assert_eq!(loaded.secret.expose(), b"marked-one");
    assert_eq!((loaded.scopes, loaded.account), (grant("").scopes, grant("").account));
    assert_eq!((loaded.given, loaded.expires), (grant("").given, None));
    let second = grants.replace(&key, Some(version), &grant("marked-two")).await.unwrap();
    assert_eq!((version, second), (first, Replaced::Stored(Version(first.0 + 1))));
    assert_eq!(grants.replace(&key, Some(version), &grant("marked-no")).await.unwrap(), Replaced::Lost);
    // Neighbours have nothing of it.
    for other in [("other", "alice", "calendar"), ("tenant", "bob", "calendar"), ("tenant", "alice", "mail")] {
        assert!(grants.load(&GrantKey::new(other.0, other.1, other.2)).await.unwrap().is_none());
    }
    let cards = grants.list(Some("tenant")).await.unwrap();
    assert_eq!(cards.len(), 1);
    assert_eq!((&cards[0].key, &cards[0].scopes), (&key, &grant("").scopes));
    assert!(grants.list(Some("other")).await.unwrap().is_empty());
    assert_eq!(grants.list(None).await.unwrap().len(), 1);
    assert!(!grants.delete(&key, Some(first)).await.unwrap());
    assert!(grants.delete(&key, Some(Version(first.0 + 1))).await.unwrap());
    assert!(!grants.delete(&key, None).await.unwrap());
    // A refresh that began before the deletion finds another version: it neither overwrites nor deletes what came after.
    grants.replace(&key, None, &grant("marked-after")).await.unwrap();
    assert_eq!(grants.replace(&key, Some(version), &grant("marked-no")).await.unwrap(), Replaced::Lost);
    assert!(!grants.delete(&key, Some(version)).await.unwrap());
    assert!(grants.delete(&key, None).await.unwrap());
    assert!(grants.load(&GrantKey::new("tenant", "", "calendar")).await.is_err());
}

async fn of_two_that_replace_at_once_one_wins(database: &Database, sealer: &Arc<Sealer>) {
    let grants = DatabaseGrants::new(database.clone(), sealer.clone()).unwrap();
    let key = GrantKey::new("tenant", "racer", "calendar");
    let Replaced::Stored(first) = grants.replace(&key, None, &grant("marked")).await.unwrap() else {
        unreachable!("there was nothing before")
    };
    let tasks = (0..8).map(|number| {
        let (grants, key) = (grants.clone(), key.clone());
        let text = format!("marked-{number}");
        tokio::spawn(async move { (grants.replace(&key, Some(first), &grant(&text)).await.unwrap(), text) })
    });
    let mut winners = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        if let (Replaced::Stored(version), text) = task.await.unwrap() {
            assert_eq!(version, Version(first.0 + 1));
            winners.push(text);
        }
    }
    assert_eq!(winners.len(), 1);
    let (stored, _) = grants.load(&key).await.unwrap().unwrap();
    assert_eq!(stored.secret.expose(), winners[0].as_bytes());
}

async fn a_grant_ends_at_its_time(database: &Database, sealer: &Arc<Sealer>) {
    let grants = DatabaseGrants::new(database.clone(), sealer.clone()).unwrap();
    let key = GrantKey::new("tenant", "ended", "calendar");
    let ended = Grant { expires: Some(SystemTime::now() - Duration::from_secs(1)), ..grant("marked") };
    let Replaced::Stored(first) = grants.replace(&key, None, &ended).await.unwrap() else {
        unreachable!("there was nothing before")
    };
    assert!(grants.load(&key).await.unwrap().is_none());
    assert!(!grants.list(None).await.unwrap().iter().any(|card| card.key == key));
    let next = grants.replace(&key, None, &grant("marked")).await.unwrap();
    assert_eq!(next, Replaced::Stored(Version(first.0 + 1)));
    assert!(grants.load(&key).await.unwrap().is_some());
}

async fn one_replica_has_the_right_to_use_a_grant_up(database: &Database, sealer: &Arc<Sealer>) {
    let replica = || DatabaseGrants::new(database.clone(), sealer.clone()).unwrap();
    let (one, two) = (replica(), replica());
    let minute = Duration::from_secs(60);
    let key = GrantKey::new("tenant", "alice", "rotating");
    assert!(one.lease(&key, minute).await.unwrap());
    assert!(one.clone().lease(&key, minute).await.unwrap(), "for longer");
    assert!(!two.lease(&key, minute).await.unwrap());
    assert!(two.lease(&GrantKey::new("tenant", "bob", "rotating"), minute).await.unwrap(), "another grant");
    two.release(&key).await.unwrap();
    assert!(!two.lease(&key, minute).await.unwrap(), "not its own to give up");
    one.release(&key).await.unwrap();
    assert!(two.lease(&key, Duration::from_millis(20)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(one.lease(&key, minute).await.unwrap(), "the dead replica's right has ended");
}

async fn a_state_is_taken_once(database: &Database, sealer: &Arc<Sealer>) {
    let states = States::new(database.clone(), sealer.clone());
    let name = states.put("login", "alice", &"marked", Duration::from_secs(60)).await.unwrap();
    assert_eq!(states.look::<String>("login", &name).await.unwrap().as_deref(), Some("marked"));
    assert_eq!(states.take::<String>("consent", &name).await.unwrap(), None, "another step's");
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (states, name) = (states.clone(), name.clone());
            tokio::spawn(async move { states.take::<String>("login", &name).await.unwrap().is_some() })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += usize::from(task.await.unwrap());
    }
    assert_eq!(taken, 1);
    let late = states.put("login", "alice", &"marked", Duration::ZERO).await.unwrap();
    assert_eq!(states.take::<String>("login", &late).await.unwrap(), None, "it has ended");
    assert_eq!(states.take::<String>("login", "no such name").await.unwrap(), None);
    for _ in 0..32 {
        states.put("login", "mallory", &"marked", Duration::from_secs(60)).await.unwrap();
    }
    let error = states.put("login", "mallory", &"marked", Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(error, StatesError::Full), "{error}");
    states.put("login", "alice", &"marked", Duration::from_secs(60)).await.unwrap();
    let soon = SystemTime::now() + Duration::from_secs(60);
    assert!(!states.is_used("ticket").await.unwrap());
    assert!(states.use_once("ticket", soon).await.unwrap());
    assert!(!states.use_once("ticket", soon).await.unwrap());
    assert!(states.is_used("ticket").await.unwrap());

    // Of many decisions that use a proof at once, one does; and that one may ask again.
    let count = states.count_used().await.unwrap();
    let mut uses = tokio::task::JoinSet::new();
    for decision in 0..8 {
        let states = states.clone();
        uses.spawn(async move { (decision, states.use_once_by("proof", &decision.to_string(), soon).await.unwrap()) });
    }
    let won: Vec<i32> =
        uses.join_all().await.into_iter().filter(|(_, won)| *won).map(|(decision, _)| decision).collect();
    let [winner] = won[..] else { panic!("{won:?}") };
    for decision in 0..8 {
        let again = states.use_once_by("proof", &decision.to_string(), soon).await.unwrap();
        assert_eq!(again, decision == winner, "{decision}");
    }
    assert!(!states.use_once_by("ticket", "0", soon).await.unwrap(), "nobody's is not anybody's");
    assert_eq!(states.count_used().await.unwrap(), count + 1);
}

async fn secrets_are_put_listed_and_deleted(database: &Database, sealer: &Arc<Sealer>) {
    let secrets = DatabaseSecrets::new(database.clone(), sealer.clone());
    assert!(secrets.get("team/key").await.unwrap().is_none());
    assert_eq!(secrets.put("team/key", b"marked-one").await.unwrap(), 1);
    assert_eq!(secrets.put("team/key", b"marked-two").await.unwrap(), 2);
    assert_eq!(secrets.get("team/key").await.unwrap().unwrap().as_slice(), b"marked-two");
    let cards = secrets.list().await.unwrap();
    assert_eq!((cards.len(), cards[0].path.as_str(), cards[0].version), (1, "team/key", 2));
    assert!(secrets.delete("team/key").await.unwrap());
    assert!(!secrets.delete("team/key").await.unwrap());
}

fn replica(database: &Database, sealer: &Arc<Sealer>) -> DatabaseShared {
    DatabaseShared::new(database.clone(), sealer.clone()).unwrap()
}

fn key(name: &str) -> Key {
    Key::new("oauth", "tenant").with("principal", "alice").with("provider", name)
}

async fn a_lease_has_one_holder(database: &Database, sealer: &Arc<Sealer>) {
    let (one, two, three) = (replica(database, sealer), replica(database, sealer), replica(database, sealer));
    let minute = Duration::from_secs(60);
    let digest = key("lease").digest();
    assert!(one.lease(&digest, minute).await.unwrap());
    assert!(one.lease(&digest, minute).await.unwrap(), "extended");
    assert!(!two.lease(&digest, minute).await.unwrap());
    two.release(&digest).await.unwrap();
    assert!(!two.lease(&digest, minute).await.unwrap(), "not its own to give up");
    one.release(&digest).await.unwrap();
    assert!(two.lease(&digest, Duration::from_millis(20)).await.unwrap());
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert!(three.lease(&digest, minute).await.unwrap(), "the dead holder's lease has ended");
    let raced = key("raced").digest();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let shared = replica(database, sealer);
            tokio::spawn(async move { shared.lease(&raced, minute).await.unwrap() })
        })
        .collect();
    let mut holders = 0;
    for task in tasks {
        holders += usize::from(task.await.unwrap());
    }
    assert_eq!(holders, 1);
}

async fn material_is_shared_until_it_ends(database: &Database, sealer: &Arc<Sealer>) {
    let (one, two) = (replica(database, sealer), replica(database, sealer));
    let (mail, other) = (key("mail"), key("other"));
    let material = |text: &str, seconds: u64| {
        let material = Material::new().secret("access_token", text.as_bytes().to_vec()).plain("kind", "marked kind");
        material.until(SystemTime::now() + Duration::from_secs(seconds))
    };
    assert!(one.take(&mail).await.unwrap().is_none());
    let mark = one.mark().await.unwrap();
    assert!(one.put(&mail, &material("marked-one", 60), mark).await.unwrap());
    assert!(one.put(&mail, &material("marked-two", 60), mark).await.unwrap());
    assert!(one.put(&other, &material("marked-other", 60), mark).await.unwrap());
    let taken = two.take(&mail).await.unwrap().unwrap();
    assert!(taken.same_values(&material("marked-two", 60)));
    assert!(taken.expires().unwrap() > SystemTime::now() + Duration::from_secs(50));
    assert_eq!(taken.scrub(), [b"marked-two".as_slice()]);
    let grant = GrantKey::new("tenant", "alice", "mail");
    two.publish(&Topic::of_grant(&grant)).await.unwrap();
    assert!(one.take(&mail).await.unwrap().is_none(), "an invalidation forgets what was made of the grant");
    assert!(one.take(&other).await.unwrap().is_some(), "and nothing else");
    // What another replica began to mint before that is not put back; what it begins now is.
    assert!(!one.put(&mail, &material("marked-late", 60), mark).await.unwrap());
    assert!(two.take(&mail).await.unwrap().is_none(), "a revoked material does not come back");
    assert!(one.put(&other, &material("marked-other", 60), mark).await.unwrap());
    let mark = one.mark().await.unwrap();
    assert!(one.put(&mail, &material("marked", 0), mark).await.unwrap());
    assert!(two.take(&mail).await.unwrap().is_none());
}

async fn invalidations_arrive_in_order_at_every_replica(database: &Database, sealer: &Arc<Sealer>) {
    let shared = replica(database, sealer);
    let (start, none) = shared.poll(None).await.unwrap();
    assert!(none.is_empty());
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let shared = replica(database, sealer);
            tokio::spawn(async move { shared.publish(&Topic::Secret { path: number.to_string() }).await.unwrap() })
        })
        .collect();
    let (mut at, mut seen) = (start, Vec::new());
    for task in tasks {
        task.await.unwrap();
        let (newest, topics) = shared.poll(Some(at)).await.unwrap();
        assert_eq!(newest - at, i64::try_from(topics.len()).unwrap(), "no number is passed over");
        seen.extend(topics.into_iter().map(|topic| format!("{topic:?}")));
        at = newest;
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20);
    assert_eq!(shared.poll(Some(at)).await.unwrap(), (at, Vec::new()));
    // Whoever was away for longer than they are kept hears that it missed some.
    sqlx::query("DELETE FROM invalidations WHERE number < $1").bind(at).execute(database.pool()).await.unwrap();
    let (newest, topics) = shared.poll(Some(start)).await.unwrap();
    assert!(newest == at && topics.len() == 2 && topics[0] == Topic::Everything, "{topics:?}");
    assert_eq!(shared.poll(Some(at - 1)).await.unwrap().1.len(), 1);
}

async fn what_was_moved_to_another_row_cannot_be_opened(database: &Database, sealer: &Arc<Sealer>) {
    let grants = DatabaseGrants::new(database.clone(), sealer.clone()).unwrap();
    let (alice, mallory) = (GrantKey::new("tenant", "alice", "mail"), GrantKey::new("tenant", "mallory", "mail"));
    for key in [&alice, &mallory] {
        grants.replace(key, None, &grant("marked")).await.unwrap();
    }
    let moved = "UPDATE grants SET sealed = (SELECT sealed FROM grants WHERE principal = 'alice' AND provider = 'mail') \
                 WHERE principal = 'mallory'";
    sqlx::query(moved).execute(database.pool()).await.unwrap();
    assert!(grants.load(&alice).await.is_ok());
    let error = grants.load(&mallory).await.err().unwrap();
    assert_eq!(error.to_string(), format!("grants: {}", SealError::Refused));
    grants.delete(&mallory, None).await.unwrap();
}

fn approved(id: &str, version: i64, by: &str) -> Entry {
    let record = Record::default().after(Action::Approve, "marked", by, 1).unwrap().unwrap();
    Entry {
        environment: "test".into(),
        id: id.into(),
        version,
        action: Action::Approve,
        from: State::Draft,
        to: State::Approved,
        definition: "marked".into(),
        by: by.into(),
        user: "root".into(),
        reason: "a marked reason".into(),
        at_ms: 1_700_000_000_000,
        record,
    }
}

async fn a_history_grows_by_one_step_at_a_time(database: &Database, sealer: &Arc<Sealer>) {
    let history = DatabaseBindings::new(database.clone(), sealer.clone());
    let shared = replica(database, sealer);
    let (start, _) = shared.poll(None).await.unwrap();
    let tasks = (0..8).map(|number| {
        let history = history.clone();
        tokio::spawn(async move { history.add(&approved("raced", 1, &format!("racer-{number}"))).await.unwrap() })
    });
    let mut added = 0;
    for task in tasks.collect::<Vec<_>>() {
        added += usize::from(task.await.unwrap());
    }
    assert_eq!(added, 1, "of those who write one version, one wins");
    let topic = Topic::Binding { environment: "test".into(), id: "raced".into() };
    assert_eq!(shared.poll(Some(start)).await.unwrap(), (start + 1, vec![topic]), "and one is told");
    assert!(history.add(&approved("raced", 2, "alice")).await.unwrap());
    assert!(!history.add(&approved("raced", 2, "bob")).await.unwrap());
    assert!(history.add(&approved("other", 1, "carol")).await.unwrap());
    let newest = history.newest().await.unwrap();
    let newest: Vec<_> = newest.iter().map(|own| (own.id.as_str(), own.version, own.entry.is_ok())).collect();
    assert_eq!(newest, [("other", 1, true), ("raced", 2, true)]);
    let all = history.history("test", "raced", 0).await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(history.history("test", "raced", 1).await.unwrap(), [approved("raced", 2, "alice")]);
    assert!(history.history("production", "raced", 0).await.unwrap().is_empty());
}

async fn a_step_that_was_moved_or_copied_cannot_be_opened(database: &Database, sealer: &Arc<Sealer>) {
    let history = DatabaseBindings::new(database.clone(), sealer.clone());
    for statement in [
        "INSERT INTO binding_history SELECT environment, 'copied', version, key_id, sealed, created_ms \
         FROM binding_history WHERE id = 'other'",
        "INSERT INTO binding_history SELECT environment, id, 3, key_id, sealed, created_ms \
         FROM binding_history WHERE id = 'raced' AND version = 1",
    ] {
        sqlx::query(statement).execute(database.pool()).await.unwrap();
    }
    let newest = history.newest().await.unwrap();
    let newest: Vec<_> = newest.iter().map(|own| (own.id.as_str(), own.version, own.entry.is_ok())).collect();
    assert_eq!(newest, [("copied", 1, false), ("other", 1, true), ("raced", 3, false)]);
    assert!(history.history("test", "raced", 0).await.is_err());
}

async fn a_value_is_as_old_as_it_was_seen(database: &Database, sealer: &Arc<Sealer>) {
    let ages = DatabaseAges::new(database.clone(), sealer.clone());
    assert_eq!(ages.since("test", "vault://a", "marked one").await.unwrap(), None);
    let noted = ages.note("test", "vault://a", "marked one").await.unwrap();
    let since = ages.since("test", "vault://a", "marked one").await.unwrap().unwrap();
    assert_eq!(unix_ms(since), unix_ms(noted));
    assert_eq!(ages.since("test", "vault://a", "marked two").await.unwrap(), None, "another value");
    assert_eq!(ages.since("other", "vault://a", "marked one").await.unwrap(), None, "another environment's");
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(ages.note("test", "vault://a", "marked two").await.unwrap() > since);
    assert_eq!(ages.since("test", "vault://a", "marked one").await.unwrap(), None, "it was replaced");
}

async fn a_second_replica_reads_what_the_first_one_sealed(url: &str, database: &Database, first: &Arc<Sealer>) {
    let other = opened(url).await;
    let second = sealer(&other);
    let key = GrantKey::new("shared tenant", "alice", "mail");
    let (one, two) =
        (DatabaseGrants::new(database.clone(), first.clone()), DatabaseGrants::new(other.clone(), second.clone()));
    let (one, two) = (one.unwrap(), two.unwrap());
    // Both make the tenant's first data key at once; one of the two keys holds.
    let fresh = GrantKey::new("shared tenant", "bob", "mail");
    let (a, b) = (grant("marked-a"), grant("marked-b"));
    let (stored, also) = tokio::join!(one.replace(&key, None, &a), two.replace(&fresh, None, &b));
    stored.unwrap();
    also.unwrap();
    assert_eq!(two.load(&key).await.unwrap().unwrap().0.secret.expose(), b"marked-a");
    assert_eq!(one.load(&fresh).await.unwrap().unwrap().0.secret.expose(), b"marked-b");
    let keys: i64 = sqlx::query("SELECT COUNT(*) FROM data_keys WHERE scope = 'tenant:shared tenant'")
        .fetch_one(database.pool())
        .await
        .and_then(|row| sqlx::Row::try_get(&row, 0))
        .unwrap();
    assert_eq!(keys, 1);
    other.close().await;
}
