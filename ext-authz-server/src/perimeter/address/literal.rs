//! Reads a host as every resolver and URL library might, and says where they would not agree.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use unicode_normalization::UnicodeNormalization;

/// The longest host that is read, in bytes.
const MAX_HOST_BYTES: usize = 1024;

/// What a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// An address in its canonical spelling.
    Address(IpAddr),
    /// An address to some readers: another spelling of this one, or one that cannot be told.
    Unclear(Option<IpAddr>),
    /// A DNS name, in lower case and without a trailing dot.
    Name(String),
    /// No host.
    Neither,
}

/// Reads the host of a URL or an authority, without its port.
#[must_use]
pub fn read_literal(host: &str) -> Literal {
    if host.is_empty() || host.len() > MAX_HOST_BYTES {
        return Literal::Neither;
    }
    if let Some(literal) = canonical(host) {
        return literal;
    }
    // What is not plain is folded together first, so that a disguised address is told apart from a disguised name.
    let plain = folded(host);
    let bare = plain.trim_end_matches('.');
    let bare = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
    let (bare, _zone) = bare.split_once('%').unwrap_or((bare, ""));
    if let Ok(address) = bare.parse::<Ipv6Addr>() {
        return Literal::Unclear(Some(address.into()));
    }
    match loose_v4(bare) {
        Loose::Address(address) => return Literal::Unclear(Some(address.into())),
        Loose::TooLarge => return Literal::Unclear(None),
        Loose::No => {}
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if is_name(&name) { Literal::Name(name) } else { Literal::Neither }
}

/// The one spelling of an address that everybody reads alike.
fn canonical(host: &str) -> Option<Literal> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().ok()?;
        return Some(Literal::Address(address.into()));
    }
    // The standard library takes neither octal nor hexadecimal digits, nor leading zeros.
    host.parse::<Ipv4Addr>().ok().map(|address| Literal::Address(address.into()))
}

/// Percent-decoded until nothing changes, in compatibility form, lower case, every kind of full stop a dot.
fn folded(host: &str) -> String {
    let mut text = host.to_owned();
    // Each round makes it shorter.
    while let Some(decoded) = percent_decoded(&text) {
        text = decoded;
    }
    text.nfkc()
        .map(|character| match character {
            '\u{3002}' | '\u{ff0e}' | '\u{ff61}' | '\u{2024}' => '.',
            other => other,
        })
        .filter(|character| !matches!(character, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}'))
        .flat_map(char::to_lowercase)
        .collect()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let mut changed = false;
    while let Some((first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| (*byte as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = after.get(2..).unwrap_or_default();
                changed = true;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    changed.then(|| String::from_utf8(bytes).ok()).flatten()
}

enum Loose {
    Address(Ipv4Addr),
    TooLarge,
    No,
}

/// As `inet_aton` reads it: one to four numbers, each decimal, octal or hexadecimal, the last one filling what is left.
fn loose_v4(text: &str) -> Loose {
    let parts: Vec<&str> = text.split('.').collect();
    let numbers: Option<Vec<u64>> = parts.iter().map(|part| number(part)).collect();
    let Some(numbers) = numbers else {
        // A last label that is a number is never a name (URL standard, 3.5).
        return if parts.last().is_some_and(|last| number(last).is_some()) { Loose::TooLarge } else { Loose::No };
    };
    let Some((last, heads)) = numbers.split_last() else { return Loose::No };
    let room = 4_u32.saturating_sub(heads.len() as u32);
    if heads.len() > 3 || heads.iter().any(|head| *head > 255) || *last >= 1_u64 << (8 * room) {
        return Loose::TooLarge;
    }
    let mut value = *last as u32;
    for (position, head) in heads.iter().enumerate() {
        value |= (*head as u32) << (24 - 8 * position);
    }
    Loose::Address(Ipv4Addr::from(value))
}

/// A number in one of the three notations; one that does not fit counts as the greatest.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(hexadecimal) => (hexadecimal, 16),
        None if text.len() > 1 && text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    if digits.is_empty() {
        // `0x` alone reads as zero.
        return (radix == 16).then_some(0);
    }
    // `08` is no octal number to some and eight to others.
    let radix = if radix == 8 && digits.bytes().any(|byte| matches!(byte, b'8' | b'9')) { 10 } else { radix };
    let all_digits = digits.chars().all(|character| character.is_digit(radix));
    all_digits.then(|| u64::from_str_radix(digits, radix).unwrap_or(u64::MAX))
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
