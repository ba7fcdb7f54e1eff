//! Takes every trace of the secret out of the response while it streams: headers, body, trailers.
//!
//! A redaction keeps the length, so `content-length` stays true. What cannot be scrubbed is withheld: an encoded body, a
//! partial one, a tunnel.

use keyward_contract::report::event;
use keyward_contract::scrub::{Scrubber, Stream};
use proxy_wasm::types::{Action, BufferType, LogLevel, MapType};

use crate::ask::Facts;
use crate::gateway::Shared;
use crate::host;
use crate::report::Report;
use crate::statistics::Counter;

/// While nothing was sent on, up to this many bytes of a body that ends in what may be the beginning of a secret wait in
/// Envoy's buffer for more, so that trailers cannot cut the end off. Else the tail waits here.
const WAIT_IN_PROXY_BYTES: usize = 64 * 1024;

/// Headers that describe the exact bytes of a body, which a redaction changes.
const DIGESTS: [&str; 4] = ["content-md5", "digest", "content-digest", "repr-digest"];

/// The response of an allowed request.
pub(crate) struct Response {
    scrubber: Option<Scrubber>,
    stream: Stream,
    event_stream: bool,
    /// A part of the body is on its way to the client already.
    sent_on: bool,
    found: Found,
}

#[derive(Default)]
struct Found {
    headers: u64,
    body: u64,
    trailers: u64,
}

/// Why a response was withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WithheldError {
    /// The headers could not be read or changed.
    #[error("its headers could not be read or changed")]
    Headers,
    /// The upstream sent another encoding than `identity`.
    #[error("it is encoded although `accept-encoding: identity` was asked for")]
    Encoded,
    /// The upstream sent a part of a resource, or switched protocols.
    #[error("it is partial or a tunnel")]
    Partial,
}

// === impl Response ===

impl Response {
    /// A response from which the values of `scrubber` are to be taken out; without one it passes as it is.
    pub(crate) fn new(scrubber: Option<Scrubber>) -> Response {
        Response { scrubber, stream: Stream::default(), event_stream: false, sent_on: false, found: Found::default() }
    }

    /// Scrubs the headers, or says why the whole response must be withheld.
    pub(crate) fn on_headers(&mut self) -> Result<(), WithheldError> {
        let Some(scrubber) = &self.scrubber else { return Ok(()) };
        let headers = host::headers(MapType::HttpResponseHeaders).map_err(|_| WithheldError::Headers)?;
        let lower = |name: &str| headers.joined(name).map(|value| value.trim().to_ascii_lowercase());
        if matches!(headers.first(":status"), None | Some(b"101" | b"206")) {
            return Err(WithheldError::Partial);
        }
        let content_type = lower("content-type").unwrap_or_default();
        if content_type.starts_with("multipart/byteranges") || headers.has("content-range") {
            return Err(WithheldError::Partial);
        }
        if lower("content-encoding").is_some_and(|encoding| !encoding.is_empty() && encoding != "identity") {
            return Err(WithheldError::Encoded);
        }
        self.event_stream = content_type.starts_with("text/event-stream");
        self.found.headers =
            scrub_map(scrubber, MapType::HttpResponseHeaders, &headers).map_err(|_| WithheldError::Headers)?;
        for name in DIGESTS.iter().filter(|name| headers.has(name)) {
            host::remove_header(MapType::HttpResponseHeaders, name).map_err(|_| WithheldError::Headers)?;
        }
        // A strong validator promises the same bytes, which a redaction would break; a weak one promises less.
        if let Some(etag) = headers.first("etag").filter(|etag| etag.starts_with(b"\"")) {
            let etag = scrubber.scrub_value(etag).map_or_else(|| etag.to_vec(), |(clean, _)| clean);
            let weak = [b"W/", etag.as_slice()].concat();
            host::set_header(MapType::HttpResponseHeaders, "etag", &weak).map_err(|_| WithheldError::Headers)?;
        }
        Ok(())
    }

