//! What to overwrite and with what: ranges that never cut an escape, text of the same length that stays parseable.

use crate::encodings::Forms;

use super::escapes::{Text, is_special};

/// How many backslashes are seen as one escape: four layers double one backslash four times.
pub(super) const BACKSLASHES: usize = 16;
/// How far a range may grow at each end, in bytes.
pub(super) const GROWTH_MAX_BYTES: usize = 64;

/// Something to overwrite.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Range {
    pub(super) start: usize,
    pub(super) end: usize,
    /// All of it is base64, so the number of characters after unescaping must stay.
    pub(super) base64: bool,
    /// Its last base64 character must leave the unused bits zero.
    pub(super) partial_end: bool,
    /// The rest of what was overwritten before this text.
    pub(super) continued: bool,
}

/// What text is overwritten with.
pub(super) struct Filler {
    word: &'static [u8],
    digit: u8,
}

// === impl Filler ===

impl Filler {
    /// The word REDACTED, and 1 for numbers, unless that would spell one of the secrets.
    pub(super) fn for_forms(forms: &Forms) -> Filler {
        let spells = |word: &[u8]| {
            forms.iter().any(|(_, bytes)| bytes.iter().all(|byte| word.contains(&byte.to_ascii_uppercase())))
        };
        let words: [&[u8]; 4] = [b"REDACTED", b"X", b"Q", b"Z"];
        let word = words.into_iter().find(|word| !spells(word)).unwrap_or(b"REDACTED");
        let digit = (b'1'..=b'9').find(|digit| !spells(&[*digit, b'.', b'-', b'+', b'E', b'0'])).unwrap_or(b'1');
        Filler { word, digit }
    }

    /// Appends the replacement of `range`, as long as the range.
    pub(super) fn fill(&self, text: &Text<'_>, range: &Range, out: &mut Vec<u8>) {
        let bytes = text.bytes.get(range.start..range.end).unwrap_or_default();
        if is_number_part(bytes) {
            let mut digit = self.digit;
            for byte in bytes {
                if matches!(byte, b'e' | b'E') {
                    digit = b'0';
                }
                out.push(if byte.is_ascii_digit() { digit } else { *byte });
            }
            return;
        }
        if is_number_list(bytes) {
            // The number of digits would tell upper case from lower case.
            let odd = bytes.len() % 2;
            out.extend_from_slice(if odd == 1 { b"0" } else { b"10" });
            (0..(bytes.len() + odd - 2) / 2).for_each(|_| out.extend_from_slice(b",0"));
            return;
        }
        let mut word = self.word.iter().cycle().copied();
        let mut at = range.start;
        while let Some(byte) = text.at(at).filter(|_| at < range.end) {
            if is_special(byte) {
                // Folded lines stay, so that the text keeps its lines and a blob its length.
                let kept = text.gap(at, range.base64).end.filter(|end| *end <= range.end);
                if let Some(kept) = kept.and_then(|end| text.bytes.get(at..end)) {
                    out.extend_from_slice(kept);
                    at += kept.len();
                    continue;
                }
                if range.base64 {
                    let unit = text.readings(at).escaped().iter().rev().find(|unit| unit.end <= range.end).copied();
                    if let Some(unit) = unit.filter(|unit| unit.end > at) {
                        fill_escape(text.bytes.get(at..unit.end).unwrap_or_default(), &mut word, out);
                        at = unit.end;
                        continue;
                    }
                }
            }
            let last = range.base64 && range.partial_end && at + 1 == range.end;
            out.push(if last { b'A' } else { word.next().unwrap_or(b'X') });
            at += 1;
        }
    }
}

/// One escaped base64 character: an escape by number becomes that of `A`, `\/` stays.
pub(super) fn fill_escape(escape: &[u8], word: &mut impl Iterator<Item = u8>, out: &mut Vec<u8>) {
    match escape {
        [.., b'\\', b'/'] => out.extend_from_slice(escape),
        [head @ .., high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            out.extend_from_slice(head);
            out.extend_from_slice(b"41");
        }
        _ => out.extend(word.take(escape.len())),
    }
}

