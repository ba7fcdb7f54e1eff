//! Server-sent events, with the moment at which each was complete.

use std::time::Duration;

use crate::client::Chunk;

/// One event of a `text/event-stream`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When its last byte arrived, counted from the moment the request was sent.
    pub at: Duration,
    /// The `event` field; empty where absent.
    pub kind: String,
    /// The `id` field; empty where absent.
    pub id: String,
    /// The `data` fields, joined with line feeds.
    pub data: String,
}

/// Reads the events of a response body, chunk by chunk. An unfinished event at the end is not an event.
#[must_use]
pub fn events(chunks: &[Chunk]) -> Vec<Event> {
    let mut found = Vec::new();
    let mut pending = Vec::new();
    for chunk in chunks {
        pending.extend(chunk.bytes.iter().copied().filter(|byte| *byte != b'\r'));
        while let Some(end) = pending.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = pending.drain(..end + 2).collect();
            found.extend(event(&String::from_utf8_lossy(&block), chunk.at));
        }
    }
    found
}

fn event(block: &str, at: Duration) -> Option<Event> {
    let mut event = Event { at, kind: String::new(), id: String::new(), data: String::new() };
    let mut data = Vec::new();
    for line in block.lines() {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => event.kind = value.to_owned(),
            "id" => event.id = value.to_owned(),
            "data" => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (!data.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(at_ms: u64, text: &str) -> Chunk {
        Chunk { at: Duration::from_millis(at_ms), bytes: text.to_owned().into() }
    }

    #[test]
    fn an_event_belongs_to_the_chunk_that_completes_it() {
        let chunks = [
            chunk(1, ": hello\n\nid: 7\ndata: a\r\nda"),
            chunk(2, "ta: b\n"),
            chunk(3, "\nevent: x\ndata:c\n\ndata: no"),
        ];
        let found = events(&chunks);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].at.as_millis(), found[0].id.as_str(), found[0].data.as_str()), (3, "7", "a\nb"));
        assert_eq!((found[1].kind.as_str(), found[1].data.as_str()), ("x", "c"));
    }
}
