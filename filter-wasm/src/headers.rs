//! A header map as the proxy hands it over: one block of bytes, read in place.

use std::borrow::Cow;

use keyward_contract::mcp;

/// The headers of a request or a response, in their order. Names are lower case.
#[derive(Default)]
pub(crate) struct HeaderList {
    block: Vec<u8>,
    /// Start and length of each name and value in `block`.
    entries: Vec<(Span, Span)>,
}

#[derive(Clone, Copy)]
struct Span {
    start: usize,
    len: usize,
}

// === impl HeaderList ===

impl HeaderList {
    /// Reads the proxy's serialized form: a count, the sizes of all pairs, then names and values, each ended by NUL. What
    /// does not fit that form is left out.
    pub(crate) fn new(block: Vec<u8>) -> HeaderList {
        let entries = read_spans(&block).unwrap_or_default();
        HeaderList { block, entries }
    }

    /// Names and values, repeated names as often as they came.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().filter_map(|(name, value)| {
            let name = std::str::from_utf8(self.bytes(*name)).ok()?;
            Some((name, self.bytes(*value)))
        })
    }

    /// The first value under a lower-case name.
    pub(crate) fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// Whether there is a header of this lower-case name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The value under a lower-case name as text; values of a repeated header are joined with a comma.
    pub(crate) fn joined(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut values =
            self.iter().filter(|(other, _)| *other == name).map(|(_, value)| String::from_utf8_lossy(value));
        let first = values.next()?;
        Some(values.fold(first, |all, next| Cow::Owned(format!("{all},{next}"))))
    }

    /// Each name once, in the order of first occurrence.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        let earlier = |name: &str, at: usize| self.iter().take(at).any(|(other, _)| other == name);
        self.iter().enumerate().filter(move |(at, (name, _))| !earlier(name, *at)).map(|(_, (name, _))| name)
    }

    fn bytes(&self, span: Span) -> &[u8] {
        self.block.get(span.start..span.start.saturating_add(span.len)).unwrap_or_default()
    }
}

impl mcp::Headers for HeaderList {
    fn get(&self, lower_case_name: &str) -> Option<Cow<'_, str>> {
        self.joined(lower_case_name)
    }

    fn visit(&self, visitor: &mut dyn FnMut(&str, &str) -> bool) {
        for name in self.names() {
            if !visitor(name, &self.joined(name).unwrap_or_default()) {
                return;
            }
        }
    }
}

fn read_spans(block: &[u8]) -> Option<Vec<(Span, Span)>> {
    let word = |at: usize| -> Option<usize> {
        let bytes: [u8; 4] = block.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let count = word(0)?;
    if count > block.len() {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut start = count.checked_mul(8)?.checked_add(4)?;
    for index in 0..count {
        let sizes = index * 8 + 4;
        let name = Span { start, len: word(sizes)? };
        let value = Span { start: name.start.checked_add(name.len)?.checked_add(1)?, len: word(sizes + 4)? };
        start = value.start.checked_add(value.len)?.checked_add(1)?;
        if start > block.len() {
            return None;
        }
        entries.push((name, value));
    }
    Some(entries)
}

/// The proxy's serialized form of a header list.
pub(crate) fn serialize(headers: &[(&str, &[u8])]) -> Vec<u8> {
    let size = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    let mut block = Vec::new();
    block.extend_from_slice(&size(headers.len()));
    for (name, value) in headers {
        block.extend_from_slice(&size(name.len()));
        block.extend_from_slice(&size(value.len()));
    }
    for (name, value) in headers {
        for bytes in [name.as_bytes(), value] {
            block.extend_from_slice(bytes);
            block.push(0);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_serialized() {
        let block = serialize(&[(":path", b"/mcp"), ("set-cookie", b"a=1"), ("set-cookie", b""), ("x", b"\xff\0y")]);
        let list = HeaderList::new(block);
        let all: Vec<_> = list.iter().collect();
        assert_eq!(all, [(":path", &b"/mcp"[..]), ("set-cookie", b"a=1"), ("set-cookie", b""), ("x", b"\xff\0y")]);
        assert_eq!(list.joined("set-cookie").as_deref(), Some("a=1,"));
        assert_eq!(list.first("absent"), None);
    }

    #[test]
    fn a_block_that_lies_about_its_sizes_is_empty() {
        for block in [&b""[..], b"\x01", b"\xff\xff\xff\xff", b"\x01\0\0\0\xff\xff\xff\xff\0\0\0\0a\0b\0"] {
            assert_eq!(HeaderList::new(block.to_vec()).iter().count(), 0);
        }
    }
}
