//! The bench upstream: an HTTP server that answers at once with prepared bytes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::answers::{ANSWER_HEADER, Answer, Body, Kind};
use crate::process::announce;

/// The header that the guarded port demands.
pub const CREDENTIAL_HEADER: &str = "x-api-key";
/// The environment variable with the value that it demands.
pub const CREDENTIAL_VARIABLE: &str = "KEYWARD_BENCH_CREDENTIAL";

type Answers = Arc<BTreeMap<String, (Kind, Body)>>;

/// Serves two ports until the process is ended: `open` for all, `guarded` for those who bring the credential.
///
/// # Errors
/// Where no port can be had.
pub async fn serve() -> Result<()> {
    let answers: Answers =
        Arc::new(Answer::all().into_iter().map(|answer| (answer.name(), (answer.kind, answer.body()))).collect());
    let credential = std::env::var(CREDENTIAL_VARIABLE).context(CREDENTIAL_VARIABLE)?;
    let open = TcpListener::bind("127.0.0.1:0").await?;
    let guarded = TcpListener::bind("127.0.0.1:0").await?;
    announce(&[("open", open.local_addr()?), ("guarded", guarded.local_addr()?)]);
    tokio::try_join!(
        accept(open, Arc::clone(&answers), None),
        accept(guarded, answers, Some(Arc::from(credential.as_str()))),
    )?;
    Ok(())
}

async fn accept(listener: TcpListener, answers: Answers, credential: Option<Arc<str>>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (answers, credential) = (Arc::clone(&answers), credential.clone());
        let service = service_fn(move |request| answer(request, Arc::clone(&answers), credential.clone()));
        tokio::spawn(async move {
            // A connection that Envoy ends is no error.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    credential: Option<Arc<str>>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    body.collect().await?;
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if credential.is_some() && header(CREDENTIAL_HEADER) != credential.as_deref() {
        return Ok(short(StatusCode::UNAUTHORIZED, "no credential"));
    }
    let Some((kind, body)) = header(ANSWER_HEADER).and_then(|name| answers.get(name)) else {
        return Ok(short(StatusCode::NOT_FOUND, "no such answer"));
    };
    let sent = match kind {
        Kind::Json => Full::new(body.whole.clone()).boxed(),
        Kind::Sse => {
            let frames: Vec<_> = body.pieces.iter().map(|piece| Ok(Frame::data(piece.clone()))).collect();
            StreamBody::new(tokio_stream::iter(frames)).boxed()
        }
    };
    let mut response = Response::new(sent);
    response.headers_mut().insert("content-type", http::HeaderValue::from_static(kind.content_type()));
    Ok(response)
}

fn short(status: StatusCode, text: &'static str) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}
