//! Finds every place in a piece of text that hides a secret, and how much of its end may still become one.
//!
//! A hidden form either starts with a whole window of plain bytes, which the [`Matcher`] finds, or its first escape or
//! folded line comes earlier than that. So each escape is looked up, with the plain byte before it, in a small index of
//! the first bytes of all forms, and only what fits there is compared in full. Clean text costs one pass of the matcher
//! and one for the few bytes that can start an escape.

use crate::encodings::Forms;

use super::compare::{before, compare};
use super::escapes::{Text, UNIT_MAX_BYTES, Unit, is_special};
use super::glance::deserves_a_look;
use super::index::{Index, LEADS, OCCURS};
use super::redact::{Range, grow_end, grow_start, unfinished_escape};

const BLOCK_BYTES: usize = 64;
const RECENT: usize = 16;

/// What a scan found.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) ranges: Vec<Range>,
    /// The text from here on may be, or become, part of a secret.
    pub(super) open: Option<usize>,
}

struct Scan<'a> {
    forms: &'a Forms,
    index: &'a Index,
    text: &'a Text<'a>,
    /// The text before the first byte ended in a base64 character.
    after_base64: bool,
    findings: Findings,
    recent: [(usize, usize); RECENT],
    next_recent: usize,
}

// === impl Findings ===

impl Findings {
    fn hold_from(&mut self, start: usize) {
        self.open = Some(self.open.map_or(start, |open| open.min(start)));
    }
}

/// Looks through the whole text. `covered` bytes at its start belong to a range that was begun before.
pub(super) fn scan(forms: &Forms, index: &Index, text: &Text<'_>, after_base64: bool, covered: usize) -> Findings {
    let mut scan = Scan {
        forms,
        index,
        text,
        after_base64,
        findings: Findings::default(),
        recent: [(usize::MAX, 0); RECENT],
        next_recent: 0,
    };
    index.matcher.scan(text.bytes, |number, start| scan.attempt(number, start));
    scan.escapes();
    scan.tail();
    let mut findings = scan.findings;
    if findings.ranges.is_empty() && covered == 0 {
        return findings;
    }
    if covered > 0 {
        let end = covered.min(text.len());
        findings.ranges.push(Range { start: 0, end, base64: false, partial_end: false, continued: true });
    }
    merge(&mut findings.ranges);
    for range in &mut findings.ranges {
        let partial_end = range.partial_end;
        let before = (range.start, range.end);
        if !range.continued {
            range.start = grow_start(text, range.start);
        }
        match grow_end(text, range.end) {
            Some(end) => range.end = end,
            None => findings.open = Some(findings.open.map_or(range.start, |open| open.min(range.start))),
        }
        if before != (range.start, range.end) {
            range.base64 = false;
            range.partial_end = partial_end && before.1 == range.end;
        }
    }
    merge(&mut findings.ranges);
    findings
}

/// Joins ranges that overlap.
fn merge(ranges: &mut Vec<Range>) {
    ranges.sort_unstable_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    ranges.dedup_by(|later, earlier| {
        if later.start >= earlier.end {
            return false;
        }
        if later.end > earlier.end {
            (earlier.end, earlier.partial_end) = (later.end, later.partial_end);
        } else if later.end == earlier.end {
            earlier.partial_end |= later.partial_end;
        }
        earlier.base64 &= later.base64;
        true
    });
}

// === impl Scan ===

