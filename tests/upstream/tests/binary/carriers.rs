//! Every carrier brings the credential where its name says.

use std::io::Read as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::running::{Answer, Call, KEY, Upstream};

fn said() -> String {
    format!("received {KEY} from you")
}

fn in_json() -> String {
    json!(KEY).to_string().trim_matches('"').to_owned()
}

async fn leak(upstream: &Upstream, arguments: Value) -> Answer {
    let answer = upstream.tool("leak", arguments).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer
}

#[tokio::test]
async fn message_carriers_are_where_their_names_say() {
    let upstream = Upstream::start(&[]).await;
    for (carrier, pointer) in [
        ("text", "/result/content/0/text"),
        ("tool_error", "/result/content/0/text"),
        ("structured_content", "/result/structuredContent/request/headers/0/value"),
        ("embedded_resource", "/result/content/0/resource/text"),
        ("meta", "/result/_meta/upstream.example~1request/key"),
        ("error_message", "/error/message"),
        ("error_data", "/error/data/request/0"),
    ] {
        let message = leak(&upstream, json!({"carrier": carrier})).await.message();
        assert_eq!(message.pointer(pointer).unwrap(), &json!(said()), "{carrier} {message}");
        assert_eq!(message["result"]["resultType"] == "complete", message["result"].is_object(), "{message}");
        assert_eq!(message["result"]["isError"] == true, carrier == "tool_error");
    }
}

#[tokio::test]
async fn a_blob_has_the_credential_at_every_alignment() {
    let upstream = Upstream::start(&[]).await;
    for alignment in 0..3 {
        let message = leak(&upstream, json!({"carrier": "blob", "alignment": alignment})).await.message();
        let blob = message["result"]["content"][0]["resource"]["blob"].as_str().unwrap();
        let bytes = STANDARD.decode(blob).unwrap();
        let at = bytes.windows(KEY.len()).position(|window| window == KEY.as_bytes()).unwrap();
        assert_eq!((at % 3, at > 3, bytes.len() > at + KEY.len()), (alignment, true, true));
    }
}

#[tokio::test]
async fn a_notification_comes_before_the_result_with_and_without_progress_token() {
    let upstream = Upstream::start(&[]).await;
    let messages = leak(&upstream, json!({"carrier": "notification"})).await.messages();
    assert_eq!(messages[0]["method"], "notifications/message");
    assert_eq!(messages[0]["params"]["data"], said());
    assert_eq!(messages[1]["id"], 7);

    let mut call = Call::tool("leak", json!({"carrier": "notification", "form": "json_unicode"}));
    call.body = call.body.replacen("\"_meta\":{", "\"_meta\":{\"progressToken\":\"p\",", 1);
    let answer = upstream.send(call).await;
    let messages = answer.messages();
    assert_eq!(messages[0]["method"], "notifications/progress");
    assert_eq!(messages[0]["params"]["message"], said());
    assert_eq!(messages[1]["id"], 7);
    assert!(answer.text().contains(r"received \u004b\u0077"));
}

#[tokio::test]
async fn header_carriers_are_response_headers() {
    let upstream = Upstream::start(&[]).await;
    for (carrier, name) in [
        ("header", "x-upstream-debug"),
        ("set_cookie", "set-cookie"),
        ("location", "location"),
        ("www_authenticate", "www-authenticate"),
        ("etag", "etag"),
    ] {
        let answer = leak(&upstream, json!({"carrier": carrier})).await;
        assert!(answer.header(name).unwrap().contains(KEY), "{carrier}");
        assert!(!answer.text().contains(&in_json()));
        let answer = leak(&upstream, json!({"carrier": carrier, "form": "hex"})).await;
        assert!(answer.header(name).unwrap().contains("4b77372f"), "{carrier}");
    }
    let answer = leak(&upstream, json!({"carrier": "reason_phrase"})).await;
    assert_eq!(answer.status_line, format!("HTTP/1.1 200 Received {KEY}"));
}

