//! The request as it will leave Envoy, and what credentials change in it.
//!
//! Credentials are applied one after the other; a signature is applied last and covers what is here then. What the filter
//! strips is gone from here before the first one looks.

use std::borrow::Cow;

use keyward_contract::check::{INTERNAL_HEADER_PREFIX, STRIPPED_HEADERS};
use zeroize::Zeroizing;

use super::{CredentialError, Slot, SlotName};
use crate::request::Request;

/// The request on its way out. No `Debug`: it comes to hold secrets.
pub struct Outgoing<'a> {
    method: &'a str,
    scheme: &'a str,
    authority: String,
    target: Zeroizing<String>,
    headers: Vec<(String, Zeroizing<String>)>,
    body: Cow<'a, [u8]>,
    slots: Vec<Slot>,
    scrub: Vec<Zeroizing<Vec<u8>>>,
    exact_target: bool,
    body_changed: bool,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) slots: Vec<Slot>,
    pub(super) scrub: Vec<Zeroizing<Vec<u8>>>,
    /// Path and query, where they must leave exactly like this.
    pub(super) target: Option<Zeroizing<String>>,
    /// The body, where it is another one.
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

// === impl Outgoing ===

impl<'a> Outgoing<'a> {
    /// The request as the filter will leave it: without the client's credentials, and without what stands in a place of
    /// this server's credentials. `authority` is what the upstream reads.
    #[must_use]
    pub fn new(request: &Request<'a>, authority: &str, places: &[SlotName]) -> Outgoing<'a> {
        let is_place = |name: &str| {
            places.iter().any(|place| matches!(place, SlotName::Header(own) if own.eq_ignore_ascii_case(name)))
        };
        let gone = |name: &str| {
            name.starts_with(':')
                || name.starts_with(INTERNAL_HEADER_PREFIX)
                || STRIPPED_HEADERS.contains(&name)
                || is_place(name)
        };
        let headers = request.headers.iter().filter(|(name, _)| !gone(name));
        let remove: Vec<&str> = places
            .iter()
            .filter_map(|place| if let SlotName::Query(name) = place { Some(name.as_str()) } else { None })
            .collect();
        let target = keyward_contract::query::rewrite(request.raw_target, &[], &remove);
        Outgoing {
            headers: headers.map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned()))).collect(),
            ..Outgoing::plain(request.method, request.scheme, authority, &target, request.body)
        }
    }

    /// A request of Keyward's own, for example to probe a credential.
    #[must_use]
    pub fn plain(method: &'a str, scheme: &'a str, authority: &str, target: &str, body: &'a [u8]) -> Outgoing<'a> {
        Outgoing {
            method,
            scheme,
            authority: authority.to_owned(),
            target: Zeroizing::new(target.to_owned()),
            headers: Vec::new(),
            body: Cow::Borrowed(body),
            slots: Vec::new(),
            scrub: Vec::new(),
            exact_target: false,
            body_changed: false,
        }
    }

    /// The HTTP method.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.scheme
    }

    /// The `Host` that the upstream reads, byte for byte.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The path as it leaves, percent-encoded, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query as it leaves, without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The headers as they leave, by lower-case name, repeated ones joined with a comma; without `host`.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A header as it leaves.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as it leaves.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Sets a header. A value that is a secret must be among those to scrub as well.
    ///
    /// # Errors
    /// The value cannot be a header value (RFC 9110, 5.5).
    pub fn set_header(&mut self, name: &str, value: &str) -> Result<(), CredentialError> {
        super::header::check_value(value)?;
        let lower = name.to_ascii_lowercase();
        self.headers.retain(|(own, _)| *own != lower);
        self.headers.push((lower, Zeroizing::new(value.to_owned())));
        self.push(Slot { name: SlotName::Header(name.to_owned()), value: Zeroizing::new(value.to_owned()) });
        Ok(())
    }

    /// Sets a query parameter; name and value are percent-encoded by the caller.
    pub fn set_query(&mut self, name: &str, value: &str) {
        let rewritten = keyward_contract::query::rewrite(&self.target, &[(name, value)], &[]);
        self.target = Zeroizing::new(rewritten);
        self.push(Slot { name: SlotName::Query(name.to_owned()), value: Zeroizing::new(value.to_owned()) });
    }

    /// Replaces path and query. From now on they leave exactly as they are here.
    pub fn set_target(&mut self, target: &str) {
        self.target = Zeroizing::new(target.to_owned());
        self.exact_target = true;
    }

    /// Says that path and query must leave exactly as they are here: a signature covers them.
    pub fn keep_target(&mut self) {
        self.exact_target = true;
    }

    /// Replaces the body.
    pub fn set_body(&mut self, body: Vec<u8>) {
        self.body = Cow::Owned(body);
        self.body_changed = true;
    }

    /// Adds a value that must never come back. Shorter ones than [`super::MIN_SECRET_BYTES`] would be found everywhere.
    pub fn scrub(&mut self, value: &[u8]) {
        if value.len() >= super::MIN_SECRET_BYTES && !self.scrub.iter().any(|known| known.as_slice() == value) {
            self.scrub.push(Zeroizing::new(value.to_vec()));
        }
    }

    pub(super) fn finish(self) -> Outcome {
        let Outgoing { target, mut slots, scrub, exact_target, body_changed, body, .. } = self;
        if exact_target {
            slots.retain(|slot| matches!(slot.name, SlotName::Header(_)));
        }
        Outcome {
            slots,
            scrub,
            target: exact_target.then_some(target),
            body: body_changed.then(|| Zeroizing::new(body.into_owned())),
        }
    }

    /// A place that is filled twice holds the last value.
    fn push(&mut self, slot: Slot) {
        self.slots.retain(|known| known.name != slot.name);
        self.slots.push(slot);
    }
}
