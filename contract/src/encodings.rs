//! Every fixed form in which a secret can hide: as is, reversed, hexadecimal, lists of bytes, and base64 at each alignment.
//!
//! Escapes (percent, JSON, HTML, quoted-printable, folded lines) are not listed here one by one: any character of any of
//! these forms may be escaped on its own and in layers, so [`crate::scrub`] reads them while it compares.

use zeroize::{Zeroize, Zeroizing};

/// Secrets shorter than this are ignored: they would be found everywhere. The server refuses all below 8 bytes.
pub const SHORTEST_SECRET_BYTES: usize = 4;

/// Some bits of a base64 character that the secret decides; its neighbour in the encoded text decides the others.
#[derive(Clone, Copy)]
pub struct SharedBits {
    mask: u8,
    value: u8,
}

/// One form of one secret.
pub struct Form {
    start: usize,
    end: usize,
    /// Compared without regard to ASCII case; the bytes are stored in lower case.
    pub folded: bool,
    /// Base64, so that a redaction keeps the length of the decoded blob.
    pub base64: bool,
    /// May be broken into lines anywhere (base64 and hexadecimal).
    pub wraps: bool,
    /// The character before the form holds these bits of the secret (base64 that does not start at a group of three).
    pub before: Option<SharedBits>,
    /// The character after the form holds these bits of the secret (base64 that does not end at a group of three).
    pub after: Option<SharedBits>,
}

