//! What is prepared once per request: the matcher, and which bytes and pairs of bytes start a form.

use crate::encodings::Forms;

use super::matcher::Matcher;

const NONE: u32 = u32::MAX;
const SLOTS: usize = 4096;
/// Occurs within the window of a form.
pub(super) const OCCURS: u8 = 1;
/// Occurs there with a byte after it.
pub(super) const LEADS: u8 = 2;

/// Everything that is prepared once per request.
pub(super) struct Index {
    pub(super) matcher: Matcher,
    /// Forms by their first byte, then by number.
    firsts: Box<[u32; 256]>,
    next_first: Vec<u32>,
    /// Positions (form number times window plus offset) by the pair of bytes that ends there.
    pairs: Box<[u32; SLOTS]>,
    next_pair: Vec<u32>,
    /// What each byte does near the start of some form.
    roles: Box<[u8; 256]>,
    /// Base64 values that can stand before a form that shares bits with them.
    pub(super) shared: u64,
    /// The length of the shortest form.
    pub(super) shortest: usize,
}

// === impl Index ===

impl Index {
    pub(super) fn of(forms: &Forms) -> Index {
        let matcher = Matcher::new(forms.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>().into_iter());
        let window = matcher.window();
        let mut index = Index {
            matcher,
            firsts: Box::new([NONE; 256]),
            next_first: vec![NONE; forms.len()],
            pairs: Box::new([NONE; SLOTS]),
            next_pair: vec![NONE; forms.len() * window],
            roles: Box::new([0; 256]),
            shared: 0,
            shortest: forms.iter().map(|(_, bytes)| bytes.len()).min().unwrap_or(0),
        };
        for (number, (form, bytes)) in forms.iter().enumerate() {
            let bytes = bytes.get(..window).unwrap_or(bytes);
            let first = bytes.first().map_or(0, |byte| usize::from(byte.to_ascii_lowercase()));
            link(index.firsts.get_mut(first), index.next_first.get_mut(number), number);
            for (offset, pair) in bytes.windows(2).enumerate() {
                let [left, right] = [pair.first(), pair.last()].map(|byte| byte.copied().unwrap_or_default());
                let position = number * window + offset + 1;
                let head = index.pairs.get_mut(pair_slot(left, right));
                link(head, index.next_pair.get_mut(position), position);
                index.add_role(left, LEADS | OCCURS);
                index.add_role(right, OCCURS);
            }
            if let Some(bits) = form.before {
                (0..64).for_each(|value| {
                    if bits.agree_with(value) {
                        index.shared |= 1 << value;
                    }
                });
            }
        }
        index
    }

    fn add_role(&mut self, byte: u8, role: u8) {
        for byte in [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()] {
            if let Some(roles) = self.roles.get_mut(usize::from(byte)) {
                *roles |= role;
            }
        }
    }

    pub(super) fn plays(&self, byte: u8, role: u8) -> bool {
        self.roles.get(usize::from(byte)).is_some_and(|roles| roles & role != 0)
    }

    pub(super) fn forms_starting_with(&self, byte: u8) -> impl Iterator<Item = usize> + '_ {
        let head = self.firsts.get(usize::from(byte.to_ascii_lowercase())).copied();
        follow(head, &self.next_first)
    }

    /// (form, offset) of all places in the windows where this pair of bytes ends; a few others come along.
    pub(super) fn positions_of(&self, left: u8, right: u8) -> impl Iterator<Item = (usize, usize)> + '_ {
        let window = self.matcher.window();
        let head = self.pairs.get(pair_slot(left, right)).copied();
        follow(head, &self.next_pair).map(move |position| (position / window, position % window))
    }

    /// Whether this pair of bytes can be near the start of a form, or looks like one that is.
    pub(super) fn has_pair(&self, left: u8, right: u8) -> bool {
        self.pairs.get(pair_slot(left, right)).is_some_and(|head| *head != NONE)
    }

    /// Whether a form can start with this byte.
    pub(super) fn has_first(&self, byte: u8) -> bool {
        self.firsts.get(usize::from(byte.to_ascii_lowercase())).is_some_and(|head| *head != NONE)
    }

    /// Whether the text before a form may end in this base64 value.
    pub(super) fn shares_bits_with(&self, value: u8) -> bool {
        self.shared >> (value & 63) & 1 == 1
    }
}

fn link(head: Option<&mut u32>, next: Option<&mut u32>, number: usize) {
    if let (Some(head), Some(next)) = (head, next) {
        *next = std::mem::replace(head, number as u32);
    }
}

fn follow(head: Option<u32>, next: &[u32]) -> impl Iterator<Item = usize> + '_ {
    let mut number = head.unwrap_or(NONE);
    std::iter::from_fn(move || {
        let current = number as usize;
        (number != NONE).then(|| number = next.get(current).copied().unwrap_or(NONE))?;
        Some(current)
    })
}

fn pair_slot(left: u8, right: u8) -> usize {
    let pair = u32::from(left.to_ascii_lowercase()) << 8 | u32::from(right.to_ascii_lowercase());
    (pair.wrapping_mul(0x9e37_79b1) >> 20) as usize
}
