//! Writes a secret in every form that the scrubber must find, and reads text back, both apart from the product's code.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

/// A small generator, so that a failing case is its seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(crate) fn text(&mut self, alphabet: &str, length: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| letters[self.below(letters.len())]).collect()
    }
}

pub(crate) const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A random secret of each kind that real credentials come in.
pub(crate) fn secrets(random: &mut Random) -> Vec<(&'static str, String)> {
    let length = 8 + random.below(40);
    let mut list = vec![
        ("alphanumeric", random.text(ALNUM, length)),
        ("prefixed", format!("sk-live_{}", random.text(ALNUM, 24))),
        ("base64", STANDARD.encode((0..27).map(|_| random.next() as u8).collect::<Vec<_>>())),
        ("symbols", random.text("abcXYZ019+/=", length)),
        ("hostile to JSON", random.text("aZ5\"\\/\u{7f}\t<>&'b", length)),
        ("escape letters", random.text("aB4%\\&=;#unx0", length)),
        ("Unicode", random.text("aé€😀𝄞zß9", length)),
        ("digits", random.text("0123456789", length)),
        ("hexadecimal", random.text("0123456789abcdef", 32)),
        ("number", format!("-{}.{}e+1", random.text("123456789", 5), random.text("123456789", 5))),
        ("words", format!("pass {} word {}", random.text(ALNUM, 6), random.text(ALNUM, 3))),
        ("token", format!("eyJ{}.{}.{}", random.text(ALNUM, 40), random.text(ALNUM, 80), random.text(ALNUM, 43))),
    ];
    // What consists of one or two letters is everywhere.
    list.retain(|(_, secret)| {
        let mut letters: Vec<char> = secret.chars().collect();
        letters.sort_unstable();
        letters.dedup();
        letters.len() >= 5
    });
    list
}

pub(crate) fn percent(text: &[u8], random: &mut Random, all: bool) -> String {
    let mut out = String::new();
    for byte in text {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        match (plain, all || !plain || random.one_in(3), random.one_in(2)) {
            (true, false, _) => out.push(char::from(*byte)),
            (_, _, true) => out.push_str(&format!("%{byte:02X}")),
            (_, _, false) => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// A JSON string without its quotes; one character in `rare` is escaped without need.
pub(crate) fn json(text: &str, random: &mut Random, rare: usize) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        let forced = letter < ' ' || letter == '"' || letter == '\\';
        if !forced && !random.one_in(rare) {
            out.push(letter);
            continue;
        }
        match letter {
            '"' | '\\' | '/' if random.one_in(2) => out.extend(['\\', letter]),
            '\n' if random.one_in(2) => out.push_str("\\n"),
            '\t' if random.one_in(2) => out.push_str("\\t"),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    out.push_str(&if random.one_in(2) { format!("\\u{unit:04x}") } else { format!("\\u{unit:04X}") });
                }
            }
        }
    }
    out
}

pub(crate) fn html(text: &str, random: &mut Random, rare: usize) -> String {
    let mut out = String::new();
    for letter in text.chars() {
        let name = match letter {
            '&' => Some("amp"),
            '<' => Some("lt"),
            '>' => Some("gt"),
            '"' => Some("quot"),
            '\'' => Some("apos"),
            '/' => Some("sol"),
            _ => None,
        };
        let code = letter as u32;
        match (name, random.below(4)) {
            (None | Some("sol"), _) if !random.one_in(rare) => out.push(letter),
            (Some(name), 0) => out.push_str(&format!("&{name};")),
            (_, 1) => out.push_str(&format!("&#{code};")),
            (_, 2) => out.push_str(&format!("&#x{code:X};")),
            _ => out.push_str(&format!("&#{code:07};")),
        }
    }
    out
}

pub(crate) fn quoted_printable(text: &[u8], random: &mut Random) -> String {
    let mut out = String::new();
    for byte in text {
        if (byte.is_ascii_graphic() && *byte != b'=') && !random.one_in(6) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("={byte:02X}"));
        }
        if random.one_in(9) {
            out.push_str("=\r\n");
        }
    }
    out.trim_end_matches("=\r\n").to_owned()
}

