//! Starting, being looked at, reloading and ending.

use std::sync::atomic::Ordering;
use std::time::Duration;

use keyward_contract::report::ReportRequest;
use keyward_server::report::proto::filter_reports_client::FilterReportsClient;
use keyward_server::serve::{Address, Bound, Listen, ServeError};
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::scene::{DECISION_ID, Scene, call, plan};

async fn health(scene: &Scene) -> i32 {
    let mut client = HealthClient::new(scene.channel().await);
    let service = "envoy.service.auth.v3.Authorization".to_owned();
    client.check(HealthCheckRequest { service }).await.map_or(-1, |answer| answer.into_inner().status)
}

#[tokio::test]
async fn draining_finishes_what_is_under_way() {
    let mut scene = Scene::with(64, 256, Duration::from_millis(1500)).await;
    while health(&scene).await != 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.doors.stuck.store(true, Ordering::Release);
    let mut client = scene.client().await;
    let under_way = tokio::spawn(async move { client.check(call("echo").message()).await.unwrap().into_inner() });
    while scene.engine.readings().in_flight == 0 {
        tokio::task::yield_now().await;
    }
    scene.stop();
    while scene.page("/readyz").await.0 != 503 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while health(&scene).await != 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.doors.held.add_permits(10);
    assert_eq!(scene.check(&call("echo")).await.code(), 0, "requests are still served while draining");
    assert_eq!(under_way.await.unwrap().status.unwrap().code, 0);
    assert!((&mut scene.served).await.unwrap().is_ok());
    let text = scene.trail.text();
    let events: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect();
    assert_eq!(events, [json!("started"), json!("decision"), json!("decision"), json!("stopped")]);
}

#[tokio::test]
async fn a_new_plan_serves_at_once_and_a_refused_one_changes_nothing() {
    let scene = Scene::start().await;
    scene.engine.replace(plan(scene.doors.clone(), "rev2"));
    scene.check(&call("echo")).await.allowed();
    assert_eq!(scene.last_decision()["policy_revision"], "rev2");
    scene.engine.refused("policies/main.rego:3: expected `}`");
    scene.check(&call("echo")).await.allowed();
    // The trail is written behind the answers, in order.
    let started = std::time::Instant::now();
    while scene.trail.text().matches(r#""event":"decision""#).count() < 2 {
        assert!(started.elapsed() < Duration::from_secs(10), "{}", scene.trail.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let text = scene.trail.text();
    assert!(text.contains("config_reloaded") && text.contains("config_refused") && text.contains("main.rego:3"));
}

#[tokio::test]
async fn reports_become_audit_records_and_metrics() {
    let scene = Scene::start().await;
    let mut client = FilterReportsClient::new(scene.channel().await);
    let report = ReportRequest {
        decision_id: DECISION_ID.into(),
        server: "demo".into(),
        event: "secret_echoed".into(),
        reason: String::new(),
        redactions: 3,
        carriers: "body,trailers,canary".into(),
        http_status: 200,
        rules: String::new(),
    };
    client.report(report.clone()).await.unwrap();
    let strange = ReportRequest { event: "canary".into(), ..report.clone() };
    assert!(client.report(strange).await.is_err());
    let strange = ReportRequest { decision_id: "canary".into(), ..report.clone() };
    assert!(client.report(strange).await.is_err());
    let strange = ReportRequest { server: "canary".into(), reason: "canary".into(), ..report };
    client.report(strange).await.unwrap();
    assert!(scene.engine.audit().flush(Duration::from_secs(5)));
    let text = scene.trail.text();
    let record: Value = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|record| record["event"] == "secret_echoed")
        .unwrap();
    assert_eq!((&record["redactions"], &record["carriers"]), (&json!(3), &json!(["body", "trailers"])));
    let (_, metrics) = scene.page("/metrics").await;
    assert!(metrics.contains(r#"keyward_redactions_total{server="demo"} 3"#), "{metrics}");
    assert!(!metrics.contains("canary") && !text.contains("canary"));
}

#[tokio::test]
async fn the_admin_pages_show_state_and_no_secret() {
    let scene = Scene::start().await;
    assert_eq!(scene.page("/healthz").await.0, 200);
    scene.check(&call("echo")).await.allowed();
    let (status, ready) = scene.page("/readyz").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&ready).unwrap()["policy_revision"], "rev1");
    // Names of bindings are for operators: see the operator API.
    assert_eq!(scene.page("/v1/bindings").await.0, 404);
    let (_, metrics) = scene.page("/metrics").await;
    for name in ["keyward_decisions_total", "keyward_stage_seconds_bucket", "keyward_injections_total"] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(!metrics.contains("alice") && !metrics.contains("echo"));
}

#[tokio::test]
async fn a_stale_unix_socket_is_replaced_and_one_in_use_is_not() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::start().await;
    let path = std::env::temp_dir().join(format!("keyward-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listen = |grpc| Listen {
        grpc,
        admin: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        secrets_on_loopback: false,
        drain: Duration::ZERO,
    };
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let bound = Bound::bind(scene.engine.clone(), &listen(Address::Unix(path.clone()))).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let again = Bound::bind(scene.engine.clone(), &listen(Address::Unix(path.clone()))).await;
    assert!(matches!(again, Err(ServeError::Bind { .. })));
    drop(bound);
    std::fs::write(&path, "somebody's file").unwrap_err();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "somebody's file").unwrap();
    assert!(Bound::bind(scene.engine.clone(), &listen(Address::Unix(path.clone()))).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's file");
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn plaintext_beyond_loopback_is_refused() {
    let scene = Scene::start().await;
    let grpc = Address::Tcp("0.0.0.0:0".parse().unwrap());
    let listen = Listen {
        grpc,
        admin: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        secrets_on_loopback: false,
        drain: Duration::ZERO,
    };
    let refused = Bound::bind(scene.engine.clone(), &listen).await;
    assert!(matches!(refused, Err(ServeError::Plaintext(_))));
}
