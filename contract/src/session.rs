//! The sealed session id: what a client sees in place of the `Mcp-Session-Id` that the upstream gave.
//!
//! A sealed id is base64url without padding over a version byte, a 24-byte nonce and the XChaCha20-Poly1305 sealing (RFC 8439,
//! draft-irtf-cfrg-xchacha) of when it was issued, when it ends and the upstream's id. The server derives the key for one
//! principal at one server entry, so that an id opens nowhere else and for nobody else, and no storage is needed for that.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// The header that names a session, in the revisions from 2025-03-26 to 2025-11-25.
pub const SESSION_ID_HEADER: &str = "mcp-session-id";
/// The longest id of an upstream, in bytes; a longer one cannot be sealed.
pub const MAX_UPSTREAM_ID_BYTES: usize = 1024;
/// The length of a nonce, in bytes.
pub const NONCE_BYTES: usize = 24;

/// The form of sealed ids.
const VERSION: u8 = 1;
/// The version byte and the nonce.
const HEAD_BYTES: usize = 1 + NONCE_BYTES;
/// The two times.
const TIMES_BYTES: usize = 16;
/// What Poly1305 adds.
const TAG_BYTES: usize = 16;
/// The longest sealed id, in characters.
pub const MAX_SEALED_CHARS: usize = (HEAD_BYTES + TIMES_BYTES + MAX_UPSTREAM_ID_BYTES + TAG_BYTES).div_ceil(3) * 4;

/// The key of the sessions of one principal at one server entry. No `Debug`; wiped when dropped.
#[derive(Clone)]
pub struct SessionKey(Zeroizing<[u8; 32]>);

/// From when to when a session may be, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When its id was sealed.
    pub issued_unix_secs: u64,
    /// When it ends, however much it is used.
    pub ends_unix_secs: u64,
}

/// What a sealed id holds. No `Debug`: the id is the upstream's own.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// From when to when.
    pub span: Span,
    /// The id that the upstream gave.
    pub upstream_id: Zeroizing<String>,
}

/// What becomes of the `Mcp-Session-Id` of an answer.
#[derive(Clone)]
pub enum Directive {
    /// It is sealed. One that the request itself had is shown as the client wrote it.
    Seal(SessionKey, Span),
    /// It is shown as the client wrote it in the request; another one goes.
    Keep,
    /// It goes.
    Drop,
}

/// Why an id cannot be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not what MCP calls an id.
    #[error("the session id is not 1 to {MAX_UPSTREAM_ID_BYTES} visible ASCII characters")]
    Id,
    /// The cipher refused.
    #[error("the session id could not be encrypted")]
    Cipher,
}

// === impl SessionKey ===

impl SessionKey {
    /// The key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> SessionKey {
        SessionKey(Zeroizing::new(bytes))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

/// Seals an upstream's id. The nonce is random and never used again under the same key.
///
/// # Errors
/// It is not what MCP calls a session id.
pub fn seal(key: &SessionKey, nonce: &[u8; NONCE_BYTES], span: Span, upstream_id: &[u8]) -> Result<String, SealError> {
    if !is_id(upstream_id) {
        return Err(SealError::Id);
    }
    let mut content = Zeroizing::new(Vec::with_capacity(TIMES_BYTES + upstream_id.len()));
    content.extend_from_slice(&span.issued_unix_secs.to_be_bytes());
    content.extend_from_slice(&span.ends_unix_secs.to_be_bytes());
    content.extend_from_slice(upstream_id);
    let payload = Payload { msg: &content, aad: &[VERSION] };
    let sealed = key.cipher().encrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Cipher)?;
    Ok(URL_SAFE_NO_PAD.encode([&[VERSION][..], nonce, &sealed].concat()))
}