/// Base64 of the secret inside other bytes, so that it starts at any alignment.
pub(crate) fn base64_around(secret: &[u8], random: &mut Random, kind: usize) -> String {
    let mut data: Vec<u8> = (0..random.below(7)).map(|_| random.next() as u8).collect();
    data.extend_from_slice(secret);
    data.extend((0..random.below(7)).map(|_| random.next() as u8));
    match kind % 4 {
        0 => STANDARD.encode(data),
        1 => STANDARD_NO_PAD.encode(data),
        2 => URL_SAFE.encode(data),
        _ => URL_SAFE_NO_PAD.encode(data),
    }
}

/// UTF-16 and UTF-32 of ASCII text; other text as it is.
fn wide(secret: &str, before: &str, after: &str) -> String {
    match secret.is_ascii() {
        true => secret.chars().map(|letter| format!("{before}{letter}{after}")).collect(),
        false => secret.to_owned(),
    }
}

fn hex_list(secret: &[u8], separator: &str) -> String {
    secret.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(separator)
}

fn byte_list(secret: &[u8], separator: &str) -> String {
    secret.iter().map(u8::to_string).collect::<Vec<_>>().join(separator)
}

/// Base64 in lines of 76 characters, each line break a space.
fn unfolded(secret: &[u8], random: &mut Random) -> String {
    let length = 57 + random.below(30);
    let before = random.text(ALNUM, length);
    wrap(&STANDARD.encode([before.as_bytes(), secret].concat()), 76, " ")
}

pub(crate) fn wrap(text: &str, columns: usize, newline: &str) -> String {
    text.as_bytes().chunks(columns).map(String::from_utf8_lossy).collect::<Vec<_>>().join(newline)
}

pub(crate) fn hex(text: &[u8], random: &mut Random, case: usize) -> String {
    text.iter()
        .map(|byte| match (case % 3, random.one_in(2)) {
            (0, _) | (2, true) => format!("{byte:02x}"),
            _ => format!("{byte:02X}"),
        })
        .collect()
}

