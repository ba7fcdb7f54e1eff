//! What only PostgreSQL can do to Keyward: be cut off, be away for a while, be somebody else, and be met by several at once.

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::relay::Relay;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_cut_off_is_an_error_in_time_and_serves_again_afterwards() {
    let postgres = Postgres::start(&[], |_| {});
    opened(&postgres.url()).await.close().await;
    let relay = Relay::start(([127, 0, 0, 1], postgres.cluster.port).into()).await.unwrap();
    let database = opened(&postgres.cluster.url(relay.address.port())).await;
    let sealer = sealer(&database);
    let shared = replica(&database, &sealer);
    assert!(shared.lease(&key("cut").digest(), Duration::from_secs(60)).await.unwrap());
    relay.cut();
    // More at once than there are connections: none of them waits for another without end.
    let began = Instant::now();
    let asked: Vec<_> = (0..24)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move { database.probe().await })
        })
        .collect();
    for asked in asked {
        let error = asked.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("in time"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    shared.poll(Some(0)).await.unwrap_err();
    database.pool().begin().await.map(drop).unwrap_err();
    relay.mend();
    let began = Instant::now();
    while database.probe().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not come back");
    }
    // All places of the pool are free again, though the connections of before never answered.
    let began = Instant::now();
    loop {
        let mut held = Vec::new();
        while let Ok(transaction) = database.pool().begin().await {
            held.push(transaction);
            if held.len() == 8 {
                return;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(30), "only {} of 8 connections", held.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_that_start_at_once_make_the_tables_once() {
    let postgres = Postgres::start(&[], |_| {});
    let url = postgres.url();
    let began = Instant::now();
    // The first one that gets through tells that it listens; no tables are made by that.
    while TcpStream::connect(("127.0.0.1", postgres.cluster.port)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let opening: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let url = url.clone();
                async move { opened(&url).await }
            })
        })
        .collect();
    for opening in opening {
        let database = opening.await.unwrap();
        database.probe().await.unwrap();
        let count: i64 = sqlx::query("SELECT COUNT(*) FROM counters")
            .fetch_one(database.pool())
            .await
            .and_then(|row| sqlx::Row::try_get(&row, 0))
            .unwrap();
        assert_eq!(count, 1);
        database.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_somebody_holds_is_not_waited_for_without_end() {
    let postgres = Postgres::start(&[], |_| {});
    let database = opened(&postgres.url()).await;
    let sealer = sealer(&database);
    let shared = replica(&database, &sealer);
    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("UPDATE counters SET value = value").execute(&mut *holder).await.unwrap();
    let began = Instant::now();
    let topic = Topic::NewSecret { path: "team/key".to_owned() };
    let error = shared.publish(&topic).await.unwrap_err().to_string();
    assert!(error.contains("statement timeout"), "{error}");
    // A replica that was cut off in the middle of its transaction: the database ends it.
    while shared.publish(&topic).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(20), "the lock is never free");
    }
    assert!(holder.commit().await.is_err(), "what held the lock was ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_database_whose_certificate_proves_it_is_spoken_to() {
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        (params.self_signed(&key).unwrap().pem(), rcgen::Issuer::new(params, key))
    };
    let (authority_pem, issuer) = authority("own");
    let (other_pem, _) = authority("other");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let settings = ["-c", "ssl=on", "-c", "ssl_cert_file=../server.pem", "-c", "ssl_key_file=../server.key"];
    let postgres = Postgres::start(&settings, |cluster| {
        cluster.file("server.pem", &certificate.pem()).unwrap();
        cluster.file("server.key", &key.serialize_pem()).unwrap();
    });
    let own = postgres.cluster.file("own.pem", &authority_pem).unwrap();
    let other = postgres.cluster.file("other.pem", &other_pem).unwrap();
    let port = postgres.cluster.port;
    let url = |host: &str, mode: &str, root: &std::path::Path| {
        format!("postgres://keyward@{host}:{port}/postgres?sslmode={mode}&sslrootcert={}", root.display())
    };
    let database = opened(&url("localhost", "verify-full", &own)).await;
    let is_encrypted: bool = sqlx::query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(database.pool())
        .await
        .and_then(|row| sqlx::Row::try_get(&row, 0))
        .unwrap();
    assert!(is_encrypted);
    database.close().await;
    for refused in [url("localhost", "verify-full", &other), url("127.0.0.1", "verify-full", &own)] {
        let error = Database::open(&refused, 1).await.err().unwrap().to_string();
        assert!(error.contains("connect"), "{error}");
    }
    // The chain alone, where the name does not matter.
    opened(&url("127.0.0.1", "verify-ca", &own)).await.close().await;
}
