//! Reads text through layers of escapes: what a byte, or the escape that starts at it, can mean.
//!
//! Escapes are percent (RFC 3986), JSON (RFC 8259, and `\x41`), HTML character references, and quoted-printable
//! (RFC 2045). A reading of depth *n* undoes up to *n* layers of any kind, innermost last, so `\u0026amp;`, `%2541` and
//! `\\u0041` all read as one character. Reading starts wherever it is asked to and needs no text before that place.

use std::cell::Cell;

/// How many layers of escapes are undone.
pub(super) const LAYERS: usize = 4;
/// The longest escape, and the longest gap, that is read, in bytes.
pub(super) const UNIT_MAX_BYTES: usize = 128;
/// The most digits of an HTML numeric reference, leading zeros included.
const ENTITY_DIGITS_MAX: usize = 10;
const ENTITY_NAME_MAX: usize = 8;
/// The most spaces or tabs that may indent a line of wrapped base64.
const INDENT_MAX: usize = 32;

/// A piece of text, and whether more may follow it.
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    /// Nothing follows.
    pub(super) complete: bool,
    /// Escapes and characters looked at, to bound the work in tests.
    pub(super) steps: Cell<u64>,
}

/// One character, or byte, as read at some depth.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Unit {
    /// A byte, or a Unicode scalar value when `character` is set.
    pub(super) code: u32,
    pub(super) character: bool,
    /// Where the next unit starts.
    pub(super) end: usize,
}

/// All that the text at one place can mean; the first is the byte itself.
pub(super) struct Readings {
    units: [Unit; LAYERS + 1],
    count: usize,
    /// The text ends within an escape.
    pub(super) cut: bool,
}

/// Something between two characters that a reader drops: a folded line.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Gap {
    pub(super) end: Option<usize>,
    /// The text ends before the gap is known to be one, or to be over.
    pub(super) cut: bool,
}

enum Step {
    Unit(Unit),
    /// Not an escape.
    Plain,
    /// The text ends within it.
    Cut,
}

/// Whether a byte can start an escape or a gap. Without branches, so that a loop over it is vectorized.
#[inline]
pub(super) fn is_special(byte: u8) -> bool {
    (byte == b'\\') | (byte == b'%') | (byte == b'&') | (byte == b'=') | (byte == b'\n') | (byte == b'\r')
}

fn is_introducer(unit: &Unit) -> bool {
    unit.code == u32::from(b'\\') || (unit.code >= 0x25 && unit.code <= 0x26) || unit.code == u32::from(b'=')
}

fn ascii(unit: &Unit) -> u8 {
    if unit.code < 0x80 { unit.code as u8 } else { 0 }
}

// === impl Readings ===

impl Readings {
    pub(super) fn all(&self) -> &[Unit] {
        self.units.get(..self.count).unwrap_or_default()
    }

    /// Those that differ from the byte itself.
    pub(super) fn escaped(&self) -> &[Unit] {
        self.units.get(1..self.count).unwrap_or_default()
    }

    fn push(&mut self, unit: Unit) {
        if let Some(free) = self.units.get_mut(self.count) {
            *free = unit;
            self.count += 1;
        }
    }
}

// === impl Text ===

