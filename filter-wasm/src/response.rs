//! Takes every trace of the secret out of the response while it streams: headers, body, trailers.
//!
//! A redaction keeps the length, so `content-length` stays true. What cannot be scrubbed is withheld: an encoded body, a
//! partial one, a tunnel.

use keyward_contract::patterns::{self, Finding, Guard};
use keyward_contract::report::event;
use keyward_contract::scrub::{Scrubber, Stream};
use proxy_wasm::types::{Action, BufferType, LogLevel, MapType};

use crate::ask::Facts;
use crate::gateway::Shared;
use crate::host;
use crate::report::Report;
use crate::session::{Session, SessionError};
use crate::statistics::Counter;

/// While nothing was sent on, up to this many bytes of a body of unknown length wait in Envoy's buffer for more, so that
/// trailers cannot cut the end off. Else what the scrubber holds back waits here.
const WAIT_IN_PROXY_BYTES: usize = 64 * 1024;
/// Bodies of known length wait there whole up to this one: one look at all of it costs less than several at its pieces. It is
/// the smallest buffer limit that Envoy's documentation recommends.
const WAIT_WHOLE_BYTES: usize = 32 * 1024;

/// Headers that describe the exact bytes of a body, which a redaction changes.
const DIGESTS: [&str; 4] = ["content-md5", "digest", "content-digest", "repr-digest"];

/// The response of an allowed request.
pub(crate) struct Response {
    scrubber: Option<Scrubber>,
    /// What to look for in its body beyond that.
    guard: Option<Guard>,
    session: Option<Session>,
    /// The cluster that was decided on, where changes of the request could lead Envoy to another route.
    cluster: Option<Vec<u8>>,
    status: u16,
    body: Option<Body>,
    found: Found,
    patterns: Finding,
}

/// The body on its way.
struct Body {
    stream: Stream,
    /// Behind the scrubber.
    guarded: patterns::Stream,
    event_stream: bool,
    /// What `content-length` says.
    length: Option<usize>,
    /// How much of it was scrubbed and left Envoy's buffer.
    taken: usize,
    /// The beginning waits in Envoy's buffer, not scrubbed yet.
    waiting: bool,
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
    /// Envoy chose the route again and the request went to another cluster.
    #[error(
        "after the decision Envoy chose a route to another cluster: give the authority of the upstream the same route as \
         that of the request, or the credential goes astray"
    )]
    Rerouted,
    /// The upstream sent text in which ASCII characters are not themselves, such as UTF-16.
    #[error("its charset is not one that contains ASCII")]
    Charset,
    /// Its session id cannot be shown.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The upstream sent a part of a resource, or switched protocols.
    #[error("it is partial or a tunnel")]
    Partial,
}

// === impl Response ===

impl Response {
    /// A response from which the values of `scrubber` are to be taken out, and what `guard` finds; without a scrubber it
    /// passes as it is. `session` says what becomes of its session id. When `cluster` is set, it must come from there.
    pub(crate) fn new(
        scrubber: Option<Scrubber>,
        guard: Option<Guard>,
        session: Option<Session>,
        cluster: Option<Vec<u8>>,
    ) -> Response {
        Response {
            scrubber,
            guard,
            session,
            cluster,
            status: 0,
            body: None,
            found: Found::default(),
            patterns: Finding::default(),
        }
    }

    /// Scrubs the headers, or says why the whole response must be withheld.
    pub(crate) fn on_headers(&mut self) -> Result<(), WithheldError> {
        if let Some(cluster) = self.cluster.take()
            && host::property("xds\0cluster_name").is_none_or(|now| now != cluster)
        {
            return Err(WithheldError::Rerouted);
        }
        if let Some(session) = &self.session {
            session.on_headers()?;
        }
        let Some(scrubber) = &self.scrubber else { return Ok(()) };
        let headers = host::headers(MapType::HttpResponseHeaders).map_err(|_| WithheldError::Headers)?;
        let lower = |name: &str| headers.joined(name).map(|value| value.trim().to_ascii_lowercase());
        let status = headers.joined(":status").and_then(|status| status.parse().ok());
        self.status = status.unwrap_or_default();
        if matches!(headers.first(":status"), None | Some(b"101" | b"206" | b"226")) {
            return Err(WithheldError::Partial);
        }
        let content_type = lower("content-type").unwrap_or_default();
        if content_type.starts_with("multipart/byteranges") || headers.has("content-range") {
            return Err(WithheldError::Partial);
        }
        if lower("content-encoding").is_some_and(|encoding| !encoding.is_empty() && encoding != "identity") {
            return Err(WithheldError::Encoded);
        }
        if !is_read_as_ascii(&content_type) {
            return Err(WithheldError::Charset);
        }
        let event_stream = content_type.starts_with("text/event-stream");
        let length = lower("content-length").and_then(|length| length.parse().ok());
        self.body = Some(Body {
            stream: scrubber.stream(event_stream),
            guarded: patterns::Stream::default(),
            event_stream,
            length,
            taken: 0,
            waiting: false,
        });
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
        let (Some(scrubber), Some(body)) = (&self.scrubber, &mut self.body) else { return Action::Continue };
        let Ok(chunk) = host::buffer(BufferType::HttpResponseBody, 0, usize::MAX) else {
            return self.abort("the response body could not be read");
        };
        let chunk = chunk.unwrap_or_default();
        let seen = body.taken + chunk.len();
        if body.length.is_some_and(|length| seen > length) {
            return self.abort("the body is longer than its content-length");
        }
        let complete = end_of_stream || body.length == Some(seen);
        let is_short = body.length.is_none_or(|length| length <= WAIT_WHOLE_BYTES);
        let may_wait = !complete && !body.event_stream && is_short && body.taken == 0;
        let fits = !chunk.is_empty() && chunk.len() <= WAIT_IN_PROXY_BYTES;
        body.waiting = may_wait && fits && body.stream.would_hold(scrubber, &chunk);
        if body.waiting {
            // The next callback shows the whole body so far again.
            return Action::Pause;
        }
        body.taken = seen;
        if let Err(cause) =
            body.scrub(scrubber, self.guard.as_ref(), &chunk, complete, &mut self.found, &mut self.patterns)
        {
            return self.abort(cause);
        }
        Action::Continue
    }

