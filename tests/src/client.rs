//! A raw HTTP client that hides nothing: every header, chunk and trailer, over HTTP/1.1 or HTTP/2 without TLS.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::sse::{self, Event};

/// Which HTTP a request travels over; each request has a connection of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A request body.
#[derive(Clone, Debug, Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// With a content length.
    Whole(Bytes),
    /// Chunk by chunk, each after a pause, then trailers where there are any.
    Stream(Vec<(Duration, Bytes)>, Option<HeaderMap>),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, sent as they are.
    pub path: String,
    /// The authority; none: the address it is sent to.
    pub authority: Option<String>,
    /// Headers in order; repeated names are sent repeatedly.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: RequestBody,
    /// The protocol.
    pub protocol: Protocol,
    /// How long the whole exchange may take. Default 30 s.
    pub limit: Duration,
}

/// A piece of a response body.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// When it arrived, counted from the moment the request was sent.
    pub at: Duration,
    /// The bytes.
    pub bytes: Bytes,
}

/// A complete response, or what came of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub chunks: Vec<Chunk>,
    /// The trailers; empty where there were none.
    pub trailers: HeaderMap,
    /// Why the body broke off, where it did.
    pub broken: Option<String>,
}

/// A response whose body is still arriving. Dropping it closes the connection.
pub struct OpenAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    sent: Instant,
    connection: Connection,
}

/// Ends the connection's task when dropped.
struct Connection(tokio::task::JoinHandle<()>);

// === impl Request ===

impl Request {
    /// A request without headers and body.
    #[must_use]
    pub fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            authority: None,
            headers: Vec::new(),
            body: RequestBody::Empty,
            protocol: Protocol::Http1,
            limit: Duration::from_secs(30),
        }
    }

    /// A POST of JSON, accepting JSON and event streams as MCP demands.
    #[must_use]
    pub fn post(path: &str, body: &Value) -> Self {
        Self::post_bytes(path, body.to_string())
    }

    /// A POST of bytes that call themselves JSON.
    #[must_use]
    pub fn post_bytes(path: &str, body: impl Into<Bytes>) -> Self {
        let mut request = Self::new(Method::POST, path)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        request.body = RequestBody::Whole(body.into());
        request
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Removes every header of this name.
    #[must_use]
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self
    }

    /// Adds `Authorization: Bearer TOKEN`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sends over another protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Names another authority.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.to_owned());
        self
    }

    /// Sends the body in pieces of `size` bytes with a pause before each, without a content length.
    #[must_use]
    pub fn chunked(mut self, size: usize, pause: Duration) -> Self {
        if let RequestBody::Whole(bytes) = &self.body {
            let pieces = bytes.chunks(size.max(1)).map(|piece| (pause, Bytes::copy_from_slice(piece))).collect();
            self.body = RequestBody::Stream(pieces, None);
        }
        self
    }

    /// Ends the body with these trailers.
    #[must_use]
    pub fn trailers(mut self, trailers: HeaderMap) -> Self {
        let pieces = match std::mem::take(&mut self.body) {
            RequestBody::Empty => Vec::new(),
            RequestBody::Whole(bytes) => vec![(Duration::ZERO, bytes)],
            RequestBody::Stream(pieces, _) => pieces,
        };
        self.body = RequestBody::Stream(pieces, Some(trailers));
        self
    }

    /// Sends it and reads the whole answer. A body that breaks off is an [`Answer`] with `broken` set.
    ///
    /// # Errors
    /// Where no answer came, or the limit passed.
    pub async fn send(self, to: SocketAddr) -> Result<Answer> {
        let limit = self.limit;
        let exchange = async { Ok(self.open(to).await?.finish().await) };
        timeout(limit, exchange).await.with_context(|| format!("no complete answer from {to} within {limit:?}"))?
    }

    /// Sends it and returns when the response headers are there.
    ///
    /// # Errors
    /// Where the connection fails before, or the limit passed.
    pub async fn open(self, to: SocketAddr) -> Result<OpenAnswer> {
        let limit = self.limit;
        timeout(limit, self.start(to)).await.with_context(|| format!("no answer from {to} within {limit:?}"))?
    }

    async fn start(self, to: SocketAddr) -> Result<OpenAnswer> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        let protocol = self.protocol;
        let request = self.build(to)?;
        let io = TokioIo::new(stream);
        let sent = Instant::now();
        let (response, connection) = match protocol {
            Protocol::Http1 => {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                let task = Connection(tokio::spawn(async move { drop(connection.await) }));
                (sender.send_request(request).await?, task)
            }
            Protocol::Http2 => {
                let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                let task = Connection(tokio::spawn(async move { drop(connection.await) }));
                (sender.send_request(request).await?, task)
            }
        };
        let (parts, body) = response.into_parts();
        Ok(OpenAnswer { status: parts.status, headers: parts.headers, body, sent, connection })
    }

    fn build(self, to: SocketAddr) -> Result<http::Request<BoxBody<Bytes, std::convert::Infallible>>> {
        let authority = self.authority.unwrap_or_else(|| to.to_string());
        let uri = match self.protocol {
            Protocol::Http1 => self.path.parse::<Uri>(),
            Protocol::Http2 => format!("http://{authority}{}", self.path).parse::<Uri>(),
        };
        let uri = uri.with_context(|| format!("`{}` is not a path", self.path))?;
        let mut request = http::Request::builder().method(self.method).uri(uri);
        if self.protocol == Protocol::Http1 {
            request = request.header("host", authority);
        }
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let body = match self.body {
            RequestBody::Empty => Empty::new().boxed(),
            RequestBody::Whole(bytes) => Full::new(bytes).boxed(),
            RequestBody::Stream(pieces, trailers) => {
                if let Some(trailers) = trailers.as_ref().filter(|_| self.protocol == Protocol::Http1) {
                    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
                    request = request.header("trailer", names.join(", "));
                }
                streamed(pieces, trailers)
            }
        };
        request.body(body).context("the request cannot be built")
    }
}

