//! Edits the query of a request target: parameters set and removed by their decoded name.
//!
//! The server sends names and values percent-encoded, because Envoy's own filter, which asks the same server, takes them
//! as they are.

use std::borrow::Cow;

/// `path` (path and query) with the parameters of `remove` gone and those of `set` appended. Names and values of `set` are
/// percent-encoded already; what could not stand in a query all the same is encoded. A parameter to set that is already
/// there is removed first, under any spelling of its name.
#[must_use]
pub fn rewrite(path: &str, set: &[(&str, &str)], remove: &[&str]) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let unwanted = |name: &str| {
        let name = decode(name);
        remove.iter().copied().chain(set.iter().map(|(other, _)| *other)).any(|other| name == decode(other))
    };
    let mut out = String::with_capacity(path.len() + query.len() + 64);
    out.push_str(path);
    let mut separator = '?';
    let mut push = |piece: &str| {
        out.push(separator);
        out.push_str(piece);
        separator = '&';
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // Some servers split at a semicolon too: a name hidden behind one counts.
        if !pair.split(';').any(|part| unwanted(part.split('=').next().unwrap_or_default())) {
            push(pair);
        }
    }
    for (name, value) in set {
        push(&format!("{}={}", encode(name), encode(value)));
    }
    out
}

/// Percent-decodes, `+` as a space.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                at += 1;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// Percent-encodes all but RFC 3986's unreserved characters and what is percent-encoded already.
fn encode(text: &str) -> String {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len() * 3);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'%' if is_digit(bytes.get(at + 1)) && is_digit(bytes.get(at + 2)) => out.push('%'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.extend(['%', hex(byte >> 4), hex(byte & 15)]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_replaces_and_removes_parameters() {
        for (path, set, remove, expected) in [
            ("/mcp", &[("apiKey", "k")][..], &[][..], "/mcp?apiKey=k"),
            ("/mcp?", &[("apiKey", "k")], &[], "/mcp?apiKey=k"),
            ("/mcp?a=1&apiKey=spoofed&b=2", &[("apiKey", "k")], &[], "/mcp?a=1&b=2&apiKey=k"),
            ("/mcp?api%4Bey=spoofed&apiKey&apiKey=", &[("apiKey", "k")], &[], "/mcp?apiKey=k"),
            ("/mcp?a=1;apiKey=spoofed&b=2", &[("apiKey", "k")], &[], "/mcp?b=2&apiKey=k"),
            ("/mcp?key=1&a=2", &[], &["key"], "/mcp?a=2"),
            ("/mcp?key=1", &[], &["key"], "/mcp"),
            ("/mcp", &[("k", "a%20b%26c%3Dd%2F%25%C3%A9")], &[], "/mcp?k=a%20b%26c%3Dd%2F%25%C3%A9"),
            ("/mcp", &[("k", "a b&c=d/%é%2")], &[], "/mcp?k=a%20b%26c%3Dd%2F%25%C3%A9%252"),
            ("/mcp?my key=1&my+key=2&my%20key=3", &[("my%20key", "k")], &[], "/mcp?my%20key=k"),
            ("/mcp?a=%", &[("k", "v")], &[], "/mcp?a=%&k=v"),
        ] {
            assert_eq!(rewrite(path, set, remove), expected, "{path}");
        }
    }
}
