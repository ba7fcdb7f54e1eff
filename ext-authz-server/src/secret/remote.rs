//! Asking a remote store over HTTP: bounded in time and size, a few retries, no redirects, errors without values.

mod answer;
mod error;
mod session;
mod store;
mod token;

pub(crate) use answer::Answer;
pub(crate) use error::{StoreError, StoreErrorKind};
pub(crate) use session::{Grant, Session};
pub(crate) use store::{Given, RemoteStore};
pub(crate) use token::{token, with_token};

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::{Method, Url};
use zeroize::Zeroizing;

use super::MAX_SECRET_BYTES;
use crate::outbound::{Ask, Outbound, OutboundError, Tls};
use crate::percent;

/// The pauses between attempts; there is one attempt more than pauses.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// After this much time there is no further attempt.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer: a secret in base64 within JSON, and what stands around it.
pub(crate) const MAX_ANSWER_BYTES: usize = 4 * MAX_SECRET_BYTES;

/// One address that answers for a store.
pub(crate) struct Remote {
    outbound: Outbound,
    base: String,
    /// What keeps it from being asked at all.
    setup: Option<StoreError>,
}

/// A request to a store.
pub(crate) struct Call {
    method: Method,
    target: Target,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, Zeroizing<String>)>,
    body: Option<Body>,
    retry: Retry,
    metadata: bool,
    doing: String,
}

enum Target {
    /// Below the remote's own address.
    Path(String),
    /// At another address, as it is.
    Url(String),
}

struct Body {
    media_type: &'static str,
    bytes: Zeroizing<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// After every failure that time may heal.
    Always,
    /// Only where the store cannot have done anything yet.
    Unsent,
}

// === impl Call ===

impl Call {
    /// Reads `segments` below the remote's address. `doing` says what for, as "read `kv/team/app`".
    pub(crate) fn get<'a>(segments: impl IntoIterator<Item = &'a str>, doing: impl Into<String>) -> Call {
        Call::new(Method::GET, Target::Path(path(segments)), doing)
    }

    /// Sends a body to `segments` below the remote's address.
    pub(crate) fn post<'a>(segments: impl IntoIterator<Item = &'a str>, doing: impl Into<String>) -> Call {
        Call::new(Method::POST, Target::Path(path(segments)), doing)
    }

    /// Reads at an address of its own, which configuration names.
    pub(crate) fn get_at(url: &str, doing: impl Into<String>) -> Call {
        Call::new(Method::GET, Target::Url(url.to_owned()), doing)
    }

    /// Sends a body to an address of its own, which configuration names.
    pub(crate) fn post_to(url: &str, doing: impl Into<String>) -> Call {
        Call::new(Method::POST, Target::Url(url.to_owned()), doing)
    }

    fn new(method: Method, target: Target, doing: impl Into<String>) -> Call {
        Call {
            method,
            target,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            retry: Retry::Always,
            metadata: false,
            doing: doing.into(),
        }
    }

    /// Adds an action after the path, as Google's APIs name them: `path:action`.
    pub(crate) fn action(mut self, action: &str) -> Call {
        if let Target::Path(path) = &mut self.target {
            path.push(':');
            path.push_str(action);
        }
        self
    }

    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Call {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Call {
        self.headers.push((name, Zeroizing::new(value.to_owned())));
        self
    }

    /// Sets a header, whatever it was before.
    pub(crate) fn replace_header(mut self, name: &'static str, value: &str) -> Call {
        self.headers.retain(|(known, _)| *known != name);
        self.header(name, value)
    }

    /// Presents a bearer token (RFC 6750).
    pub(crate) fn bearer(self, token: &str) -> Call {
        let value = Zeroizing::new(format!("Bearer {token}"));
        self.replace_header("authorization", &value)
    }

    /// Adds a JSON object of strings.
    pub(crate) fn json(mut self, members: &[(&str, &str)]) -> Call {
        let length: usize = members.iter().map(|(name, value)| 6 * (name.len() + value.len()) + 6).sum();
        let mut bytes = Zeroizing::new(Vec::with_capacity(length + 2));
        bytes.push(b'{');
        for (position, (name, value)) in members.iter().enumerate() {
            if position > 0 {
                bytes.push(b',');
            }
            keyward_contract::json::write_string(name, &mut bytes);
            bytes.push(b':');
            keyward_contract::json::write_string(value, &mut bytes);
        }
        bytes.push(b'}');
        self.body = Some(Body { media_type: "application/json", bytes });
        self
    }

    /// Adds a JSON document that holds no secret.
    pub(crate) fn raw_json(mut self, document: String) -> Call {
        self.body = Some(Body { media_type: "application/json", bytes: Zeroizing::new(document.into_bytes()) });
        self
    }

    /// Adds a form.
    pub(crate) fn form(mut self, fields: &[(&str, &str)]) -> Call {
        let length: usize = fields.iter().map(|(name, value)| 3 * (name.len() + value.len()) + 2).sum();
        let mut text = Zeroizing::new(String::with_capacity(length));
        for (name, value) in fields {
            if !text.is_empty() {
                text.push('&');
            }
            percent::encode_into(&mut text, name.as_bytes(), percent::UNRESERVED);
            text.push('=');
            percent::encode_into(&mut text, value.as_bytes(), percent::UNRESERVED);
        }
        let bytes = Zeroizing::new(std::mem::take(&mut *text).into_bytes());
        self.body = Some(Body { media_type: "application/x-www-form-urlencoded", bytes });
        self
    }

    /// Asks the cloud's metadata server, which has no TLS.
    pub(crate) fn of_metadata_server(mut self) -> Call {
        self.metadata = true;
        self
    }

    /// Sends it again only where the store cannot have seen it: it makes something each time.
    pub(crate) fn once(mut self) -> Call {
        self.retry = Retry::Unsent;
        self
    }
}

