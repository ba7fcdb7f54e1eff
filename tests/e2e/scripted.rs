//! An upstream that writes exactly the bytes that a test wants, which no honest HTTP library would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use keyward_tests::envoy::{Route, UpstreamCluster};
use keyward_tests::stack::Builder;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// The path below which requests go to it.
pub(crate) const PATH: &str = "/scripted";
pub(crate) const AUTHORITY: &str = "scripted.internal:9100";

/// How long it waits between two pieces of a response.
pub(crate) const PAUSE: Duration = Duration::from_millis(600);

/// Starts it. `answer` makes the whole response out of the whole request, after which the connection is closed.
pub(crate) async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    start_in_pieces(move |request| vec![answer(request)]).await
}

/// Like [`start`], with a [`PAUSE`] between the pieces of the response.
pub(crate) async fn start_in_pieces(answer: impl Fn(&str) -> Vec<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move { drop(serve(stream, |request| answer(request)).await) });
        }
    });
    address
}

/// Routes [`PATH`] to it, as server `scripted` of this mode, with the same binding as the demo upstream.
pub(crate) fn route(builder: Builder, address: SocketAddr, mode: &str) -> Builder {
    let metadata = json!({"server": "scripted", "mode": mode});
    let route = Route { prefix: PATH.to_owned(), cluster: "scripted".to_owned(), metadata };
    builder
        .envoy(|envoy| {
            envoy.routes.push(route);
            envoy.clusters.push(UpstreamCluster::tcp("scripted", address));
        })
        .config(|config| {
            config["servers"]["scripted"] = json!({
                "mode": mode, "destinations": [{"host": "127.0.0.1", "path": PATH}],
                "upstream_authority": AUTHORITY, "cluster": "scripted",
            });
            config["bindings"][0]["servers"] = json!(["demo", "scripted"]);
            if let Some(hosts) = config["bindings"][0]["hosts"].as_array_mut() {
                hosts.push(json!(AUTHORITY));
            }
        })
}

/// A response with a JSON-RPC result and these further header lines.
pub(crate) fn response(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The value of a header of a request's text; empty where absent.
pub(crate) fn header<'r>(request: &'r str, name: &str) -> &'r str {
    let of_line = |line: &'r str| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    request.lines().take_while(|line| !line.is_empty()).find_map(of_line).unwrap_or_default()
}

/// Answers one request on this connection, then closes it.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(&str) -> Vec<Vec<u8>>,
) -> std::io::Result<()> {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        let complete = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = header(head, "content-length").parse().unwrap_or(0);
            if header(head, "transfer-encoding") == "chunked" {
                body.ends_with("0\r\n\r\n")
            } else {
                body.len() >= length
            }
        });
        if complete {
            for (number, piece) in answer(&text).iter().enumerate() {
                if number > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                stream.write_all(piece).await?;
            }
            return stream.shutdown().await;
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}
