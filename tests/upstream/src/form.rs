//! The forms in which the upstream can write its credential.
//!
//! Each is written out by hand or by a plain library call, independently of Keyward's own list of forms, because the
//! tests use this side to find what that list misses.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One way of writing a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Form {
    /// As it is.
    #[default]
    Raw,
    /// ASCII letters in upper case.
    Upper,
    /// ASCII letters in lower case.
    Lower,
    /// Back to front.
    Reversed,
    /// Standard alphabet, padded.
    Base64,
    /// Standard alphabet, not padded.
    Base64Nopad,
    /// URL-safe alphabet, padded.
    Base64url,
    /// URL-safe alphabet, not padded.
    Base64urlNopad,
    /// Base64 of a text that has one byte before the credential and three after it.
    #[serde(rename = "base64_shift1")]
    Base64Shift1,
    /// Base64 of a text that has two bytes before the credential and three after it.
    #[serde(rename = "base64_shift2")]
    Base64Shift2,
    /// Base64 of a longer text in lines of 76 characters, one line break inside the credential.
    Base64Mime,
    /// Lower-case hexadecimal.
    Hex,
    /// Upper-case hexadecimal.
    HexUpper,
    /// RFC 3986: all but unreserved characters, upper-case digits.
    Percent,
    /// RFC 3986: all but unreserved characters, lower-case digits.
    PercentLower,
    /// Every byte as %XX.
    PercentAll,
    /// Every byte as %25XX.
    PercentDouble,
    /// Every UTF-16 unit as a \uXXXX escape, on the wire.
    JsonUnicode,
    /// Every second character as a \uXXXX escape, on the wire.
    JsonUnicodePartial,
    /// A JSON text inside a JSON string: its escapes are escaped once more.
    JsonInJson,
    /// Every character as &#107;.
    HtmlDecimal,
    /// Every character as &#x6b;.
    HtmlHex,
    /// Only what must be encoded.
    QuotedPrintable,
    /// Every byte as =XX.
    QuotedPrintableAll,
    /// Only what must be encoded, with a soft line break in the middle of the credential.
    QuotedPrintableFolded,
    /// Base64 of username:credential.
    Basic,
}

// === impl Form ===

impl Form {
    /// The credential in this form, as a reader of the text sees it.
    pub(crate) fn write(self, secret: &str, username: &str) -> String {
        match self {
            Self::Raw => secret.to_owned(),
            Self::Upper => secret.to_ascii_uppercase(),
            Self::Lower => secret.to_ascii_lowercase(),
            Self::Reversed => secret.chars().rev().collect(),
            Self::Base64 => STANDARD.encode(secret),
            Self::Base64Nopad => STANDARD_NO_PAD.encode(secret),
            Self::Base64url => URL_SAFE.encode(secret),
            Self::Base64urlNopad => URL_SAFE_NO_PAD.encode(secret),
            Self::Base64Shift1 => STANDARD.encode(format!(":{secret}end")),
            Self::Base64Shift2 => STANDARD.encode(format!("k:{secret}end")),
            Self::Base64Mime => mime_lines(&STANDARD.encode(format!("{}{secret}", ".".repeat(51)))),
            Self::Hex => each_byte(secret, |byte| format!("{byte:02x}")),
            Self::HexUpper => each_byte(secret, |byte| format!("{byte:02X}")),
            Self::Percent => percent(secret, false, |byte| format!("%{byte:02X}")),
            Self::PercentLower => percent(secret, false, |byte| format!("%{byte:02x}")),
            Self::PercentAll => percent(secret, true, |byte| format!("%{byte:02X}")),
            Self::PercentDouble => percent(secret, true, |byte| format!("%25{byte:02X}")),
            Self::JsonUnicode => json_unicode(secret, |_| true),
            Self::JsonUnicodePartial => json_unicode(secret, |position| position % 2 == 1),
            Self::JsonInJson => format!("{{\"credential\":\"{}\"}}", json_unicode(secret, |_| true)),
            Self::HtmlDecimal => secret.chars().map(|c| format!("&#{};", u32::from(c))).collect(),
            Self::HtmlHex => secret.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect(),
            Self::QuotedPrintable => quoted_printable(secret),
            Self::QuotedPrintableAll => each_byte(secret, |byte| format!("={byte:02X}")),
            Self::QuotedPrintableFolded => {
                let (head, tail) = halves(secret);
                format!("{}=\r\n{}", quoted_printable(head), quoted_printable(tail))
            }
            Self::Basic => STANDARD.encode(format!("{username}:{secret}")),
        }
    }

    /// The credential in this form, as it stands between the quotes of a JSON string on the wire.
    pub(crate) fn write_in_json(self, secret: &str, username: &str) -> String {
        let text = self.write(secret, username);
        if self.is_json_escape() { text } else { json_string_content(&text) }
    }