/// The forms of all secrets of one request, wiped on drop.
pub struct Forms {
    bytes: Zeroizing<Vec<u8>>,
    list: Vec<Form>,
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

// === impl SharedBits ===

impl SharedBits {
    /// Whether a base64 character of this value (0 to 63) can stand beside the form.
    pub fn agree_with(self, sextet: u8) -> bool {
        sextet & self.mask == self.value
    }
}

/// The value of a character of either base64 alphabet, 0 to 63.
pub const fn base64_value(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// Whether [`base64_value`] knows this character. Without branches, so that a loop over it is vectorized.
#[inline]
pub(crate) fn is_base64(byte: u8) -> bool {
    ((byte | 0x20).wrapping_sub(b'a') < 26)
        | (byte.wrapping_sub(b'0') < 10)
        | (byte == b'+')
        | (byte == b'-')
        | (byte == b'/')
        | (byte == b'_')
}

/// The character of a value from 0 to 63.
pub(crate) fn base64_character(sextet: u8, url_safe: bool) -> u8 {
    let alphabet = if url_safe { URL_SAFE } else { STANDARD };
    alphabet.get(usize::from(sextet)).copied().unwrap_or_default()
}

// === impl Forms ===

impl Forms {
    /// All forms of these secrets.
    pub fn of(secrets: &[impl AsRef<[u8]>]) -> Forms {
        let total: usize = secrets.iter().map(|secret| secret.as_ref().len()).sum();
        // Nothing is copied by growth: 39 times the secrets holds the plain forms, 85 times all of a fully escaped one.
        let escaped = secrets.iter().any(|secret| secret.as_ref().iter().any(|byte| !is_unreserved(*byte)));
        let capacity = total * if escaped { 90 } else { 44 } + 64;
        let mut forms =
            Forms { bytes: Zeroizing::new(Vec::with_capacity(capacity)), list: Vec::with_capacity(secrets.len() * 22) };
        for secret in secrets {
            forms.add_secret(secret.as_ref());
        }
        forms
    }

    /// Every form, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Form, &[u8])> {
        self.list.iter().map(|form| (form, self.bytes_of(form)))
    }

    /// The form of this number and its bytes.
    pub fn get(&self, number: usize) -> Option<(&Form, &[u8])> {
        self.list.get(number).map(|form| (form, self.bytes_of(form)))
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many forms there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    fn bytes_of(&self, form: &Form) -> &[u8] {
        self.bytes.get(form.start..form.end).unwrap_or_default()
    }

    fn add_secret(&mut self, secret: &[u8]) {
        if secret.len() < SHORTEST_SECRET_BYTES {
            return;
        }
        self.add_folded(secret.iter().copied());
        match std::str::from_utf8(secret) {
            Ok(text) if !text.is_ascii() => {
                let mut encoded = [0_u8; 4];
                let start = self.bytes.len();
                for character in text.chars().rev() {
                    self.bytes.extend_from_slice(character.to_ascii_lowercase().encode_utf8(&mut encoded).as_bytes());
                }
                self.close(start, Form::folded());
            }
            _ => self.add_folded(secret.iter().rev().copied()),
        }
        if secret.contains(&b' ') {
            self.add_folded(secret.iter().map(|byte| if *byte == b' ' { b'+' } else { *byte }));
        }
        let start = self.bytes.len();
        for byte in secret {
            self.bytes.extend_from_slice(&hex(*byte, HEX_LOWER));
        }
        self.close(start, Form { wraps: true, ..Form::folded() });
        // As dumps and prints of byte strings show them.
        for separator in [" ", ":", "-"] {
            self.add_list(secret, separator, |byte, out| out.extend_from_slice(&hex(byte, HEX_LOWER)));
        }
        for separator in [",", ", "] {
            self.add_list(secret, separator, decimal);
        }
        // UTF-16 and UTF-32 in either byte order, but for the zeros at the ends.
        for separator in ["\0", "\0\0\0"] {
            self.add_list(secret, separator, |byte, out| out.push(byte.to_ascii_lowercase()));
        }
        self.add_base64(secret);
        if secret.iter().any(|byte| !is_unreserved(*byte)) {
            let mut escaped = Zeroizing::new(Vec::with_capacity(secret.len() * 6));
            percent_escape(secret, &mut escaped);
            self.add_base64(&escaped);
            escaped.zeroize();
            json_escape(secret, &mut escaped);
            if escaped.as_slice() != secret {
                self.add_base64(&escaped);
            }
        }
    }

    fn add_folded(&mut self, secret: impl Iterator<Item = u8>) {
        let start = self.bytes.len();
        self.bytes.extend(secret.map(|byte| byte.to_ascii_lowercase()));
        self.close(start, Form::folded());
    }

    /// Each byte on its own, with this between them.
    fn add_list(&mut self, secret: &[u8], separator: &str, write: impl Fn(u8, &mut Vec<u8>)) {
        let start = self.bytes.len();
        for (number, byte) in secret.iter().enumerate() {
            if number > 0 {
                self.bytes.extend_from_slice(separator.as_bytes());
            }
            write(*byte, &mut self.bytes);
        }
        self.close(start, Form::folded());
    }

    fn add_base64(&mut self, secret: &[u8]) {
        let (Some(first), Some(last)) = (secret.first(), secret.last()) else { return };
        for (skipped, before) in [
            (0, None),
            (1, Some(SharedBits { mask: 0b00_1111, value: first >> 4 })),
            (2, Some(SharedBits { mask: 0b00_0011, value: first >> 6 })),
        ] {
            let first_character = (skipped * 8_usize).div_ceil(6);
            let bits = (skipped + secret.len()) * 8;
            let after = match bits % 6 {
                2 => Some(SharedBits { mask: 0b11_0000, value: (last & 0b11) << 4 }),
                4 => Some(SharedBits { mask: 0b11_1100, value: (last & 0b1111) << 2 }),
                _ => None,
            };
            for alphabet in [STANDARD, URL_SAFE] {
                let start = self.bytes.len();
                for character in first_character..bits / 6 {
                    let value = sextet(secret, character * 6 - skipped * 8);
                    self.bytes.push(alphabet.get(usize::from(value)).copied().unwrap_or_default());
                }
                let differs = self.bytes.get(start..).is_some_and(|form| form.iter().any(|b| matches!(b, b'+' | b'/')));
                self.close(start, Form { folded: false, base64: true, wraps: true, before, after, start: 0, end: 0 });
                if !differs {
                    break;
                }
            }
        }
    }

    fn close(&mut self, start: usize, form: Form) {
        let end = self.bytes.len();
        let known = |other: &Form| {
            other.folded == form.folded
                && self.bytes.get(other.start..other.end) == self.bytes.get(start..end)
                && other.before.is_none()
                && form.before.is_none()
                && !form.base64
        };
        if self.list.iter().rev().take(4).any(known) {
            self.bytes.truncate(start);
        } else {
            self.list.push(Form { start, end, ..form });
        }
    }
}

// === impl Form ===

impl Form {
    fn folded() -> Form {
        Form { start: 0, end: 0, folded: true, base64: false, wraps: false, before: None, after: None }
    }
}

/// Six bits, the first of which is this one; zeros follow the last byte.
pub(crate) fn sextet(bytes: &[u8], bit: usize) -> u8 {
    let pair = |at: usize| u16::from(bytes.get(at).copied().unwrap_or_default());
    let both = (pair(bit / 8) << 8) | pair(bit / 8 + 1);
    ((both >> (10 - bit % 8)) & 0x3f) as u8
}

fn hex(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    let digit = |nibble: u8| digits.get(usize::from(nibble)).copied().unwrap_or_default();
    [digit(byte >> 4), digit(byte & 15)]
}

fn decimal(byte: u8, out: &mut Vec<u8>) {
    for (power, least) in [(100, 100), (10, 10), (1, 0)] {
        if byte >= least {
            out.push(b'0' + byte / power % 10);
        }
    }
}

/// RFC 3986 section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn percent_escape(secret: &[u8], out: &mut Vec<u8>) {
    for byte in secret {
        if is_unreserved(*byte) {
            out.push(*byte);
        } else {
            out.push(b'%');
            out.extend_from_slice(&hex(*byte, HEX_UPPER));
        }
    }
}

/// RFC 8259 section 7, escaping only what must be escaped.
fn json_escape(secret: &[u8], out: &mut Vec<u8>) {
    for byte in secret {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&hex(*byte, HEX_LOWER));
            }
            _ => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;