impl Scan<'_> {
    /// Compares one form with the text at `start`.
    fn attempt(&mut self, number: usize, start: usize) {
        let Some((form, bytes)) = self.forms.get(number) else { return };
        let verdict = compare(self.text, form, bytes, start);
        if verdict == Default::default() {
            return;
        }
        let mut start = start;
        if let Some(bits) = form.before {
            let before = before(self.text, start, self.after_base64);
            match before.find(|value| bits.agree_with(value)) {
                Some(character) => start = character.start,
                None if before.is_base64() => return,
                None => {}
            }
        }
        if let Some(end) = verdict.end {
            let partial_end = form.after.is_some();
            self.findings.ranges.push(Range { start, end, base64: form.base64, partial_end, continued: false });
        }
        if verdict.open {
            self.findings.hold_from(grow_start(self.text, start));
        }
    }

    /// Looks at each byte that can start an escape or a folded line.
    fn escapes(&mut self) {
        let (blocks, rest) = self.text.bytes.as_chunks::<BLOCK_BYTES>();
        for (number, block) in blocks.iter().enumerate() {
            // Written so that it compiles to vector instructions.
            if block.iter().fold(0, |any, byte| any | u8::from(is_special(*byte))) != 0 {
                self.escapes_in(number * BLOCK_BYTES, block);
            }
        }
        self.escapes_in(blocks.len() * BLOCK_BYTES, rest);
    }

    fn escapes_in(&mut self, offset: usize, block: &[u8]) {
        let (words, rest) = block.as_chunks::<8>();
        for (number, word) in words.iter().enumerate() {
            let mut marks = may_be_special(u64::from_le_bytes(*word));
            while marks != 0 {
                self.glance_at(offset + number * 8 + marks.trailing_zeros() as usize / 8);
                marks &= marks - 1;
            }
        }
        (offset + words.len() * 8..offset + words.len() * 8 + rest.len()).for_each(|at| self.glance_at(at));
    }

    #[inline]
    fn glance_at(&mut self, at: usize) {
        if let Some(byte) = self.text.at(at).filter(|byte| is_special(*byte))
            && deserves_a_look(self.index, self.text, at, byte)
        {
            self.escape_at(at);
        }
    }

    fn escape_at(&mut self, at: usize) {
        let left = if at > 0 { self.text.at(at - 1) } else { None };
        self.look_up_all(at, left, self.text.readings(at).escaped(), true);
        if let (Some(left), Some(end)) = (left, self.text.gap(at, true).end)
            && self.index.plays(left, LEADS)
        {
            self.look_up_all(at, Some(left), self.text.readings(end).all(), false);
        }
    }

    /// Compares each form that continues with one of `units` after the plain bytes before `at`.
    fn look_up_all(&mut self, at: usize, left: Option<u8>, units: &[Unit], may_start: bool) {
        for (number, unit) in units.iter().enumerate() {
            // Layers of the same escape mean the same byte; the comparison reads all of them.
            if units.iter().take(number).any(|earlier| earlier.code == unit.code) {
                continue;
            }
            let mut encoded = [0_u8; 4];
            let character = char::from_u32(unit.code).unwrap_or_default().encode_utf8(&mut encoded).as_bytes();
            let first = character.first().copied().filter(|_| unit.character && unit.code >= 0x80);
            for byte in u8::try_from(unit.code).ok().into_iter().chain(first) {
                self.look_up(at, left, byte, may_start);
            }
        }
    }

    fn look_up(&mut self, at: usize, left: Option<u8>, byte: u8, may_start: bool) {
        let index = self.index;
        if may_start {
            for number in index.forms_starting_with(byte) {
                self.attempt_once(number, at);
            }
        }
        let Some(left) = left.filter(|_| index.plays(byte, OCCURS)) else { return };
        for (number, offset) in index.positions_of(left, byte) {
            let Some(start) = at.checked_sub(offset) else { continue };
            if self.starts_with(number, offset, start) {
                self.attempt_once(number, start);
            }
        }
    }

    /// Skips what was compared a moment ago: a run of backslashes leads to the same start again and again.
    fn attempt_once(&mut self, number: usize, start: usize) {
        if self.recent.contains(&(number, start)) {
            return;
        }
        if let Some(oldest) = self.recent.get_mut(self.next_recent % RECENT) {
            *oldest = (number, start);
        }
        self.next_recent = self.next_recent.wrapping_add(1);
        self.attempt(number, start);
    }

    fn starts_with(&self, number: usize, length: usize, start: usize) -> bool {
        let Some((form, bytes)) = self.forms.get(number) else { return false };
        match (bytes.get(..length), self.text.bytes.get(start..start + length)) {
            (Some(expected), Some(found)) if form.folded => found.eq_ignore_ascii_case(expected),
            (Some(expected), Some(found)) => found == expected,
            _ => false,
        }
    }

    /// Finds the earliest start of something that the end of the text leaves open.
    fn tail(&mut self) {
        if self.text.complete {
            return;
        }
        let end = self.text.len();
        let unfinished = unfinished_escape(self.text);
        if unfinished > 0 {
            self.findings.hold_from(end - unfinished);
        }
        // Escapes and folded lines that the end of the text cuts.
        let mut first_cut = end;
        for start in end.saturating_sub(2 * UNIT_MAX_BYTES)..end {
            if !self.text.at(start).is_some_and(is_special) {
                continue;
            }
            let escape = self.text.readings(start).cut;
            let gap = self.text.gap(start, true);
            // What follows a whole line break may be cut as well.
            let cut = escape || gap.cut || gap.end.is_some_and(|next| self.text.readings(next).cut);
            if escape {
                self.findings.hold_from(grow_start(self.text, start));
            }
            if cut {
                self.hold_shared(start);
                first_cut = first_cut.min(start);
            }
        }
        // All else that is open is plain up to there: a longer start, or an earlier escape, was found before.
        for start in first_cut.saturating_sub(self.index.matcher.window())..end {
            if self.findings.open.is_some_and(|open| open < start) {
                break;
            }
            let Some(byte) = self.text.at(start) else { break };
            let index = self.index;
            for number in index.forms_starting_with(byte) {
                self.attempt(number, start);
            }
        }
        self.hold_shared(end);
    }

    /// Holds the character before `end` if a form may follow that shares bits with it.
    fn hold_shared(&mut self, end: usize) {
        if self.index.shared == 0 {
            return;
        }
        let before = before(self.text, end, self.after_base64);
        if let Some(character) = before.find(|value| self.index.shares_bits_with(value)) {
            self.findings.hold_from(grow_start(self.text, character.start));
        }
    }
}

/// Marks the high bit of each byte of the word that may be special, and of a few others: 0x08 to 0x0f and `$` to `'`.
fn may_be_special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f * ONES;
    // The high bit of each byte is clear just where `word & mask` is `byte`.
    let differs = |mask: u64, byte: u64| {
        let bits = (word & (mask * ONES)) ^ (byte * ONES);
        ((bits & LOW) + LOW) | bits
    };
    !(differs(0xff, 0x5c) & differs(0xff, 0x3d) & differs(0xfc, 0x24) & differs(0xf8, 0x08) | LOW)
}

/// Whether the text up to `end` ends in a base64 character, wherever that is written.
pub(super) fn ends_in_base64(text: &Text<'_>, end: usize, after_base64: bool) -> bool {
    let folded = (end.saturating_sub(4)..end)
        .find(|start| text.at(*start).is_some_and(is_special) && text.gap(*start, true).cut);
    before(text, folded.unwrap_or(end), after_base64).is_base64()
}
