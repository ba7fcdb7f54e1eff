//! Finds a secret in whatever form: decodes what it reads in every way it knows, layer by layer, and looks for the secret
//! or a piece of it. Knows nothing of Keyward's own list of forms.

use std::collections::HashSet;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use keyward_tests::client::Answer;
use serde_json::Value;

/// A piece of the secret of this many bytes counts as the secret.
const PIECE_BYTES: usize = 12;
/// How many layers of encoding are undone.
const LAYERS: u32 = 3;

/// Undoes one encoding wherever it finds it.
type Decoder = fn(&[u8]) -> Vec<u8>;

/// Looks for one secret.
#[derive(Clone)]
pub(crate) struct Search {
    pieces: HashSet<Vec<u8>>,
}

// === impl Search ===

impl Search {
    /// Looks for this secret, at least [`PIECE_BYTES`] long.
    pub(crate) fn new(secret: &str) -> Self {
        assert!(secret.len() >= PIECE_BYTES, "a secret of {} bytes is too short to be searched", secret.len());
        let forwards = secret.to_ascii_lowercase().into_bytes();
        let backwards: Vec<u8> = forwards.iter().rev().copied().collect();
        let pieces = [&forwards, &backwards].into_iter().flat_map(|text| text.windows(PIECE_BYTES));
        Self { pieces: pieces.map(<[u8]>::to_vec).collect() }
    }

    /// Where the secret is in these bytes: the decoders that led to it, and what stands around it.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<String> {
        self.layer(bytes, LAYERS, "", &mut HashSet::new())
    }

    /// Where the secret is in this answer: in its bytes, or in a decoded string of a JSON message.
    pub(crate) fn find_in_answer(&self, answer: &Answer) -> Option<String> {
        if let Some(found) = self.find(&answer.everything()) {
            return Some(found);
        }
        let mut texts = Vec::new();
        answer.messages().unwrap_or_default().iter().for_each(|message| strings(message, &mut texts));
        // Apart, and joined: a secret spread over neighbouring strings is one to a reader.
        let found = texts.iter().find_map(|text| self.find(text.as_bytes()));
        found.or_else(|| self.find(texts.concat().as_bytes()))
    }

    fn layer(&self, bytes: &[u8], left: u32, way: &str, seen: &mut HashSet<Vec<u8>>) -> Option<String> {
        if let Some(found) = self.plain(bytes) {
            return Some(format!("{way}: …{found}…"));
        }
        if left == 0 || bytes.len() < PIECE_BYTES || !seen.insert(bytes.to_vec()) {
            return None;
        }
        let decoders: [(&str, Decoder); 6] = [
            ("percent", percent),
            ("json", json),
            ("html", html),
            ("quoted-printable", quoted_printable),
            ("base64", base64_runs),
            ("hex", hex_runs),
        ];
        decoders.into_iter().find_map(|(name, decode)| {
            let decoded = decode(bytes);
            if decoded == bytes { None } else { self.layer(&decoded, left - 1, &format!("{way}>{name}"), seen) }
        })
    }

    fn plain(&self, bytes: &[u8]) -> Option<String> {
        let lower = bytes.to_ascii_lowercase();
        let at = lower.windows(PIECE_BYTES).position(|window| self.pieces.contains(window))?;
        let around = bytes.get(at.saturating_sub(60)..(at + 60).min(bytes.len())).unwrap_or_default();
        Some(String::from_utf8_lossy(around).escape_debug().to_string())
    }
}

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            found.push(name.clone());
            strings(value, found);
        }),
        _ => {}
    }
}

// === decoders: each is lenient, and leaves what it does not know as it is ===

fn hex_value(digits: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(text, 16).ok()
}

