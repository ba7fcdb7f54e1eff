//! What makes a text that begins like a credential one: alphabet, length, entropy, checksum.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::HOLD_MAX_BYTES;
use super::rules::Rule;

/// What follows a prefix.
#[derive(Clone, Copy)]
pub(super) enum Shape {
    /// Characters of one alphabet, as many as there are; their number must be in this range.
    Token { min: usize, max: usize, alphabet: fn(u8) -> bool },
    /// The rest of a line that says which private key begins (RFC 7468).
    Pem,
}

/// What a rule says of a text that begins at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is none.
    No,
    /// More of the text is needed.
    Open,
    /// A credential of this length, in bytes.
    Is(usize),
    /// A credential that begins with so many bytes and goes on for longer than is looked at.
    Begins(usize),
}

/// The longest label of a private key's first line.
const PEM_LABEL_MAX_BYTES: usize = 40;
/// Bits for each character below which a text was made up by a person: repetition, or one word.
const MIN_ENTROPY_BITS: f32 = 3.0;
/// The same for hexadecimal digits, which have four bits at most.
const MIN_HEX_ENTROPY_BITS: f32 = 2.6;

/// Judges `text`, which begins at a boundary; `end` says that nothing follows it.
pub(super) fn judge(rule: &Rule, text: &[u8], end: bool) -> Verdict {
    for prefix in rule.prefixes {
        let Some(rest) = text.strip_prefix(prefix.as_bytes()) else {
            if !end && prefix.as_bytes().starts_with(text) {
                return Verdict::Open;
            }
            continue;
        };
        let verdict = match rule.shape {
            Shape::Pem => judge_pem(prefix, rest, end),
            Shape::Token { min, max, alphabet } => {
                let length = rest.iter().take(HOLD_MAX_BYTES).take_while(|byte| alphabet(**byte)).count();
                let body = rest.get(..length).unwrap_or_default();
                if length == rest.len() && !end && length <= max && length < HOLD_MAX_BYTES {
                    Verdict::Open
                } else if length >= HOLD_MAX_BYTES {
                    if length <= max && (rule.check)(prefix, body) {
                        Verdict::Begins(prefix.len() + length)
                    } else {
                        Verdict::No
                    }
                } else if rest.get(length).is_some_and(u8::is_ascii_alphanumeric) {
                    Verdict::No
                } else {
                    // A full stop or a padding sign at the end belongs to the sentence.
                    let body = body.trim_ascii_end();
                    let trimmed = body.strip_suffix(b".").unwrap_or(body);
                    let fits = (min..=max).contains(&trimmed.len()) && (rule.check)(prefix, trimmed);
                    if fits { Verdict::Is(prefix.len() + trimmed.len()) } else { Verdict::No }
                }
            }
        };
        if verdict != Verdict::No {
            return verdict;
        }
    }
    Verdict::No
}

/// `RSA PRIVATE KEY-----`, `PGP PRIVATE KEY BLOCK-----` and their like: the key begins after it.
fn judge_pem(prefix: &str, rest: &[u8], end: bool) -> Verdict {
    let line = rest.get(..rest.len().min(PEM_LABEL_MAX_BYTES + 5)).unwrap_or_default();
    let label =
        line.iter().take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b' ').count();
    let (label, after) = line.split_at_checked(label).unwrap_or_default();
    let is_private = label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK");
    if is_private && after.starts_with(b"-----") {
        Verdict::Is(prefix.len() + label.len() + 5)
    } else if !end && rest.len() == line.len() && b"-----".starts_with(after) && label.len() <= PEM_LABEL_MAX_BYTES {
        Verdict::Open
    } else {
        Verdict::No
    }
}

// === alphabets ===

