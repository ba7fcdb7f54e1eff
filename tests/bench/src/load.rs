//! A bounded load: N connections, each sending the next request when the answer to the last one is complete and right.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use crate::answers::{ANSWER_HEADER, Answer};
use crate::upstream::SESSION_HEADER;

/// How long one request may take before the benchmark fails.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Requests measured in one slice at most, so that memory stays bounded.
const MAX_SAMPLES: usize = 500_000;
/// The MCP revision of the requests.
const REVISION: &str = "2025-11-25";
/// The authority of the requests.
pub const AUTHORITY: &str = "mcp.example";

/// One slice of load.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    /// Connections, each with one request under way.
    pub connections: usize,
    /// What the upstream answers.
    pub answer: Answer,
    /// How long to send before measuring.
    pub warm_up: Duration,
    /// How long to measure.
    pub measured: Duration,
}

/// What a slice measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests completed while measuring.
    pub requests: usize,
    /// How long was measured.
    pub elapsed: Duration,
    /// Their latencies, ascending.
    pub latencies: Vec<Duration>,
}

/// What all connections share.
struct Shared {
    request: Bytes,
    headers: HeaderMap,
    expected: Bytes,
    measuring: Cell<bool>,
    stopped: Cell<bool>,
    latencies: RefCell<Vec<Duration>>,
}

// === impl Measured ===

impl Measured {
    /// The latency that this share of the requests stayed within; `share` is 0 to 1.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// Sends a slice of load to `target`. `mark` is called at the moments at which measuring starts and ends.
///
/// # Errors
/// Where any request fails, is not answered with 200, or not with the expected bytes.
pub async fn run(
    target: SocketAddr,
    token: &str,
    slice: Slice,
    mark: &mut dyn FnMut() -> Result<()>,
) -> Result<Measured> {
    let mut headers = headers(token, slice.answer)?;
    let session = timeout(REQUEST_LIMIT, session(target, &headers)).await.context("no session in time")??;
    headers.insert(SESSION_HEADER, session);
    let shared = Rc::new(Shared {
        request: tool_call(),
        headers,
        expected: slice.answer.body().whole,
        measuring: Cell::new(false),
        stopped: Cell::new(false),
        latencies: RefCell::new(Vec::new()),
    });
    let tasks = LocalSet::new();
    let workers: Vec<_> = (0..slice.connections).map(|_| tasks.spawn_local(work(target, Rc::clone(&shared)))).collect();
    let measured = tasks
        .run_until(async {
            sleep(slice.warm_up).await;
            mark()?;
            let started = Instant::now();
            shared.measuring.set(true);
            sleep(slice.measured).await;
            shared.measuring.set(false);
            let elapsed = started.elapsed();
            mark()?;
            shared.stopped.set(true);
            anyhow::Ok(elapsed)
        })
        .await?;
    tasks
        .run_until(async {
            for worker in workers {
                worker.await??;
            }
            anyhow::Ok(())
        })
        .await?;
    let mut latencies = shared.latencies.take();
    latencies.sort_unstable();
    if latencies.is_empty() {
        bail!("no request was answered within {measured:?}");
    }
    Ok(Measured { requests: latencies.len(), elapsed: measured, latencies })
}

/// Sends one request on each of `connections` connections at once, the first ones of this target. Returns how long it took
/// until all were answered, connecting left out.
///
/// # Errors
/// As [`run`].
pub async fn first_calls(target: SocketAddr, token: &str, connections: usize, answer: Answer) -> Result<Duration> {
    let shared = Rc::new(Shared {
        request: tool_call(),
        headers: headers(token, answer)?,
        expected: answer.body().whole,
        measuring: Cell::new(false),
        stopped: Cell::new(false),
        latencies: RefCell::new(Vec::new()),
    });
    let tasks = LocalSet::new();
    tasks
        .run_until(async {
            let mut senders = Vec::with_capacity(connections);
            for _ in 0..connections {
                let stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                tokio::task::spawn_local(connection);
                senders.push(sender);
            }
            let started = Instant::now();
            let calls: Vec<_> = senders
                .into_iter()
                .map(|mut sender| {
                    let shared = Rc::clone(&shared);
                    tokio::task::spawn_local(async move {
                        timeout(REQUEST_LIMIT, call(&mut sender, &shared)).await.context("an answer took too long")?
                    })
                })
                .collect();
            for call in calls {
                call.await??;
            }
            anyhow::Ok(started.elapsed())
        })
        .await
}

/// The session id of the answer to one request without any, as it comes through `target`.
async fn session(target: SocketAddr, headers: &HeaderMap) -> Result<HeaderValue> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::post("/mcp").body(Full::new(tool_call()))?;
    *request.headers_mut() = headers.clone();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let session = response.headers().get(SESSION_HEADER).cloned();
    response.into_body().collect().await?;
    drop(sender);
    connection.await??;
    session.with_context(|| format!("answered with {status}, without a session"))
}

async fn work(target: SocketAddr, shared: Rc<Shared>) -> Result<()> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("connecting to {target}"))?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::task::spawn_local(connection);
    while !shared.stopped.get() {
        let started = Instant::now();
        timeout(REQUEST_LIMIT, call(&mut sender, &shared)).await.context("an answer took too long")??;
        if shared.measuring.get() {
            let mut latencies = shared.latencies.borrow_mut();
            if latencies.len() >= MAX_SAMPLES {
                bail!("more than {MAX_SAMPLES} requests in one slice: measure for less time");
            }
            latencies.push(started.elapsed());
        }
    }
    drop(sender);
    connection.await??;
    Ok(())
}

async fn call(sender: &mut SendRequest<Full<Bytes>>, shared: &Shared) -> Result<()> {
    let mut request = Request::post("/mcp").body(Full::new(shared.request.clone()))?;
    *request.headers_mut() = shared.headers.clone();
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let mut body = response.into_body();
    if status != StatusCode::OK {
        let text = body.collect().await?.to_bytes();
        bail!("answered with {status}: `{}`", String::from_utf8_lossy(&text));
    }
    let mut left = shared.expected.as_ref();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        match left.split_at_checked(data.len()) {
            Some((expected, rest)) if expected == data => left = rest,
            _ => {
                bail!("a wrong answer, beginning with `{}`", String::from_utf8_lossy(data.get(..200).unwrap_or(&data)))
            }
        }
    }
    if !left.is_empty() {
        bail!("an answer ended {} bytes early", left.len());
    }
    Ok(())
}

/// What an MCP client sends with each call.
fn headers(token: &str, answer: Answer) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {token}");
    let answer = answer.name();
    for (name, value) in [
        ("host", AUTHORITY),
        ("accept", "application/json, text/event-stream"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "*"),
        ("authorization", &bearer),
        ("content-type", "application/json"),
        ("mcp-protocol-version", REVISION),
        ("sec-fetch-mode", "cors"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("user-agent", "keyward-bench"),
        (ANSWER_HEADER, &answer),
    ] {
        headers.insert(http::HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(headers)
}

/// The call of a tool, about 400 bytes.
fn tool_call() -> Bytes {
    let message = "Please check where order 40781 of María Fernández is, whether it was paid, and when it will arrive; \
                   if it is late, say so and offer her the usual 10 % discount on the next one.";
    let call = serde_json::json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": "echo",
            "arguments": {"message": message, "order": 40781, "options": {"verbose": true, "limit": 25}},
            "_meta": {"progressToken": 17},
        },
    });
    Bytes::from(call.to_string())
}