fn streamed(pieces: Vec<(Duration, Bytes)>, trailers: Option<HeaderMap>) -> BoxBody<Bytes, std::convert::Infallible> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        for (pause, bytes) in pieces {
            sleep(pause).await;
            if sender.send(Ok(Frame::data(bytes))).await.is_err() {
                return;
            }
        }
        if let Some(trailers) = trailers {
            let _ = sender.send(Ok(Frame::trailers(trailers))).await;
        }
    });
    BodyExt::boxed(StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}

// === impl OpenAnswer ===

impl OpenAnswer {
    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// Where the stream broke off.
    pub async fn chunk(&mut self) -> Result<Option<Chunk>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(bytes) = frame?.into_data() {
                return Ok(Some(Chunk { at: self.sent.elapsed(), bytes }));
            }
        }
        Ok(None)
    }

    /// Reads the rest.
    pub async fn finish(mut self) -> Answer {
        let mut chunks = Vec::new();
        let mut trailers = HeaderMap::new();
        let mut broken = None;
        while let Some(frame) = self.body.frame().await {
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => chunks.push(Chunk { at: self.sent.elapsed(), bytes }),
                Ok(Err(frame)) => trailers.extend(frame.into_trailers().unwrap_or_default()),
                Err(error) => {
                    broken = Some(error.to_string());
                    break;
                }
            }
        }
        drop(self.connection);
        Answer { status: self.status, headers: self.headers, chunks, trailers, broken }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

// === impl Answer ===

