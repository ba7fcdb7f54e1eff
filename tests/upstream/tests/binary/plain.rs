//! The side that is no MCP.

use std::io::Read as _;

use crate::running::{Call, KEY, Upstream};

#[tokio::test]
async fn a_request_is_echoed() {
    let upstream = Upstream::start(&[]).await;
    let mut call = Call::new("PUT", "/plain/a/b?c=d").with("x-api-key", KEY).with("x-two", "2");
    call.body = "payload".to_owned();
    let echo = upstream.send(call).await.json();
    assert_eq!((&echo["method"], &echo["path"], &echo["query"]), (&"PUT".into(), &"/plain/a/b".into(), &"c=d".into()));
    assert_eq!(echo["body"], "payload");
    assert!(echo["headers"].as_array().unwrap().contains(&serde_json::json!(["x-two", "2"])));
}

#[tokio::test]
async fn ranges_etags_and_head_work_as_http_says() {
    let upstream = Upstream::start(&[]).await;
    let path = "/plain/x?leak=hex";
    let call = |method| Call::new(method, path).with("x-api-key", KEY);
    let whole = upstream.send(call("GET")).await;
    let (text, etag) = (whole.text(), whole.header("etag").unwrap().to_owned());

    let part = upstream.send(call("GET").with("range", "bytes=9-12")).await;
    assert_eq!((part.status(), part.text().as_str()), (206, &text[9..13]));
    assert_eq!(part.header("content-range"), Some(format!("bytes 9-12/{}", text.len()).as_str()));
    let part = upstream.send(call("GET").with("range", "bytes=9-")).await;
    assert_eq!((part.status(), part.text().as_str()), (206, &text[9..]));
    assert_eq!(upstream.send(call("GET").with("range", "bytes=9999-")).await.status(), 416);

    let same = upstream.send(call("GET").with("if-none-match", &etag)).await;
    assert_eq!((same.status(), same.body.len(), same.header("etag")), (304, 0, Some(etag.as_str())));
    let head = upstream.send(call("HEAD")).await;
    assert_eq!((head.status(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(text.len().to_string().as_str()));
    assert_eq!(head.header("etag"), Some(etag.as_str()));
}

#[tokio::test]
async fn redirects_codings_sizes_and_statuses_come_as_asked() {
    let upstream = Upstream::start(&[]).await;
    let answer = upstream.get("/plain/x?redirect=https%3A%2F%2Fo.example%2Fp").await;
    assert_eq!((answer.status(), answer.header("location")), (302, Some("https://o.example/p")));
    let answer = upstream.get("/plain/x?redirect=https%3A%2F%2Fo.example%2Fp&with_secret=1&leak=percent").await;
    assert_eq!(answer.header("location"), Some("https://o.example/p?key=Kw7%2F%2B%3D%22%5C%269zQ%3F%3F%3E-Tail"));
    let answer = upstream.get("/plain/x?leak=raw&encoding=gzip&status=503&leak_header=reversed").await;
    assert_eq!((answer.status(), answer.header("content-encoding")), (503, Some("gzip")));
    assert_eq!(answer.header("x-upstream-debug"), Some(KEY.chars().rev().collect::<String>().as_str()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, format!("received {KEY} from you\n"));
    let answer = upstream.get("/plain/x?size_bytes=100000").await;
    assert_eq!((answer.body.len(), answer.text().matches(KEY).count()), (100_000, 7));
    assert_eq!(upstream.get("/plain/x?leak=rot13").await.status(), 400);
}
