//! Without the right key nothing happens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::running::{Call, KEY, Upstream};

fn echo(key: Option<(&str, &str)>, path: &str) -> Call {
    let mut call = Call::tool("echo", json!({"message": "hello"}));
    call.headers.retain(|(name, _)| name != "x-api-key");
    call.path = path.to_owned();
    match key {
        Some((name, value)) => call.with(name, value),
        None => call,
    }
}

#[tokio::test]
async fn each_variant_takes_its_own_place_only() {
    let basic = format!("Basic {}", STANDARD.encode(format!("robot:{KEY}")));
    let query = "/mcp?apiKey=Kw7%2F%2B%3D%22%5C%269zQ%3F%3F%3E-Tail";
    for (variant, taken) in [("header", [1, 0, 0]), ("query", [0, 1, 0]), ("basic", [0, 0, 1]), ("any", [1, 1, 1])] {
        let upstream =
            Upstream::start(&["--variant", variant, "--username", "robot", "--header-name", "x-secret"]).await;
        let calls =
            [echo(Some(("x-secret", KEY)), "/mcp"), echo(None, query), echo(Some(("authorization", &basic)), "/mcp")];
        for (call, taken) in calls.into_iter().zip(taken) {
            let answer = upstream.send(call).await;
            assert_eq!(answer.status(), if taken == 1 { 200 } else { 401 }, "{variant}");
        }
        let count = upstream.report("/count").await;
        assert_eq!(count["received"], 3);
        assert_eq!(count["refused"], 3 - taken.iter().sum::<i32>());
    }
}

#[tokio::test]
async fn a_refused_request_is_recorded_with_its_body() {
    let upstream = Upstream::start(&[]).await;
    let answer = upstream.send(echo(Some(("x-api-key", "wrong")), "/mcp")).await;
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.header("www-authenticate"), Some("ApiKey realm=\"upstream\""));
    let last = upstream.report("/last").await;
    assert!(last["body"].as_str().unwrap().contains("hello"));
    assert_eq!((&last["status"], &last["body_complete"]), (&json!(401), &json!(true)));
    assert_eq!(upstream.send(echo(None, "/plain/x")).await.status(), 401);
    assert_eq!(upstream.send(echo(None, "/elsewhere")).await.status(), 401);
    assert_eq!(upstream.get("/elsewhere").await.status(), 404);
}