/// Whether these bytes can be part of a JSON number.
fn is_number_part(bytes: &[u8]) -> bool {
    let (mut digits, mut points, mut exponents) = (0_usize, 0_usize, 0_usize);
    let mut previous = None;
    for byte in bytes {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'.' if exponents == 0 => points += 1,
            b'e' | b'E' => exponents += 1,
            b'+' | b'-' if matches!(previous, None | Some(b'e' | b'E')) => {}
            _ => return false,
        }
        previous = Some(*byte);
    }
    digits > 0 && points <= 1 && exponents <= 1
}

/// Whether these bytes are numbers of bytes, as in a JSON array.
fn is_number_list(bytes: &[u8]) -> bool {
    bytes.contains(&b',') && bytes.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b' '))
}

/// Where an escape that contains or directly precedes `start` begins, else `start`.
pub(super) fn grow_start(text: &Text<'_>, start: usize) -> usize {
    let mut start = start;
    if let (Some(first), true) = (text.at(start), start > 0) {
        let percent = |back: usize| start.checked_sub(back).and_then(|at| text.at(at)) == Some(b'%');
        let hex = |at: usize| text.at(at).is_some_and(|byte| byte.is_ascii_hexdigit());
        if first.is_ascii_hexdigit() && percent(1) {
            start -= 1;
        } else if first.is_ascii_hexdigit() && percent(2) && hex(start - 1) {
            start -= 2;
        }
    }
    for _ in 0..3 {
        let grown = grow_start_once(text, start);
        if grown == start {
            break;
        }
        start = grown;
    }
    start
}

fn grow_start_once(text: &Text<'_>, start: usize) -> usize {
    let begin = escape_around(text, start).unwrap_or(start);
    // A low surrogate needs its high one.
    if is_surrogate(text, begin, b"cdef") {
        let before = backslashes_before(text, begin);
        let slashes = begin.saturating_sub(before);
        if let Some(high) = slashes.checked_sub(5)
            && backslashes_before(text, high) > 0
            && is_surrogate_letters(text, high, b"89ab")
        {
            return high - backslashes_before(text, high);
        }
        return slashes;
    }
    begin - backslashes_before(text, begin)
}

/// Where the range must end so that no escape is cut; nothing when the text ends too early to say.
pub(super) fn grow_end(text: &Text<'_>, end: usize) -> Option<usize> {
    let mut end = end;
    if text.at(end.wrapping_sub(1)) == Some(b'\\') {
        let before = backslashes_before(text, end);
        let mut run = if before == 0 { BACKSLASHES } else { before };
        while text.at(end) == Some(b'\\') && run % BACKSLASHES != 0 {
            (end, run) = (end + 1, run + 1);
        }
        if end >= text.len() && !text.complete {
            return None;
        }
        if run % 2 == 1 {
            // The backslash that is gone escaped what follows; only a quote or a surrogate would be wrong without it.
            match text.at(end) {
                Some(b'"') => end += 1,
                Some(b'u') => {
                    let digits = text.bytes.get(end + 1..).unwrap_or_default().iter().take(4);
                    let count = digits.take_while(|digit| digit.is_ascii_hexdigit()).count();
                    if count == 4 {
                        end += 5;
                    } else if end + 1 + count >= text.len() && !text.complete {
                        return None;
                    }
                }
                _ => {}
            }
        }
    } else if let Some(begin) = (1..=5_usize).filter_map(|back| end.checked_sub(back)).find(|begin| {
        text.at(*begin) == Some(b'u')
            && backslashes_before(text, *begin) > 0
            && (*begin + 1..end).all(|at| text.at(at).is_some_and(|byte| byte.is_ascii_hexdigit()))
    }) {
        let digits = text.bytes.get(end..).unwrap_or_default().iter().take(begin + 5 - end);
        let count = digits.take_while(|digit| digit.is_ascii_hexdigit()).count();
        if end + count == begin + 5 {
            end = begin + 5;
        } else if end + count == text.len() && !text.complete {
            return None;
        }
    }
    // A high surrogate takes its low one along.
    if end >= 5 && is_surrogate_letters(text, end - 5, b"89ab") && backslashes_before(text, end - 5) > 0 {
        let mut low = end;
        while text.at(low) == Some(b'\\') && low - end < BACKSLASHES {
            low += 1;
        }
        if low + 5 > text.len() && !text.complete {
            return None;
        }
        if low > end && is_surrogate_letters(text, low, b"cdef") {
            end = low + 5;
        }
    }
    Some(end)
}

