//! What a token endpoint answers (RFC 6749, 5; RFC 8693, 2.2), read strictly: a token that is not exactly what was asked
//! for is no token.

use std::time::Duration;

use keyward_contract::json::{self, Object, Value};
use zeroize::Zeroizing;

use super::error::{Refusal, TokenError};
use crate::credential::{MIN_DISTINCT_BYTES, MIN_SECRET_BYTES};

/// The largest answer that is read, in bytes.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The largest token, in bytes: it has to fit among the headers of a request.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How long a token is used whose lifetime the server does not say.
pub const UNSAID_LIFETIME: Duration = Duration::from_secs(60);
/// The longest time that a token is used, whatever the server says.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The token type of an ID-JAG, which no resource accepts.
pub const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";
/// The token type of an access token.
pub const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// An answer as it came.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// The HTTP status.
    pub status: u16,
    /// `content-type`; empty where absent.
    pub content_type: &'a str,
    /// The body.
    pub body: &'a [u8],
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// What `issued_token_type` has to be; none: the grant is no token exchange.
    pub issued: Option<&'static str>,
    /// Whether a proof of possession was sent, so that the token may be bound to its key (RFC 9449).
    pub bound: bool,
}

/// How a token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// RFC 6750.
    Bearer,
    /// RFC 9449: with a proof.
    Dpop,
    /// RFC 8693, 2.2.1: it is not sent to any resource.
    NotApplicable,
}

/// What a token endpoint issued. No `Debug`: it holds secrets.
pub struct Tokens {
    /// The token.
    pub access_token: Zeroizing<String>,
    /// How it is sent.
    pub token_type: TokenType,
    /// How long it is good, counted from the request.
    pub good_for: Duration,
    /// What it may be used for, where the server says.
    pub scope: Option<String>,
    /// The next refresh token.
    pub refresh_token: Option<Zeroizing<String>>,
    /// An ID token.
    pub id_token: Option<Zeroizing<String>>,
}

/// Reads an answer; `sent` is every secret of the request, so that no error repeats one.
///
/// # Errors
/// The server's own reason, or what is wrong with its answer.
pub fn read(received: Received<'_>, expected: Expected, sent: &[&[u8]]) -> Result<Tokens, TokenError> {
    if received.status != 200 {
        return Err(refused(received, sent));
    }
    if !is_json(received.content_type) {
        return Err(TokenError::ContentType);
    }
    let value = parse(received.body).ok_or(TokenError::Malformed("it is not a JSON object"))?;
    let object = value.as_object().ok_or(TokenError::Malformed("it is not a JSON object"))?;
    if object.get("error").is_some() {
        // Some servers say no with status 200.
        return Err(refused(Received { status: 400, ..received }, sent));
    }
    let token_type = token_type(text(object, "token_type")?.unwrap_or_default(), expected)?;
    issued(object, expected)?;
    let access_token = text(object, "access_token")?.ok_or(TokenError::Malformed("there is no `access_token`"))?;
    check_token(access_token)?;
    let secret = |name| Ok(text(object, name)?.map(|text| Zeroizing::new(text.to_owned())));
    let refresh_token = secret("refresh_token")?;
    if refresh_token.as_deref().is_some_and(|token| !is_visible(token)) {
        return Err(TokenError::Malformed("the refresh token is empty, too long or has unusual characters"));
    }
    Ok(Tokens {
        access_token: Zeroizing::new(access_token.to_owned()),
        token_type,
        good_for: good_for(object)?,
        scope: text(object, "scope")?.filter(|scope| is_scope(scope)).map(str::to_owned),
        refresh_token,
        id_token: secret("id_token")?,
    })
}

/// Whether a token can be sent in a header and found again in an answer.
///
/// # Errors
/// Why not.
pub fn check_token(token: &str) -> Result<(), TokenError> {
    if token.len() < MIN_SECRET_BYTES {
        return Err(TokenError::Token("it is too short"));
    }
    if !is_visible(token) {
        return Err(TokenError::Token("it is too long or has characters that do not belong in a header"));
    }
    if token.bytes().collect::<std::collections::BTreeSet<_>>().len() < MIN_DISTINCT_BYTES {
        return Err(TokenError::Token("it has too few different bytes"));
    }
    Ok(())
}

/// The scopes that were asked for and not given (RFC 6749, 3.3); none where the server does not say.
#[must_use]
pub fn narrowed<'a>(asked: &'a [String], tokens: &Tokens) -> Vec<&'a str> {
    let Some(given) = &tokens.scope else { return Vec::new() };
    let given: Vec<&str> = given.split(' ').collect();
    asked.iter().map(String::as_str).filter(|scope| !given.contains(scope)).collect()
}

/// A JSON text, strictly: no repeated keys.
pub(super) fn parse(body: &[u8]) -> Option<Value<'_>> {
    json::parse(body, &json::Limits { max_bytes: MAX_ANSWER_BYTES, ..json::Limits::default() }).ok()
}