/// Every form of the secret: its name, and its text.
pub(crate) fn forms(secret: &str, random: &mut Random) -> Vec<(&'static str, String)> {
    let bytes = secret.as_bytes();
    let mixed: String = secret
        .chars()
        .map(|letter| if random.one_in(2) { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() })
        .collect();
    let (columns, kind) = (4 + random.below(73), random.below(4));
    // Narrower lines are found only where they arrive in one piece.
    let line = columns.max(16);
    let encoded = base64_around(bytes, random, kind);
    let slashes = STANDARD.encode([b"???".as_slice(), bytes, b"???"].concat());
    let escaped = json(secret, random, 1000);
    let all_percent = percent(bytes, random, true);
    let some_percent = percent(bytes, random, false);
    vec![
        ("raw", secret.to_owned()),
        ("upper", secret.to_ascii_uppercase()),
        ("lower", secret.to_ascii_lowercase()),
        ("mixed", mixed),
        ("reversed", secret.chars().rev().collect()),
        ("hex lower", hex(bytes, random, 0)),
        ("hex upper", hex(bytes, random, 1)),
        ("hex mixed", hex(bytes, random, 2)),
        ("hex with spaces", hex_list(bytes, " ")),
        ("hex with colons", hex_list(bytes, ":").to_uppercase()),
        ("hex with hyphens", hex_list(bytes, "-")),
        ("UTF-16 little", wide(secret, "", "\0")),
        ("UTF-32 big", wide(secret, "\0\0\0", "")),
        ("bytes", byte_list(bytes, ",")),
        ("bytes with spaces", byte_list(bytes, ", ")),
        ("base64 std", base64_around(bytes, random, 0)),
        ("base64 std bare", base64_around(bytes, random, 1)),
        ("base64 url", base64_around(bytes, random, 2)),
        ("base64 url bare", base64_around(bytes, random, 3)),
        ("base64 crlf", wrap(&encoded, line, "\r\n")),
        ("base64 lf", wrap(&encoded, line, "\n")),
        ("base64 unfolded", unfolded(bytes, random)),
        ("base64 lf in json", wrap(&encoded, columns, "\\n")),
        ("base64 crlf in json", wrap(&encoded, columns, "\\r\\n")),
        ("base64 slashes in json", slashes.replace('/', "\\/")),
        ("base64 slashes in percent", slashes.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D")),
        ("base64 of percent", base64_around(canonical_percent(bytes).as_bytes(), random, kind)),
        ("base64 of json", base64_around(canonical_json(secret).as_bytes(), random, kind)),
        ("percent some", some_percent.clone()),
        ("percent all", all_percent.clone()),
        ("percent twice", all_percent.replace('%', "%25")),
        ("percent form", canonical_percent(bytes).replace("%20", "+")),
        ("json some", json(secret, random, 3)),
        ("json all", json(secret, random, 1)),
        ("json twice", json(&json(secret, random, 4), random, 1000)),
        ("json twice escaped", json(&json(secret, random, 2), random, 3)),
        ("json three times", json(&json(&escaped, random, 1000), random, 1000)),
        ("html some", html(secret, random, 4)),
        ("html all", html(secret, random, 1)),
        ("quoted-printable", quoted_printable(bytes, random)),
        ("quoted-printable unfolded", quoted_printable(bytes, random).replace("=\r\n", "= ")),
        ("html in json", json(&html(secret, random, 5), random, 6).replace('&', "\\u0026")),
        ("percent in json", json(&some_percent, random, 5)),
        ("quoted-printable in json", json(&quoted_printable(bytes, random), random, 1000).replace('\r', "\\r")),
        ("percent in html", html(&some_percent, random, 5)),
    ]
}

/// The secret in a blob of base64, in every form within it.
pub(crate) fn blobs(secret: &str, random: &mut Random) -> Vec<(String, String)> {
    let document = |form: &str, random: &mut Random| {
        let before = random.text("abc XYZ{}:,.<>\n", 30);
        format!("{before}\nkey: {form}\n# end of the document\n")
    };
    let inner = forms(secret, random);
    let blobs = inner.into_iter().map(|(name, form)| {
        let blob = STANDARD.encode(document(&form, random));
        let blob = match random.below(6) {
            0 => blob.replace('+', "-").replace('/', "_"),
            1 => blob.replace('/', "\\/"),
            2 => wrap(&blob, 64, "\\n"),
            3 => wrap(&blob, 76, "\\r\\n"),
            4 => blob.trim_end_matches('=').to_owned(),
            _ => blob,
        };
        (format!("base64 over {name}"), blob)
    });
    blobs.collect()
}

fn canonical_percent(text: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.iter().map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn canonical_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

type Decoder = fn(&[u8]) -> Vec<u8>;

/// Whether any reading of the text, up to four layers deep, holds the secret.
pub(crate) fn reveals(text: &[u8], secret: &str) -> Option<&'static str> {
    let folded = secret.to_ascii_lowercase().into_bytes();
    let reversed = secret.chars().rev().collect::<String>().to_ascii_lowercase().into_bytes();
    let decoders: [Decoder; 6] = [read_json, read_percent, read_html, read_quoted, read_folds, read_wide];
    let mut views = vec![(0, text.to_vec())];
    while let Some((depth, view)) = views.pop() {
        let lower = view.to_ascii_lowercase();
        if contains(&lower, &folded) {
            return Some("plain");
        }
        if contains(&lower, &reversed) {
            return Some("reversed");
        }
        if runs(&lower, |byte| byte.is_ascii_hexdigit())
            .any(|run| (0..2).any(|skip| contains_folded(&read_hex(&run[skip.min(run.len())..]), &folded)))
        {
            return Some("hex");
        }
        let in_alphabet = |byte: u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte);
        if runs(&view, in_alphabet)
            .any(|run| (0..4).any(|skip| contains(&read_base64(&run[skip.min(run.len())..]), secret.as_bytes())))
        {
            return Some("base64");
        }
        for separator in [" ", ":", "-"] {
            if contains(&lower, hex_list(secret.as_bytes(), separator).as_bytes()) {
                return Some("hex list");
            }
        }
        if contains(&lower, byte_list(secret.as_bytes(), ",").as_bytes())
            || contains(&lower, byte_list(secret.as_bytes(), ", ").as_bytes())
        {
            return Some("byte list");
        }
        if depth < 3 {
            let blobs = runs(&view, in_alphabet).filter(|run| run.len() >= 16).map(read_base64);
            views.extend(blobs.map(|blob| (depth + 1, blob)).collect::<Vec<_>>());
            views.extend(
                decoders.iter().map(|decode| decode(&view)).filter(|next| *next != view).map(|v| (depth + 1, v)),
            );
        }
    }
    None
}