#[tokio::test]
async fn a_trailer_comes_over_both_http_versions() {
    let upstream = Upstream::start(&[]).await;
    let arguments = json!({"carrier": "trailer"});
    let answer = upstream.send(Call::tool("leak", arguments.clone()).with("te", "trailers")).await;
    assert_eq!(answer.trailers, [("x-upstream-trailer".to_owned(), said())]);
    assert!(!answer.text().contains(&in_json()));

    let stream = tokio::net::TcpStream::connect(&upstream.mcp).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    let call = Call::tool("leak", arguments);
    let mut request = hyper::Request::post(format!("http://{}/mcp", upstream.mcp));
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let response = sender.send_request(request.body(Full::new(Bytes::from(call.body))).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-upstream-trailer"], said());
    assert_eq!(upstream.report("/last").await["http_version"], "HTTP/2.0");
}

#[tokio::test]
async fn split_carriers_cut_the_bytes_inside_the_credential() {
    let upstream = Upstream::start(&[]).await;
    for (carrier, media_type) in [("sse_split", "text/event-stream"), ("tcp_split", "application/json")] {
        let arguments = json!({"carrier": carrier, "split_at": 5, "pause_ms": 100});
        let answer = leak(&upstream, arguments).await;
        assert_eq!(answer.header("content-type"), Some(media_type));
        assert_eq!(answer.message()["result"]["content"][0]["text"], said());
        let written = in_json();
        let (before, after) = written.split_at(5);
        let ends = |(_, read): &(Instant, Vec<u8>)| String::from_utf8_lossy(read).trim_end().ends_with(before);
        let first = answer.reads.iter().position(ends).unwrap_or_else(|| panic!("{carrier} not cut"));
        let second = String::from_utf8_lossy(&answer.reads[first + 1].1).into_owned();
        assert!(second.contains(&format!("{after} from")), "{second}");

        let answer = leak(&upstream, json!({"carrier": carrier, "pause_ms": 10})).await;
        assert!(answer.reads.len() > written.len() * 3 / 4, "{carrier} {}", answer.reads.len());
        assert_eq!(answer.message()["result"]["content"][0]["text"], said());
        assert_eq!(answer.header("content-length").is_some(), carrier == "tcp_split");
    }
}

#[tokio::test]
async fn a_comment_of_the_stream_has_the_credential_and_the_message_has_not() {
    let upstream = Upstream::start(&[]).await;
    let answer = leak(&upstream, json!({"carrier": "sse_comment"})).await;
    assert!(answer.text().starts_with(&format!(": {}\n\n", said())));
    assert_eq!(answer.messages().len(), 1);
    assert!(!answer.message().to_string().contains(&in_json()));
}

#[tokio::test]
async fn compressed_carriers_are_compressed_unasked() {
    let upstream = Upstream::start(&[]).await;
    for carrier in ["gzip", "br", "deflate"] {
        for packing in ["json", "sse"] {
            let answer = leak(&upstream, json!({"carrier": carrier, "packing": packing})).await;
            assert_eq!(answer.header("content-encoding"), Some(carrier));
            let mut text = String::new();
            match carrier {
                "gzip" => flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text),
                "br" => brotli::Decompressor::new(&answer.body[..], 4096).read_to_string(&mut text),
                _ => flate2::read::ZlibDecoder::new(&answer.body[..]).read_to_string(&mut text),
            }
            .unwrap();
            assert!(text.contains(&in_json()), "{carrier} {text}");
            assert_eq!(text.starts_with("event: "), packing == "sse");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_has_the_credential_in_each_form() {
    let upstream = Upstream::start(&[]).await;
    let answer = leak(&upstream, json!({"carrier": "not_json", "form": "html_decimal"})).await;
    assert!(answer.text().contains("received &#75;&#119;"), "{}", answer.text());
    assert!(serde_json::from_slice::<Value>(&answer.body).is_err());
}

#[tokio::test]
async fn a_large_body_is_json_with_the_credential_across_borders() {
    let upstream = Upstream::start(&[]).await;
    let arguments = json!({"carrier": "large", "size_bytes": 3_000_000, "form": "base64"});
    let answer = leak(&upstream, arguments.clone()).await;
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let text = answer.message()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(text.len(), 3_000_000);
    let written = STANDARD.encode(KEY);
    let found: Vec<usize> = answer.text().match_indices(&written).map(|(at, _)| at).collect();
    assert_eq!(found.len(), answer.body.len() / 16_384 + 1);
    assert!(found[1..].iter().all(|at| at / 16_384 != (at + written.len() - 1) / 16_384));

    let answer = upstream.tool("leak", json!({"carrier": "large", "size_bytes": 100_000, "packing": "sse"})).await;
    assert_eq!(answer.header("content-length"), None);
    // On the wire a quote and a backslash of the key take one byte more each.
    let text = answer.message()["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(text.len() + 2 * text.matches(KEY).count(), 100_000);
}

#[tokio::test]
async fn a_gibibyte_takes_no_memory() {
    let upstream = Upstream::start(&[]).await;
    let call = Call::tool("leak", json!({"carrier": "large", "size_bytes": 1_073_741_824}));
    let mut stream = tokio::net::TcpStream::connect(&upstream.mcp).await.unwrap();
    let mut head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".to_owned();
    for (name, value) in &call.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n{}", call.body.len(), call.body));
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut total, mut piece) = (0_u64, vec![0; 1_048_576]);
    loop {
        let bytes = stream.read(&mut piece).await.unwrap();
        if bytes == 0 {
            break;
        }
        total += bytes as u64;
    }
    assert!(total > 1_073_741_824);
    let status = std::fs::read_to_string(format!("/proc/{}/status", upstream.child.id().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 65_536, "{peak_kib}");
}

#[tokio::test]
async fn stream_sends_each_event_when_it_is_due() {
    let upstream = Upstream::start(&[]).await;
    let mut call = Call::tool("stream", json!({"events": 5, "interval_ms": 60, "form": "raw"}));
    call.body = call.body.replacen("\"_meta\":{", "\"_meta\":{\"progressToken\":1,", 1);
    let answer = upstream.send(call).await;
    assert_eq!(answer.messages().len(), 6, "{}", answer.text());
    assert!(answer.messages()[0]["params"]["message"].as_str().unwrap().ends_with(&said()));
    let (first, last) = (answer.reads.first().unwrap().0, answer.reads.last().unwrap().0);
    assert!(last - first >= Duration::from_millis(200), "{:?}", last - first);
}

#[tokio::test]
async fn resources_and_arguments_out_of_bounds_are_answered_well() {
    let upstream = Upstream::start(&[]).await;
    for (tool, arguments) in [
        ("slow", json!({"millis": 60_001})),
        ("stream", json!({"events": 10_001, "interval_ms": 0})),
        ("leak", json!({"carrier": "large", "size_bytes": 2_000_000_000_u64})),
        ("echo", json!({"message": "x", "more": 1})),
        ("nothing", json!({})),
    ] {
        let message = upstream.tool(tool, arguments).await.message();
        assert_eq!(message["error"]["code"], -32602, "{tool} {message}");
    }
    let message = upstream.tool("echo", json!({"message": "hello"})).await.message();
    assert_eq!(message["result"]["content"][0]["text"], "hello");
    let message = upstream.tool("delete_everything", json!({})).await.message();
    assert_eq!(message["result"]["content"][0]["text"], "everything is deleted");
}
