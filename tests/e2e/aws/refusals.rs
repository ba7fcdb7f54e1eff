//! What STS refuses and moto never does, in AWS's own words: an operator learns of it when the server starts, callers of
//! that tenant are denied, and all others are served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyward_tests::client;
use keyward_tests::moto::ACCOUNT;
use serde_json::{Value, json};

use super::scene::{self, BINDING, Scene, TENANT, who_am_i};
use crate::scripted;

/// A tenant, AWS's code and message for its role, and what the operator has to do.
const REFUSED: [(&str, &str, &str, &str); 3] = [
    (
        "chained",
        "ValidationError",
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
        "lower `duration_secs` to 3600",
    ),
    (
        "long",
        "ValidationError",
        "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        "raise the role's MaxSessionDuration",
    ),
    (
        "packed",
        "PackedPolicyTooLarge",
        "Packed policy consumes 112% of allotted space, please use smaller policy.",
        "use fewer or shorter session tags",
    ),
];
/// The tenant for whose role STS is always asked too often.
const BUSY: &str = "busy";

/// Plays STS. How often it was asked for the role of [`BUSY`] is counted.
async fn sts(busy: Arc<AtomicUsize>) -> SocketAddr {
    scripted::start(move |request| {
        let is_of = |tenant: &str| request.contains(&format!("role%2Fagents-{tenant}&"));
        if request.contains("Action=GetCallerIdentity") {
            let arn = format!("<Arn>arn:aws:iam::{ACCOUNT}:user/gateway</Arn>");
            return document("200 OK", "GetCallerIdentity", &arn);
        }
        if is_of(BUSY) {
            busy.fetch_add(1, Ordering::Relaxed);
            return refusal("Throttling", "Rate exceeded");
        }
        match REFUSED.iter().find(|(tenant, ..)| is_of(tenant)) {
            Some((_, code, message, _)) => refusal(code, message),
            None => {
                let keys = "<AccessKeyId>ASIASCRIPTED</AccessKeyId><SecretAccessKey>a-scripted-secret-key</SecretAccessKey>\
                            <SessionToken>a-scripted-session-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>";
                document("200 OK", "AssumeRole", &format!("<Credentials>{keys}</Credentials>"))
            }
        }
    })
    .await
}

fn document(status: &str, operation: &str, result: &str) -> Vec<u8> {
    let text = format!("<{operation}Response><{operation}Result>{result}</{operation}Result></{operation}Response>");
    scripted::response(status, "content-type: text/xml\r\n", text.as_bytes())
}

fn refusal(code: &str, message: &str) -> Vec<u8> {
    let text = format!(
        "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    );
    scripted::response("400 Bad Request", "content-type: text/xml\r\n", text.as_bytes())
}

/// Waits for a line of the server's log that holds all of this.
async fn logged(scene: &Scene, parts: &[&str]) {
    let started = Instant::now();
    while !scene.stack.server.process.log().lines().any(|line| parts.iter().all(|part| line.contains(part))) {
        assert!(started.elapsed() < Duration::from_secs(20), "{parts:?}\n{}", scene.stack.server.process.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sts_refuses_is_said_at_the_start_and_denied_with_the_remedy() {
    let busy = Arc::new(AtomicUsize::new(0));
    let sts = sts(Arc::clone(&busy)).await;
    let (moto, gateway) = scene::prepared("aws-refusals").await;
    let mut source = scene::role_source(&moto);
    source["sts"] = json!({"endpoint": format!("http://{sts}")});
    for tenant in REFUSED.map(|(tenant, ..)| tenant).into_iter().chain([BUSY, TENANT]) {
        source["tenants"][tenant] = json!({"role_arn": format!("arn:aws:iam::{ACCOUNT}:role/agents-{tenant}")});
    }
    let stack = scene::builder("aws-refusals", &moto, &gateway, &source).start().await.unwrap();
    moto.forget().await.unwrap();
    let scene = Scene { moto, stack, gateway };

    // Said before anybody called; the server is ready all the same.
    for (tenant, code, _, remedy) in REFUSED {
        logged(&scene, &["WARN", "the role of a tenant cannot be had", &format!("agents-{tenant}"), code, remedy])
            .await;
    }
    logged(&scene, &["WARN", "the role of a tenant cannot be had", "agents-busy", "Throttling"]).await;
    logged(&scene, &["the role of a tenant can be had", TENANT, "keys for "]).await;
    let ready: Value = serde_json::from_str(&client::get(scene.stack.server.admin, "/readyz").await.unwrap()).unwrap();
    assert_eq!(ready["problems"], json!([]), "{ready}");

    for (tenant, code, message, remedy) in REFUSED {
        let answer = scene.send_as(who_am_i(), "alice", tenant).await;
        let cause = scene.denied(&answer).await;
        assert!(cause.contains(&format!("AWS says {code} (400): {message}; ")) && cause.contains(remedy), "{cause}");
        assert!(!answer.text().contains(code) && !answer.text().contains(remedy), "{}", answer.text());
    }

    // A throttle is tried three times, and then left alone for a while: never three times for each of these calls.
    let before = busy.load(Ordering::Relaxed);
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(scene.send_as(who_am_i(), "alice", BUSY).await);
    }
    let asked = busy.load(Ordering::Relaxed) - before;
    assert!((3..=9).contains(&asked), "STS was asked {asked} times");
    for answer in &answers {
        let cause = scene.denied(answer).await;
        assert!(cause.ends_with("AWS says Throttling (400): Rate exceeded"), "{cause}");
    }

    // All of this is nothing to the others.
    assert_eq!(scene.send(who_am_i()).await.status, 200);
    assert_eq!(scene.received("sts").await.len(), 1);

    // The doctor says the same of each tenant.
    let output = scene.keyward(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let line = |tenant: &str| {
        let check = format!("  binding `{BINDING}`, credential 0, tenant `{tenant}`: ");
        text.lines().find(|line| line.contains(&check)).unwrap_or_default()
    };
    for (tenant, code, _, remedy) in REFUSED {
        let line = line(tenant);
        assert!(line.starts_with("FAIL") && line.contains(code) && line.contains(remedy), "{tenant}: {text}");
    }
    assert!(line(TENANT).starts_with("pass") && line(TENANT).contains("keys for "), "{text}");
}
