//! The side port.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::running::{Call, Upstream, exchange};

async fn until(upstream: &Upstream, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..200 {
        let value = upstream.report(path).await;
        if holds(&value) {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not in time: {}", upstream.report(path).await);
}

#[tokio::test]
async fn it_says_what_came_and_forgets_on_demand() {
    let upstream = Upstream::start(&[]).await;
    assert_eq!(upstream.report("/last").await, Value::Null);
    upstream.send(Call::tool("echo", json!({"message": "hello"})).with("z-one", "1").with("a-two", "2")).await;
    let last = upstream.report("/last").await;
    assert_eq!((&last["number"], &last["method"], &last["path"]), (&json!(1), &json!("POST"), &json!("/mcp")));
    assert_eq!((&last["query"], &last["http_version"]), (&Value::Null, &json!("HTTP/1.1")));
    assert!(last["body"].as_str().unwrap().contains("hello"));
    let names: Vec<_> = last["headers"].as_array().unwrap().iter().map(|pair| pair[0].as_str().unwrap()).collect();
    assert!(names.iter().position(|n| *n == "z-one") < names.iter().position(|n| *n == "a-two"), "{names:?}");
    assert!(names.contains(&"x-api-key"));
    assert_eq!(upstream.report("/requests").await.as_array().unwrap().len(), 1);
    assert_eq!(exchange(&upstream.report, Call::new("POST", "/reset")).await.json()["received"], 0);
    assert_eq!(upstream.report("/requests").await, json!([]));
    assert_eq!(exchange(&upstream.report, Call::new("POST", "/last")).await.status(), 405);
    assert_eq!(exchange(&upstream.report, Call::new("GET", "/")).await.status(), 404);
}

#[tokio::test]
async fn a_request_that_was_cut_off_is_recorded() {
    let upstream = Upstream::start(&[]).await;
    let mut stream = TcpStream::connect(&upstream.mcp).await.unwrap();
    stream.write_all(b"POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"half\"").await.unwrap();
    until(&upstream, "/last", |last| last["body"] == "{\"half\"").await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let last = upstream.report("/last").await;
    assert_eq!((&last["body_complete"], &last["body_bytes"], &last["number"]), (&json!(false), &json!(7), &json!(1)));
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_call() {
    let upstream = Upstream::start(&[]).await;
    let call = Call::tool("slow", json!({"millis": 30_000}));
    let _ = tokio::time::timeout(Duration::from_millis(300), upstream.send(call)).await;
    assert_eq!(until(&upstream, "/count", |count| count["cancelled"] == 1).await["received"], 1);
}