pub(crate) fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr(text, part).is_some()
}

fn memchr(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn contains_folded(text: &[u8], part: &[u8]) -> bool {
    contains(&text.to_ascii_lowercase(), part)
}

fn runs(text: &[u8], wanted: impl Fn(u8) -> bool + Copy) -> impl Iterator<Item = &[u8]> {
    text.split(move |byte| !wanted(*byte)).filter(|run| run.len() >= 10)
}

fn read_hex(text: &[u8]) -> Vec<u8> {
    text.chunks_exact(2).map(|pair| hex_pair(pair).unwrap_or(0)).collect()
}

fn hex_pair(pair: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(pair).ok().filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?, 16).ok()
}

fn read_base64(text: &[u8]) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0_u32, 0, Vec::new());
    for byte in text {
        let byte = match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        };
        bits = (bits << 6) | alphabet.iter().position(|letter| *letter == byte).unwrap_or(0) as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    out
}

fn read_percent(text: &[u8]) -> Vec<u8> {
    replace(text, |rest| match rest {
        [b'%', high, low, ..] => Some((vec![hex_pair(&[*high, *low])?], 3)),
        _ => None,
    })
}

fn read_quoted(text: &[u8]) -> Vec<u8> {
    replace(text, |rest| match rest {
        [b'=', b'\r', b'\n', ..] => Some((Vec::new(), 3)),
        [b'=', b' ', ..] => Some((Vec::new(), 2)),
        [b'=', high, low, ..] => Some((vec![hex_pair(&[*high, *low])?], 3)),
        _ => None,
    })
}

fn read_wide(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| *byte != 0).collect()
}

fn read_folds(text: &[u8]) -> Vec<u8> {
    replace(text, |rest| match rest {
        [b'\r', b'\n', ..] => Some((Vec::new(), 2)),
        [b'\n', b'd', b'a', b't', b'a', b':', b' ', ..] => Some((Vec::new(), 7)),
        [b'\n', ..] => Some((Vec::new(), 1)),
        [left, b' ', right, ..] if left.is_ascii_alphanumeric() && right.is_ascii_alphanumeric() => {
            Some((vec![*left, *right], 3))
        }
        _ => None,
    })
}

fn read_json(text: &[u8]) -> Vec<u8> {
    let unit = |rest: &[u8]| match rest {
        [b'\\', b'u', digits @ ..] if digits.len() >= 4 => {
            Some(u16::from(hex_pair(&digits[..2])?) << 8 | u16::from(hex_pair(&digits[2..4])?))
        }
        _ => None,
    };
    replace(text, |rest| {
        if let Some(first) = unit(rest) {
            let second = rest.get(6..).and_then(unit);
            let pair = [first, second.unwrap_or(0)];
            return match char::decode_utf16(pair).next()? {
                Ok(letter) => Some((letter.to_string().into_bytes(), if first & 0xfc00 == 0xd800 { 12 } else { 6 })),
                Err(_) => None,
            };
        }
        match rest {
            [b'\\', letter @ (b'"' | b'\\' | b'/'), ..] => Some((vec![*letter], 2)),
            [b'\\', b'n', ..] => Some((vec![b'\n'], 2)),
            [b'\\', b'r', ..] => Some((vec![b'\r'], 2)),
            [b'\\', b't', ..] => Some((vec![b'\t'], 2)),
            _ => None,
        }
    })
}

fn read_html(text: &[u8]) -> Vec<u8> {
    replace(text, |rest| {
        let end = rest.iter().take(14).position(|byte| *byte == b';').filter(|_| rest[0] == b'&')?;
        let name = std::str::from_utf8(&rest[1..end]).ok()?;
        let letter = match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            "sol" => '/',
            _ => {
                let number = name.strip_prefix('#')?;
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                };
                char::from_u32(code.ok()?)?
            }
        };
        Some((letter.to_string().into_bytes(), end + 1))
    })
}

fn replace(text: &[u8], mut decode: impl FnMut(&[u8]) -> Option<(Vec<u8>, usize)>) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        match decode(&text[at..]) {
            Some((decoded, length)) => {
                out.extend(decoded);
                at += length;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}