/// Whether a media type is JSON, with or without parameters.
pub(super) fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case("application/json")
}

/// A text member; absent and null are the same.
pub(super) fn text<'a>(object: &'a Object<'_>, name: &str) -> Result<Option<&'a str>, TokenError> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_ref())),
        Some(_) => Err(TokenError::Malformed("a member that should be text is not")),
    }
}

fn refused(received: Received<'_>, sent: &[&[u8]]) -> TokenError {
    let read = || {
        let value = parse(received.body).filter(|_| is_json(received.content_type))?;
        let object = value.as_object()?;
        let code = object.get("error")?.as_str()?;
        let description = object.get("error_description").and_then(|text| text.as_str());
        Some(TokenError::Refused(Refusal::read(received.status, code, description, sent)))
    };
    read().unwrap_or(TokenError::Status(received.status))
}

fn token_type(name: &str, expected: Expected) -> Result<TokenType, TokenError> {
    match name.to_ascii_lowercase().as_str() {
        "bearer" if expected.issued != Some(ID_JAG) => Ok(TokenType::Bearer),
        // Never as a bearer token: without the proof it would be of no use, and was not meant to be.
        "dpop" if expected.bound => Ok(TokenType::Dpop),
        "n_a" if expected.issued == Some(ID_JAG) => Ok(TokenType::NotApplicable),
        _ => Err(TokenError::TokenType(shown(name))),
    }
}

fn issued(object: &Object<'_>, expected: Expected) -> Result<(), TokenError> {
    let Some(wanted) = expected.issued else { return Ok(()) };
    let got = text(object, "issued_token_type")?.unwrap_or_default();
    // RFC 8693, 2.2.1: required. A JWT that is an access token may be called either (3).
    let is_jwt = got == "urn:ietf:params:oauth:token-type:jwt" && wanted == ACCESS_TOKEN;
    if got == wanted || is_jwt {
        return Ok(());
    }
    Err(TokenError::IssuedTokenType { wanted, got: shown(got) })
}

fn good_for(object: &Object<'_>) -> Result<Duration, TokenError> {
    let bad = TokenError::Malformed("`expires_in` is not a positive whole number of seconds");
    let seconds = match object.get("expires_in") {
        None | Some(Value::Null) => return Ok(UNSAID_LIFETIME),
        Some(Value::Number(number)) => number.as_u64(),
        // Azure's metadata service and others write it as text.
        Some(Value::String(text)) if text.len() <= 20 => text.parse().ok(),
        Some(_) => None,
    };
    match seconds {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds).min(MAX_LIFETIME)),
        _ => Err(bad),
    }
}

