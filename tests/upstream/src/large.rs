//! Big bodies in constant memory: filler with the credential across every border of 16 KiB.

use bytes::Bytes;
use hyper::body::Frame;

use crate::body::{self, Body};

const BLOCK_BYTES: u64 = 16_384;
const FILLER: &[u8] = b"the quick brown fox jumps over the lazy dog; ";

/// A body of `head`, `size_bytes` of filler and credential, and `tail`.
#[derive(Clone)]
pub(crate) struct Large {
    /// What comes first.
    pub(crate) head: Vec<u8>,
    /// How many bytes of filler and credential follow.
    pub(crate) size_bytes: u64,
    /// The credential as written on the wire.
    pub(crate) written: Vec<u8>,
    /// What comes last.
    pub(crate) tail: Vec<u8>,
}

// === impl Large ===

impl Large {
    /// Starts writing the body.
    pub(crate) fn into_body(self, sized: bool) -> Body {
        let (sender, body) = body::fed(sized.then_some(self.len()));
        tokio::spawn(async move {
            let filler: Vec<u8> = FILLER.iter().copied().cycle().take(BLOCK_BYTES as usize).collect();
            for number in 0..self.len().div_ceil(BLOCK_BYTES) {
                let block = self.block(number, filler.clone());
                if sender.send(Frame::data(Bytes::from(block))).await.is_err() {
                    return;
                }
            }
        });
        body
    }

    fn len(&self) -> u64 {
        self.size_bytes.saturating_add((self.head.len() + self.tail.len()) as u64)
    }

    fn block(&self, number: u64, mut block: Vec<u8>) -> Vec<u8> {
        let from = number * BLOCK_BYTES;
        block.truncate(self.len().saturating_sub(from).min(BLOCK_BYTES) as usize);
        let text_from = self.head.len() as u64;
        let text_to = text_from.saturating_add(self.size_bytes);
        overlay(&mut block, from, 0, &self.head);
        for start in [Some(text_from), self.across(number), self.across(number + 1)].into_iter().flatten() {
            if start >= text_from && start.saturating_add(self.written.len() as u64) <= text_to {
                overlay(&mut block, from, start, &self.written);
            }
        }
        overlay(&mut block, from, text_to, &self.tail);
        block
    }

    // Where the credential starts that lies across the border before this block; each border cuts it elsewhere.
    fn across(&self, border: u64) -> Option<u64> {
        let cuts = (self.written.len() as u64).checked_sub(1).filter(|cuts| *cuts > 0)?;
        (border * BLOCK_BYTES).checked_sub(1 + border % cuts)
    }
}

// Writes the part of `bytes`, which start at `at`, that lies inside the block, which starts at `from`.
fn overlay(block: &mut [u8], from: u64, at: u64, bytes: &[u8]) {
    let skipped = from.saturating_sub(at).min(bytes.len() as u64) as usize;
    let start = at.saturating_sub(from).min(block.len() as u64) as usize;
    let targets = block.iter_mut().skip(start);
    for (target, byte) in targets.zip(bytes.iter().skip(skipped)) {
        *target = *byte;
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_credential_lies_across_every_border_and_the_length_is_right() {
        let size_bytes = 200_000;
        let large =
            Large { head: b"{\"a\":\"".to_vec(), size_bytes, written: b"S3CR3T".to_vec(), tail: b"\"}".to_vec() };
        let mut body = large.into_body(true);
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), Some(200_008));
        let mut pieces = Vec::new();
        while let Some(frame) = body.frame().await {
            pieces.push(frame.unwrap().into_data().unwrap());
        }
        let all = pieces.concat();
        assert_eq!(all.len(), 200_008);
        let text = String::from_utf8(all).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["a"].as_str().unwrap().len() as u64, size_bytes);
        let found: Vec<usize> = text.match_indices("S3CR3T").map(|(at, _)| at).collect();
        assert_eq!(found.len(), 13);
        for (border, at) in found.iter().enumerate().skip(1) {
            assert!((at + 1..at + 6).contains(&(border * 16_384)), "{border} {at}");
        }
    }

    #[tokio::test]
    async fn a_body_smaller_than_a_block_has_it_once() {
        let large = Large { head: b"<".to_vec(), size_bytes: 30, written: b"S3CR3T".to_vec(), tail: b">".to_vec() };
        let text = large.into_body(true).collect().await.unwrap().to_bytes();
        assert_eq!(&text[..], b"<S3CR3Tck brown fox jumps over >".as_slice());
    }
}
