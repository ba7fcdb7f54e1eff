//! All that was found in one text, in plain sight and inside base64, and what to overwrite it with.

use super::Scrubber;
use super::blob::{Blobs, Start, look_into};
use super::escapes::Text;
use super::index::Index;
use super::redact::Range;
use super::scan::{Findings, ends_in_base64, scan};

/// Up to this length a text may be a header, where base64 often follows other text directly: `"v1-YWJj"`.
const HEADER_MAX_BYTES: usize = 4096;

/// What is known of the text before this one.
#[derive(Clone, Copy, Default)]
pub(super) struct Earlier {
    /// How many bytes at the start belong to a range of which the first part is scrubbed.
    pub(super) covered: usize,
    /// It ended in a base64 character.
    pub(super) base64: bool,
    /// It ended within a run of base64, of which the next character stands here in its group of four.
    pub(super) phase: Option<u8>,
}

/// What a text hides.
pub(super) struct Found {
    findings: Findings,
    blobs: Blobs,
}

/// New bytes for a place.
pub(super) type Patch = (usize, Vec<u8>);

// === impl Found ===

impl Found {
    /// Looks through a text.
    pub(super) fn of(scrubber: &Scrubber, index: &Index, text: &Text<'_>, earlier: Earlier) -> Found {
        let start = match earlier.phase {
            Some(phase) => Start::Within(phase),
            None if text.complete && text.len() <= HEADER_MAX_BYTES => Start::Anywhere,
            None => Start::Whole,
        };
        let blobs = look_into(scrubber, index, text, start, 0);
        let found = Found::with(blobs, scrubber, index, text, earlier);
        scrubber.count_steps(text);
        found
    }

    /// Looks through what was decoded from base64, at this depth.
    pub(super) fn within(scrubber: &Scrubber, index: &Index, text: &Text<'_>, depth: usize) -> Found {
        let blobs = look_into(scrubber, index, text, Start::Whole, depth);
        Found::with(blobs, scrubber, index, text, Earlier::default())
    }

    fn with(blobs: Blobs, scrubber: &Scrubber, index: &Index, text: &Text<'_>, earlier: Earlier) -> Found {
        let mut findings = scan(&scrubber.forms, index, text, earlier.base64, earlier.covered);
        // What was found by decoding is overwritten bit by bit, so that the rest of the blob stays what it is.
        let inside = |range: &Range| {
            let later = blobs.spans.partition_point(|(start, _)| *start <= range.start);
            later.checked_sub(1).and_then(|at| blobs.spans.get(at)).is_some_and(|(_, end)| range.end <= *end)
        };
        findings.ranges.retain(|range| !(range.base64 && inside(range)));
        Found { findings, blobs }
    }

    /// The text from here on may be, or become, part of a secret.
    pub(super) fn open(&self) -> Option<usize> {
        [self.findings.open, self.blobs.open].into_iter().flatten().min()
    }

    /// Each secret, from its first byte to behind its last.
    pub(super) fn spans(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let plain = self.findings.ranges.iter().map(|range| (range.start, range.end));
        plain.chain(self.blobs.spans.iter().copied())
    }

    /// How much of the text is scrubbed for good. At least `sent` bytes are: they go out whatever follows.
    pub(super) fn settled(&self, text: &Text<'_>, sent: usize) -> usize {
        let mut limit = self.open().unwrap_or(text.len()).min(text.len());
        // A range is overwritten whole, unless its start goes out now.
        if let Some(range) = self.cut_at(limit).filter(|range| !range.continued) {
            limit = range.start;
        }
        limit.max(sent)
    }

    /// What to know when the text goes on after `limit`.
    pub(super) fn earlier(&self, text: &Text<'_>, limit: usize, earlier: Earlier) -> Earlier {
        Earlier {
            covered: self.cut_at(limit).map_or(0, |range| range.end - limit),
            base64: ends_in_base64(text, limit, earlier.base64),
            phase: self.blobs.phase_at(limit),
        }
    }

    /// What to overwrite before `limit`, and how many secrets that are.
    pub(super) fn patches(&self, scrubber: &Scrubber, text: &Text<'_>, limit: usize) -> (Vec<Patch>, u64) {
        let (mut patches, mut redactions) = (Vec::new(), 0);
        let count = self.findings.ranges.partition_point(|range| range.start < limit);
        let ranges = self.findings.ranges.get(..count).unwrap_or_default();
        for range in ranges {
            let range = Range { end: range.end.min(limit), ..*range };
            let mut fill = Vec::with_capacity(range.end - range.start);
            scrubber.filler.fill(text, &range, &mut fill);
            patches.push((range.start, fill));
            redactions += u64::from(!range.continued);
        }
        for (start, end) in &self.blobs.spans {
            // Ranges are in order and apart from each other.
            let next = ranges.partition_point(|range| range.end <= *start);
            let counted = ranges.get(next).is_some_and(|range| range.start < *end);
            redactions += u64::from(!counted);
        }
        patches.extend(self.blobs.patches.iter().cloned());
        (patches, redactions)
    }

    fn cut_at(&self, limit: usize) -> Option<&Range> {
        self.findings.ranges.iter().find(|range| range.start < limit && limit < range.end)
    }
}

/// Overwrites each place, counted from `offset`.
pub(super) fn apply(patches: &[Patch], offset: usize, bytes: &mut [u8]) {
    for (start, fill) in patches {
        if let Some(place) = bytes.get_mut(offset + start..offset + start + fill.len()) {
            place.copy_from_slice(fill);
        }
    }
}