impl<'a> Text<'a> {
    pub(super) fn new(bytes: &'a [u8], complete: bool) -> Text<'a> {
        Text { bytes, complete, steps: Cell::new(0) }
    }

    pub(super) fn at(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn count_step(&self) {
        self.steps.set(self.steps.get().wrapping_add(1));
    }

    /// All readings at `start`; none when the text ends there.
    pub(super) fn readings(&self, start: usize) -> Readings {
        let nothing = Unit { code: 0, character: false, end: start };
        let mut readings = Readings { units: [nothing; LAYERS + 1], count: 0, cut: false };
        let Some(byte) = self.at(start) else {
            readings.cut = !self.complete;
            return readings;
        };
        let mut unit = Unit { code: u32::from(byte), character: false, end: start + 1 };
        readings.push(unit);
        for depth in 0..LAYERS {
            if !is_introducer(&unit) {
                break;
            }
            match self.escape(&unit, start, depth) {
                Step::Unit(deeper) => {
                    unit = deeper;
                    readings.push(unit);
                }
                Step::Plain => {}
                Step::Cut => {
                    readings.cut = true;
                    break;
                }
            }
        }
        readings
    }

    /// The reading at `start` with `depth` layers undone.
    fn unit(&self, start: usize, depth: usize) -> Step {
        self.count_step();
        let Some(byte) = self.at(start) else {
            return if self.complete { Step::Plain } else { Step::Cut };
        };
        let mut unit = Unit { code: u32::from(byte), character: false, end: start + 1 };
        for undone in 0..depth {
            if !is_introducer(&unit) {
                break;
            }
            match self.escape(&unit, start, undone) {
                Step::Unit(deeper) => unit = deeper,
                Step::Plain => {}
                Step::Cut => return Step::Cut,
            }
        }
        Step::Unit(unit)
    }

    /// The escape which `introducer`, found at `start`, opens when what follows is read at `depth`.
    fn escape(&self, introducer: &Unit, start: usize, depth: usize) -> Step {
        let found = match ascii(introducer) {
            b'\\' => self.json(introducer.end, depth),
            b'&' => self.entity(introducer.end, depth),
            _ => self.hex_number(introducer.end, 2, depth, false),
        };
        match found {
            Step::Unit(unit) if unit.end - start > UNIT_MAX_BYTES => Step::Plain,
            Step::Cut if self.len().saturating_sub(start) >= UNIT_MAX_BYTES => Step::Plain,
            other => other,
        }
    }

    fn hex_number(&self, start: usize, digits: usize, depth: usize, character: bool) -> Step {
        let mut number = Unit { code: 0, character, end: start };
        for _ in 0..digits {
            match self.unit(number.end, depth) {
                Step::Unit(unit) => match char::from(ascii(&unit)).to_digit(16) {
                    Some(digit) => number = Unit { code: number.code * 16 + digit, character, end: unit.end },
                    None => return Step::Plain,
                },
                other => return other,
            }
        }
        Step::Unit(number)
    }

    fn json(&self, start: usize, depth: usize) -> Step {
        let letter = match self.unit(start, depth) {
            Step::Unit(unit) => unit,
            other => return other,
        };
        let code = match ascii(&letter) {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            plain @ (b'"' | b'\\' | b'/' | b'\'') => plain,
            b'x' => return self.hex_number(letter.end, 2, depth, false),
            b'u' => return self.utf16(letter.end, depth),
            _ => return Step::Plain,
        };
        Step::Unit(Unit { code: u32::from(code), character: true, end: letter.end })
    }

    fn utf16(&self, start: usize, depth: usize) -> Step {
        let first = match self.hex_number(start, 4, depth, true) {
            Step::Unit(unit) => unit,
            other => return other,
        };
        if !(0xd800..0xe000).contains(&first.code) {
            return Step::Unit(first);
        }
        let mut next = first.end;
        for expected in [b'\\', b'u'] {
            match self.unit(next, depth) {
                Step::Unit(unit) if ascii(&unit) == expected => next = unit.end,
                Step::Cut => return Step::Cut,
                _ => return Step::Plain,
            }
        }
        match self.hex_number(next, 4, depth, true) {
            Step::Unit(second) if first.code < 0xdc00 && (0xdc00..0xe000).contains(&second.code) => {
                let code = 0x1_0000 + ((first.code - 0xd800) << 10) + (second.code - 0xdc00);
                Step::Unit(Unit { code, character: true, end: second.end })
            }
            Step::Cut => Step::Cut,
            _ => Step::Plain,
        }
    }

    fn entity(&self, start: usize, depth: usize) -> Step {
        let mut name = [0_u8; ENTITY_NAME_MAX];
        let mut ends = [start; ENTITY_NAME_MAX];
        let mut next = start;
        for length in 0..=ENTITY_NAME_MAX {
            let unit = match self.unit(next, depth) {
                Step::Unit(unit) => unit,
                Step::Cut => return Step::Cut,
                Step::Plain => return legacy_entity(&name, &ends),
            };
            match ascii(&unit) {
                b'#' if length == 0 => return self.numeric_entity(unit.end, depth),
                b';' => {
                    return match named_entity(name.get(..length).unwrap_or_default()) {
                        Some(code) => Step::Unit(Unit { code: u32::from(code), character: true, end: unit.end }),
                        None => legacy_entity(&name, &ends),
                    };
                }
                letter if letter.is_ascii_alphanumeric() => {
                    if let (Some(slot), Some(end)) = (name.get_mut(length), ends.get_mut(length)) {
                        (*slot, *end) = (letter, unit.end);
                    }
                    next = unit.end;
                }
                _ => return legacy_entity(&name, &ends),
            }
        }
        legacy_entity(&name, &ends)
    }

    fn numeric_entity(&self, start: usize, depth: usize) -> Step {
        let mut next = start;
        let mut radix = 10;
        let (mut code, mut digits) = (0_u32, 0);
        loop {
            let unit = match self.unit(next, depth) {
                Step::Unit(unit) => unit,
                Step::Cut => return Step::Cut,
                Step::Plain => break,
            };
            let letter = ascii(&unit);
            if digits == 0 && radix == 10 && matches!(letter, b'x' | b'X') {
                (radix, next) = (16, unit.end);
                continue;
            }
            if letter == b';' && digits > 0 {
                next = unit.end;
                break;
            }
            let Some(digit) = char::from(letter).to_digit(radix) else { break };
            code = code.saturating_mul(radix).saturating_add(digit);
            (digits, next) = (digits + 1, unit.end);
            if digits > ENTITY_DIGITS_MAX {
                return Step::Plain;
            }
        }
        if digits == 0 || char::from_u32(code).is_none() {
            return Step::Plain;
        }
        Step::Unit(Unit { code, character: true, end: next })
    }

    /// The folded line that starts at `start`: a quoted-printable soft break, a line break inside base64 or hexadecimal
    /// text when `wraps` is set, or the start of the next `data:` line of a server-sent event.
    pub(super) fn gap(&self, start: usize, wraps: bool) -> Gap {
        if !self.at(start).is_some_and(is_special) {
            return Gap::default();
        }
        let gap = match self.at(start) {
            Some(b'\n' | b'\r') => self.gap_at(start, 0, wraps),
            Some(b'=') => {
                // The line break after the equals sign may itself be escaped.
                let depths = if self.at(start + 1).is_none_or(is_special) { 0..=LAYERS } else { 0..=0 };
                depths
                    .map(|depth| self.gap_at(start, depth, wraps))
                    .find(|gap| *gap != Gap::default())
                    .unwrap_or_default()
            }
            _ => self.escaped_gap(start, wraps),
        };
        let near = |end: usize| end - start <= UNIT_MAX_BYTES;
        Gap { end: gap.end.filter(|end| near(*end)), cut: gap.cut && !self.complete && near(self.len()) }
    }

    fn escaped_gap(&self, start: usize, wraps: bool) -> Gap {
        // A run of backslashes is a line break only before one of these letters.
        let mut run = self.bytes.get(start..).unwrap_or_default().iter().take(UNIT_MAX_BYTES);
        match run.find(|byte| **byte != b'\\') {
            Some(letter)
                if self.at(start) == Some(b'\\')
                    && !matches!(letter, b'n' | b'r' | b'u' | b'x' | b'%' | b'&' | b'=') =>
            {
                return Gap::default();
            }
            _ => {}
        }
        for depth in 1..=LAYERS {
            match self.unit(start, depth) {
                Step::Unit(unit) if matches!(ascii(&unit), b'\n' | b'\r' | b'=') => {
                    return self.gap_at(start, depth, wraps);
                }
                Step::Unit(unit) if is_introducer(&unit) => {}
                Step::Cut => return Gap { end: None, cut: true },
                _ => break,
            }
        }
        Gap::default()
    }

    fn gap_at(&self, start: usize, depth: usize, wraps: bool) -> Gap {
        let cut = Gap { end: None, cut: true };
        let first = match self.unit(start, depth) {
            Step::Unit(unit) => unit,
            Step::Cut => return cut,
            Step::Plain => return Gap::default(),
        };
        let soft = ascii(&first) == b'=';
        let line = match self.line_break(if soft { first.end } else { start }, depth) {
            Step::Unit(line) => line,
            Step::Cut => return cut,
            // Where a line was unfolded a space stands for its break.
            Step::Plain if soft && self.at(first.end) == Some(b' ') => {
                return Gap { end: Some(first.end + 1), cut: false };
            }
            Step::Plain => return Gap::default(),
        };
        if soft {
            return Gap { end: Some(line.end), cut: false };
        }
        let mut next = line.end;
        for expected in b"data:" {
            match self.unit(next, depth) {
                Step::Unit(unit) if ascii(&unit) == *expected => next = unit.end,
                Step::Cut => return if wraps { Gap { end: Some(line.end), cut: true } } else { cut },
                _ if wraps => return self.indent(line.end, depth),
                _ => return Gap::default(),
            }
        }
        match self.unit(next, depth) {
            // Wrapped text may be indented within the event, too.
            Step::Unit(unit) if ascii(&unit) == b' ' && wraps => self.indent(unit.end, depth),
            Step::Unit(unit) if ascii(&unit) == b' ' => Gap { end: Some(unit.end), cut: false },
            Step::Cut => Gap { end: Some(next), cut: true },
            _ => Gap { end: Some(next), cut: false },
        }
    }

    fn indent(&self, start: usize, depth: usize) -> Gap {
        let mut next = start;
        for _ in 0..INDENT_MAX {
            match self.unit(next, depth) {
                Step::Unit(unit) if matches!(ascii(&unit), b' ' | b'\t') => next = unit.end,
                Step::Cut => return Gap { end: Some(next), cut: true },
                _ => break,
            }
        }
        Gap { end: Some(next), cut: false }
    }

    /// CR LF, LF or CR.
    fn line_break(&self, start: usize, depth: usize) -> Step {
        match self.unit(start, depth) {
            Step::Unit(unit) if ascii(&unit) == b'\r' => match self.unit(unit.end, depth) {
                Step::Unit(second) if ascii(&second) == b'\n' => Step::Unit(second),
                Step::Cut => Step::Cut,
                _ => Step::Unit(unit),
            },
            Step::Unit(unit) if ascii(&unit) == b'\n' => Step::Unit(unit),
            Step::Cut => Step::Cut,
            _ => Step::Plain,
        }
    }
}

pub(super) fn named_entity(name: &[u8]) -> Option<u8> {
    Some(match name {
        b"amp" | b"AMP" => b'&',
        b"lt" | b"LT" => b'<',
        b"gt" | b"GT" => b'>',
        b"quot" | b"QUOT" => b'"',
        b"apos" => b'\'',
        b"plus" => b'+',
        b"equals" => b'=',
        b"sol" => b'/',
        b"bsol" => b'\\',
        b"percnt" => b'%',
        b"num" => b'#',
        b"dollar" => b'$',
        b"excl" => b'!',
        b"quest" => b'?',
        b"commat" => b'@',
        b"ast" => b'*',
        b"lpar" => b'(',
        b"rpar" => b')',
        b"lsqb" | b"lbrack" => b'[',
        b"rsqb" | b"rbrack" => b']',
        b"lcub" | b"lbrace" => b'{',
        b"rcub" | b"rbrace" => b'}',
        b"lowbar" => b'_',
        b"grave" => b'`',
        b"vert" | b"verbar" => b'|',
        b"Hat" => b'^',
        b"colon" => b':',
        b"semi" => b';',
        b"comma" => b',',
        b"period" => b'.',
        b"hyphen" | b"dash" => b'-',
        b"Tab" => b'\t',
        b"NewLine" => b'\n',
        _ => return None,
    })
}

/// References that HTML reads even without their semicolon.
fn legacy_entity(name: &[u8; ENTITY_NAME_MAX], ends: &[usize; ENTITY_NAME_MAX]) -> Step {
    for (known, code) in [(b"amp".as_slice(), b'&'), (b"lt", b'<'), (b"gt", b'>'), (b"quot", b'"')] {
        if let (true, Some(end)) = (name.starts_with(known), ends.get(known.len() - 1)) {
            return Step::Unit(Unit { code: u32::from(code), character: true, end: *end });
        }
    }
    Step::Plain
}
