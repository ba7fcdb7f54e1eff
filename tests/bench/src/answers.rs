//! What the bench upstream answers: the same bytes for the same request, so that every answer can be compared whole.

use bytes::Bytes;

/// The request header that selects the answer, for example `16k-sse`.
pub const ANSWER_HEADER: &str = "x-bench-answer";

/// How an answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One JSON object with a content length.
    Json,
    /// Several server-sent events, chunked.
    Sse,
}

/// The size of an answer, and its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answer {
    /// The length of the whole body in bytes.
    pub bytes: usize,
    /// The framing.
    pub kind: Kind,
}

/// An answer as it is sent: one piece for JSON, one piece an event for SSE.
pub struct Body {
    /// The pieces in order.
    pub pieces: Vec<Bytes>,
    /// All pieces together.
    pub whole: Bytes,
}

/// The sizes in bytes and their names.
pub const SIZES: [(usize, &str); 3] = [(400, "400b"), (16 * 1024, "16k"), (256 * 1024, "256k")];

const EVENT_BYTES: usize = 4096;
const LEAST_EVENTS: usize = 3;
/// Prose and punctuation with the letters, digits and quotes that tool results are made of.
const TEXT: &str = "Order 40781 was shipped on 2026-03-14 to Łódź; the parcel weighs 2.35 kg. See \
                    https://shop.example/orders/40781?view=full&lang=en for the invoice (PDF, 84 KB). \
                    Customer: María Fernández <maria@customer.example>, loyalty id c-7f3a90e2. ";

// === impl Kind ===

impl Kind {
    /// The content type of the answer.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Kind::Json => "application/json",
            Kind::Sse => "text/event-stream",
        }
    }
}

// === impl Answer ===

impl Answer {
    /// Every answer that is measured.
    #[must_use]
    pub fn all() -> Vec<Answer> {
        let of_size = |(bytes, _)| [Kind::Json, Kind::Sse].map(|kind| Answer { bytes, kind });
        SIZES.into_iter().flat_map(of_size).collect()
    }

    /// Its name, for example `16k_json`.
    #[must_use]
    pub fn name(self) -> String {
        let size = SIZES.iter().find(|(bytes, _)| *bytes == self.bytes).map_or("other", |(_, name)| name);
        let kind = if self.kind == Kind::Json { "json" } else { "sse" };
        format!("{size}_{kind}")
    }

    /// The answer with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Answer> {
        Answer::all().into_iter().find(|answer| answer.name() == name)
    }

    /// Its bytes.
    #[must_use]
    pub fn body(self) -> Body {
        let pieces = match self.kind {
            Kind::Json => vec![Bytes::from(result(self.bytes))],
            Kind::Sse => {
                let events = (self.bytes / EVENT_BYTES).max(LEAST_EVENTS);
                let share = self.bytes / events;
                let size = |at| if at + 1 == events { self.bytes - share * (events - 1) } else { share };
                (0..events).map(|at| Bytes::from(event(size(at), at + 1 == events))).collect()
            }
        };
        let whole = Bytes::from(pieces.concat());
        Body { pieces, whole }
    }
}

/// A JSON-RPC result of exactly `bytes` bytes.
fn result(bytes: usize) -> String {
    padded(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":""#, r#""}],"isError":false}}"#, bytes)
}

/// An event of exactly `bytes` bytes: a log message, or the result as the last one.
fn event(bytes: usize, last: bool) -> String {
    if last {
        let frame = "event: message\ndata: \n\n".len();
        return format!("event: message\ndata: {}\n\n", result(bytes.saturating_sub(frame)));
    }
    let start = r#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":""#;
    padded(start, "\"}}\n\n", bytes)
}

fn padded(start: &str, end: &str, bytes: usize) -> String {
    let room = bytes.saturating_sub(start.len() + end.len());
    let mut text = String::with_capacity(bytes);
    text.push_str(start);
    for char in TEXT.chars().cycle() {
        let left = (room + start.len()).saturating_sub(text.len());
        match left {
            0 => break,
            left if char.len_utf8() > left => text.push('.'),
            _ => text.push(char),
        }
    }
    text.push_str(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_exactly_the_size_they_are_named_after() {
        for answer in Answer::all() {
            let body = answer.body();
            assert_eq!(body.whole.len(), answer.bytes, "{}", answer.name());
            assert_eq!(Answer::named(&answer.name()), Some(answer));
        }
    }

    #[test]
    fn every_json_text_in_an_answer_parses() {
        for answer in Answer::all() {
            let body = answer.body();
            for piece in &body.pieces {
                let text = std::str::from_utf8(piece).unwrap();
                let json = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(text);
                serde_json::from_str::<serde_json::Value>(json).unwrap();
            }
            assert_eq!(body.pieces.len() > 1, answer.kind == Kind::Sse);
        }
    }
}