// === impl Remote ===

impl Remote {
    /// A store at `address`, asked through `outbound`; where `authorities` names a PEM file, only those are trusted. What
    /// cannot be used is said at the first request.
    pub(crate) fn new(address: &str, authorities: Option<&Path>, outbound: &Outbound) -> Remote {
        let base = address.trim_end_matches('/').to_owned();
        let Some(file) = authorities else { return Remote { outbound: outbound.clone(), base, setup: None } };
        let (trusted, setup) = match std::fs::read(file) {
            Ok(pem) => (pem, None),
            Err(cause) => {
                let cause = format!("authorities `{}`: {cause}", file.display());
                (Vec::new(), Some(StoreError::new(StoreErrorKind::Setup, &base, cause, "name a PEM file in `ca_file`")))
            }
        };
        let tls = Tls { trusted: Some(trusted), ..Tls::default() };
        Remote { outbound: outbound.with_tls(tls), base, setup }
    }

    /// The address, for messages.
    pub(crate) fn address(&self) -> &str {
        &self.base
    }

    /// Sends it and reads the whole answer, whatever its status; tried again where that may help.
    ///
    /// # Errors
    /// No answer in time, a broken one, or one that says that the store cannot serve now.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, StoreError> {
        if let Some(setup) = &self.setup {
            return Err(setup.clone());
        }
        let url = self.url(call)?;
        let started = Instant::now();
        for pause in PAUSES {
            match self.attempt(call, &url).await {
                Err((error, true)) if started.elapsed() < PATIENCE => {
                    tracing::debug!(%error, "the store is asked again")
                }
                other => return other.map_err(|(error, _)| error),
            }
            tokio::time::sleep(pause).await;
        }
        self.attempt(call, &url).await.map_err(|(error, _)| error)
    }

    fn url(&self, call: &Call) -> Result<Url, StoreError> {
        let text = match &call.target {
            Target::Path(path) => format!("{}/{path}", self.address()),
            Target::Url(url) => url.clone(),
        };
        let wrong = |cause: &dyn std::fmt::Display| {
            StoreError::new(StoreErrorKind::Setup, &text, cause.to_string(), "correct the address in the configuration")
        };
        let mut url = Url::parse(&text).map_err(|cause| wrong(&cause))?;
        // A name that the parser takes for a step up or down would be another secret's.
        if let Target::Path(path) = &call.target
            && !url.path().ends_with(path)
        {
            return Err(wrong(&"the path is not in its shortest form"));
        }
        for (name, value) in &call.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        Ok(url)
    }

    /// One attempt; an error comes with whether another one may help.
    async fn attempt(&self, call: &Call, url: &Url) -> Result<Answer, (StoreError, bool)> {
        let at = || format!("{} at {}", call.doing, url.origin().ascii_serialization());
        let mut ask = Ask::new(call.method.clone(), url.as_str()).header("accept", "application/json");
        if call.metadata {
            ask = ask.of_metadata_server();
        }
        for (name, value) in &call.headers {
            if value.chars().any(char::is_control) {
                let cause = format!("the value for the header `{name}` holds a control character");
                let remedy = "look for a line feed at the end of the token";
                return Err((StoreError::new(StoreErrorKind::Setup, at(), cause, remedy), false));
            }
            ask = ask.header(name, value);
        }
        if let Some(body) = &call.body {
            ask = ask.header("content-type", body.media_type).body(body.bytes.to_vec());
        }
        let answer = match self.outbound.send(ask).await {
            Ok(answer) => Answer::new(at(), answer, call.headers.iter().map(|(_, value)| value.clone())),
            Err(error @ OutboundError::Send { .. }) => {
                return Err((StoreError::outage(&call.doing, error.to_string()), call.retry == Retry::Always));
            }
            Err(error @ OutboundError::TooLarge { .. }) => {
                return Err((StoreError::malformed(&call.doing, error.to_string()), false));
            }
            Err(error) => {
                let remedy = match error {
                    OutboundError::Refused { .. } => "correct the address, or list its host under `outbound.allow`",
                    _ => "correct the address or `ca_file` in the configuration",
                };
                return Err((StoreError::new(StoreErrorKind::Setup, &call.doing, error.to_string(), remedy), false));
            }
        };
        match answer.status() {
            429 | 500 | 502..=504 => {
                let again = call.retry == Retry::Always || matches!(answer.status(), 429 | 503);
                Err((StoreError::outage(at(), format!("status {}{}", answer.status(), answer.said())), again))
            }
            _ => Ok(answer),
        }
    }
}

