//! The listeners: each request is noted, then its key is checked, and only then does anything happen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::body::{self, Body};
use crate::credential::KeyCheck;
use crate::mcp::Mcp;
use crate::record::{Entry, Recorder};
use crate::{plain, report};

const MAX_BODY_BYTES: usize = 8_388_608;
const MAX_CONNECTIONS: usize = 1024;
const MAX_STREAMS: u32 = 256;
const HEADERS_WITHIN: Duration = Duration::from_secs(30);
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// Everything that a request needs.
pub(crate) struct Front {
    /// The check that comes first.
    pub(crate) key_check: KeyCheck,
    /// Where requests are noted.
    pub(crate) recorder: Arc<Recorder>,
    /// The MCP endpoint.
    pub(crate) mcp: Mcp,
}

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// MCP and plain HTTP.
    Upstream,
    /// The report.
    Report,
}

/// Why a body could not be read.
enum BodyFault {
    TooLarge,
    Broken,
    TooSlow,
}

/// Accepts connections until told to stop, and then waits for those under way.
pub(crate) async fn accept(listener: TcpListener, side: Side, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        // A connection that is gone before it is accepted, or a lack of descriptors: go on after a moment.
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let (front, stop) = (Arc::clone(&front), stop.clone());
        connections.spawn(async move {
            connection(stream, side, front, stop).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, side: Side, front: Arc<Front>, mut stop: watch::Receiver<bool>) {
    // Each piece of an answer must leave as it is written.
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS);
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { Ok::<_, Infallible>(front.serve(side, request).await) }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // A fault of one connection concerns its client alone.
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

// === impl Front ===

impl Front {
    async fn serve(&self, side: Side, request: Request<Incoming>) -> Response<Body> {
        let (parts, incoming) = request.into_parts();
        if side == Side::Report {
            return report::serve(&parts.method, parts.uri.path(), &self.recorder);
        }
        let entry = self.recorder.arrived(&parts);
        let body = tokio::time::timeout(BODY_WITHIN, read(incoming, &entry)).await.unwrap_or(Err(BodyFault::TooSlow));
        let response = match (self.key_check.presented(&parts), body) {
            (None, _) => {
                self.recorder.refused();
                unauthorized()
            }
            (Some(_), Err(BodyFault::TooLarge)) => refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            (Some(_), Err(BodyFault::Broken)) => refused(StatusCode::BAD_REQUEST, "the body was cut off"),
            (Some(_), Err(BodyFault::TooSlow)) => refused(StatusCode::REQUEST_TIMEOUT, "the body came too slowly"),
            (Some(credential), Ok(body)) => match parts.uri.path() {
                "/mcp" => self.mcp.serve(parts, body, credential).await,
                path if path == "/plain" || path.starts_with("/plain/") => plain::serve(&parts, &body, &credential),
                _ => refused(StatusCode::NOT_FOUND, "nothing here"),
            },
        };
        entry.answered(response.status());
        response
    }
}

async fn read(mut incoming: Incoming, entry: &Entry) -> Result<Bytes, BodyFault> {
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|_| BodyFault::Broken)?;
        match frame.into_data() {
            Ok(piece) => {
                entry.body(&piece);
                if body.len().saturating_add(piece.len()) > MAX_BODY_BYTES {
                    return Err(BodyFault::TooLarge);
                }
                body.extend_from_slice(&piece);
            }
            Err(frame) => {
                if let Some(trailers) = frame.trailers_ref() {
                    entry.trailers(trailers);
                }
            }
        }
    }
    entry.complete();
    Ok(body.into())
}

fn unauthorized() -> Response<Body> {
    let mut response = refused(StatusCode::UNAUTHORIZED, "missing or wrong API key");
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey realm=\"upstream\""));
    response
}

fn refused(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(body::whole(serde_json::json!({ "error": message }).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
