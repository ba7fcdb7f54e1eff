//! One request to a token endpoint, in the making: a form (RFC 6749, 4), headers, and a certificate where the client shows one.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::credential::query::encode;
use crate::secret::SecretBytes;

/// What a client shows in the TLS handshake. No `Debug`: it holds a private key.
#[derive(Clone)]
pub struct Certificate {
    /// The certificate and what leads to a trusted one, as PEM.
    pub chain: Arc<SecretBytes>,
    /// The private key, as PEM.
    pub key: Arc<SecretBytes>,
}

/// A request to a token endpoint. No `Debug`: it holds secrets.
#[derive(Default)]
pub struct TokenRequest {
    fields: Vec<(&'static str, Zeroizing<String>)>,
    headers: Vec<(&'static str, Zeroizing<String>)>,
    secrets: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
    certificate: Option<Certificate>,
}

// === impl TokenRequest ===

impl TokenRequest {
    /// A request for this grant.
    #[must_use]
    pub fn new(grant_type: &'static str) -> TokenRequest {
        let mut request = TokenRequest::default();
        request.field("grant_type", grant_type);
        request
    }

    /// Adds a field that is no secret.
    pub fn field(&mut self, name: &'static str, value: &str) {
        self.fields.push((name, Zeroizing::new(value.to_owned())));
    }

    /// Adds a field where there is something to put into it.
    pub fn optional(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Adds a field that is a secret.
    pub fn secret(&mut self, name: &'static str, value: &str) {
        self.field(name, value);
        self.note(name, value.as_bytes());
    }

    /// Remembers a secret that is composed into the request.
    pub fn note(&mut self, name: &'static str, value: &[u8]) {
        self.secrets.push((name, Zeroizing::new(value.to_vec())));
    }

    /// Sets a header.
    pub fn header(&mut self, name: &'static str, value: Zeroizing<String>) {
        self.headers.retain(|(found, _)| *found != name);
        self.headers.push((name, value));
    }

    /// RFC 6749, 2.3.1: id and secret are form-encoded before RFC 7617 joins them. A space is written `%20`, which every
    /// decoder of forms understands, too.
    pub fn basic(&mut self, id: &str, secret: &str) {
        let pair = Zeroizing::new(format!("{}:{}", encode(id.as_bytes()).as_str(), encode(secret.as_bytes()).as_str()));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        self.header("authorization", Zeroizing::new(format!("Basic {}", encoded.as_str())));
        self.note("client_secret", secret.as_bytes());
        self.note("client_authorization", encoded.as_bytes());
    }

    /// Shows this certificate.
    pub fn certificate(&mut self, certificate: Certificate) {
        self.certificate = Some(certificate);
    }

    /// The body, `application/x-www-form-urlencoded`.
    #[must_use]
    pub fn body(&self) -> Zeroizing<String> {
        // Encoding makes three characters of one at most: the buffer never moves, so no copy of a secret stays behind.
        let most: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() * 3 + 2).sum();
        let mut body = Zeroizing::new(String::with_capacity(most));
        for (name, value) in &self.fields {
            if !body.is_empty() {
                body.push('&');
            }
            body.push_str(name);
            body.push('=');
            body.push_str(&encode(value.as_bytes()));
        }
        body
    }

    /// The headers beside `content-type` and `accept`.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Every secret in it, with a name.
    pub fn secrets(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.secrets.iter().map(|(name, value)| (*name, value.as_slice()))
    }

    /// The certificate to show.
    #[must_use]
    pub fn shown_certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_holds_every_character() {
        let mut request = TokenRequest::new("client_credentials");
        request.field("scope", "read write");
        request.field("resource", "https://api.example/a?b=c&d");
        request.field("resource", "urn:two");
        request.secret("client_secret", "a+b%c=ü");
        assert_eq!(
            request.body().as_str(),
            "grant_type=client_credentials&scope=read%20write&resource=https%3A%2F%2Fapi.example%2Fa%3Fb%3Dc%26d\
             &resource=urn%3Atwo&client_secret=a%2Bb%25c%3D%C3%BC"
        );
        let secrets: Vec<_> = request.secrets().collect();
        assert_eq!(secrets, [("client_secret", "a+b%c=ü".as_bytes())]);
    }

    #[test]
    fn id_and_secret_are_encoded_before_they_are_joined() {
        let mut request = TokenRequest::new("client_credentials");
        request.basic("s6Bhd:RkqT3", "7Fjfp0ZBr1KtDRbnfVd mIw%");
        let (_, value) = request.headers().next().unwrap();
        let encoded = value.strip_prefix("Basic ").unwrap();
        assert_eq!(STANDARD.decode(encoded).unwrap(), b"s6Bhd%3ARkqT3:7Fjfp0ZBr1KtDRbnfVd%20mIw%25");
        assert_eq!(request.secrets().count(), 2, "the secret and what is made of it");
        assert!(!request.body().contains("7Fjfp0ZBr"));
    }
}