impl Answer {
    /// The body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).collect()
    }

    /// The body as text, with what is not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body()).into_owned()
    }

    /// A header's value; empty where absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Everything that the client could see: status, headers, body and trailers.
    #[must_use]
    pub fn everything(&self) -> Vec<u8> {
        let mut all = format!("{}\n", self.status).into_bytes();
        for (name, value) in self.headers.iter().chain(&self.trailers) {
            all.extend_from_slice(name.as_str().as_bytes());
            all.extend_from_slice(b": ");
            all.extend_from_slice(value.as_bytes());
            all.push(b'\n');
        }
        all.extend(self.body());
        all
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// Shows the body where it is not JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body()).with_context(|| format!("{} with `{}`", self.status, self.text()))
    }

    /// The events, where the body is an event stream.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        sse::events(&self.chunks)
    }

    /// Every JSON-RPC message: of an event stream, or the one of a JSON body.
    ///
    /// # Errors
    /// Where one is not JSON.
    pub fn messages(&self) -> Result<Vec<Value>> {
        if !self.header("content-type").starts_with("text/event-stream") {
            return Ok(vec![self.json()?]);
        }
        let parse = |event: Event| serde_json::from_str(&event.data).with_context(|| format!("event `{}`", event.data));
        self.events().into_iter().filter(|event| !event.data.trim().is_empty()).map(parse).collect()
    }

    /// The JSON-RPC response: the message with a result or an error.
    ///
    /// # Errors
    /// Shows the body where there is none.
    pub fn response(&self) -> Result<Value> {
        let is_response = |message: &Value| message.get("result").is_some() || message.get("error").is_some();
        let found = self.messages()?.into_iter().rev().find(is_response);
        found.ok_or_else(|| anyhow!("no JSON-RPC response: {} with `{}`", self.status, self.text()))
    }

    /// The `result` of the JSON-RPC response.
    ///
    /// # Errors
    /// Shows the response where it is an error.
    pub fn result(&self) -> Result<Value> {
        let mut response = self.response()?;
        match response.get_mut("result") {
            Some(result) if self.status == StatusCode::OK => Ok(result.take()),
            _ => bail!("{} with `{}`", self.status, self.text()),
        }
    }
}

/// Sends raw bytes and reads until the peer closes or `limit` passes.
///
/// # Errors
/// Where the connection fails.
pub async fn send_raw(to: SocketAddr, bytes: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to).await.with_context(|| format!("connecting to {to}"))?;
    stream.write_all(bytes).await?;
    let mut received = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let reading = async {
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            received.extend_from_slice(buffer.get(..count).unwrap_or_default());
        }
    };
    let _ = timeout(limit, reading).await;
    Ok(received)
}

/// GETs `http://ADDRESS/PATH`.
///
/// # Errors
/// Where the connection fails or the status is not a success.
pub async fn get(from: SocketAddr, path: &str) -> Result<String> {
    let answer = Request::new(Method::GET, path).send(from).await?;
    if !answer.status.is_success() {
        bail!("GET {path} of {from}: {} with `{}`", answer.status, answer.text());
    }
    Ok(answer.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use hyper::service::service_fn;
    use hyper_util::server::conn::auto;

    /// Answers with what it got: the body's length, its frames and the trailers.
    async fn mirror(request: http::Request<Incoming>) -> Result<http::Response<Full<Bytes>>, hyper::Error> {
        let host = request.headers().get("host").cloned();
        let authority = request.uri().authority().map(|authority| authority.to_string());
        let mut body = request.into_body();
        let (mut length, mut trailer) = (0, String::new());
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(bytes) => length += bytes.len(),
                Err(frame) => trailer = format!("{:?}", frame.into_trailers().unwrap_or_default().get("x-end")),
            }
        }
        let host = host.and_then(|host| host.to_str().map(str::to_owned).ok()).or(authority).unwrap_or_default();
        Ok(http::Response::new(Full::from(format!("{length} {trailer} {host}"))))
    }

    async fn start_mirror() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service_fn(mirror)).await);
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn pieces_and_trailers_arrive_over_both_protocols() {
        let mirror = start_mirror().await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("yes"));
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let request = Request::post_bytes("/x", "0123456789").protocol(protocol).authority("mcp.example");
            let request = request.chunked(3, Duration::from_millis(1)).trailers(trailers.clone());
            let answer = request.send(mirror).await.unwrap();
            assert_eq!(answer.text(), "10 Some(\"yes\") mcp.example", "{protocol:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_is_an_error_in_time() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut request = Request::new(Method::GET, "/");
        request.limit = Duration::from_millis(50);
        let error = request.send(silent.local_addr().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("50ms"), "{error}");
    }

    #[tokio::test]
    async fn raw_bytes_travel_as_they_are() {
        let received = send_raw(start_mirror().await, b"NONSENSE\r\n\r\n", Duration::from_secs(2)).await.unwrap();
        assert!(received.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&received));
    }
}