    /// The credential in this form, on one line.
    pub(crate) fn write_in_header(self, secret: &str, username: &str) -> String {
        self.write(secret, username).replace("\r\n", " ")
    }

    /// True if the form is made of JSON escapes that a JSON library would escape again or resolve.
    fn is_json_escape(self) -> bool {
        matches!(self, Self::JsonUnicode | Self::JsonUnicodePartial)
    }
}

/// A text as it stands between the quotes of a JSON string.
fn json_string_content(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

fn each_byte(secret: &str, write: impl Fn(u8) -> String) -> String {
    secret.bytes().map(write).collect()
}

fn percent(secret: &str, all: bool, write: impl Fn(u8) -> String) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    each_byte(secret, |byte| if !all && unreserved(byte) { char::from(byte).to_string() } else { write(byte) })
}

fn json_unicode(secret: &str, escape: impl Fn(usize) -> bool) -> String {
    let mut text = String::new();
    for (position, character) in secret.chars().enumerate() {
        let must = character < ' ' || character == '"' || character == '\\';
        if !must && !escape(position) {
            text.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing into a String cannot fail.
            let _ = write!(text, "\\u{unit:04x}");
        }
    }
    text
}

fn quoted_printable(secret: &str) -> String {
    each_byte(secret, |byte| match byte {
        b'=' => "=3D".to_owned(),
        b' '..=b'~' => char::from(byte).to_string(),
        _ => format!("={byte:02X}"),
    })
}

fn halves(secret: &str) -> (&str, &str) {
    let middle = (0..=secret.len() / 2).rev().find(|at| secret.is_char_boundary(*at)).unwrap_or(0);
    secret.split_at(middle)
}

fn mime_lines(base64: &str) -> String {
    let mut text = String::new();
    for (position, character) in base64.chars().enumerate() {
        if position > 0 && position % 76 == 0 {
            text.push_str("\r\n");
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "kW/9+ü";

    #[test]
    fn each_form_is_what_its_name_says() {
        let cases = [
            (Form::Raw, "kW/9+ü"),
            (Form::Upper, "KW/9+ü"),
            (Form::Lower, "kw/9+ü"),
            (Form::Reversed, "ü+9/Wk"),
            (Form::Base64, "a1cvOSvDvA=="),
            (Form::Base64Nopad, "a1cvOSvDvA"),
            (Form::Base64url, "a1cvOSvDvA=="),
            (Form::Base64Shift1, "OmtXLzkrw7xlbmQ="),
            (Form::Base64Shift2, "azprVy85K8O8ZW5k"),
            (Form::Hex, "6b572f392bc3bc"),
            (Form::HexUpper, "6B572F392BC3BC"),
            (Form::Percent, "kW%2F9%2B%C3%BC"),
            (Form::PercentLower, "kW%2f9%2b%c3%bc"),
            (Form::PercentAll, "%6B%57%2F%39%2B%C3%BC"),
            (Form::PercentDouble, "%256B%2557%252F%2539%252B%25C3%25BC"),
            (Form::JsonUnicode, "\\u006b\\u0057\\u002f\\u0039\\u002b\\u00fc"),
            (Form::JsonUnicodePartial, "k\\u0057/\\u0039+\\u00fc"),
            (Form::HtmlDecimal, "&#107;&#87;&#47;&#57;&#43;&#252;"),
            (Form::HtmlHex, "&#x6b;&#x57;&#x2f;&#x39;&#x2b;&#xfc;"),
            (Form::QuotedPrintable, "kW/9+=C3=BC"),
            (Form::QuotedPrintableAll, "=6B=57=2F=39=2B=C3=BC"),
            (Form::QuotedPrintableFolded, "kW/=\r\n9+=C3=BC"),
            (Form::Basic, "c3ZjOmtXLzkrw7w="),
        ];
        for (form, expected) in cases {
            assert_eq!(form.write(SECRET, "svc"), expected, "{form:?}");
        }
    }

    #[test]
    fn the_mime_form_breaks_its_line_inside_the_credential() {
        let text = Form::Base64Mime.write("a-secret-of-some-length", "svc");
        let (before, after) = text.split_once("\r\n").unwrap();
        assert_eq!(before.len(), 76);
        assert_eq!(STANDARD.decode(&before[68..]).unwrap(), b"a-secr");
        assert_eq!(STANDARD.decode(after).unwrap(), b"et-of-some-length");
    }

    #[test]
    fn json_escapes_are_escaped_once_more_inside_a_json_text() {
        assert_eq!(Form::JsonInJson.write_in_json("k\"", "svc"), r#"{\"credential\":\"\\u006b\\u0022\"}"#);
        assert_eq!(Form::JsonUnicode.write_in_json("k\"", "svc"), r"\u006b\u0022");
        assert_eq!(Form::Raw.write_in_json("k\"", "svc"), r#"k\""#);
    }
}
