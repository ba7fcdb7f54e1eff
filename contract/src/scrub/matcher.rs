//! Finds where one of many patterns may begin: Wu and Manber's matcher over blocks of three case-folded bytes.
//!
//! Only the first [`Matcher::window`] bytes of each pattern are looked at, so building it costs the same for long and
//! short secrets, and its answers are candidates that the caller verifies. It is built for each request: aho-corasick
//! takes some hundred times as long to build and, inside V8, ten times as long to scan.

/// The most bytes of a pattern that are used: more would skip further but rarely does.
const WINDOW_MAX_BYTES: usize = 16;
const BLOCK: usize = 3;
const SLOTS: usize = 4096;
const NONE: u32 = u32::MAX;

/// Candidates by the last block of their window.
pub(super) struct Matcher {
    window: usize,
    /// How far the window may move on when it ends in this block.
    shifts: Box<[u8; SLOTS]>,
    /// The first pattern of each slot, then the next of each pattern.
    heads: Box<[u32; SLOTS]>,
    next: Vec<u32>,
}

// === impl Matcher ===

impl Matcher {
    /// A matcher for these patterns, each at least three bytes long.
    pub(super) fn new<'a>(patterns: impl Iterator<Item = &'a [u8]> + Clone) -> Matcher {
        let window = patterns.clone().map(<[u8]>::len).min().unwrap_or(0).clamp(BLOCK, WINDOW_MAX_BYTES);
        let furthest = (window - BLOCK + 1) as u8;
        let mut matcher = Matcher {
            window,
            shifts: Box::new([furthest; SLOTS]),
            heads: Box::new([NONE; SLOTS]),
            next: Vec::with_capacity(patterns.size_hint().0),
        };
        for (number, pattern) in patterns.enumerate() {
            let blocks = pattern.get(..window).unwrap_or(pattern).windows(BLOCK);
            let mut left = blocks.len();
            let mut last = 0;
            for block in blocks {
                left -= 1;
                last = slot(block);
                if let Some(shift) = matcher.shifts.get_mut(last) {
                    *shift = (*shift).min(left as u8);
                }
            }
            let before = matcher.heads.get_mut(last).map(|head| std::mem::replace(head, number as u32));
            matcher.next.push(before.unwrap_or(NONE));
        }
        matcher
    }

    /// How many bytes of each pattern are compared.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Calls `candidate(pattern number, start)` for each place where a window of a pattern may start, in order of place.
    pub(super) fn scan(&self, text: &[u8], mut candidate: impl FnMut(usize, usize)) {
        let mut end = self.window;
        while let Some(block) = text.get(end.wrapping_sub(BLOCK)..end) {
            let slot = slot(block);
            let shift = self.shifts.get(slot).copied().unwrap_or(1);
            if shift > 0 {
                end += usize::from(shift);
                continue;
            }
            let mut number = self.heads.get(slot).copied().unwrap_or(NONE);
            while number != NONE {
                candidate(number as usize, end - self.window);
                number = self.next.get(number as usize).copied().unwrap_or(NONE);
            }
            end += 1;
        }
    }
}

/// Upper and lower case letters share a slot; so do some other bytes, which costs nothing but a look.
#[inline]
fn slot(block: &[u8]) -> usize {
    let [first, second, third] = *block else { return 0 };
    let folded = u32::from_le_bytes([first, second, third, 0]) | 0x20_20_20;
    (folded.wrapping_mul(0x9e37_79b1) >> 20) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(patterns: &[&[u8]], text: &[u8]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        Matcher::new(patterns.iter().copied()).scan(text, |number, start| found.push((number, start)));
        found
    }

    #[test]
    fn candidates_are_found_in_either_case_and_at_both_ends() {
        let found = starts(&[b"needle-one", b"other-word"], b"NEEDLE-one needle-one OTHER-WORD");
        assert_eq!(found, [(0, 0), (0, 11), (1, 22)]);
    }

    #[test]
    fn text_shorter_than_the_window_has_no_candidate() {
        assert!(starts(&[b"needle-one"], b"needle-on").is_empty());
        assert!(starts(&[b"needle-one"], b"").is_empty());
    }

    #[test]
    fn a_pattern_that_is_a_prefix_of_another_does_not_hide_it() {
        assert_eq!(starts(&[b"needle", b"needles and pins"], b"needles and pins").len(), 2);
    }
}
