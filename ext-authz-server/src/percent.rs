//! Percent-encoding (RFC 3986, 2.1), in one place for paths, queries and references.

/// The characters that RFC 3986 keeps beside letters and digits.
pub(crate) const UNRESERVED: &[u8] = b"-._~";

/// Appends `bytes` to `out`: letters, digits and what is `kept` as they are, everything else encoded, with upper-case digits.
pub(crate) fn encode_into(out: &mut String, bytes: &[u8], kept: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || kept.contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(u32::from(digit), 16).map(|digit| digit.to_ascii_uppercase()));
            }
        }
    }
}
