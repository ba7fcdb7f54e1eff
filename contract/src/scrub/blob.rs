//! Finds secrets inside base64: the blob of an embedded resource, a Kubernetes secret, a data URL.
//!
//! [`crate::encodings::Forms`] lists the base64 of a secret and of its plainest escapes. What else may be encoded (other
//! escapes, other forms, base64 again) is found by decoding each run of base64 and looking into the result.

use crate::encodings::{base64_character, base64_value, is_base64, sextet};

use super::Scrubber;
use super::escapes::{Text, is_special};
use super::found::{Found, Patch, apply};
use super::index::Index;
use super::redact::{BACKSLASHES, fill_escape};

/// How many layers of base64 are decoded.
const DEPTH_MAX: usize = 2;
/// The shortest run that is decoded, in characters, of which that many stand side by side.
const RUN_MIN_BYTES: usize = 3 * WORD_BYTES - 1;
const BLOCK_BYTES: usize = 16;
const WORD_BYTES: usize = 8;
/// From this length on a line of base64 may go on after a space, as it does where a header was unfolded.
const LINE_MIN_BYTES: usize = 56;
/// How many escapes and folded lines one run may have; what follows is another run.
const SEGMENTS_MAX: usize = 4096;

/// How many escapes are read back to find where a run begins.
const ESCAPES_BEFORE_MAX: usize = 16;

/// What was found inside the base64 of a text.
#[derive(Default)]
pub(super) struct Blobs {
    /// New characters for these places.
    pub(super) patches: Vec<Patch>,
    /// Each secret, from its first character to behind its last.
    pub(super) spans: Vec<(usize, usize)>,
    /// The text from here on may be, or become, part of a secret.
    pub(super) open: Option<usize>,
    /// The run that goes on after the text.
    last: Option<Run>,
}

/// Base64 characters side by side, but for escapes and folded lines.
#[derive(Default)]
struct Run {
    /// Where its first character stands in its group of four.
    phase: usize,
    segments: Vec<Segment>,
    sextets: usize,
    decoded: Vec<u8>,
    end: usize,
    /// The text ends within it.
    open: bool,
}

/// Characters that follow each other, or one that is escaped.
struct Segment {
    first: usize,
    start: usize,
    unit_bytes: usize,
}

/// What stands where a run has no plain character.
enum Escaped {
    /// A base64 character, and where its escape ends.
    Character(u8, usize),
    /// A folded line that ends here.
    Fold(usize),
    Nothing {
        /// The text ends before that is certain.
        cut: bool,
    },
}

/// The bits that make no whole byte yet.
#[derive(Default)]
struct Bits {
    bits: u32,
    count: u32,
    /// So many characters are still to be left out.
    skip: usize,
}

/// Where the first character of a run is taken to stand in its group of four.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// First: what stands before it is no base64.
    Whole,
    /// Anywhere: each place is tried.
    Anywhere,
    /// The text starts within a run, here in a group.
    Within(u8),
}

/// Looks into each run, and at most [`DEPTH_MAX`] layers deep into what it holds.
pub(super) fn look_into(scrubber: &Scrubber, index: &Index, text: &Text<'_>, start: Start, depth: usize) -> Blobs {
    let mut blobs = Blobs::default();
    if depth == DEPTH_MAX {
        return blobs;
    }
    let shortest = (index.shortest * 8).div_ceil(6).max(RUN_MIN_BYTES);
    let following = |from: usize| next_run(text, from, shortest).map(|at| (at, 0));
    let mut next = match start {
        Start::Within(phase) => Some((0, usize::from(phase))),
        _ => following(0),
    };
    let mut spare = Run::default();
    while let Some((at, phase)) = next {
        let mut run = std::mem::take(&mut spare);
        run.read(text, at, phase, at == 0 && matches!(start, Start::Within(_)));
        let inner = Text::new(&run.decoded, !run.open);
        let found = Found::within(scrubber, index, &inner, depth + 1);
        text.steps.set(text.steps.get().wrapping_add(inner.steps.get()));
        let (patches, _) = found.patches(scrubber, &inner, inner.len());
        apply(&patches, 0, &mut run.decoded);
        let mut spans = found.spans().peekable();
        let url_safe = spans.peek().is_some() && run.is_url_safe(text);
        spans.for_each(|(start, end)| run.encode_again(text, start, end, url_safe, &mut blobs));
        let end = run.end.max(at + 1);
        if run.open {
            let open = found.open().map_or(run.sextets, |byte| run.sextet_of(byte));
            // Only the outermost layer is known to go on in the middle of a run.
            let first = if depth == 0 { run.group_of(open) } else { 0 };
            blobs.open = Some(run.place_of(first).map_or(end, |(at, _)| at));
            blobs.last = Some(run);
        } else {
            spare = run;
        }
        next = match start {
            Start::Anywhere if phase < 3 => Some((at, phase + 1)),
            _ => following(end),
        };
    }
    if blobs.open.is_none() && !text.complete {
        // Too short to be looked into yet.
        let short = text.bytes.iter().rev().take(RUN_MIN_BYTES).take_while(|byte| is_base64(**byte)).count();
        blobs.open = (short > 0).then(|| text.len() - short);
    }
    blobs.spans.sort_unstable();
    blobs
}

