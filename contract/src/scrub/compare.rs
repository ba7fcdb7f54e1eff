//! Compares one form of a secret with the text at one place, reading escapes and folded lines as it goes.

use crate::encodings::{Form, base64_value};

use super::escapes::{Gap, LAYERS, Text, UNIT_MAX_BYTES, is_special};

/// How many ways of reading the same text are followed at once; a further one is dropped.
const STATES_MAX: usize = 32;
/// How far back an escape or an indent is looked for before a base64 form, in bytes.
const BEHIND_MAX: usize = 20;

/// What came of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    /// The form is there and ends here; the longest when there are several ends.
    pub(super) end: Option<usize>,
    /// The text ends before it is clear whether the form, or a longer one, is there.
    pub(super) open: bool,
}

/// What stands before a place, as base64 characters: the plain byte, and the escape that it may be the end of.
#[derive(Clone, Copy, Default)]
pub(super) struct Before {
    escaped: Option<Character>,
    plain: Option<Character>,
    /// There is one, but it was sent on, so it is known not to belong to any form.
    gone: bool,
}

/// One base64 character.
#[derive(Clone, Copy)]
pub(super) struct Character {
    pub(super) start: usize,
    pub(super) value: u8,
}

#[derive(Clone, Copy)]
struct State {
    matched: usize,
    at: usize,
    after_gap: bool,
}

struct States {
    list: [State; STATES_MAX],
    count: usize,
}

// === impl States ===

impl States {
    fn push(&mut self, state: State) {
        let known = |other: &State| {
            other.matched == state.matched && other.at == state.at && other.after_gap == state.after_gap
        };
        if self.list.iter().take(self.count).any(known) {
            return;
        }
        if let Some(free) = self.list.get_mut(self.count) {
            *free = state;
            self.count += 1;
        }
    }

    /// The state that is least far, so that states that meet are followed once.
    fn pop(&mut self) -> Option<State> {
        let (index, state) = self
            .list
            .iter()
            .take(self.count)
            .copied()
            .enumerate()
            .min_by_key(|(_, state)| (state.matched, state.at))?;
        self.count -= 1;
        self.list.swap(index, self.count);
        Some(state)
    }
}

fn fold(byte: u8, folded: bool) -> u8 {
    if folded { byte.to_ascii_lowercase() } else { byte }
}

/// Compares the whole form with the text at `start`.
pub(super) fn compare(text: &Text<'_>, form: &Form, bytes: &[u8], start: usize) -> Verdict {
    // Most comparisons end here, after a plain byte or two.
    let rest = text.bytes.get(start..).unwrap_or_default();
    for (found, expected) in rest.iter().zip(bytes) {
        text.count_step();
        if is_special(*found) {
            return compare_escaped(text, form, bytes, start);
        }
        if fold(*found, form.folded) != *expected {
            return Verdict::default();
        }
    }
    if rest.len() < bytes.len() {
        return Verdict { end: None, open: !text.complete };
    }
    after(text, form, start + bytes.len())
}

fn compare_escaped(text: &Text<'_>, form: &Form, bytes: &[u8], start: usize) -> Verdict {
    let first = State { matched: 0, at: start, after_gap: false };
    let mut states = States { list: [first; STATES_MAX], count: 1 };
    let mut verdict = Verdict::default();
    while let Some(mut state) = states.pop() {
        loop {
            text.count_step();
            let Some(expected) = bytes.get(state.matched) else {
                let after = after(text, form, state.at);
                verdict.open |= after.open;
                verdict.end = verdict.end.max(after.end);
                break;
            };
            let Some(byte) = text.at(state.at) else {
                verdict.open |= !text.complete;
                break;
            };
            if is_special(byte) {
                branch(text, form, bytes, state, &mut states, &mut verdict);
                break;
            }
            if fold(byte, form.folded) != *expected {
                break;
            }
            state = State { matched: state.matched + 1, at: state.at + 1, after_gap: false };
        }
    }
    verdict
}

