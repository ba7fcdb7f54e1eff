//! Response bodies: whole, fed piece by piece, and with trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc;

const PIECES_UNDER_WAY: usize = 4;

/// The body of every answer of this server.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A body whose pieces come from a task.
struct Feed {
    pieces: mpsc::Receiver<Frame<Bytes>>,
    remaining_bytes: Option<u64>,
}

/// A body that is there at once.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A body and the end into which its pieces go; with a length, the answer has a content-length.
pub(crate) fn fed(length: Option<u64>) -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, pieces) = mpsc::channel(PIECES_UNDER_WAY);
    (sender, Feed { pieces, remaining_bytes: length }.boxed())
}

/// A body whose pieces are written one by one with a pause between, so that each is a write of its own.
pub(crate) fn paced(pieces: Vec<Bytes>, pause: Duration, trailers: Option<HeaderMap>, sized: bool) -> Body {
    let length = pieces.iter().map(|piece| piece.len() as u64).sum();
    let (sender, body) = fed(sized.then_some(length));
    tokio::spawn(async move {
        let data = pieces.into_iter().map(Frame::data);
        for (position, frame) in data.chain(trailers.map(Frame::trailers)).enumerate() {
            if position > 0 {
                tokio::time::sleep(pause).await;
            }
            if sender.send(frame).await.is_err() {
                return;
            }
        }
    });
    body
}

// === impl Feed ===

impl hyper::body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.pieces.poll_recv(cx);
        if let Poll::Ready(Some(frame)) = &frame {
            let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.remaining_bytes = self.remaining_bytes.map(|bytes| bytes.saturating_sub(sent));
        }
        frame.map(|frame| frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining_bytes.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
