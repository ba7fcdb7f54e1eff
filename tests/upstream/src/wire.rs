//! What the SDK cannot do to its own answer: headers, trailers, cuts, compression and hand-written escapes.
//!
//! The SDK makes every message, so each revision gets its own right one; this file only packs it anew.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use crate::body::{self, Body};
use crate::carrier::{Carrier, DEFAULT_ANSWER_BYTES, Leak, Packing};
use crate::credential::Presented;
use crate::form::Form;
use crate::large::Large;

// Stand in the SDK's answer where JSON escapes must appear that it would escape again.
const ESCAPES_HERE: [(Form, &str); 2] =
    [(Form::JsonUnicode, "<<json-unicode-here>>"), (Form::JsonUnicodePartial, "<<json-unicode-partial-here>>")];

/// Stands in the SDK's answer where the filler of a large one begins.
pub(crate) const FILLER_HERE: &str = "<<filler-here>>";

const MAX_COLLECTED_BYTES: usize = 8_388_608;
const DEFAULT_PAUSE_MS: u64 = 2;
const TRAILER_NAME: HeaderName = HeaderName::from_static("x-upstream-trailer");

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Br,
    /// RFC 1950, as HTTP means it.
    Deflate,
}

/// Puts the credential where the call wants it in the SDK's answer.
pub(crate) async fn leaked(response: Response<Body>, leak: &Leak, credential: &Presented) -> Response<Body> {
    if !response.status().is_success() {
        return response;
    }
    let (mut parts, sdk_body) = response.into_parts();
    let written = leak.form.write_in_header(&credential.secret, &credential.username);
    if let Some(name) = leak.carrier.header_name() {
        add(&mut parts.headers, HeaderName::from_static(name), &leak.carrier.header_value(&written));
    }
    if leak.carrier == Carrier::ReasonPhrase
        && let Ok(reason) = hyper::ext::ReasonPhrase::try_from(format!("Received {written}").into_bytes())
    {
        parts.extensions.insert(reason);
    }
    let escapes = leak.form.write_in_json(&credential.secret, &credential.username);
    let Some(packing) = leak.packing.or(leak.carrier.packing()) else {
        return escaped(Response::from_parts(parts, sdk_body), credential);
    };
    let messages = messages(&parts.headers, sdk_body).await;
    let messages: Vec<Bytes> = messages.iter().map(|message| with_escapes(message, credential)).collect();
    for name in [CONTENT_LENGTH, CONTENT_TYPE] {
        parts.headers.remove(name);
    }
    let content_type = match (leak.carrier, packing) {
        (Carrier::NotJson, _) => "text/plain; charset=utf-8",
        (_, Packing::Json) => "application/json",
        (_, Packing::Sse) => "text/event-stream",
    };
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let Some(result) = messages.last() else {
        parts.status = StatusCode::INTERNAL_SERVER_ERROR;
        return Response::from_parts(parts, body::whole("the answer is too long or has no message\n"));
    };
    let pieces = match packing {
        Packing::Json => vec![result.to_vec()],
        Packing::Sse => events(&messages, leak, &escapes, &written),
    };
    let body = packed(&mut parts.headers, pieces, packing, leak, &escapes, &written);
    Response::from_parts(parts, body)
}

fn packed(
    headers: &mut HeaderMap,
    pieces: Vec<Vec<u8>>,
    packing: Packing,
    leak: &Leak,
    escapes: &str,
    written: &str,
) -> Body {
    let sized = packing == Packing::Json;
    let pause = Duration::from_millis(leak.pause_ms.unwrap_or(DEFAULT_PAUSE_MS).max(1));
    let coding = match leak.carrier {
        Carrier::Gzip => Some(Coding::Gzip),
        Carrier::Br => Some(Coding::Br),
        Carrier::Deflate => Some(Coding::Deflate),
        _ => None,
    };
    match leak.carrier {
        Carrier::NotJson => body::whole(format!("upstream fault, received {written} from you\n")),
        Carrier::Trailer => {
            add(headers, TRAILER, TRAILER_NAME.as_str());
            let mut trailers = HeaderMap::new();
            add(&mut trailers, TRAILER_NAME, &format!("received {written} from you"));
            body::paced(pieces.into_iter().map(Bytes::from).collect(), pause, Some(trailers), false)
        }
        Carrier::SseSplit | Carrier::TcpSplit => {
            let pieces = cut(&pieces.concat(), escapes.as_bytes(), leak.split_at);
            body::paced(pieces, pause, None, sized)
        }
        Carrier::Large => {
            let text = pieces.concat();
            let size_bytes = leak.size_bytes.unwrap_or(DEFAULT_ANSWER_BYTES);
            let at = find(&text, FILLER_HERE.as_bytes()).unwrap_or(text.len());
            let (head, rest) = text.split_at(at);
            let tail = rest.get(FILLER_HERE.len()..).unwrap_or_default();
            let written = escapes.as_bytes().to_vec();
            Large { head: head.to_vec(), size_bytes, written, tail: tail.to_vec() }.into_body(sized)
        }
        _ => match coding {
            Some(coding) => {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
                body::whole(coding.compress(&pieces.concat()))
            }
            None => body::paced(pieces.into_iter().map(Bytes::from).collect(), pause, None, sized),
        },
    }
}