fn branch(text: &Text<'_>, form: &Form, bytes: &[u8], state: State, states: &mut States, verdict: &mut Verdict) {
    let rest = bytes.get(state.matched..).unwrap_or_default();
    let readings = text.readings(state.at);
    verdict.open |= readings.cut;
    let mut advance = |length: usize, at: usize| {
        states.push(State { matched: state.matched + length, at, after_gap: false });
    };
    for unit in readings.all() {
        let byte = |code: u32| u8::try_from(code).ok().map(|byte| fold(byte, form.folded));
        if byte(unit.code).is_some_and(|byte| rest.first() == Some(&byte)) {
            advance(1, unit.end);
        }
        if unit.character && unit.code >= 0x80 {
            let mut encoded = [0_u8; 4];
            let encoded = char::from_u32(unit.code).unwrap_or_default().encode_utf8(&mut encoded).as_bytes();
            if rest.starts_with(encoded) {
                advance(encoded.len(), unit.end);
            }
        }
    }
    if state.matched > 0 && !state.after_gap {
        let gap = text.gap(state.at, form.wraps);
        verdict.open |= gap.cut;
        if let Some(at) = gap.end {
            states.push(State { at, after_gap: true, ..state });
        }
    }
}

/// Takes in the character after the form when that holds bits of the secret.
fn after(text: &Text<'_>, form: &Form, end: usize) -> Verdict {
    let found = Verdict { end: Some(end), open: false };
    let Some(bits) = form.after else { return found };
    let Gap { end: beyond, cut } = text.gap(end, true);
    if cut {
        return Verdict { open: true, ..found };
    }
    let readings = text.readings(beyond.unwrap_or(end));
    if readings.cut {
        return Verdict { open: true, ..found };
    }
    let value = |unit: &super::escapes::Unit| u8::try_from(unit.code).ok().and_then(base64_value);
    match readings.all().iter().rev().find_map(|unit| value(unit).map(|value| (unit.end, value))) {
        Some((end, value)) if bits.agree_with(value) => Verdict { end: Some(end), open: false },
        Some(_) => Verdict::default(),
        None => found,
    }
}

/// The base64 character that ends at `end`, or before a folded line that ends there; `gone` tells whether the text
/// before the first byte ended in one.
pub(super) fn before(text: &Text<'_>, end: usize, gone: bool) -> Before {
    let mut end = end;
    for _ in 0..2 {
        // A folded line reads as a gap that ends exactly here; the longest one wins.
        let first = end.saturating_sub(UNIT_MAX_BYTES.min(BEHIND_MAX));
        let folded = (first..end)
            .find(|start| text.at(*start).is_some_and(is_special) && text.gap(*start, true).end == Some(end));
        match folded {
            Some(start) => end = start,
            None => break,
        }
    }
    if end == 0 {
        return Before { gone, ..Before::default() };
    }
    let plain = text.at(end - 1).and_then(base64_value).map(|value| Character { start: end - 1, value });
    // Quoted-printable never escapes one of these, and `key=53...` is no escape.
    let introducers = (end.saturating_sub(BEHIND_MAX)..end - 1)
        .filter(|start| text.at(*start).is_some_and(|byte| is_special(byte) && byte != b'='));
    let escaped = introducers.into_iter().find_map(|start| {
        let readings = text.readings(start);
        let unit = readings.escaped().iter().rev().find(|unit| unit.end == end)?;
        let value = u8::try_from(unit.code).ok().and_then(base64_value)?;
        Some(Character { start, value })
    });
    Before { escaped, plain, gone: false }
}

// === impl Before ===

impl Before {
    /// The first that fits, an escape before a plain byte.
    pub(super) fn find(&self, fits: impl Fn(u8) -> bool) -> Option<Character> {
        [self.escaped, self.plain].into_iter().flatten().find(|character| fits(character.value))
    }

    /// Whether there is any base64 character.
    pub(super) fn is_base64(&self) -> bool {
        self.gone || self.escaped.is_some() || self.plain.is_some()
    }
}

const _: () = assert!(LAYERS < STATES_MAX);