    /// Scrubs the trailers.
    pub(crate) fn on_trailers(&mut self) -> Action {
        if self.session.is_some() && Session::on_trailers().is_err() {
            return self.abort("the trailers could not be changed");
        }
        let (Some(scrubber), Some(body)) = (&self.scrubber, &mut self.body) else { return Action::Continue };
        if body.waiting {
            let Ok(Some(whole)) = host::buffer(BufferType::HttpResponseBody, 0, usize::MAX) else {
                return self.abort("the response body could not be read");
            };
            if let Err(cause) =
                body.scrub(scrubber, self.guard.as_ref(), &whole, true, &mut self.found, &mut self.patterns)
            {
                return self.abort(cause);
            }
        }
        // An event that is not ended by an empty line is no event, so what an event stream holds back may go.
        if body.stream.held() + body.guarded.held() > 0 && !body.event_stream {
            return self.abort("a long body without content-length ended in trailers while its end was held back");
        }
        body.wipe();
        let Ok(trailers) = host::headers(MapType::HttpResponseTrailers) else {
            return self.abort("the trailers could not be read");
        };
        match scrub_map(scrubber, MapType::HttpResponseTrailers, &trailers) {
            Ok(redactions) => self.found.trailers = redactions,
            Err(_) => return self.abort("the trailers could not be changed"),
        }
        Action::Continue
    }

    /// Reports that the upstream refused the credential: the server may have a better one for the next request.
    pub(crate) fn report_refusal(&self, shared: &Shared, facts: &Facts) {
        if self.scrubber.as_ref().is_some_and(|scrubber| !scrubber.is_empty()) && matches!(self.status, 401 | 403) {
            let http_status = self.status;
            Report { event: event::CREDENTIAL_REFUSED, http_status, ..Report::of(facts) }.send(shared);
        }
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
            let http_status = self.status;
            Report { event: event::SECRET_ECHOED, http_status, redactions, carriers: &carriers, ..Report::of(facts) }
                .send(shared);
        }
        let Finding { rules, masked, .. } = self.patterns;
        if rules > 0 {
            let names: Vec<&str> = std::mem::take(&mut self.patterns).names().collect();
            let (rules, http_status) = (names.join(","), self.status);
            shared.statistics.add(Counter::Redactions, masked);
            let report =
                Report { event: event::PATTERN_FOUND, redactions: masked, carriers: "body", ..Report::of(facts) };
            Report { rules: &rules, http_status, ..report }.send(shared);
        }
    }

    /// Ends the response where going on could let a secret out.
    fn abort(&mut self, cause: &str) -> Action {
        host::log(LogLevel::Error, &format!("keyward: response ended: {cause}"));
        if let Some(body) = &mut self.body {
            body.wipe();
        }
        // When even that fails, the paused response is ended by Envoy's stream timeout.
        let _ = host::reset_response();
        Action::Pause
    }
}

// === impl Body ===

impl Body {
    /// Leaves in Envoy's buffer, which holds this piece, what may be sent on of it, and counts what was found.
    ///
    /// ## Errors
    ///
    /// Why the response must end.
    fn scrub(
        &mut self,
        scrubber: &Scrubber,
        guard: Option<&Guard>,
        piece: &[u8],
        end: bool,
        found: &mut Found,
        patterns: &mut Finding,
    ) -> Result<(), &'static str> {
        let mut scrubbed = Vec::new();
        let push = self.stream.push(scrubber, piece, end, &mut scrubbed);
        found.body += push.redactions;
        let clean = match push.verbatim {
            Some(length) => piece.get(..length).unwrap_or_default(),
            None => &scrubbed,
        };
        let mut passed = Vec::new();
        let clean = match guard {
            Some(guard) => {
                let finding = self.guarded.push(guard, clean, end, &mut passed).finding;
                patterns.add(finding);
                if finding.blocked {
                    return Err("it holds what looks like a credential, and `leak_guard` says that none may pass");
                }
                &passed
            }
            None => clean,
        };
        if clean == piece {
            return Ok(());
        }
        host::replace_buffer(BufferType::HttpResponseBody, clean).map_err(|_| "the response body could not be replaced")
    }

    fn wipe(&mut self) {
        self.stream.wipe();
        self.guarded.wipe();
    }
}

/// Whether ASCII text is itself in the charset that the content type names, if it names one.
fn is_read_as_ascii(content_type: &str) -> bool {
    const FAMILIES: [&str; 11] =
        ["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-", "windows-125", "latin", "gb", "big5", "euc-", "koi8-"];
    const OTHERS: [&str; 3] = ["shift_jis", "binary", "macintosh"];
    content_type.split(';').skip(1).all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let charset = value.trim().trim_matches('"');
        !name.trim().starts_with("charset")
            || OTHERS.contains(&charset)
            || FAMILIES.iter().any(|family| charset.starts_with(family))
    })
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