fn events(messages: &[Bytes], leak: &Leak, escapes: &str, written: &str) -> Vec<Vec<u8>> {
    let event = |message: &[u8]| [b"event: message\ndata: ", message, b"\n\n"].concat();
    let mut events = Vec::new();
    if leak.carrier == Carrier::SseComment {
        events.push(format!(": received {written} from you\n\n").into_bytes());
    }
    if leak.carrier == Carrier::Notification && messages.len() < 2 {
        let log = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\
             \"params\":{{\"level\":\"info\",\"data\":\"received {escapes} from you\"}}}}"
        );
        events.push(event(log.as_bytes()));
    }
    events.extend(messages.iter().map(|message| event(message)));
    events
}

/// The messages of an answer of the SDK, the result last; none if it is too long.
pub(crate) async fn messages(headers: &HeaderMap, body: Body) -> Vec<Bytes> {
    let Ok(collected) = Limited::new(body, MAX_COLLECTED_BYTES).collect().await else {
        return Vec::new();
    };
    let bytes = collected.to_bytes();
    let is_stream = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    if !is_stream {
        return if bytes.is_empty() { Vec::new() } else { vec![bytes] };
    }
    // The SDK writes each message on one data line.
    let lines = bytes.split(|byte| *byte == b'\n');
    let data = lines.filter_map(|line| line.strip_prefix(b"data:")).map(<[u8]>::trim_ascii);
    data.filter(|data| !data.is_empty()).map(Bytes::copy_from_slice).collect()
}

/// The text that the SDK is to send, or the mark that becomes JSON escapes afterwards.
pub(crate) fn in_sdk_answer(form: Form, credential: &Presented) -> String {
    let mark = ESCAPES_HERE.iter().find(|(escape, _)| *escape == form);
    mark.map_or_else(|| form.write(&credential.secret, &credential.username), |(_, mark)| (*mark).to_owned())
}

/// Writes the JSON escapes into an answer of the SDK, message by message.
pub(crate) fn escaped(response: Response<Body>, credential: &Presented) -> Response<Body> {
    let credential = credential.clone();
    // The SDK puts each message into a frame of its own.
    response.map(|body| body.map_frame(move |frame| frame.map_data(|data| with_escapes(&data, &credential))).boxed())
}

fn with_escapes(data: &[u8], credential: &Presented) -> Bytes {
    let mut data = data.to_vec();
    for (form, mark) in ESCAPES_HERE {
        let escapes = form.write_in_json(&credential.secret, &credential.username);
        data = replaced(&data, mark.as_bytes(), escapes.as_bytes());
    }
    data.into()
}

fn replaced(data: &[u8], mark: &[u8], by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some(at) = find(rest, mark) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(by);
        rest = from.get(mark.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

fn cut(data: &[u8], written: &[u8], split_at: Option<u32>) -> Vec<Bytes> {
    let mut cuts = Vec::new();
    let mut from = 0;
    while let Some(at) = data.get(from..).and_then(|rest| find(rest, written)) {
        let start = from + at;
        match split_at {
            Some(split_at) => cuts.push(start + (split_at as usize).min(written.len())),
            None => cuts.extend(start..=start + written.len()),
        }
        from = start + written.len().max(1);
    }
    cuts.push(data.len());
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in cuts {
        if let Some(piece) = data.get(from..to).filter(|piece| !piece.is_empty()) {
            pieces.push(Bytes::copy_from_slice(piece));
            from = to;
        }
    }
    pieces
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    (!needle.is_empty()).then(|| haystack.windows(needle.len()).position(|window| window == needle)).flatten()
}

/// Adds a header; a value that no header can hold is left out.
pub(crate) fn add(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.append(name, value);
    }
}

// === impl Coding ===

impl Coding {
    /// The name in `Content-Encoding`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Br => "br",
            Self::Deflate => "deflate",
        }
    }

    /// The coding of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Gzip, Self::Br, Self::Deflate].into_iter().find(|coding| coding.name() == name)
    }

    /// The compressed bytes. Writing into memory does not fail; if it did, the body would be empty.
    pub(crate) fn compress(self, bytes: &[u8]) -> Vec<u8> {
        let level = flate2::Compression::default();
        match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
            }
            Self::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
            }
            Self::Br => {
                let mut out = Vec::new();
                let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 5, 20);
                let done = encoder.write_all(bytes);
                drop(encoder);
                if done.is_ok() { out } else { Vec::new() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_goes_through_the_credential_only() {
        let pieces = |split_at| cut(b"..ab..ab.", b"ab", split_at);
        assert_eq!(pieces(Some(1)), [&b"..a"[..], b"b..a", b"b."]);
        assert_eq!(pieces(None), [&b".."[..], b"a", b"b", b"..", b"a", b"b", b"."]);
        assert_eq!(cut(b"none", b"ab", None), [&b"none"[..]]);
    }

    #[test]
    fn marks_become_escapes() {
        let credential = Presented { secret: "kW".to_owned(), username: "svc".to_owned() };
        let marks = [Form::JsonUnicode, Form::JsonUnicodePartial].map(|form| in_sdk_answer(form, &credential));
        let text = format!("\"{}, {}\"", marks[0], marks[1]);
        assert_eq!(&with_escapes(text.as_bytes(), &credential)[..], br#""\u006b\u0057, k\u0057""#);
    }
}
