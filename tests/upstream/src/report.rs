//! The side port: what the upstream received, as JSON.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use serde::Serialize;

use crate::body::{self, Body};
use crate::record::Recorder;

/// Answers one request to the side port.
pub(crate) fn serve(method: &Method, path: &str, recorder: &Recorder) -> Response<Body> {
    match (method, path) {
        (&Method::GET, "/last") => json(&recorder.last()),
        (&Method::GET, "/count") => json(&recorder.count()),
        (&Method::GET, "/requests") => json(&recorder.requests()),
        (&Method::POST, "/reset") => {
            recorder.reset();
            json(&recorder.count())
        }
        (_, "/last" | "/count" | "/requests" | "/reset") => failed(StatusCode::METHOD_NOT_ALLOWED),
        _ => failed(StatusCode::NOT_FOUND),
    }
}

fn json(value: &impl Serialize) -> Response<Body> {
    let Ok(text) = serde_json::to_vec(value) else {
        return failed(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = Response::new(body::whole(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn failed(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(body::whole(""));
    *response.status_mut() = status;
    response
}
