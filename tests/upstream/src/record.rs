//! What the upstream received: every request from the moment its headers arrive, also those it refuses.
//!
//! The record holds the credential. It is the test's view from the upstream.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;
use http::request::Parts;
use serde::Serialize;

const MAX_REQUESTS: usize = 100;
const MAX_BODY_BYTES: usize = 262_144;

/// The last requests and how many there were.
#[derive(Default)]
pub(crate) struct Recorder {
    received: AtomicU64,
    refused: AtomicU64,
    cancelled: AtomicU64,
    requests: Mutex<VecDeque<Arc<Mutex<Received>>>>,
}

/// One request under way, to which its body is added.
#[derive(Clone)]
pub(crate) struct Entry(Arc<Mutex<Received>>);

/// One request.
#[derive(Clone, Serialize)]
pub(crate) struct Received {
    number: u64,
    http_version: String,
    method: String,
    authority: Option<String>,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body: String,
    body_bytes: u64,
    body_complete: bool,
    trailers: Vec<(String, String)>,
    status: Option<u16>,
    #[serde(skip)]
    raw_body: Vec<u8>,
}

/// Counters of all requests.
#[derive(Serialize)]
pub(crate) struct Count {
    received: u64,
    refused: u64,
    cancelled: u64,
}

// === impl Recorder ===

impl Recorder {
    /// Notes a request whose headers have arrived.
    pub(crate) fn arrived(&self, parts: &Parts) -> Entry {
        let received = Received {
            number: self.received.fetch_add(1, Ordering::SeqCst).saturating_add(1),
            http_version: format!("{:?}", parts.version),
            method: parts.method.to_string(),
            authority: parts.uri.authority().map(ToString::to_string),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(ToOwned::to_owned),
            headers: listed(&parts.headers),
            body: String::new(),
            body_bytes: 0,
            body_complete: false,
            trailers: Vec::new(),
            status: None,
            raw_body: Vec::new(),
        };
        let entry = Arc::new(Mutex::new(received));
        let mut requests = locked(&self.requests);
        if requests.len() >= MAX_REQUESTS {
            requests.pop_front();
        }
        requests.push_back(Arc::clone(&entry));
        Entry(entry)
    }

    /// Notes that a request was refused for its key.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that a tool call ended because its client went away.
    pub(crate) fn cancelled(&self) {
        self.cancelled.fetch_add(1, Ordering::SeqCst);
    }

    /// The counters.
    pub(crate) fn count(&self) -> Count {
        Count {
            received: self.received.load(Ordering::SeqCst),
            refused: self.refused.load(Ordering::SeqCst),
            cancelled: self.cancelled.load(Ordering::SeqCst),
        }
    }

    /// The last requests, oldest first.
    pub(crate) fn requests(&self) -> Vec<Received> {
        let requests = locked(&self.requests);
        requests.iter().map(|entry| locked(entry).shown()).collect()
    }

    /// The last request.
    pub(crate) fn last(&self) -> Option<Received> {
        locked(&self.requests).back().map(|entry| locked(entry).shown())
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        let mut requests = locked(&self.requests);
        requests.clear();
        for counter in [&self.received, &self.refused, &self.cancelled] {
            counter.store(0, Ordering::SeqCst);
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Adds a piece of the body.
    pub(crate) fn body(&self, piece: &[u8]) {
        let mut received = locked(&self.0);
        let free = MAX_BODY_BYTES.saturating_sub(received.raw_body.len());
        received.raw_body.extend(piece.iter().take(free));
        received.body_bytes = received.body_bytes.saturating_add(piece.len() as u64);
    }

    /// Adds the trailers.
    pub(crate) fn trailers(&self, trailers: &HeaderMap) {
        locked(&self.0).trailers = listed(trailers);
    }

    /// Notes that the body came to its end.
    pub(crate) fn complete(&self) {
        locked(&self.0).body_complete = true;
    }

    /// Notes the status of the answer.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        locked(&self.0).status = Some(status.as_u16());
    }
}

// === impl Received ===

impl Received {
    fn shown(&self) -> Self {
        Self { body: String::from_utf8_lossy(&self.raw_body).into_owned(), raw_body: Vec::new(), ..self.clone() }
    }
}

fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

// A panic elsewhere leaves the record readable.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> Parts {
        let request = http::Request::get("/mcp?a=1").header("b", "2").header("a", "1").header("b", "3");
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_is_there_before_its_body() {
        let recorder = Recorder::default();
        let entry = recorder.arrived(&parts());
        entry.body(b"half");
        let last = recorder.last().unwrap();
        assert_eq!((last.body.as_str(), last.body_complete, last.number), ("half", false, 1));
        assert_eq!(last.query.as_deref(), Some("a=1"));
        entry.complete();
        assert!(recorder.last().unwrap().body_complete);
    }

    #[test]
    fn only_the_last_hundred_are_kept_and_all_are_counted() {
        let recorder = Recorder::default();
        for _ in 0..105 {
            recorder.arrived(&parts());
        }
        assert_eq!(recorder.requests().len(), MAX_REQUESTS);
        assert_eq!(recorder.requests()[0].number, 6);
        assert_eq!(recorder.count().received, 105);
        recorder.reset();
        assert!(recorder.last().is_none());
        assert_eq!(recorder.count().received, 0);
    }

    #[test]
    fn a_long_body_is_cut_and_its_length_kept() {
        let recorder = Recorder::default();
        let entry = recorder.arrived(&parts());
        entry.body(&vec![b'x'; MAX_BODY_BYTES + 5]);
        let last = recorder.last().unwrap();
        assert_eq!((last.body.len(), last.body_bytes), (MAX_BODY_BYTES, MAX_BODY_BYTES as u64 + 5));
    }
}