/// How many bytes at the very end must wait because an escape may go on after them.
pub(super) fn unfinished_escape(text: &Text<'_>) -> usize {
    let end = text.len();
    let slashes = backslashes_before(text, end);
    if slashes > 0 {
        // It may be the low surrogate of what came just before.
        return end - grow_start(text, end - slashes).min(high_surrogate_before(text, end - slashes));
    }
    let letters = (1..=5_usize).filter_map(|back| end.checked_sub(back)).find(|begin| {
        text.at(*begin) == Some(b'u')
            && backslashes_before(text, *begin) > 0
            && (*begin + 1..end).all(|at| text.at(at).is_some_and(|byte| byte.is_ascii_hexdigit()))
    });
    match letters {
        Some(begin) if end - begin < 5 || is_surrogate_letters(text, begin, b"89ab") => {
            let start = begin - backslashes_before(text, begin);
            end - start.min(high_surrogate_before(text, start))
        }
        _ => 0,
    }
}

fn high_surrogate_before(text: &Text<'_>, end: usize) -> usize {
    match end.checked_sub(5) {
        Some(begin) if is_surrogate_letters(text, begin, b"89ab") && backslashes_before(text, begin) > 0 => {
            begin - backslashes_before(text, begin)
        }
        _ => end,
    }
}

/// Where the `u` of a `\u` escape is that starts before `at` and ends after it.
fn escape_around(text: &Text<'_>, at: usize) -> Option<usize> {
    (1..=4_usize).filter_map(|back| at.checked_sub(back)).find(|begin| {
        text.at(*begin) == Some(b'u')
            && backslashes_before(text, *begin) > 0
            && (*begin + 1..at).all(|inner| text.at(inner).is_some_and(|byte| byte.is_ascii_hexdigit()))
    })
}

fn is_surrogate(text: &Text<'_>, at: usize, kinds: &[u8; 4]) -> bool {
    let letter = (at..at + BACKSLASHES).find(|at| text.at(*at) != Some(b'\\')).unwrap_or(at);
    is_surrogate_letters(text, letter, kinds) && (letter > at || backslashes_before(text, letter) > 0)
}

/// Whether `uDxYY` stands here with one of these `x`.
fn is_surrogate_letters(text: &Text<'_>, at: usize, kinds: &[u8; 4]) -> bool {
    text.at(at) == Some(b'u')
        && matches!(text.at(at + 1), Some(b'd' | b'D'))
        && text.at(at + 2).is_some_and(|kind| kinds.contains(&kind.to_ascii_lowercase()))
        && (at + 3..at + 5).all(|at| text.at(at).is_some_and(|byte| byte.is_ascii_hexdigit()))
}

/// The backslashes that end just before `end`, less all whole groups of [`BACKSLASHES`] counted from the first.
fn backslashes_before(text: &Text<'_>, end: usize) -> usize {
    let before = text.bytes.get(..end).unwrap_or_default();
    before.iter().rev().take_while(|byte| **byte == b'\\').count() % BACKSLASHES
}