fn is_visible(token: &str) -> bool {
    !token.is_empty() && token.len() <= MAX_TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn is_scope(scope: &str) -> bool {
    scope.len() <= 4096 && scope.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// A name by the server, where it is a short one.
fn shown(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    if name.len() <= 80 && name.bytes().all(plain) { name.to_owned() } else { "not shown".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(body: &str, expected: Expected) -> Result<Tokens, TokenError> {
        let received = Received { status: 200, content_type: "application/json;charset=UTF-8", body: body.as_bytes() };
        read(received, expected, &[])
    }

    fn plain(body: &str) -> Result<Tokens, TokenError> {
        read_as(body, Expected::default())
    }

    #[test]
    fn a_good_answer_is_read() {
        let tokens = plain(
            r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"bEARER","expires_in":3600,"scope":"read write",
                "refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA","id_token":"a.b.c","example_parameter":"example_value"}"#,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tokens.access_token.as_str(), "2YotnFZFEjr1zCsicMWpAA");
        assert_eq!((tokens.token_type, tokens.good_for), (TokenType::Bearer, Duration::from_secs(3600)));
        assert_eq!(tokens.refresh_token.as_ref().map(|token| token.as_str()), Some("tGzv3JOkF0XG5Qx2TlKWIA"));
        let asked = ["read".to_owned(), "admin".to_owned()];
        assert_eq!(narrowed(&asked, &tokens), ["admin"]);
    }

    #[test]
    fn the_lifetime_is_bounded() {
        let with = |expires: &str| {
            plain(&format!(r#"{{"access_token":"2YotnFZFEjr1zCsi","token_type":"Bearer"{expires}}}"#))
                .map(|tokens| tokens.good_for.as_secs())
                .ok()
        };
        let cases = [
            ("", Some(60)),
            (r#","expires_in":null"#, Some(60)),
            (r#","expires_in":1"#, Some(1)),
            (r#","expires_in":"3599""#, Some(3599)),
            (r#","expires_in":99999999999"#, Some(86400)),
            (r#","expires_in":0"#, None),
            (r#","expires_in":-5"#, None),
            (r#","expires_in":1.5"#, None),
            (r#","expires_in":1e99"#, None),
            (r#","expires_in":"soon""#, None),
            (r#","expires_in":[60]"#, None),
        ];
        for (text, expected) in cases {
            assert_eq!(with(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_exactly_a_token_is_refused() {
        let cases = [
            r#"{"token_type":"Bearer"}"#,
            r#"{"access_token":"2YotnFZFEjr1zCsi"}"#,
            r#"{"access_token":"2YotnFZFEjr1zCsi","token_type":"mac"}"#,
            r#"{"access_token":"2YotnFZFEjr1zCsi","token_type":"DPoP"}"#,
            r#"{"access_token":"2YotnFZFEjr1zCsi","token_type":"N_A"}"#,
            r#"{"access_token":"short","token_type":"Bearer"}"#,
            r#"{"access_token":"aaaaaaaaaaaaaaaaaaaaa","token_type":"Bearer"}"#,
            r#"{"access_token":"with space in it","token_type":"Bearer"}"#,
            r#"{"access_token":"with\r\nx-evil: 1","token_type":"Bearer"}"#,
            r#"{"access_token":"schl\u00fcssel-token","token_type":"Bearer"}"#,
            r#"{"access_token":["2YotnFZFEjr1zCsi"],"token_type":"Bearer"}"#,
            r#"{"access_token":"2YotnFZFEjr1zCsi","access_token":"another-token-x","token_type":"Bearer"}"#,
            r#"{"access_token":"2YotnFZFEjr1zCsi","token_type":"Bearer","refresh_token":"a b"}"#,
            r#"["2YotnFZFEjr1zCsi"]"#,
            "access_token=2YotnFZFEjr1zCsi&token_type=Bearer",
            "",
        ];
        for body in cases {
            assert!(plain(body).is_err(), "{body}");
        }
        let long = format!(r#"{{"access_token":"{}","token_type":"Bearer"}}"#, "abcdefgh".repeat(2049));
        assert!(plain(&long).is_err());
        let html = Received { status: 200, content_type: "text/html", body: b"{}" };
        assert_eq!(read(html, Expected::default(), &[]).err(), Some(TokenError::ContentType));
    }

    #[test]
    fn a_bound_token_is_never_a_bearer_token() {
        let bound = r#"{"access_token":"2YotnFZFEjr1zCsi","token_type":"DPoP"}"#;
        let error = plain(bound).err().unwrap();
        assert_eq!(error, TokenError::TokenType("DPoP".into()));
        let tokens = read_as(bound, Expected { bound: true, issued: None }).ok().unwrap();
        assert_eq!(tokens.token_type, TokenType::Dpop);
    }

    #[test]
    fn the_issued_token_type_is_the_one_that_was_asked_for() {
        let body = |token_type: &str, issued: &str| {
            format!(
                r#"{{"access_token":"2YotnFZFEjr1zCsi","token_type":"{token_type}","issued_token_type":"{issued}"}}"#
            )
        };
        let access = Expected { issued: Some(ACCESS_TOKEN), bound: false };
        assert!(read_as(&body("Bearer", ACCESS_TOKEN), access).is_ok());
        assert!(read_as(&body("Bearer", "urn:ietf:params:oauth:token-type:jwt"), access).is_ok());
        assert!(read_as(&body("Bearer", "urn:ietf:params:oauth:token-type:id_token"), access).is_err());
        assert!(read_as(&body("N_A", ACCESS_TOKEN), access).is_err());
        assert!(read_as(r#"{"access_token":"2YotnFZFEjr1zCsi","token_type":"Bearer"}"#, access).is_err());
        let assertion = Expected { issued: Some(ID_JAG), bound: false };
        assert!(read_as(&body("N_A", ID_JAG), assertion).is_ok());
        assert!(read_as(&body("Bearer", ID_JAG), assertion).is_err(), "an ID-JAG is no access token");
        assert!(read_as(&body("N_A", ACCESS_TOKEN), assertion).is_err());
    }

    #[test]
    fn the_servers_reason_is_kept_and_nothing_of_what_was_sent() {
        let body = br#"{"error":"invalid_target","error_description":"no such resource: hunter2-hunter2"}"#;
        let received = Received { status: 400, content_type: "application/json", body };
        let error = read(received, Expected::default(), &[]).err().unwrap();
        assert_eq!(error.code(), Some("invalid_target"));
        assert!(error.to_string().contains("no such resource"), "{error}");
        let error = read(received, Expected::default(), &[b"hunter2-hunter2"]).err().unwrap();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let in_a_good_status = Received { status: 200, ..received };
        assert_eq!(read(in_a_good_status, Expected::default(), &[]).err().unwrap().code(), Some("invalid_target"));
        let page = Received { status: 502, content_type: "text/html", body: b"<html>" };
        assert_eq!(read(page, Expected::default(), &[]).err(), Some(TokenError::Status(502)));
    }
}
