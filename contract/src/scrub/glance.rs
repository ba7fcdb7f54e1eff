//! Tells at a glance that an escape or a line break in clean text has no part in any secret.
//!
//! Almost all of them pass here, so this decides what text with many escapes costs. It may let too much through, never
//! too little: what it turns away is not the first escape of any form as software writes it.

use super::escapes::{LAYERS, Text, is_special, named_entity};
use super::index::{Index, LEADS, OCCURS};

/// The most backslashes, spaces or letters looked at.
const SIGHT_BYTES: usize = 32;

/// Whether the byte at `at` may start the first escape, or the first folded line, of a form.
pub(super) fn deserves_a_look(index: &Index, text: &Text<'_>, at: usize, byte: u8) -> bool {
    let rest = text.bytes.get(at + 1..).unwrap_or_default();
    let left = if at > 0 { text.at(at - 1) } else { None };
    let glance = Glance { index, left };
    match byte {
        b'\\' => glance.backslash(rest),
        b'%' => glance.percent(rest),
        b'&' => glance.ampersand(rest),
        b'=' => glance.equals(rest),
        b'\r' if rest.first() == Some(&b'\n') => glance.line(rest.get(1..).unwrap_or_default()),
        _ => glance.line(rest),
    }
}

struct Glance<'a> {
    index: &'a Index,
    /// The plain byte before the escape.
    left: Option<u8>,
}

// === impl Glance ===

impl Glance<'_> {
    /// Whether an escape that means this byte can be part of a form.
    fn value(&self, byte: u8) -> bool {
        self.index.has_first(byte) || self.left.is_some_and(|left| self.index.has_pair(left, byte))
    }

    fn leads(&self) -> bool {
        self.left.is_some_and(|left| self.index.plays(left, LEADS))
    }

    /// What follows a line break: whether the text before and after it can be one form.
    fn line(&self, rest: &[u8]) -> bool {
        if !self.leads() {
            return false;
        }
        let mut rest = rest;
        let fits = |byte: u8| self.left.is_some_and(|left| self.index.has_pair(left, byte));
        if rest.starts_with(b"data:") {
            return true;
        }
        for _ in 0..SIGHT_BYTES {
            rest = match rest {
                [b' ' | b'\t', more @ ..] | [b'\\', b't', more @ ..] => more,
                [b'\\', b'n' | b'r', ..] | [b'\n' | b'\r', ..] | [] => return false,
                [b'\\', b'"', ..] => return fits(b'"'),
                [byte, ..] => return fits(*byte) || is_special(*byte),
            };
        }
        false
    }

    fn backslash(&self, rest: &[u8]) -> bool {
        let run = rest.iter().take(SIGHT_BYTES).take_while(|byte| **byte == b'\\').count();
        if run > 0 && self.index.plays(b'\\', OCCURS) {
            return true;
        }
        let after = rest.get(run + 1..).unwrap_or_default();
        match rest.get(run) {
            Some(quote @ (b'"' | b'\'')) => self.index.plays(*quote, OCCURS),
            Some(b'n') => self.line(after) || self.index.plays(b'\n', OCCURS),
            Some(b'r') => {
                let feed = after.iter().take(run + 1).all(|byte| *byte == b'\\') && after.get(run + 1) == Some(&b'n');
                let after = if feed { after.get(run + 2..).unwrap_or_default() } else { after };
                self.line(after) || self.index.plays(b'\r', OCCURS)
            }
            Some(b't') => self.index.plays(b'\t', OCCURS),
            Some(b'b') => self.index.plays(8, OCCURS),
            Some(b'f') => self.index.plays(12, OCCURS),
            Some(b'u' | b'x' | b'/' | b'%' | b'&' | b'=') => true,
            _ => false,
        }
    }

    fn percent(&self, rest: &[u8]) -> bool {
        let Some(value) = hex_byte(rest) else { return has_escaped_digit(rest) };
        match value {
            b'%' | b'\\' => true,
            b'&' => self.value(b'&') || matches!(rest.get(2), Some(b'#' | b'%' | b'a'..=b'z' | b'A'..=b'Z')),
            b'\r' | b'\n' => self.leads() || self.value(value),
            _ => self.value(value),
        }
    }

    fn equals(&self, rest: &[u8]) -> bool {
        match rest {
            [b'\n' | b'\r' | b' ', ..] => self.leads(),
            [b'\\', more @ ..] if self.leads() => {
                let letter = more.iter().take(SIGHT_BYTES).find(|byte| **byte != b'\\');
                matches!(letter, Some(b'n' | b'r' | b'u'))
            }
            [b'%', b'0', b'a' | b'A' | b'd' | b'D', ..] => self.leads(),
            _ => match hex_byte(rest) {
                Some(value) => self.value(value),
                None => has_escaped_digit(rest),
            },
        }
    }

    fn ampersand(&self, rest: &[u8]) -> bool {
        let mut rest = rest;
        // `&amp;amp;lt;` and so on.
        for _ in 0..LAYERS {
            let length = rest.iter().take(9).take_while(|byte| byte.is_ascii_alphanumeric()).count();
            let (name, after) = rest.split_at(length);
            let code = match (name, after) {
                ([], [b'#', ..]) => return true,
                (_, [b';', ..]) => named_entity(name),
                // A letter or the semicolon may itself be escaped.
                (_, [b'%', high, low, ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => return true,
                (_, [b'\\', b'u' | b'x' | b'\\', ..]) => return true,
                (_, [b'&', b'#', ..]) => return true,
                _ => LEGACY.into_iter().find(|known| name.starts_with(known)).and_then(named_entity),
            };
            match code {
                Some(b'&') if self.value(b'&') || !matches!(after, [b';', ..]) => return true,
                Some(b'&') => rest = after.get(1..).unwrap_or_default(),
                Some(b'\\' | b'%' | b'=' | b'\n') => return true,
                Some(code) => return self.value(code),
                None => return false,
            }
        }
        true
    }
}

const LEGACY: [&[u8]; 4] = [b"amp", b"lt", b"gt", b"quot"];

/// Whether one of the two digits looks escaped itself.
fn has_escaped_digit(rest: &[u8]) -> bool {
    let rest = match rest {
        [digit, more @ ..] if digit.is_ascii_hexdigit() => more,
        _ => rest,
    };
    match rest {
        [b'\\', more @ ..] => {
            let letter = more.iter().take(SIGHT_BYTES).find(|byte| **byte != b'\\');
            matches!(letter, Some(b'u' | b'x'))
        }
        [b'%', more @ ..] => hex_byte(more).is_some_and(|digit| digit.is_ascii_hexdigit() || is_special(digit)),
        [b'&', b'#', ..] => true,
        [b'=', more @ ..] => hex_byte(more).is_some_and(|digit| digit.is_ascii_hexdigit()),
        _ => false,
    }
}

fn hex_byte(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|digit| char::from(*digit).to_digit(16));
    Some((digit(0)? * 16 + digit(1)?) as u8)
}