/// `segments` as a path: each percent-encoded, so that a `%`, `/` or `?` in a name stays a part of the name.
fn path<'a>(segments: impl IntoIterator<Item = &'a str>) -> String {
    let mut path = String::new();
    for segment in segments {
        if !path.is_empty() {
            path.push('/');
        }
        percent::encode_into(&mut path, segment.as_bytes(), percent::UNRESERVED);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_stays_a_segment() {
        assert_eq!(path(["v1", "kv", "a%2Fb", "c/d", "e?f#g", "ü"]), "v1/kv/a%252Fb/c%2Fd/e%3Ff%23g/%C3%BC");
    }

    #[test]
    fn a_step_up_is_not_sent() {
        let remote = Remote::new("http://127.0.0.1:1/", None, &Outbound::default());
        for segments in [["kv", "..", "other"], ["kv", ".", "other"]] {
            let error = remote.url(&Call::get(segments, "read")).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Setup, "{error}");
        }
        let url = remote.url(&Call::get(["kv", "%2e%2e"], "read").query("version", "1")).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:1/kv/%252e%252e?version=1");
    }

    #[test]
    fn bodies_escape_what_they_hold() {
        let body = |call: Call| String::from_utf8(call.body.unwrap().bytes.to_vec()).unwrap();
        assert_eq!(body(Call::post(["x"], "").json(&[("a", "b\"c"), ("d", "e")])), r#"{"a":"b\"c","d":"e"}"#);
        assert_eq!(body(Call::post(["x"], "").form(&[("a b", "c&d"), ("e", "f")])), "a%20b=c%26d&e=f");
    }
}