/// Replaces what `decode` recognises at the beginning of the rest: how many bytes it read, and what they mean.
fn replaced(bytes: &[u8], decode: impl Fn(&[u8]) -> Option<(usize, Vec<u8>)>) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some((first, after)) = rest.split_first() {
        if let Some((read, meaning)) = decode(rest) {
            out.extend(meaning);
            rest = rest.get(read.max(1)..).unwrap_or_default();
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

fn percent(bytes: &[u8]) -> Vec<u8> {
    replaced(bytes, |rest| {
        let value = hex_value(rest.strip_prefix(b"%")?.get(..2)?)?;
        Some((3, vec![u8::try_from(value).ok()?]))
    })
}

fn json(bytes: &[u8]) -> Vec<u8> {
    replaced(bytes, |rest| {
        let escape = rest.strip_prefix(b"\\")?;
        let meaning = match escape.first()? {
            b'u' => return Some((6, utf8(hex_value(escape.get(1..5)?)?))),
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            quoted @ (b'"' | b'\\' | b'/') => *quoted,
            _ => return None,
        };
        Some((2, vec![meaning]))
    })
}

fn html(bytes: &[u8]) -> Vec<u8> {
    replaced(bytes, |rest| {
        let entity = rest.strip_prefix(b"&")?;
        let length = entity.iter().take(10).position(|byte| *byte == b';')?;
        let meaning = match std::str::from_utf8(entity.get(..length)?).ok()? {
            "amp" => b"&".to_vec(),
            "lt" => b"<".to_vec(),
            "gt" => b">".to_vec(),
            "quot" => b"\"".to_vec(),
            "apos" => b"'".to_vec(),
            "plus" => b"+".to_vec(),
            "sol" => b"/".to_vec(),
            number => {
                let number = number.strip_prefix('#')?;
                let hex = number.strip_prefix(['x', 'X']);
                utf8(hex.map_or_else(|| number.parse().ok(), |hex| hex_value(hex.as_bytes()))?)
            }
        };
        Some((length + 2, meaning))
    })
}

fn utf8(code: u32) -> Vec<u8> {
    char::from_u32(code).unwrap_or('\u{fffd}').to_string().into_bytes()
}

fn quoted_printable(bytes: &[u8]) -> Vec<u8> {
    replaced(bytes, |rest| {
        let rest = rest.strip_prefix(b"=")?;
        let soft_break = [&b"\r\n"[..], b"\n", b" "].into_iter().find(|line_end| rest.starts_with(line_end));
        match soft_break {
            Some(line_end) => Some((line_end.len() + 1, Vec::new())),
            None => Some((3, vec![u8::try_from(hex_value(rest.get(..2)?)?).ok()?])),
        }
    })
}

/// Every run of bytes that `belongs`, joined over white space.
fn runs(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> Vec<Vec<u8>> {
    let mut found = vec![Vec::new()];
    for byte in bytes {
        match found.last_mut() {
            Some(run) if belongs(*byte) => run.push(*byte),
            Some(run) if !byte.is_ascii_whitespace() && !run.is_empty() => found.push(Vec::new()),
            _ => {}
        }
    }
    // White space may also end a run: each piece alone, too.
    found.extend(bytes.split(|byte| !belongs(*byte)).map(<[u8]>::to_vec));
    found.retain(|run| run.len() >= PIECE_BYTES);
    found.sort();
    found.dedup();
    found
}

fn base64_runs(bytes: &[u8]) -> Vec<u8> {
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    let belongs = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
    let mut out = Vec::new();
    for mut run in runs(bytes, belongs) {
        run.iter_mut().for_each(|byte| match *byte {
            b'-' => *byte = b'+',
            b'_' => *byte = b'/',
            _ => {}
        });
        for start in 0..4 {
            let from = run.get(start..).unwrap_or_default();
            // A single character at the end holds no byte.
            let whole = if from.len() % 4 == 1 { from.len() - 1 } else { from.len() };
            out.extend(engine.decode(from.get(..whole).unwrap_or_default()).unwrap_or_default());
            out.push(b'\n');
        }
    }
    out
}

fn hex_runs(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in runs(bytes, |byte| byte.is_ascii_hexdigit()) {
        for start in 0..2 {
            let pairs = run.get(start..).unwrap_or_default().chunks_exact(2);
            out.extend(pairs.filter_map(|pair| u8::try_from(hex_value(pair)?).ok()));
            out.push(b'\n');
        }
    }
    out
}

mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    const SECRET: &str = "demo+key/0123456789abcdef";

    #[test]
    fn finds_the_secret_in_every_disguise() {
        let search = Search::new(SECRET);
        let each = |write: fn(u8) -> String| SECRET.bytes().map(write).collect::<String>();
        let wrapped = STANDARD.encode(format!("{}{SECRET}", ".".repeat(51)));
        let (line, next) = wrapped.split_at(76);
        let disguises = [
            SECRET.to_owned(),
            SECRET.to_uppercase(),
            SECRET.chars().rev().collect(),
            format!("<{}>", STANDARD.encode(SECRET)),
            URL_SAFE_NO_PAD.encode(format!("ab{SECRET}c")),
            STANDARD.encode(format!("svc:{SECRET}")),
            format!("{line}\r\n{next}"),
            each(|byte| format!("{byte:02x}")),
            each(|byte| format!("%{byte:02X}")),
            each(|byte| format!("%25{byte:02x}")),
            each(|byte| format!("\\u{byte:04x}")),
            each(|byte| format!("\\\\u{byte:04x}")),
            each(|byte| format!("&#{byte};")),
            each(|byte| format!("&#x{byte:x};")),
            each(|byte| format!("={byte:02X}")),
            format!("demo+key/0123=\r\n{}", &SECRET[13..]),
            STANDARD.encode(STANDARD.encode(SECRET)),
            SECRET[3..17].to_owned(),
        ];
        for disguise in disguises {
            assert!(search.find(format!("before {disguise} after").as_bytes()).is_some(), "`{disguise}`");
        }
    }

    #[test]
    fn finds_nothing_where_nothing_is() {
        let search = Search::new(SECRET);
        for text in ["", "REDACTEDREDACTED", "demo+key/", "before 0123456789 after", "%64%65", "&#100;"] {
            assert_eq!(search.find(text.as_bytes()), None);
        }
    }
}
