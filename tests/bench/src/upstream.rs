//! The bench upstream: an HTTP server that answers at once with prepared bytes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

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

/// How long the token endpoint takes: about what one on the same continent does.
const MINT: Duration = Duration::from_millis(100);

type Answers = Arc<BTreeMap<String, (Kind, Body)>>;

/// The header that names an MCP session; who sends none is given one.
pub(crate) const SESSION_HEADER: &str = "mcp-session-id";

/// What a port demands: a header whose value begins like this.
#[derive(Clone)]
struct Demand {
    header: &'static str,
    beginning: Arc<str>,
}

/// Serves until the process is ended: `open` for all, `guarded` for those who bring the credential, `bearer` for those with a
/// token of the `token` endpoint, `signed` for those with an AWS signature. `GET` of the token endpoint tells how many tokens
/// it has minted.
///
/// # Errors
/// Where no port can be had.
pub async fn serve() -> Result<()> {
    let answers: Answers =
        Arc::new(Answer::all().into_iter().map(|answer| (answer.name(), (answer.kind, answer.body()))).collect());
    let credential = std::env::var(CREDENTIAL_VARIABLE).context(CREDENTIAL_VARIABLE)?;
    let listen = || TcpListener::bind("127.0.0.1:0");
    let (open, guarded, bearer, signed, token) = tokio::try_join!(listen(), listen(), listen(), listen(), listen())?;
    announce(&[
        ("open", open.local_addr()?),
        ("guarded", guarded.local_addr()?),
        ("bearer", bearer.local_addr()?),
        ("signed", signed.local_addr()?),
        ("token", token.local_addr()?),
    ]);
    let demand = |header, beginning: &str| Some(Demand { header, beginning: Arc::from(beginning) });
    tokio::try_join!(
        accept(open, Arc::clone(&answers), None),
        accept(guarded, Arc::clone(&answers), demand(CREDENTIAL_HEADER, &credential)),
        accept(bearer, Arc::clone(&answers), demand("authorization", "Bearer bench-token-")),
        accept(signed, answers, demand("authorization", "AWS4-HMAC-SHA256 Credential=")),
        mint(token),
    )?;
    Ok(())
}

/// The token endpoint.
async fn mint(listener: TcpListener) -> Result<()> {
    let minted = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        let minted = Arc::clone(&minted);
        let service = service_fn(move |request: Request<Incoming>| {
            let minted = Arc::clone(&minted);
            async move {
                let text = if request.method() == http::Method::GET {
                    minted.load(Ordering::SeqCst).to_string()
                } else {
                    request.into_body().collect().await?;
                    tokio::time::sleep(MINT).await;
                    let number = minted.fetch_add(1, Ordering::SeqCst) + 1;
                    let token = format!("bench-token-5e0c71a9-{number}");
                    serde_json::json!({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).to_string()
                };
                let mut response = Response::new(Full::new(Bytes::from(text)));
                response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
                Ok::<_, hyper::Error>(response)
            }
        });
        tokio::spawn(async move {
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn accept(listener: TcpListener, answers: Answers, demand: Option<Demand>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (answers, demand) = (Arc::clone(&answers), demand.clone());
        let service = service_fn(move |request| answer(request, Arc::clone(&answers), demand.clone()));
        tokio::spawn(async move {
            // A connection that Envoy ends is no error.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    demand: Option<Demand>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    body.collect().await?;
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let brings = |demand: &Demand| header(demand.header).is_some_and(|value| value.starts_with(&*demand.beginning));
    if !demand.as_ref().is_none_or(brings) {
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
    if header(SESSION_HEADER).is_none() {
        // As long as the id of any upstream that names sessions by UUIDs.
        let id = http::HeaderValue::from_static("1868a90c-7b4d-4a3e-9d0f-2f6f4ad4c1ee");
        response.headers_mut().insert(SESSION_HEADER, id);
    }
    Ok(response)
}

fn short(status: StatusCode, text: &'static str) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    *response.status_mut() = status;
    response
}
