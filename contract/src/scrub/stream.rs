//! Scrubs a body that arrives in pieces, holding back only what may still turn out to be a secret.

use zeroize::Zeroize;

use super::Scrubber;
use super::escapes::Text;
use super::scan::{ends_in_base64, scan};

/// What remains to be known between two pieces of one body. Wiped on drop.
#[derive(Default)]
pub struct Stream {
    held: Vec<u8>,
    joined: Vec<u8>,
    /// How many of the held bytes belong to a range of which the first part is already out.
    covered: usize,
    /// What was sent on last was a base64 character.
    after_base64: bool,
}

/// What became of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Push {
    /// How many secrets were overwritten, each counted in the piece where it goes out.
    pub redactions: u64,
    /// How many bytes are now held back: a suffix of all that was pushed.
    pub held: usize,
    /// The output is the piece itself. Nothing was appended to `out`.
    pub unchanged: bool,
    /// When set, the output is this many bytes from the start of the piece. Nothing was appended to `out`.
    pub verbatim: Option<usize>,
}

// === impl Stream ===

impl Stream {
    /// Takes the next piece; `end` says that it is the last. Appends to `out` what may be sent on, unless the returned
    /// [`Push::verbatim`] says that it is the start of the piece itself.
    pub fn push(&mut self, scrubber: &Scrubber, chunk: &[u8], end: bool, out: &mut Vec<u8>) -> Push {
        let mut joined = std::mem::take(&mut self.joined);
        let fresh = self.held.is_empty();
        if !fresh {
            joined.clear();
            joined.extend_from_slice(&self.held);
            joined.extend_from_slice(chunk);
        }
        let text = Text::new(if fresh { chunk } else { &joined }, end);
        let push = self.advance(scrubber, &text, fresh, out);
        self.joined = joined;
        push
    }

    /// The bytes that are held back, as they came.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// Forgets the held bytes because the caller kept them and will pass them again at the start of the next piece.
    pub fn clear_held(&mut self) {
        self.held.zeroize();
    }

    fn advance(&mut self, scrubber: &Scrubber, text: &Text<'_>, fresh: bool, out: &mut Vec<u8>) -> Push {
        let Some(index) = &scrubber.index else {
            return self.pass(text, text.len(), fresh, out);
        };
        let findings = scan(&scrubber.forms, index, text, self.after_base64, self.covered);
        scrubber.count_steps(text);
        let mut limit = findings.open.unwrap_or(text.len()).min(text.len());
        if findings.ranges.is_empty() {
            self.after_base64 = ends_in_base64(text, limit, self.after_base64);
            self.covered = 0;
            return self.pass(text, limit, fresh, out);
        }
        // A range goes out whole, unless ranges that touch each other have become longer than any one secret can be.
        if let Some(range) = findings.ranges.iter().find(|range| range.start < limit && limit < range.end)
            && text.len() - range.start <= scrubber.hold_max_bytes()
            && !range.continued
        {
            limit = range.start;
        }
        let (mut redactions, mut sent) = (0, 0);
        let mut covered = 0;
        for range in &findings.ranges {
            if range.start >= limit {
                break;
            }
            out.extend_from_slice(text.bytes.get(sent..range.start).unwrap_or_default());
            let mut range = *range;
            covered = range.end.saturating_sub(limit);
            range.end = range.end.min(limit);
            scrubber.filler.fill(text, &range, out);
            sent = range.end;
            redactions += u64::from(!range.continued);
        }
        out.extend_from_slice(text.bytes.get(sent..limit).unwrap_or_default());
        self.after_base64 = ends_in_base64(text, limit, self.after_base64);
        self.covered = covered;
        self.hold(text, limit);
        Push { redactions, held: self.held.len(), unchanged: false, verbatim: None }
    }

    fn pass(&mut self, text: &Text<'_>, limit: usize, fresh: bool, out: &mut Vec<u8>) -> Push {
        if !fresh {
            out.extend_from_slice(text.bytes.get(..limit).unwrap_or_default());
        }
        self.hold(text, limit);
        let unchanged = fresh && limit == text.len();
        Push { redactions: 0, held: self.held.len(), unchanged, verbatim: fresh.then_some(limit) }
    }

    fn hold(&mut self, text: &Text<'_>, limit: usize) {
        self.held.clear();
        self.held.extend_from_slice(text.bytes.get(limit..).unwrap_or_default());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.held.zeroize();
        self.joined.zeroize();
    }
}
