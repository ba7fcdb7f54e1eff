//! Scrubs a body that arrives in pieces.
//!
//! What is held back must not tell anything about the secret: whoever chooses the text and sees where the output stops
//! would otherwise guess it letter by letter. So the output stops only where the [`Barriers`] or the length say so, and
//! whatever may still become a secret is somewhere in what is held back anyway.

use zeroize::Zeroize;

use super::Scrubber;
use super::barrier::Barriers;
use super::escapes::Text;
use super::found::{Earlier, Found, apply};

/// What remains to be known between two pieces of one body. Wiped on drop.
pub struct Stream {
    barriers: Barriers,
    /// What was not sent on yet.
    kept: Vec<u8>,
    /// How many of the kept bytes are scrubbed; the rest may still become part of a secret.
    settled: usize,
    /// What is known of the bytes before those that are not settled.
    earlier: Earlier,
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
        Stream { barriers, kept: Vec::new(), settled: 0, earlier: Earlier::default() }
    }

    /// Takes the next piece; `end` says that it is the last. Appends to `out` what may be sent on, unless the returned
    /// [`Push::verbatim`] says that it is the start of the piece itself.
    pub fn push(&mut self, scrubber: &Scrubber, chunk: &[u8], end: bool, out: &mut Vec<u8>) -> Push {
        let Some(index) = &scrubber.index else {
            return Push { redactions: 0, held: 0, verbatim: Some(chunk.len()) };
        };
        let known = self.kept.len();
        let fresh = known == 0;
        if !fresh {
            self.kept.extend_from_slice(chunk);
        }
        let whole = if fresh { chunk } else { self.kept.as_slice() };
        let sent = if end { whole.len() } else { self.barriers.released(whole, known, scrubber.hold_max_bytes) };
        let text = Text::new(whole.get(self.settled..).unwrap_or_default(), end);
        let found = Found::of(scrubber, index, &text, self.earlier);
        let limit = found.settled(&text, sent.saturating_sub(self.settled));
        let (patches, redactions) = found.patches(scrubber, &text, limit);
        self.earlier = found.earlier(&text, limit, self.earlier);
        let unsettled = self.settled;
        self.settled += limit;
        if fresh {
            if patches.is_empty() {
                self.kept.extend_from_slice(chunk.get(sent..).unwrap_or_default());
                self.settled -= sent;
                return Push { redactions, held: self.kept.len(), verbatim: Some(sent) };
            }
            self.kept.extend_from_slice(chunk);
        }
        apply(&patches, unsettled, &mut self.kept);
        out.extend_from_slice(self.kept.get(..sent).unwrap_or_default());
        self.forget(sent);
        Push { redactions, held: self.kept.len(), verbatim: None }
    }

    /// Whether nothing of a body that begins with these bytes would be sent on before more of it is here.
    pub fn would_hold(&self, scrubber: &Scrubber, beginning: &[u8]) -> bool {
        !scrubber.is_empty() && self.barriers.released(beginning, 0, scrubber.hold_max_bytes) == 0
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

impl Drop for Stream {
    fn drop(&mut self) {
        self.kept.zeroize();
    }
}