pub(super) fn is_base62(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(super) fn is_url_safe(byte: u8) -> bool {
    is_word(byte) || byte == b'-'
}

pub(super) fn is_url_safe_dotted(byte: u8) -> bool {
    is_url_safe(byte) || byte == b'.'
}

pub(super) fn is_url_safe_padded(byte: u8) -> bool {
    is_url_safe(byte) || byte == b'='
}

pub(super) fn is_upper_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

/// RFC 4648, section 6. Letters and digits that it lacks end no credential, so they count as its end.
pub(super) fn is_base32(byte: u8) -> bool {
    byte.is_ascii_uppercase() || matches!(byte, b'2'..=b'7')
}

pub(super) fn is_hex(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

pub(super) fn is_hex_dashed(byte: u8) -> bool {
    is_hex(byte) || byte == b'-'
}

// === checks ===

pub(super) fn always(_: &str, _: &[u8]) -> bool {
    true
}

/// Letters, digits and enough of a mixture.
pub(super) fn is_random(_: &str, body: &[u8]) -> bool {
    entropy_bits(body) >= MIN_ENTROPY_BITS && !is_sample(body) && body.iter().any(u8::is_ascii_digit)
}

/// For short ones: one in thirty has no digit.
pub(super) fn is_random_id(_: &str, body: &[u8]) -> bool {
    entropy_bits(body) >= MIN_ENTROPY_BITS && !is_sample(body)
}

pub(super) fn is_random_hex(_: &str, body: &[u8]) -> bool {
    entropy_bits(body) >= MIN_HEX_ENTROPY_BITS && !is_sample(body)
}

/// The last six characters are the CRC-32 of those before, in base 62.
pub(super) fn has_github_checksum(_: &str, body: &[u8]) -> bool {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let Some((random, written)) = body.len().checked_sub(6).and_then(|at| body.split_at_checked(at)) else {
        return false;
    };
    let mut sum = crc32(random);
    written.iter().rev().all(|character| {
        let digit = DIGITS.get((sum % 62) as usize);
        sum /= 62;
        digit == Some(character)
    })
}

/// 22 characters, an underscore, 59 characters.
pub(super) fn is_github_pat(prefix: &str, body: &[u8]) -> bool {
    body.get(22) == Some(&b'_') && body.iter().filter(|byte| **byte == b'_').count() == 1 && is_random(prefix, body)
}

/// Every key carries the same eight characters in its middle.
pub(super) fn is_openai(prefix: &str, body: &[u8]) -> bool {
    body.windows(8).any(|window| window == b"T3BlbkFJ") && is_random(prefix, body)
}

pub(super) fn is_sendgrid(prefix: &str, body: &[u8]) -> bool {
    body.get(22) == Some(&b'.') && body.iter().filter(|byte| **byte == b'.').count() == 1 && is_random(prefix, body)
}

/// Numbers between dashes, and something random at the end.
pub(super) fn is_slack(prefix: &str, body: &[u8]) -> bool {
    let digits = body.iter().filter(|byte| byte.is_ascii_digit()).count();
    let last = body.rsplit(|byte| *byte == b'-').next().unwrap_or_default();
    digits >= 6 && last.len() >= 10 && is_random(prefix, body)
}

/// Three parts; the first is a JSON object that names an algorithm, the second one that holds something (RFC 7519). For a
/// token that goes on, the beginning decides.
pub(super) fn is_jwt(prefix: &str, body: &[u8]) -> bool {
    let mut parts = body.split(|byte| *byte == b'.');
    let (Some(header), Some(claims)) = (parts.next(), parts.next()) else { return false };
    let signature = parts.next();
    let header = [prefix.as_bytes(), header].concat();
    let decoded = URL_SAFE_NO_PAD.decode(&header).unwrap_or_default();
    let is_header = decoded.starts_with(b"{") && decoded.ends_with(b"}") && contains(&decoded, b"\"alg\"");
    let is_cut = body.len() >= HOLD_MAX_BYTES;
    let signed = signature.is_some_and(|signature| signature.len() >= 20) && parts.next().is_none();
    is_header && claims.starts_with(b"eyJ") && (signed || is_cut)
}

/// What documentation writes where a credential stands.
fn is_sample(body: &[u8]) -> bool {
    [b"EXAMPLE".as_slice(), b"example", b"xxxxxx", b"XXXXXX", b"000000", b"123456789"]
        .into_iter()
        .any(|word| contains(body, word))
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Shannon's entropy of the characters, in bits for each.
fn entropy_bits(body: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    let body = body.get(..body.len().min(HOLD_MAX_BYTES)).unwrap_or_default();
    for byte in body {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count = count.saturating_add(1);
        }
    }
    let total = body.len() as f32;
    let share = |count: u16| f32::from(count) / total;
    -counts.iter().filter(|count| **count > 0).map(|count| share(*count) * share(*count).log2()).sum::<f32>()
}

/// CRC-32 of IEEE 802.3, bit by bit: it is computed over 30 bytes of what looks like a token and nothing else.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_ieee() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        // The published sample of the format, in two parts so that no scanner takes it for a token.
        let body = [b"zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ".as_slice(), b"0mLq17"].concat();
        assert!(has_github_checksum("ghp_", &body));
        assert!(!has_github_checksum("ghp_", &[&body[..35], b"8"].concat()));
        assert!(!has_github_checksum("ghp_", b"abc"));
    }

    #[test]
    fn entropy_is_that_of_the_characters() {
        assert!(entropy_bits(b"aaaaaaaa") < 0.01);
        assert!((entropy_bits(b"abcdefgh") - 3.0).abs() < 0.01);
        assert!(!is_random("", b"aaaaaaaaaaaaaaaa1"));
        assert!(!is_random_hex("", b"0123456789abcdef"), "counting is no randomness");
    }
}
