//! Overwrites secrets in responses, whatever form they are in and wherever the response is split.
//!
//! A [`Scrubber`] is built for each request from the values that were used for it. [`Scrubber::scrub_value`] takes
//! whole header values, a [`Stream`] takes a body piece by piece. What is found is replaced by text of the same length.
//!
//! Bounds: a stream holds back at most [`Scrubber::hold_max_bytes`], however long the response is, and holds back
//! nothing unless the text at the end can be the beginning of a secret or of an escape. Each escape undoes four layers
//! and is at most 128 bytes long; thirty-two ways to read one text are followed at once. Only secrets that
//! themselves consist of backslashes make text of endless backslashes slow: more than a million steps for each piece pushed.

mod compare;
mod escapes;
mod glance;
mod index;
mod matcher;
mod redact;
mod scan;
mod stream;

#[cfg(test)]
mod tests;

use std::cell::Cell;

use crate::encodings::Forms;

use self::escapes::{Text, UNIT_MAX_BYTES};
use self::index::Index;
use self::redact::{Filler, GROWTH_MAX_BYTES};
use self::scan::scan;
pub use self::stream::{Push, Stream};

/// Finds and overwrites the secrets of one request. Wiped on drop; it has no Debug output.
pub struct Scrubber {
    forms: Forms,
    /// None when there is no secret.
    index: Option<Index>,
    filler: Filler,
    hold_max_bytes: usize,
    steps: Cell<u64>,
}

// === impl Scrubber ===

impl Scrubber {
    /// A scrubber for these secrets. Those shorter than [`crate::encodings::SHORTEST_SECRET_BYTES`] are ignored.
    pub fn new(secrets: &[impl AsRef<[u8]>]) -> Scrubber {
        let forms = Forms::of(secrets);
        let longest = forms.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
        Scrubber {
            index: (!forms.is_empty()).then(|| Index::of(&forms)),
            filler: Filler::for_forms(&forms),
            // Each character as the longest escape, each followed by the longest fold, and a character at each side.
            hold_max_bytes: (longest + 2) * 2 * UNIT_MAX_BYTES + GROWTH_MAX_BYTES,
            forms,
            steps: Cell::new(0),
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.index.is_none()
    }

    /// The most bytes that a stream ever holds back.
    pub fn hold_max_bytes(&self) -> usize {
        self.hold_max_bytes
    }

    /// Scrubs a whole header or trailer value: the new value, of the same length, and how many secrets were in it.
    /// None when it holds no secret; that takes no allocation.
    pub fn scrub_value(&self, value: &[u8]) -> Option<(Vec<u8>, u64)> {
        let text = Text::new(value, true);
        let findings = scan(&self.forms, self.index.as_ref()?, &text, false, 0);
        self.count_steps(&text);
        if findings.ranges.is_empty() {
            return None;
        }
        let mut out = Vec::with_capacity(value.len());
        let mut sent = 0;
        for range in &findings.ranges {
            out.extend_from_slice(value.get(sent..range.start).unwrap_or_default());
            self.filler.fill(&text, range, &mut out);
            sent = range.end;
        }
        out.extend_from_slice(value.get(sent..).unwrap_or_default());
        Some((out, findings.ranges.len() as u64))
    }

    /// A new stream; each response body needs its own.
    pub fn stream(&self) -> Stream {
        Stream::default()
    }

    /// How many characters and escapes were compared so far: the work beyond the linear passes.
    #[doc(hidden)]
    pub fn steps(&self) -> u64 {
        self.steps.get()
    }

    fn count_steps(&self, text: &Text<'_>) {
        self.steps.set(self.steps.get().wrapping_add(text.steps.get()));
    }
}