/// Where the next run begins that is long enough for `shortest` characters.
fn next_run(text: &Text<'_>, from: usize, shortest: usize) -> Option<usize> {
    let mut first = from;
    let (words, _) = text.bytes.get(from..).unwrap_or_default().as_chunks::<WORD_BYTES>();
    // The shortest run holds a whole word of every second, wherever it begins.
    for (number, word) in words.iter().enumerate().step_by(2) {
        if !may_be_base64(u64::from_le_bytes(*word)) {
            continue;
        }
        let at = from + number * WORD_BYTES;
        if at >= first && word.iter().all(|byte| is_base64(*byte)) {
            let start = start_of(text, first, at);
            let end = at + leading(text.bytes.get(at..).unwrap_or_default());
            let length = end.saturating_sub(start);
            // What ends in neither an escape nor the text is known to be no longer.
            let may_go_on = match text.at(end) {
                Some(b' ') => length >= LINE_MIN_BYTES,
                byte => byte.is_none_or(|byte| is_special(byte) && byte != b'='),
            };
            if length >= shortest || (may_go_on && length >= RUN_MIN_BYTES) {
                return Some(start);
            }
            first = end;
        }
    }
    None
}

/// How many base64 characters these bytes begin with.
fn leading(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<BLOCK_BYTES>();
    // Written so that it compiles to vector instructions.
    let whole = |block: &&[u8; BLOCK_BYTES]| block.iter().fold(1, |all, byte| all & u8::from(is_base64(*byte))) == 1;
    let known = blocks.iter().take_while(whole).count() * BLOCK_BYTES;
    let rest = bytes.get(known..).unwrap_or_default();
    known + rest.iter().take_while(|byte| is_base64(**byte)).count()
}

/// Whether none of the eight bytes is below `+`: almost all text has one, most often a space or a quote.
#[inline]
fn may_be_base64(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    word.wrapping_sub(ONES * b'+' as u64) & !word & (ONES << 7) == 0
}

/// Where the run begins that `at` is in, at `first` or later.
fn start_of(text: &Text<'_>, first: usize, at: usize) -> usize {
    let plain_before = |at: usize| {
        let before = text.bytes.get(first..at).unwrap_or_default();
        at - before.iter().rev().take_while(|byte| is_base64(**byte)).count()
    };
    let mut start = plain_before(at);
    for _ in 0..ESCAPES_BEFORE_MAX {
        let Some(introducer) = introducer_before(text, first, start) else { break };
        let readings = text.readings(introducer);
        match readings.escaped().last() {
            // An escaped character of base64, such as `\/`.
            Some(unit) if unit.end > start && u8::try_from(unit.code).is_ok_and(is_base64) => {
                start = plain_before(introducer);
            }
            // The last letters of something else, such as `\n`.
            Some(unit) if unit.end > start => return unit.end,
            _ => break,
        }
    }
    start
}

