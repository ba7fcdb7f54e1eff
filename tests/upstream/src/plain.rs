//! The side that is no MCP: an endpoint that echoes requests, with the HTTP features a gateway must keep intact.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, RANGE,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::json;

use crate::body::{self, Body};
use crate::carrier::MAX_ANSWER_BYTES;
use crate::credential::{Presented, decoded, parameters};
use crate::form::Form;
use crate::large::Large;
use crate::wire::{Coding, add};

/// What the query of a request asks for.
#[derive(Default)]
struct Wish {
    leak: Option<Form>,
    leak_header: Option<Form>,
    coding: Option<Coding>,
    size_bytes: Option<u64>,
    redirect: Option<String>,
    with_secret: bool,
    status: Option<StatusCode>,
}

/// Answers one request.
pub(crate) fn serve(parts: &Parts, request_body: &Bytes, credential: &Presented) -> Response<Body> {
    let wish = match Wish::read(parts.uri.query().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(error) => return text(StatusCode::BAD_REQUEST, error),
    };
    let written = |form: Form| form.write_in_header(&credential.secret, &credential.username);
    let mut response = match (&wish.redirect, wish.size_bytes) {
        (Some(target), _) => redirect(target, wish.with_secret.then(|| written(wish.leak.unwrap_or_default()))),
        (None, Some(size_bytes)) => large(size_bytes, &wish, credential),
        (None, None) => content(parts, request_body, &wish, credential),
    };
    if let Some(form) = wish.leak_header {
        add(response.headers_mut(), HeaderName::from_static("x-upstream-debug"), &written(form));
    }
    if let Some(status) = wish.status {
        *response.status_mut() = status;
    }
    if parts.method == Method::HEAD {
        let length = hyper::body::Body::size_hint(response.body()).exact();
        if let Some(length) = length {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        *response.body_mut() = body::whole(Bytes::new());
    }
    response
}

// === impl Wish ===

impl Wish {
    fn read(query: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        for (name, value) in parameters(query) {
            let value = String::from_utf8_lossy(&decoded(value, false)).into_owned();
            let form = || serde_json::from_value(value.as_str().into()).map_err(|_| format!("no form: `{value}`\n"));
            match name {
                "leak" => wish.leak = Some(form()?),
                "leak_header" => wish.leak_header = Some(form()?),
                "encoding" => wish.coding = Some(Coding::named(&value).ok_or(format!("no coding: `{value}`\n"))?),
                "size_bytes" => {
                    let size = value.parse().ok().filter(|size| *size <= MAX_ANSWER_BYTES);
                    wish.size_bytes = Some(size.ok_or(format!("no size up to {MAX_ANSWER_BYTES}: `{value}`\n"))?);
                }
                "redirect" => wish.redirect = Some(value),
                "with_secret" => wish.with_secret = value == "1",
                "status" => {
                    let status = value.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
                    let status = status.filter(|status| status.as_u16() >= 200);
                    wish.status = Some(status.ok_or(format!("no status: `{value}`\n"))?);
                }
                _ => {}
            }
        }
        Ok(wish)
    }
}

fn content(parts: &Parts, request_body: &Bytes, wish: &Wish, credential: &Presented) -> Response<Body> {
    let (media_type, bytes) = match wish.leak {
        Some(form) => {
            let written = form.write(&credential.secret, &credential.username);
            ("text/plain; charset=utf-8", format!("received {written} from you\n").into_bytes())
        }
        None => ("application/json", echo(parts, request_body)),
    };
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let etag = format!("\"{:016x}\"", hasher.finish());
    let bytes = wish.coding.map_or(bytes.clone(), |coding| coding.compress(&bytes));

    let mut response = Response::new(());
    let headers = response.headers_mut();
    add(headers, ETAG, &etag);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if parts.headers.get(IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == etag.as_bytes()) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response.map(|()| body::whole(Bytes::new()));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(coding) = wish.coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    let wanted = parts.headers.get(RANGE).and_then(|value| value.to_str().ok()).and_then(bounds);
    let Some((from, to)) = wanted else {
        return response.map(|()| body::whole(bytes));
    };
    let total = bytes.len();
    let to = to.unwrap_or(usize::MAX).min(total.saturating_sub(1));
    match bytes.get(from..=to).filter(|part| !part.is_empty()) {
        Some(part) => {
            add(headers, CONTENT_RANGE, &format!("bytes {from}-{to}/{total}"));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let part = Bytes::copy_from_slice(part);
            response.map(|()| body::whole(part))
        }
        None => {
            add(headers, CONTENT_RANGE, &format!("bytes */{total}"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            response.map(|()| body::whole(Bytes::new()))
        }
    }
}

fn echo(parts: &Parts, request_body: &Bytes) -> Vec<u8> {
    let value = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = parts.headers.iter().map(|(name, content)| json!([name.as_str(), value(content)])).collect();
    let echo = json!({
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "query": parts.uri.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(request_body),
    });
    echo.to_string().into_bytes()
}

fn large(size_bytes: u64, wish: &Wish, credential: &Presented) -> Response<Body> {
    let form = wish.leak.unwrap_or_default();
    let written = form.write(&credential.secret, &credential.username).into_bytes();
    let large = Large { head: Vec::new(), size_bytes, written, tail: Vec::new() };
    let mut response = Response::new(large.into_body(true));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn redirect(target: &str, written: Option<String>) -> Response<Body> {
    let mut response = text(StatusCode::FOUND, "elsewhere\n".to_owned());
    let joint = if target.contains('?') { '&' } else { '?' };
    let location = written.map_or(target.to_owned(), |written| format!("{target}{joint}key={written}"));
    add(response.headers_mut(), LOCATION, &location);
    response
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(body::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

// One range with a start: all that the tests need.
fn bounds(range: &str) -> Option<(usize, Option<usize>)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let to = if to.is_empty() { None } else { Some(to.parse().ok()?) };
    Some((from.parse().ok()?, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_a_start_and_perhaps_an_end() {
        assert_eq!(bounds("bytes=3-5"), Some((3, Some(5))));
        assert_eq!(bounds("bytes=3-"), Some((3, None)));
        for range in ["bytes=-5", "bytes=1-2,3-4", "lines=1-2", "bytes=a-b"] {
            assert_eq!(bounds(range), None, "{range}");
        }
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_refused() {
        for query in ["leak=rot13", "encoding=zip", "size_bytes=99999999999", "status=99", "status=101"] {
            assert!(Wish::read(query).is_err(), "{query}");
        }
        assert!(Wish::read("anything=else&leak=base64").is_ok());
    }
}
