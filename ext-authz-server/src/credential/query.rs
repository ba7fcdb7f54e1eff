//! A static credential in a query parameter, percent-encoded (RFC 3986, 2.1).
//!
//! Envoy writes `query_parameters_to_set` into the URL as they are, so the encoding is done here.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Credential, CredentialError, Material, Minting, Outgoing, SlotName, header};
use crate::caller::Caller;
use crate::config::QueryCredential;
use crate::freshness::Key;
use crate::percent;
use crate::sources::Sources;

/// A query parameter whose value is a secret out of a store.
#[derive(Clone, Debug)]
pub struct Query(pub QueryCredential);

impl Credential for Query {
    fn kind(&self) -> &'static str {
        "query"
    }

    fn places(&self) -> Vec<SlotName> {
        vec![SlotName::Query(encode(self.0.name.as_bytes()).to_string())]
    }

    fn references(&self) -> Vec<String> {
        vec![self.0.secret.reference.clone()]
    }

    fn key(&self, _caller: &Caller) -> Option<Key> {
        None
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        header::fetch(self.0.secret.clone(), caller, sources)
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let value = header::fill(&self.0.template, header::text(material)?)?;
        if value.chars().any(char::is_control) {
            return Err(CredentialError::Control);
        }
        outgoing.set_query(&encode(self.0.name.as_bytes()), &encode(value.as_bytes()));
        Ok(())
    }
}

/// `bytes` with everything but the unreserved characters encoded.
#[must_use]
pub fn encode(bytes: &[u8]) -> Zeroizing<String> {
    // Three characters a byte at most: the buffer never moves, so no copy of the secret stays behind.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 3));
    percent::encode_into(&mut text, bytes, percent::UNRESERVED);
    text
}

/// Whether a raw query holds a parameter that Envoy does not take for `name` and an upstream may: percent-decoded, with
/// `+` as a space, split at `;`, without case.
#[must_use]
pub fn names_otherwise(query: &str, name: &str) -> bool {
    let plain = decode(name);
    query.split('&').any(|pair| {
        let several = pair.contains(';');
        pair.split(';').any(|part| {
            let raw = part.split_once('=').map_or(part, |(raw, _)| raw);
            (several || raw != name) && decode(raw).eq_ignore_ascii_case(&plain)
        })
    })
}

/// The bytes behind percent-encoding, `+` as a space.
#[must_use]
pub fn decode(raw: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                match (crate::perimeter::path::hex(*high), crate::perimeter::path::hex(*low)) {
                    (Some(high), Some(low)) => {
                        decoded.push(high << 4 | low);
                        rest = after;
                    }
                    _ => decoded.push(b'%'),
                }
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_spelling_of_a_parameter_is_noticed() {
        let cases = [
            ("apiKey=spoofed", false),
            ("a=1&apiKey=spoofed&apiKey=again", false),
            ("api%4Bey=spoofed", true),
            ("%61piKey", true),
            ("a=1;apiKey=spoofed", true),
            ("APIKEY=spoofed", true),
            ("apikey", true),
            ("apiKeys=1&xapiKey=2", false),
            ("q=apiKey", false),
            ("api%4=x", false),
            ("", false),
        ];
        for (query, expected) in cases {
            assert_eq!(names_otherwise(query, "apiKey"), expected, "{query}");
        }
        assert!(names_otherwise("api+key=x", "api%20key"));
    }
}