/// What starts the escape that ends at `start` or goes on there.
fn introducer_before(text: &Text<'_>, first: usize, start: usize) -> Option<usize> {
    let before = text.bytes.get(first..start)?;
    let back = match before.last()? {
        b'\\' => before.iter().rev().take(BACKSLASHES).take_while(|byte| **byte == b'\\').count(),
        b'%' => 1,
        _ => return None,
    };
    Some(start - back)
}

// === impl Blobs ===

impl Blobs {
    /// Where the character at `at` stands in its group of four, when it is in the run that goes on after the text.
    pub(super) fn phase_at(&self, at: usize) -> Option<u8> {
        let run = self.last.as_ref()?;
        if run.sextets == 0 && at == run.end {
            return Some(run.phase as u8);
        }
        let segment = run.segments.iter().rev().find(|segment| segment.start <= at)?;
        let sextet = (segment.first + (at - segment.start) / segment.unit_bytes).min(run.sextets);
        Some(((run.phase + sextet) % 4) as u8)
    }
}

// === impl Bits ===

impl Bits {
    /// Appends the bytes that these characters complete.
    fn decode(&mut self, characters: &[u8], out: &mut Vec<u8>) {
        let left_out = self.skip.min(characters.len());
        self.skip -= left_out;
        let mut characters = characters.get(left_out..).unwrap_or_default();
        while let ([character, rest @ ..], true) = (characters, self.count > 0) {
            self.take(*character, out);
            characters = rest;
        }
        let (groups, rest) = characters.as_chunks::<4>();
        let known = out.len();
        out.resize(known + groups.len() * 3, 0);
        let (places, _) = out.get_mut(known..).unwrap_or_default().as_chunks_mut::<3>();
        for (group, place) in groups.iter().zip(places) {
            let bits = group.iter().fold(0, |bits, character| bits << 6 | u32::from(value_of(*character)));
            let [_, first, second, third] = bits.to_be_bytes();
            *place = [first, second, third];
        }
        rest.iter().for_each(|character| self.take(*character, out));
    }

    fn take(&mut self, character: u8, out: &mut Vec<u8>) {
        (self.bits, self.count) = (self.bits << 6 | u32::from(value_of(character)), self.count + 6);
        if self.count >= 8 {
            self.count -= 8;
            out.push((self.bits >> self.count) as u8);
            self.bits &= (1 << self.count) - 1;
        }
    }
}

/// The value of a base64 character of either alphabet.
fn value_of(character: u8) -> u8 {
    const VALUES: [u8; 256] = {
        let mut values = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            if let Some(value) = base64_value(byte as u8) {
                values[byte] = value;
            }
            byte += 1;
        }
        values
    };
    VALUES.get(usize::from(character)).copied().unwrap_or_default()
}

// === impl Run ===

impl Run {
    /// Reads the run that starts here, or goes on here when it is `within`; the memory of an earlier one is used again.
    fn read(&mut self, text: &Text<'_>, start: usize, phase: usize, within: bool) {
        self.segments.clear();
        self.decoded.clear();
        (self.phase, self.sextets, self.end, self.open) = (phase, 0, start, false);
        let mut bits = Bits { skip: self.skipped(), ..Bits::default() };
        while self.segments.len() < SEGMENTS_MAX {
            let rest = text.bytes.get(self.end..).unwrap_or_default();
            let length = leading(rest);
            if length > 0 {
                self.segments.push(Segment { first: self.sextets, start: self.end, unit_bytes: 1 });
                bits.decode(rest.get(..length).unwrap_or_default(), &mut self.decoded);
                (self.sextets, self.end) = (self.sextets + length, self.end + length);
            }
            match text.at(self.end) {
                None => {
                    self.open = !text.complete;
                    break;
                }
                Some(b' ')
                    if (length >= LINE_MIN_BYTES || (within && self.segments.len() <= 1))
                        && text.at(self.end + 1).is_none_or(is_base64) =>
                {
                    self.end += 1;
                    continue;
                }
                Some(byte) if !is_special(byte) || byte == b'=' => break,
                Some(_) => {}
            }
            match self.escaped(text) {
                Escaped::Character(character, end) => {
                    let unit_bytes = end - self.end;
                    self.segments.push(Segment { first: self.sextets, start: self.end, unit_bytes });
                    bits.decode(&[character], &mut self.decoded);
                    (self.sextets, self.end) = (self.sextets + 1, end);
                }
                Escaped::Fold(end) => self.end = end,
                Escaped::Nothing { cut } => {
                    self.open = cut;
                    break;
                }
            }
        }
    }

