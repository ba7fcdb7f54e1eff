//! Replaces text in string values of a JSON document and leaves every other byte as it is.

use zeroize::Zeroizing;

/// One step from a container to what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The member with this key, without its escapes.
    Member(String),
    /// The element of this number.
    Element(usize),
}

/// Where in a document a reader stands.
struct Walk<'a> {
    text: &'a [u8],
    at: usize,
    path: Vec<Step>,
    /// For each open container: whether it is an object whose next string is a key.
    open: Vec<Container>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    ObjectBeforeKey,
    ObjectBeforeValue,
}

/// `text`, which is valid JSON, with `from` replaced by `to` in every string value whose path `selects`. Both are written
/// as they stand between quotes; `from` holds no character that JSON escapes. Where the beginning of `from` belongs to an
/// escape (`\token` for `token`), it is another text and stays. `room` is how long it can get.
pub(super) fn replace(
    text: &[u8],
    from: &[u8],
    to: &[u8],
    room: usize,
    selects: impl Fn(&[Step]) -> bool,
) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(room));
    let mut walk = Walk { text, at: 0, path: Vec::new(), open: Vec::new() };
    let mut copied = 0;
    while let Some((start, end)) = walk.next_value() {
        if !selects(&walk.path) {
            continue;
        }
        let mut at = start;
        while let Some(rest @ [_, ..]) = text.get(at..end) {
            if rest.starts_with(from) {
                out.extend_from_slice(text.get(copied..at).unwrap_or_default());
                out.extend_from_slice(to);
                at += from.len();
                copied = at;
            } else {
                at += character(rest);
            }
        }
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    out
}

/// How many bytes the first character takes, or the first byte of one that is not escaped.
fn character(text: &[u8]) -> usize {
    match text {
        [b'\\', b'u', ..] => 6,
        [b'\\', ..] => 2,
        _ => 1,
    }
}

// === impl Walk ===

impl Walk<'_> {
    /// The next string value: where what stands between its quotes begins and ends. The path leads to it.
    fn next_value(&mut self) -> Option<(usize, usize)> {
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'{' => {
                    self.open.push(Container::ObjectBeforeKey);
                    self.path.push(Step::Member(String::new()));
                }
                b'[' => {
                    self.open.push(Container::Array);
                    self.path.push(Step::Element(0));
                }
                b'}' | b']' => {
                    self.open.pop();
                    self.path.pop();
                }
                b':' => self.set_last(Container::ObjectBeforeValue),
                b',' => match (self.open.last(), self.path.last_mut()) {
                    (Some(Container::Array), Some(Step::Element(number))) => *number += 1,
                    _ => self.set_last(Container::ObjectBeforeKey),
                },
                b'"' => {
                    let start = self.at;
                    let end = self.skip_string();
                    if self.open.last() != Some(&Container::ObjectBeforeKey) {
                        return Some((start, end));
                    }
                    let quoted = self.text.get(start - 1..=end).unwrap_or_default();
                    let key = serde_json::from_slice::<String>(quoted).unwrap_or_default();
                    if let Some(last) = self.path.last_mut() {
                        *last = Step::Member(key);
                    }
                }
                _ => {}
            }
        }
    }

    fn set_last(&mut self, container: Container) {
        if let Some(last) = self.open.last_mut() {
            *last = container;
        }
    }

    /// Goes behind the closing quote; returns where it stands.
    fn skip_string(&mut self) -> usize {
        loop {
            match self.text.get(self.at) {
                Some(b'\\') => self.at += 2,
                Some(b'"') => {
                    self.at += 1;
                    return self.at - 1;
                }
                Some(_) => self.at += 1,
                None => return self.text.len(),
            }
        }
    }
}
