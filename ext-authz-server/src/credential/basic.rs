//! HTTP Basic authentication (RFC 7617): user name and password, UTF-8, in `authorization`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{CredentialError, Slot, SlotName};

/// The header that carries it.
pub const HEADER: &str = "authorization";

/// The `authorization` header for `username` and this password.
///
/// # Errors
/// The user name holds a colon or a control character, or the password is not UTF-8 or holds a control character.
pub fn compose(username: &str, password: &[u8]) -> Result<Slot, CredentialError> {
    if username.contains(':') {
        return Err(CredentialError::UsernameColon);
    }
    let text = std::str::from_utf8(password).map_err(|_| CredentialError::NotUtf8)?;
    if username.chars().chain(text.chars()).any(char::is_control) {
        return Err(CredentialError::Control);
    }
    let mut pair = Zeroizing::new(Vec::with_capacity(username.len() + 1 + password.len()));
    pair.extend_from_slice(username.as_bytes());
    pair.push(b':');
    pair.extend_from_slice(password);
    let encoded = Zeroizing::new(STANDARD.encode(pair.as_slice()));
    let mut value = Zeroizing::new(String::with_capacity(6 + encoded.len()));
    value.push_str("Basic ");
    value.push_str(&encoded);
    Ok(Slot {
        name: SlotName::Header(HEADER.to_owned()),
        value,
        // The pair before the encoding, and the encoding itself, which an upstream may echo.
        scrub: vec![Zeroizing::new(password.to_vec()), pair, Zeroizing::new(encoded.as_bytes().to_vec())],
    })
}