    /// What the escape at the end of the run so far means.
    fn escaped(&self, text: &Text<'_>) -> Escaped {
        match text.bytes.get(self.end..).unwrap_or_default() {
            [b'\r', b'\n', next, ..] if is_base64(*next) && *next != b'd' => return Escaped::Fold(self.end + 2),
            [b'\n', next, ..] if is_base64(*next) && *next != b'd' => return Escaped::Fold(self.end + 1),
            // It may be `data:`.
            _ => {}
        }
        let readings = text.readings(self.end);
        let character = |code: u32| u8::try_from(code).ok().filter(|byte| is_base64(*byte));
        let unit = readings.escaped().iter().rev().find_map(|unit| Some((character(unit.code)?, unit.end)));
        if let Some((character, end)) = unit {
            return Escaped::Character(character, end);
        }
        let gap = text.gap(self.end, true);
        match gap.end {
            // What looks like its next character may be a part of the fold.
            Some(_) if gap.cut => Escaped::Nothing { cut: true },
            Some(end) if text.at(end).is_some_and(is_base64) => Escaped::Fold(end),
            Some(end) => Escaped::Nothing { cut: end >= text.len() && !text.complete },
            None => Escaped::Nothing { cut: gap.cut || readings.cut },
        }
    }

    /// How many characters belong to a group of four that began before the run.
    fn skipped(&self) -> usize {
        (4 - self.phase % 4) % 4
    }

    /// The character in which this byte begins.
    fn sextet_of(&self, byte: usize) -> usize {
        self.skipped() + byte * 8 / 6
    }

    /// The first character of the group that this one is in, or of the run.
    fn group_of(&self, sextet: usize) -> usize {
        sextet.saturating_sub((self.phase + sextet) % 4)
    }

    /// Where this character stands, and how many bytes it has.
    fn place_of(&self, sextet: usize) -> Option<(usize, usize)> {
        let number = self.segments.partition_point(|segment| segment.first <= sextet).checked_sub(1)?;
        let segment = self.segments.get(number)?;
        Some((segment.start + (sextet - segment.first), segment.unit_bytes)).filter(|_| sextet < self.sextets)
    }

    fn is_url_safe(&self, text: &Text<'_>) -> bool {
        let start = self.segments.first().map_or(self.end, |segment| segment.start);
        let run = text.bytes.get(start..self.end).unwrap_or_default();
        run.iter().any(|byte| matches!(byte, b'-' | b'_'))
    }

    /// Writes the characters of a range of what is decoded.
    fn encode_again(&self, text: &Text<'_>, start: usize, end: usize, url_safe: bool, blobs: &mut Blobs) {
        let last = self.skipped() + (end * 8).div_ceil(6);
        let mut word = b"REDACTED".iter().copied().cycle();
        let mut span = None;
        for number in self.sextet_of(start)..last {
            let Some((at, unit_bytes)) = self.place_of(number) else { break };
            let patch = if unit_bytes == 1 {
                let bit = (number - self.skipped()) * 6;
                // Bits of a byte that is not whole yet stay.
                let unknown = (bit + 6).saturating_sub(self.decoded.len() * 8).min(6);
                let old = text.at(at).and_then(base64_value).unwrap_or(0) & ((1 << unknown) - 1);
                vec![base64_character(sextet(&self.decoded, bit) | old, url_safe)]
            } else {
                let mut escape = Vec::with_capacity(unit_bytes);
                fill_escape(text.bytes.get(at..at + unit_bytes).unwrap_or_default(), &mut word, &mut escape);
                escape
            };
            span = Some((span.map_or(at, |(start, _)| start), at + unit_bytes));
            blobs.patches.push((at, patch));
        }
        blobs.spans.extend(span);
    }
}
