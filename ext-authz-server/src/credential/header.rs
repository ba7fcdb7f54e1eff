//! A static credential in a header: a template with exactly one `{secret}`.

use zeroize::Zeroizing;

use super::{CredentialError, Slot, SlotName};

/// What the template holds where the secret goes.
pub const PLACEHOLDER: &str = "{secret}";

/// The header `name` with `template` filled in.
///
/// # Errors
/// The template does not hold exactly one `{secret}`, or the value cannot be a header value (RFC 9110, 5.5).
pub fn compose(name: &str, template: &str, secret: &[u8]) -> Result<Slot, CredentialError> {
    let secret = std::str::from_utf8(secret).map_err(|_| CredentialError::NotUtf8)?;
    let value = fill(template, secret)?;
    check_value(&value)?;
    // The composed value holds the secret as it is: finding the secret finds it.
    Ok(Slot { name: SlotName::Header(name.to_owned()), value, scrub: vec![Zeroizing::new(secret.as_bytes().to_vec())] })
}

/// The template with the secret in its place.
pub(super) fn fill(template: &str, secret: &str) -> Result<Zeroizing<String>, CredentialError> {
    let (before, after) = template.split_once(PLACEHOLDER).ok_or(CredentialError::Template)?;
    if after.contains(PLACEHOLDER) {
        return Err(CredentialError::Template);
    }
    // Exactly as long as needed: the buffer never moves, so no copy of the secret stays behind.
    let mut value = Zeroizing::new(String::with_capacity(template.len() + secret.len()));
    value.push_str(before);
    value.push_str(secret);
    value.push_str(after);
    Ok(value)
}

/// Refuses what could end the header, be trimmed or be read in two ways.
pub(super) fn check_value(value: &str) -> Result<(), CredentialError> {
    if value.chars().any(char::is_control) {
        return Err(CredentialError::Control);
    }
    if value.starts_with([' ', '\t']) || value.ends_with([' ', '\t']) {
        return Err(CredentialError::OuterSpace);
    }
    Ok(())
}