/// Opens a sealed id; `None` where it was sealed under another key, or is none. Whether it has ended is not looked at.
#[must_use]
pub fn open(key: &SessionKey, sealed: &str) -> Option<Opened> {
    if sealed.len() > MAX_SEALED_CHARS {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
    let (&version, rest) = bytes.split_first()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
    if version != VERSION {
        return None;
    }
    let payload = Payload { msg: sealed, aad: &[VERSION] };
    let content = Zeroizing::new(key.cipher().decrypt(&XNonce::from(*nonce), payload).ok()?);
    let (issued, rest) = content.split_first_chunk::<8>()?;
    let (ends, id) = rest.split_first_chunk::<8>()?;
    let span = Span { issued_unix_secs: u64::from_be_bytes(*issued), ends_unix_secs: u64::from_be_bytes(*ends) };
    let upstream_id = std::str::from_utf8(id).ok().filter(|_| is_id(id))?;
    Some(Opened { span, upstream_id: Zeroizing::new(upstream_id.to_owned()) })
}

/// Whether this is what MCP calls a session id: visible ASCII, 0x21 to 0x7E.
fn is_id(bytes: &[u8]) -> bool {
    (1..=MAX_UPSTREAM_ID_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

// === impl Directive ===

impl Directive {
    /// The text for the filter; of a sealing one it holds the key.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Directive::Seal(key, span) => {
                let key = Zeroizing::new(URL_SAFE_NO_PAD.encode(*key.0));
                format!("seal {} {} {}", *key, span.issued_unix_secs, span.ends_unix_secs)
            }
            Directive::Keep => "keep".to_owned(),
            Directive::Drop => "drop".to_owned(),
        })
    }

    /// The directive of a text; `None` for every text that [`Directive::to_text`] does not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Directive> {
        let mut words = text.split(' ');
        let directive = match words.next()? {
            "keep" => Directive::Keep,
            "drop" => Directive::Drop,
            "seal" => {
                let key = Zeroizing::new(URL_SAFE_NO_PAD.decode(words.next()?).ok()?);
                let issued_unix_secs = words.next()?.parse().ok()?;
                let span = Span { issued_unix_secs, ends_unix_secs: words.next()?.parse().ok()? };
                Directive::Seal(SessionKey::new(key.as_slice().try_into().ok()?), span)
            }
            _ => return None,
        };
        words.next().is_none().then_some(directive)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPAN: Span = Span { issued_unix_secs: 1_700_000_000, ends_unix_secs: 1_700_028_800 };

    fn key(byte: u8) -> SessionKey {
        SessionKey::new([byte; 32])
    }

    fn sealed() -> String {
        seal(&key(1), &[7; NONCE_BYTES], SPAN, b"upstream-id").unwrap()
    }

    fn any_id() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(0x21_u8..=0x7e, 1..=MAX_UPSTREAM_ID_BYTES)
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_under_its_key_and_no_other(
            id in any_id(), nonce: [u8; NONCE_BYTES], bytes: [u8; 32], other: [u8; 32],
            issued_unix_secs: u64, ends_unix_secs: u64,
        ) {
            let span = Span { issued_unix_secs, ends_unix_secs };
            let sealed = seal(&SessionKey::new(bytes), &nonce, span, &id).unwrap();
            prop_assert!(sealed.len() <= MAX_SEALED_CHARS && sealed.bytes().all(|byte| byte.is_ascii_graphic()));
            let opened = open(&SessionKey::new(bytes), &sealed).unwrap();
            prop_assert!(opened.upstream_id.as_bytes() == id && opened.span == span);
            prop_assert!(bytes == other || open(&SessionKey::new(other), &sealed).is_none());
        }

        #[test]
        fn a_change_of_any_character_opens_nothing(at in 0_usize..92, other in "[A-Za-z0-9_-]|[ -~]") {
            let sealed = sealed();
            let mut changed = sealed.clone();
            let at = at % sealed.len();
            changed.replace_range(at..=at, &other);
            prop_assert!(changed == sealed || open(&key(1), &changed).is_none(), "{changed}");
        }

        #[test]
        fn what_nobody_sealed_opens_nothing(text in "\\PC{0,200}") {
            prop_assert!(open(&key(1), &text).is_none());
        }
    }

    #[test]
    fn a_flip_of_any_bit_a_cut_and_an_addition_open_nothing() {
        let sealed = sealed();
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&key(1), &URL_SAFE_NO_PAD.encode(flipped)).is_none(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(open(&key(1), &sealed[..length]).is_none(), "the first {length} characters");
        }
        for addition in ["A", "=", "==", " ", ",", "\n"] {
            assert!(open(&key(1), &format!("{sealed}{addition}")).is_none(), "`{addition}`");
        }
        assert!(open(&key(1), &format!("{sealed},{sealed}")).is_none(), "the header twice");
        assert!(open(&key(1), &"A".repeat(MAX_SEALED_CHARS + 1)).is_none());
    }

    #[test]
    fn the_upstreams_id_does_not_show_and_each_sealing_is_another() {
        let again = seal(&key(1), &[8; NONCE_BYTES], SPAN, b"upstream-id").unwrap();
        assert_ne!(again, sealed());
        for text in [again, sealed()] {
            let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            assert!(!text.contains("upstream") && !bytes.windows(8).any(|part| part == b"upstream"));
        }
    }

    #[test]
    fn only_what_mcp_calls_an_id_is_sealed() {
        let too_long = vec![b'a'; MAX_UPSTREAM_ID_BYTES + 1];
        for id in [&b""[..], b"two words", b"caf\xc3\xa9", b"a\x7f", b"a\r\nb", &too_long] {
            assert_eq!(seal(&key(1), &[7; NONCE_BYTES], SPAN, id), Err(SealError::Id), "{id:?}");
        }
    }

    #[test]
    fn a_directive_reads_back_and_nothing_else_reads() {
        let text = Directive::Seal(key(3), SPAN).to_text();
        let Some(Directive::Seal(read, span)) = Directive::parse(&text) else { panic!("{}", *text) };
        assert!(*read.0 == [3; 32] && span == SPAN);
        assert!(matches!(Directive::parse("keep"), Some(Directive::Keep)));
        assert!(matches!(Directive::parse("drop"), Some(Directive::Drop)));
        let short = URL_SAFE_NO_PAD.encode([3; 31]);
        let cases = ["", "Keep", "keep ", " keep", "keep drop", "seal", "seal AAAA 1 2", &format!("seal {short} 1 2")];
        for text in cases.into_iter().chain([&*format!("{} 3", *text), &text.replace(" 17", " x")]) {
            assert!(Directive::parse(text).is_none(), "`{text}`");
        }
    }
}
