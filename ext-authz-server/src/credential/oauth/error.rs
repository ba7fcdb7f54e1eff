//! Why no token could be had. Nothing here holds any part of a secret, also where the server's own words are repeated.

/// The longest description by an authorization server that is repeated, in bytes.
const MAX_DESCRIPTION_BYTES: usize = 200;
/// So many bytes of a secret in a row make a description unfit to be repeated.
const TELLING_BYTES: usize = 8;

/// Why a token endpoint gave no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It said why (RFC 6749, 5.2).
    #[error("the token endpoint refused: {0}")]
    Refused(Refusal),
    /// It answered with a status and no reason.
    #[error("the token endpoint answered with status {0}")]
    Status(u16),
    /// Its answer is not JSON.
    #[error("the token endpoint's answer is not `application/json`")]
    ContentType,
    /// Its answer is not what RFC 6749, 5.1 says.
    #[error("the token endpoint's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The token is of a type that is not used here.
    #[error("the token is of type `{0}`, not one that can be sent")]
    TokenType(String),
    /// The token cannot be in a header or could not be found again in answers.
    #[error("the access token cannot be used: {0}")]
    Token(&'static str),
    /// RFC 8693, 2.2.1: another kind of token than was asked for.
    #[error("the issued token is of type `{got}`, not `{wanted}`")]
    IssuedTokenType {
        /// What was asked for.
        wanted: &'static str,
        /// What was issued; empty: not said.
        got: String,
    },
    /// A key, certificate or token that the configuration names cannot be used.
    #[error("{what} cannot be used: {cause}")]
    Unusable {
        /// Which.
        what: &'static str,
        /// Why.
        cause: String,
    },
    /// The authorization server's metadata cannot be used (RFC 8414).
    #[error("the metadata of issuer `{issuer}` cannot be used: {cause}")]
    Metadata {
        /// The issuer.
        issuer: String,
        /// Why.
        cause: String,
    },
    /// The caller's token may not be used for this.
    #[error("the caller's token cannot be used: {0}")]
    Caller(&'static str),
    /// No answer came.
    #[error("no answer from {what}: {cause}")]
    Unreachable {
        /// Who did not answer.
        what: &'static str,
        /// What went wrong.
        cause: String,
    },
    /// There is no grant, or no longer one.
    #[error("the user has to connect again: {0}")]
    Consent(String),
}

/// An error response (RFC 6749, 5.2; RFC 8693, 2.2.2; RFC 9449, 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code, for example `invalid_client`.
    pub code: String,
    /// The server's own words, where they repeat nothing that was sent.
    pub description: Option<String>,
    /// The HTTP status.
    pub status: u16,
}

/// What comes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may pass by itself.
    Transient,
    /// It stays until somebody changes something.
    Rejected,
    /// It stays until the user connects again.
    Consent,
}

// === impl TokenError ===

impl TokenError {
    /// What comes of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            TokenError::Consent(_) => Outcome::Consent,
            TokenError::Refused(refusal) => refusal.outcome(),
            TokenError::Status(status) if *status == 429 || *status >= 500 => Outcome::Transient,
            TokenError::Unreachable { .. } | TokenError::Metadata { .. } => Outcome::Transient,
            _ => Outcome::Rejected,
        }
    }

    /// The code of an error response.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            TokenError::Refused(refusal) => Some(&refusal.code),
            _ => None,
        }
    }
}

// === impl Refusal ===

impl Refusal {
    /// Reads `error` and `error_description`; `sent` is every secret of the request.
    #[must_use]
    pub fn read(status: u16, code: &str, description: Option<&str>, sent: &[&[u8]]) -> Refusal {
        // RFC 6749, 5.2: %x20-21 / %x23-5B / %x5D-7E. Codes are short words; anything else is not repeated.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
        let is_code = !code.is_empty() && code.len() <= 64 && code.bytes().all(plain) && !tells(code, sent);
        let code = if is_code { code.to_owned() } else { "an error whose code is not shown".to_owned() };
        let description = description.map(printable).filter(|text| !text.is_empty() && !tells(text, sent));
        Refusal { code, description, status }
    }

    fn outcome(&self) -> Outcome {
        match self.code.as_str() {
            "temporarily_unavailable" | "server_error" | "slow_down" => Outcome::Transient,
            // What Microsoft Entra and OpenID Connect Core, 3.1.2.6 say where a person has to do something.
            "interaction_required" | "consent_required" | "login_required" => Outcome::Consent,
            _ if self.status == 429 || self.status >= 500 => Outcome::Transient,
            _ => Outcome::Rejected,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.description {
            Some(description) => write!(f, "{} ({description})", self.code),
            None => f.write_str(&self.code),
        }
    }
}

/// The beginning of a text in one line of printable ASCII.
fn printable(text: &str) -> String {
    let shown = text.chars().map(|char| if char.is_ascii_graphic() { char } else { ' ' });
    shown.take(MAX_DESCRIPTION_BYTES).collect::<String>().trim().to_owned()
}

/// Whether a text repeats enough of one of these secrets to be one itself.
fn tells(text: &str, secrets: &[&[u8]]) -> bool {
    let pieces = || text.as_bytes().windows(TELLING_BYTES);
    secrets.iter().any(|secret| pieces().any(|piece| secret.windows(TELLING_BYTES).any(|part| part == piece)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_that_repeats_a_secret_is_not_shown() {
        let sent: [&[u8]; 1] = [b"the-client-secret-0123456789"];
        let read = |description| Refusal::read(401, "invalid_client", Some(description), &sent).to_string();
        assert_eq!(read("unknown client"), "invalid_client (unknown client)");
        assert_eq!(read("secret `nt-secret-0123` is wrong"), "invalid_client");
        assert_eq!(read("two\r\nlines\u{7}"), "invalid_client (two  lines)");
        assert!(read(&"x".repeat(10_000)).len() < 250);
    }

    #[test]
    fn a_code_that_is_none_is_not_shown() {
        for code in ["", "has space", "the-client-secret-0123456789", "line\nfeed", &"x".repeat(65)] {
            let refusal = Refusal::read(400, code, None, &[b"the-client-secret-0123456789"]);
            assert_eq!(refusal.to_string(), "an error whose code is not shown", "{code}");
        }
    }

    #[test]
    fn every_code_has_its_outcome() {
        let cases = [
            ("invalid_request", 400, Outcome::Rejected),
            ("invalid_client", 401, Outcome::Rejected),
            ("invalid_grant", 400, Outcome::Rejected),
            ("unauthorized_client", 400, Outcome::Rejected),
            ("unsupported_grant_type", 400, Outcome::Rejected),
            ("invalid_scope", 400, Outcome::Rejected),
            ("invalid_target", 400, Outcome::Rejected),
            ("invalid_dpop_proof", 400, Outcome::Rejected),
            ("temporarily_unavailable", 503, Outcome::Transient),
            ("slow_down", 400, Outcome::Transient),
            ("server_error", 500, Outcome::Transient),
            ("whatever", 502, Outcome::Transient),
            ("interaction_required", 400, Outcome::Consent),
            ("consent_required", 400, Outcome::Consent),
            ("login_required", 400, Outcome::Consent),
        ];
        for (code, status, expected) in cases {
            let error = TokenError::Refused(Refusal::read(status, code, None, &[]));
            assert_eq!(error.outcome(), expected, "{code}");
        }
        assert_eq!(TokenError::Status(503).outcome(), Outcome::Transient);
        assert_eq!(TokenError::Status(404).outcome(), Outcome::Rejected);
        assert_eq!(TokenError::Malformed("x").outcome(), Outcome::Rejected);
    }
}