    fn listed(secret: &[u8]) -> Vec<Vec<u8>> {
        Forms::of(&[secret]).iter().map(|(_, bytes)| bytes.to_vec()).collect()
    }

    #[test]
    fn each_alignment_of_base64_contains_a_listed_form() {
        let secret = b"k3y-\xff\xfeWith+Slash/and more";
        let forms = Forms::of(&[secret]);
        for prefix in 0..6 {
            for suffix in 0..4 {
                let mut data = vec![b'~'; prefix];
                data.extend_from_slice(secret);
                data.extend(std::iter::repeat_n(b'!', suffix));
                let encoded = STANDARD_NO_PAD.encode(&data);
                let found = forms.iter().filter(|(form, bytes)| {
                    form.base64
                        && encoded.as_bytes().windows(bytes.len()).enumerate().any(|(at, window)| {
                            let agrees = |bits: Option<SharedBits>, at: Option<usize>| {
                                bits.is_none_or(|bits| {
                                    at.and_then(|at| encoded.as_bytes().get(at))
                                        .and_then(|byte| base64_value(*byte))
                                        .is_some_and(|value| bits.agree_with(value))
                                })
                            };
                            window == *bytes
                                && agrees(form.before, at.checked_sub(1))
                                && agrees(form.after, Some(at + bytes.len()))
                        })
                });
                assert_eq!(found.count(), 1, "prefix {prefix} suffix {suffix}");
            }
        }
    }

    #[test]
    fn both_ways_to_know_base64_agree() {
        for byte in 0..=255 {
            assert_eq!(is_base64(byte), base64_value(byte).is_some(), "{byte}");
        }
    }

    #[test]
    fn plain_forms_are_listed_once() {
        let forms = listed(b"Abcdefgh");
        assert!(forms.contains(&b"abcdefgh".to_vec()));
        assert!(forms.contains(&b"hgfedcba".to_vec()));
        assert!(forms.contains(&b"4162636465666768".to_vec()));
        assert_eq!(listed(b"abcddcba").iter().filter(|form| *form == b"abcddcba").count(), 1);
    }

    #[test]
    fn too_short_secrets_are_ignored() {
        assert!(Forms::of(&[b"abc"]).is_empty());
        assert_eq!(Forms::of(&[b"abcdefgh"]).len(), 13);
    }
}
