//! Overwrites secrets in responses, whatever form they are in and wherever the response is split.
//!
//! A [`Scrubber`] is built for each request from the values that were used for it. [`Scrubber::scrub_value`] takes
//! whole header values, a [`Stream`] takes a body piece by piece. What is found is replaced by text of the same length.
//!
//! Bounds: a stream holds back at most [`Scrubber::hold_max_bytes`], however long the response is. How much it holds back
//! depends on the length and on the line ends of the text and not on the secret. Each escape undoes four layers
//! and is at most 128 bytes long; thirty-two ways to read one text are followed at once. Text of nothing but escapes costs
//! about a hundred times as much as ordinary text, and secrets that themselves consist of backslashes make text of endless
//! backslashes slower still: more than a million steps for each piece pushed. The cost depends on how far the text agrees
//! with a secret: see the known holes in docs/security.md.

mod barrier;
mod blob;
mod compare;
mod escapes;
mod found;
mod glance;
mod index;
mod matcher;
mod redact;
mod scan;
mod stream;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::encodings::Forms;

use self::barrier::Barriers;
use self::escapes::{Text, UNIT_MAX_BYTES};
use self::found::{Earlier, Found, apply};
use self::index::Index;
use self::redact::{Filler, GROWTH_MAX_BYTES};
pub use self::stream::{Push, Stream};

/// The most bytes of text, on average, for one byte of a form that is found where it is cut into pieces: a byte that is
/// escaped as `&amp;amp;amp;#x41;` has 18.
const ESCAPED_MAX_BYTES: usize = 24;

/// Finds and overwrites the secrets of one request. Wiped on drop; it has no Debug output.
pub struct Scrubber {
    forms: Forms,
    /// None when there is no secret.
    index: Option<Index>,
    filler: Filler,
    hold_max_bytes: usize,
    has_line_breaks: bool,
    steps: AtomicU64,
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
            // Rounded up, so that it does not tell how many characters of the secret need escapes.
            hold_max_bytes: ((longest + 2) * ESCAPED_MAX_BYTES + 8 * UNIT_MAX_BYTES + GROWTH_MAX_BYTES)
                .next_power_of_two(),
            has_line_breaks: secrets.iter().any(|secret| secret.as_ref().iter().any(|byte| b"\r\n".contains(byte))),
            forms,
            steps: AtomicU64::new(0),
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.index.is_none()
    }

    /// The most bytes that a stream ever holds back, and so the longest form that is found where it is cut into pieces.
    pub fn hold_max_bytes(&self) -> usize {
        self.hold_max_bytes
    }

    /// Scrubs a whole header or trailer value: the new value, of the same length, and how many secrets were in it.
    /// None when it holds no secret; that takes no allocation.
    pub fn scrub_value(&self, value: &[u8]) -> Option<(Vec<u8>, u64)> {
        let text = Text::new(value, true);
        let found = Found::of(self, self.index.as_ref()?, &text, Earlier::default());
        let (patches, redactions) = found.patches(self, &text, value.len());
        if patches.is_empty() {
            return None;
        }
        let mut clean = value.to_vec();
        apply(&patches, 0, &mut clean);
        Some((clean, redactions))
    }

    /// A new stream; each response body needs its own. `events` says that it is of server-sent events.
    pub fn stream(&self, events: bool) -> Stream {
        Stream::new(match (events, self.has_line_breaks) {
            (true, _) => Barriers::Events,
            (false, false) => Barriers::Lines,
            (false, true) => Barriers::None,
        })
    }

    /// How many characters and escapes were compared so far: the work beyond the linear passes.
    #[doc(hidden)]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn count_steps(&self, text: &Text<'_>) {
        self.steps.fetch_add(text.steps.get(), Ordering::Relaxed);
    }
}
