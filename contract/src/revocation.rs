//! What the server tells every filter about revocations, over one gRPC stream per worker: which subjects are revoked, and that it
//! is still there.
//!
//! The published form is `contract/proto/keyward/v1/revocations.proto`. A subject is a [`Tag`]: who hears the stream learns
//! nobody's name. Each allowed request comes with the tags that it rests on, in [`SUBJECTS_HEADER`], so that the filter ends
//! it when one of them is revoked.

/// The gRPC service.
pub const SERVICE: &str = "keyward.v1.Revocations";
/// The gRPC method, streaming from the server.
pub const METHOD: &str = "Watch";
/// A header in `OkHttpResponse.headers` that the filter keeps for itself: the tags that the request rests on, as its `raw_value`,
/// one behind the other. At most one. Sent only to a caller that names the contract version.
pub const SUBJECTS_HEADER: &str = "x-keyward-subjects";
/// The length of a tag, in bytes.
pub const TAG_BYTES: usize = 16;
/// The most tags that one request rests on. A filter that reads more denies.
pub const SUBJECTS_MAX: usize = 64;
/// The most tags in one update; further ones follow in the next.
pub const UPDATE_TAGS_MAX: usize = 2048;
/// The most subjects that can be revoked at once.
pub const REVOKED_MAX: usize = 100_000;
/// How often the server says at least that it is there and knows what is revoked, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1000;

/// A subject of revocations: the first bytes of a SHA-256.
pub type Tag = [u8; TAG_BYTES];

/// Asks for everything that is revoked, and for every change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchRequest {}

/// A change, or, without a field, the word that nothing has changed.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    /// Whether everything that was said before is void: what is revoked follows, from here on.
    #[prost(bool, tag = "1")]
    pub reset: bool,
    /// Tags that are revoked, one behind the other.
    #[prost(bytes = "vec", tag = "2")]
    pub revoked: Vec<u8>,
    /// Tags that are not revoked any more.
    #[prost(bytes = "vec", tag = "3")]
    pub lifted: Vec<u8>,
    /// Whether everything was said that is known: false in all parts of a long update but the last.
    #[prost(bool, tag = "4")]
    pub complete: bool,
}

/// The tags in some bytes; `None` where they are not whole tags.
#[must_use]
pub fn tags(bytes: &[u8]) -> Option<impl Iterator<Item = Tag> + '_> {
    let (tags, rest) = bytes.as_chunks::<TAG_BYTES>();
    rest.is_empty().then(|| tags.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_tags_are_read() {
        assert_eq!(tags(&[]).map(Iterator::count), Some(0));
        assert_eq!(tags(&[7; 32]).map(Iterator::collect::<Vec<_>>), Some(vec![[7; 16]; 2]));
        for length in [1, 15, 17, 31, 33] {
            assert!(tags(&vec![0; length]).is_none(), "{length}");
        }
    }
}