    /// Scrubs the next piece of the body.
    pub(crate) fn on_body(&mut self, end_of_stream: bool) -> Action {
        let Some(scrubber) = &self.scrubber else { return Action::Continue };
        let Ok(chunk) = host::buffer(BufferType::HttpResponseBody, 0, usize::MAX) else {
            return self.abort("the response body could not be read");
        };
        let chunk = chunk.unwrap_or_default();
        let mut scrubbed = Vec::new();
        let push = self.stream.push(scrubber, &chunk, end_of_stream, &mut scrubbed);
        self.found.body += push.redactions;
        if let Some(length) = push.verbatim
            && push.held > 0
        {
            scrubbed.extend_from_slice(chunk.get(..length).unwrap_or_default());
        }
        let may_wait = !end_of_stream && !self.event_stream && !self.sent_on && chunk.len() <= WAIT_IN_PROXY_BYTES;
        if push.held > 0 && may_wait {
            if push.redactions > 0 {
                scrubbed.extend_from_slice(self.stream.held());
                if host::replace_buffer(BufferType::HttpResponseBody, &scrubbed).is_err() {
                    return self.abort("the response body could not be replaced");
                }
            }
            // The next callback shows the whole body so far again.
            self.stream = Stream::default();
            return Action::Pause;
        }
        self.sent_on = true;
        if !push.unchanged && host::replace_buffer(BufferType::HttpResponseBody, &scrubbed).is_err() {
            return self.abort("the response body could not be replaced");
        }
        Action::Continue
    }

    /// Scrubs the trailers.
    pub(crate) fn on_trailers(&mut self) -> Action {
        let Some(scrubber) = &self.scrubber else { return Action::Continue };
        // An event that is not ended by an empty line is no event, so what an event stream holds back may go.
        if !self.stream.held().is_empty() && !self.event_stream {
            return self.abort("a long body ended in trailers while its end was held back");
        }
        self.stream.clear_held();
        let Ok(trailers) = host::headers(MapType::HttpResponseTrailers) else {
            return self.abort("the trailers could not be read");
        };
        match scrub_map(scrubber, MapType::HttpResponseTrailers, &trailers) {
            Ok(redactions) => self.found.trailers = redactions,
            Err(_) => return self.abort("the trailers could not be changed"),
        }
        Action::Continue
    }

    /// Counts and reports what was redacted, once.
    pub(crate) fn report(&mut self, shared: &Shared, facts: &Facts) {
        let Found { headers, body, trailers } = std::mem::take(&mut self.found);
        let redactions = headers + body + trailers;
        if redactions > 0 {
            let carriers: Vec<&str> = [("headers", headers), ("body", body), ("trailers", trailers)]
                .into_iter()
                .filter_map(|(carrier, count)| (count > 0).then_some(carrier))
                .collect();
            shared.statistics.add(Counter::Redactions, redactions);
            let carriers = carriers.join(",");
            Report { event: event::SECRET_ECHOED, redactions, carriers: &carriers, ..Report::of(facts) }.send(shared);
        }
    }

    /// Ends the response where going on could let a secret out.
    fn abort(&mut self, cause: &str) -> Action {
        host::log(LogLevel::Error, &format!("keyward: response ended: {cause}"));
        self.stream.clear_held();
        // When even that fails, the paused response is ended by Envoy's stream timeout.
        let _ = host::reset_response();
        Action::Pause
    }
}

/// Scrubs the values of a header map in place; a header whose name holds a secret goes. Returns the redactions.
fn scrub_map(scrubber: &Scrubber, kind: MapType, headers: &crate::headers::HeaderList) -> host::Result<u64> {
    let mut redactions = 0;
    let mut rewritten: Vec<&str> = Vec::new();
    for (name, value) in headers.iter().filter(|(name, _)| !name.starts_with(':')) {
        if scrubber.scrub_value(name.as_bytes()).is_some() {
            host::remove_header(kind, name)?;
            redactions += 1;
        } else if !rewritten.contains(&name) && scrubber.scrub_value(value).is_some() {
            rewritten.push(name);
        }
    }
    for name in rewritten {
        host::remove_header(kind, name)?;
        for (_, value) in headers.iter().filter(|(other, _)| *other == name) {
            let clean = scrubber.scrub_value(value);
            redactions += clean.as_ref().map_or(0, |(_, count)| *count);
            host::add_header(kind, name, clean.as_ref().map_or(value, |(clean, _)| clean))?;
        }
    }
    Ok(redactions)
}
