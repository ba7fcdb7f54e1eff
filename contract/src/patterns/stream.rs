//! Looks through a body that arrives in pieces.

use zeroize::Zeroize;

use super::guard::{Action, Finding, Guard};

/// How much of what was sent on is remembered, to tell where a word begins.
const BEFORE_BYTES: usize = 6;

/// What text is overwritten with.
const FILLER: &[u8] = b"REDACTED";

/// What remains to be known between two pieces of one body. Wiped on drop.
#[derive(Default)]
pub struct Stream {
    before: Vec<u8>,
    kept: Vec<u8>,
    running: Option<Running>,
    /// The place in the filler, so that a credential in two pieces is overwritten alike.
    filled: usize,
}

/// A credential that goes on beyond what was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Running {
    /// A private key: everything up to the line that ends it.
    Key {
        /// How many dashes stood at the end.
        dashes: u8,
        /// The last character was a backslash.
        escape: bool,
        masks: bool,
    },
    /// A token: as far as its alphabet goes.
    Token { masks: bool },
}

/// What became of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// What was found in it. Where it says `blocked`, nothing from the credential on was sent.
    pub finding: Finding,
    /// How many bytes are now held back.
    pub held: usize,
}

// === impl Stream ===

impl Stream {
    /// Takes the next piece; `end` says that it is the last. Appends to `out` what may be sent on.
    pub fn push(&mut self, guard: &Guard, piece: &[u8], end: bool, out: &mut Vec<u8>) -> Passed {
        let mut text = std::mem::take(&mut self.kept);
        text.extend_from_slice(piece);
        let mut finding = Finding::default();
        let sent_before = out.len();
        let mut at = self.go_on(&text, 0, out);
        loop {
            let rest = text.get(at..).unwrap_or_default();
            let (found, from) = match guard.find(&self.context(&text, at), rest, 0, end) {
                Ok(Some(place)) => (Some(place), at + place.start),
                Ok(None) => (None, text.len()),
                Err(open) => (None, at + open),
            };
            out.extend_from_slice(text.get(at..from).unwrap_or_default());
            let Some(place) = found else {
                self.kept.extend_from_slice(text.get(from..).unwrap_or_default());
                break;
            };
            finding.note(&place);
            if place.action == Action::Block {
                break;
            }
            let masks = place.action == Action::Mask;
            let length = place.end - place.start;
            let credential = text.get(from..from + length).unwrap_or_default();
            let is_key = credential.starts_with(b"-----");
            // The line that says which key begins tells nothing; the key is below it.
            if masks && !is_key {
                self.fill(credential, out)
            } else {
                out.extend_from_slice(credential)
            }
            at = from + length;
            if place.goes_on {
                self.running = Some(if is_key {
                    Running::Key { dashes: 0, escape: false, masks }
                } else {
                    Running::Token { masks }
                });
                at = self.go_on(&text, at, out);
            }
        }
        self.remember(out.get(sent_before..).unwrap_or_default());
        text.zeroize();
        Passed { finding, held: self.kept.len() }
    }

    /// How many bytes are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.kept.len()
    }

    /// Drops and wipes what is held back.
    pub fn wipe(&mut self) {
        self.kept.zeroize();
    }

    /// Sends on the rest of a credential that began before; returns where it ends.
    fn go_on(&mut self, text: &[u8], start: usize, out: &mut Vec<u8>) -> usize {
        let mut at = start;
        while let (Some(running), Some(byte)) = (self.running, text.get(at).copied()) {
            let (next, masks) = match running {
                Running::Token { masks } => {
                    let goes_on = super::check::is_url_safe_dotted(byte) || byte == b'=';
                    (goes_on.then_some(running), masks)
                }
                Running::Key { escape: true, masks, .. } => {
                    out.push(byte);
                    at += 1;
                    self.running = Some(Running::Key { dashes: 0, escape: false, masks });
                    continue;
                }
                Running::Key { dashes: 4, masks, .. } if byte == b'-' => (None, masks),
                Running::Key { dashes, masks, .. } => {
                    let dashes = if byte == b'-' { dashes + 1 } else { 0 };
                    let goes_on = byte.is_ascii_alphanumeric()
                        || byte.is_ascii_whitespace()
                        || matches!(byte, b'+' | b'/' | b'=' | b'\\' | b'-' | b':' | b',' | b'.' | b'_' | b'%');
                    (goes_on.then_some(Running::Key { dashes, escape: byte == b'\\', masks }), masks)
                }
            };
            self.running = next;
            if next.is_none() && byte != b'-' {
                break;
            }
            if masks && (byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_')) {
                self.fill(&[byte], out);
            } else {
                out.push(byte);
            }
            at += 1;
        }
        at
    }

    fn fill(&mut self, credential: &[u8], out: &mut Vec<u8>) {
        for _ in credential {
            out.push(FILLER.get(self.filled % FILLER.len()).copied().unwrap_or(b'X'));
            self.filled = self.filled.wrapping_add(1);
        }
    }

    /// What stands before `at`.
    fn context(&self, text: &[u8], at: usize) -> Vec<u8> {
        let near = text.get(at.saturating_sub(BEFORE_BYTES)..at).unwrap_or_default();
        if near.len() == BEFORE_BYTES { near.to_vec() } else { [self.before.as_slice(), near].concat() }
    }

    fn remember(&mut self, sent: &[u8]) {
        self.before.extend_from_slice(sent.get(sent.len().saturating_sub(BEFORE_BYTES)..).unwrap_or_default());
        let surplus = self.before.len().saturating_sub(BEFORE_BYTES);
        self.before.drain(..surplus);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.kept.zeroize();
        self.before.zeroize();
    }
}
