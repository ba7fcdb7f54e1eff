//! Scrubs a body that arrives in pieces.
//!
//! What is held back must not tell anything about the secret: whoever chooses the text and sees where the output stops
//! would otherwise guess it letter by letter. So the output stops only where the [`Barriers`] or the length say so, and
//! whatever may still become a secret is somewhere in what is held back anyway.

use zeroize::Zeroize;

use super::Scrubber;
use super::barrier::Barriers;
use super::escapes::Text;
use super::redact::Range;
use super::scan::{ends_in_base64, scan};

/// What remains to be known between two pieces of one body. Wiped on drop.
pub struct Stream {
    barriers: Barriers,
    /// What was not sent on yet.
    kept: Vec<u8>,
    /// How many of the kept bytes are scrubbed; the rest may still become part of a secret.
    settled: usize,
    /// How many of the bytes that are not settled belong to a range of which the first part is.
    covered: usize,
    /// What was settled last was a base64 character.
    after_base64: bool,
}

/// What became of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// How many secrets were overwritten.
    pub redactions: u64,
    /// How many bytes are now held back: a suffix of all that was pushed.
    pub held: usize,
    /// When set, the output is this many bytes from the start of the piece. Nothing was appended to `out`.
    pub verbatim: Option<usize>,
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(barriers: Barriers) -> Stream {
        Stream { barriers, kept: Vec::new(), settled: 0, covered: 0, after_base64: false }
    }

    /// Takes the next piece; `end` says that it is the last. Appends to `out` what may be sent on, unless the returned
    /// [`Push::verbatim`] says that it is the start of the piece itself.
    pub fn push(&mut self, scrubber: &Scrubber, chunk: &[u8], end: bool, out: &mut Vec<u8>) -> Push {
        let Some(index) = &scrubber.index else {
            return Push { redactions: 0, held: 0, verbatim: Some(chunk.len()) };
        };
        let fresh = self.kept.is_empty();
        if !fresh {
            self.kept.extend_from_slice(chunk);
        }
        let whole = if fresh { chunk } else { self.kept.as_slice() };
        let sent = if end { whole.len() } else { self.barriers.released(whole, scrubber.hold_max_bytes) };
        let text = Text::new(whole.get(self.settled..).unwrap_or_default(), end);
        let findings = scan(&scrubber.forms, index, &text, self.after_base64, self.covered);
        scrubber.count_steps(&text);
        let limit = settle(&findings.ranges, findings.open, &text, sent.saturating_sub(self.settled));
        self.after_base64 = ends_in_base64(&text, limit, self.after_base64);
        self.covered = 0;
        let mut redactions = 0;
        let mut patches = Vec::new();
        for range in findings.ranges.iter().take_while(|range| range.start < limit) {
            let range = Range { end: range.end.min(limit), ..*range };
            let mut patch = Vec::with_capacity(range.end - range.start);
            scrubber.filler.fill(&text, &range, &mut patch);
            patches.push((self.settled + range.start, patch));
            redactions += u64::from(!range.continued);
        }
        if let Some(range) = findings.ranges.iter().find(|range| range.start < limit && limit < range.end) {
            self.covered = range.end - limit;
        }
        self.settled += limit;
        if fresh {
            if patches.is_empty() {
                self.kept.extend_from_slice(chunk.get(sent..).unwrap_or_default());
                self.settled -= sent;
                return Push { redactions, held: self.kept.len(), verbatim: Some(sent) };
            }
            self.kept.extend_from_slice(chunk);
        }
        for (start, patch) in patches {
            if let Some(place) = self.kept.get_mut(start..start + patch.len()) {
                place.copy_from_slice(&patch);
            }
        }
        out.extend_from_slice(self.kept.get(..sent).unwrap_or_default());
        self.forget(sent);
        Push { redactions, held: self.kept.len(), verbatim: None }
    }

    /// Whether nothing of a body that begins with these bytes would be sent on before more of it is here.
    pub fn would_hold(&self, scrubber: &Scrubber, beginning: &[u8]) -> bool {
        !scrubber.is_empty() && self.barriers.released(beginning, scrubber.hold_max_bytes) == 0
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.kept.len()
    }

    /// Drops and wipes what is held back.
    pub fn wipe(&mut self) {
        self.kept.zeroize();
        self.settled = 0;
    }

    /// Removes the first bytes of what was kept.
    fn forget(&mut self, sent: usize) {
        let sent = sent.min(self.kept.len());
        let left = self.kept.len() - sent;
        self.kept.copy_within(sent.., 0);
        if let Some(gone) = self.kept.get_mut(left..) {
            gone.zeroize();
        }
        self.kept.truncate(left);
        self.settled = self.settled.saturating_sub(sent);
    }
}

/// How much of the text is scrubbed for good. At least `sent` bytes are: they go out whatever follows.
fn settle(ranges: &[Range], open: Option<usize>, text: &Text<'_>, sent: usize) -> usize {
    let mut limit = open.unwrap_or(text.len()).min(text.len());
    // A range is overwritten whole, unless its start goes out now.
    if let Some(range) = ranges.iter().find(|range| range.start < limit && limit < range.end && !range.continued) {
        limit = range.start;
    }
    limit.max(sent)
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.kept.zeroize();
    }
}
