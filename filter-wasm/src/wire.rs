//! Writes protobuf messages field by field from borrowed bytes, so that a Check costs no copy of a header or a body but
//! the one into the message.

/// A protobuf message under construction.
#[derive(Default)]
pub(crate) struct Message {
    bytes: Vec<u8>,
}

// === impl Message ===

impl Message {
    /// A message with room for `capacity` bytes.
    pub(crate) fn with_capacity(capacity: usize) -> Message {
        Message { bytes: Vec::with_capacity(capacity) }
    }

    /// A `string`, `bytes` or embedded message field; an empty one is left out, as proto3 does.
    pub(crate) fn bytes(&mut self, tag: u32, value: &[u8]) -> &mut Message {
        if !value.is_empty() {
            self.delimited(tag, value);
        }
        self
    }

    /// A `string` field from bytes that may not be UTF-8: what is not becomes U+FFFD, since proto3 strings must be.
    pub(crate) fn text(&mut self, tag: u32, value: &[u8]) -> &mut Message {
        match std::str::from_utf8(value) {
            Ok(_) => self.bytes(tag, value),
            Err(_) => self.bytes(tag, String::from_utf8_lossy(value).as_bytes()),
        }
    }

    /// An integer field; zero is left out.
    pub(crate) fn integer(&mut self, tag: u32, value: u64) -> &mut Message {
        if value != 0 {
            self.varint(u64::from(tag) << 3);
            self.varint(value);
        }
        self
    }

    /// An embedded message, written even when it is empty.
    pub(crate) fn message(&mut self, tag: u32, value: &Message) -> &mut Message {
        self.delimited(tag, &value.bytes);
        self
    }

    /// One entry of a `map<string, string>`.
    pub(crate) fn entry(&mut self, tag: u32, key: &str, value: &[u8]) -> &mut Message {
        let mut entry = Message::with_capacity(key.len() + value.len() + 8);
        entry.bytes(1, key.as_bytes()).text(2, value);
        self.message(tag, &entry)
    }

    /// The encoded message.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn delimited(&mut self, tag: u32, value: &[u8]) {
        self.varint(u64::from(tag) << 3 | 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }
}
