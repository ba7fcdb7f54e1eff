//! Where a body may be sent on, judged without any look at the secret.

/// The fewest characters of encoded text on a line that may go on in the next one, where other text stands before them.
const WRAPPED_MIN_BYTES: usize = 16;

/// How many bytes are looked at together.
const BLOCK_BYTES: usize = 64;

/// Places that no form of any secret goes across.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Barriers {
    /// The empty line after a server-sent event: the `data:` lines of one event read as one text.
    Events,
    /// The ends of lines, except of those that may be a part of wrapped base64, hexadecimal or quoted-printable text.
    Lines,
    /// None: a secret has line breaks itself.
    None,
}

// === impl Barriers ===

impl Barriers {
    /// How many bytes at the start of this text may go: all up to the last barrier, and all but the last `hold_max`. The
    /// first `known` bytes have no barrier.
    pub(super) fn released(self, text: &[u8], known: usize, hold_max: usize) -> usize {
        let oldest = text.len().saturating_sub(hold_max);
        let first = known.max(oldest).min(text.len());
        let fresh = text.get(first..).unwrap_or_default();
        let mut end = text.len();
        for block in fresh.rchunks(BLOCK_BYTES) {
            let start = end - block.len();
            // Written so that it compiles to vector instructions.
            if block.iter().fold(0, |any, byte| any | u8::from(is_break(*byte))) != 0
                && let Some(barrier) = (start..end).rev().find(|at| self.stands_at(text, *at))
            {
                return barrier + 1;
            }
            end = start;
        }
        oldest
    }

    /// Whether there is a line break at `at` that is one.
    fn stands_at(self, text: &[u8], at: usize) -> bool {
        if !text.get(at).is_some_and(|byte| is_break(*byte)) {
            return false;
        }
        let mut line = text.get(..at).unwrap_or_default();
        if text.get(at) == Some(&b'\n') {
            line = line.strip_suffix(b"\r").unwrap_or(line);
        }
        let Some(last) = line.last() else { return false };
        match self {
            Barriers::Events => is_break(*last),
            Barriers::Lines => {
                let encoded = line.iter().rev().take(WRAPPED_MIN_BYTES).take_while(|byte| is_encoded(**byte)).count();
                // Nothing but encoded text and its indent counts however short it is.
                let before = line.iter().rev().skip(encoded).find(|byte| !matches!(byte, b' ' | b'\t'));
                encoded < WRAPPED_MIN_BYTES && *last != b'=' && (encoded == 0 || before.is_some_and(|b| !is_break(*b)))
            }
            Barriers::None => false,
        }
    }
}

fn is_break(byte: u8) -> bool {
    (byte == b'\n') | (byte == b'\r')
}

/// Whether base64, hexadecimal or quoted-printable text, escaped or not, may consist of it.
fn is_encoded(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=' | b'%' | b'&' | b'#' | b';' | b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn released(barriers: Barriers, text: &str) -> &str {
        &text[..barriers.released(text.as_bytes(), 0, 1000)]
    }

    #[test]
    fn an_event_goes_when_its_empty_line_is_there() {
        for (text, expected) in [
            ("data: a\n\n", "data: a\n\n"),
            ("data: a\r\n\r\n", "data: a\r\n\r\n"),
            ("data: a\r\r", "data: a\r\r"),
            ("data: a\n\ndata: b\n", "data: a\n\n"),
            ("data: a\n", ""),
            ("data: a\r\n", ""),
            ("data: a\n\r\ndata", "data: a\n\r\n"),
        ] {
            assert_eq!(released(Barriers::Events, text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_goes_unless_it_may_be_wrapped_text() {
        let wrapped = "QUJDREVGR0hJSktM";
        for (text, expected) in [
            ("{\"a\":1}\n{", "{\"a\":1}\n"),
            ("the server started\n", "the server started\n"),
            ("a line\r\n\r\n", "a line\r\n\r\n"),
            (" \n", " \n"),
            (&format!("key: {wrapped}\n"), ""),
            (&format!("key: {wrapped}\r\n"), ""),
            ("one word:\nstarted\n", "one word:\n"),
            ("one word:\n\t started\n", "one word:\n"),
            ("soft line=\n", ""),
            ("started\n", ""),
            ("no line end", ""),
        ] {
            assert_eq!(released(Barriers::Lines, text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_older_than_the_longest_form_goes() {
        for barriers in [Barriers::Events, Barriers::Lines, Barriers::None] {
            assert_eq!(barriers.released(&[b'a'; 1200], 0, 1000), 200);
            assert_eq!(barriers.released(&[b'a'; 1000], 700, 1000), 0);
        }
        assert_eq!(Barriers::None.released(b"a.\n\n", 0, 1000), 0);
    }
}
