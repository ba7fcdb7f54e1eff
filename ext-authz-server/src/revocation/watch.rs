//! Tells filters what is revoked: everything at first, then each change, and once a second that it is still known.

use std::sync::Arc;
use std::time::Duration;

use keyward_contract::revocation::{HEARTBEAT_MS, Tag, UPDATE_TAGS_MAX, Update, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Book, Gate};
use crate::engine::Engine;
use crate::report::proto::revocations_server::Revocations;

/// How many updates may wait for a filter that takes none.
const MAX_WAITING: usize = 4;

/// The service behind `keyward.v1.Revocations`.
pub struct Watches {
    engine: Arc<Engine>,
}

// === impl Watches ===

impl Watches {
    /// Tells of what this engine's plan knows.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Watches {
        Watches { engine }
    }
}

#[tonic::async_trait]
impl Revocations for Watches {
    type WatchStream = ReceiverStream<Result<Update, Status>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (updates, outgoing) = mpsc::channel(MAX_WAITING);
        tokio::spawn(tell(self.engine.clone(), updates));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Tells one filter, until it is gone or the drain begins.
async fn tell(engine: Arc<Engine>, updates: mpsc::Sender<Result<Update, Status>>) {
    let mut said = None;
    let mut told: Option<Arc<Book>> = None;
    loop {
        // A reload may bring revocations, or take them away.
        let gate = engine.plan().revocation().cloned();
        let book = gate.as_ref().and_then(Gate::book).cloned();
        let is_same = match (&told, &book) {
            (Some(told), Some(book)) => Arc::ptr_eq(told, book),
            (None, None) => said.is_some(),
            _ => false,
        };
        if !is_same {
            said = None;
        }
        // What is not known is not told: filters take silence for what it is.
        if gate.as_ref().is_none_or(|gate| gate.check().is_ok()) {
            let news = book.as_ref().map(|book| book.news(said));
            let (reset, revoked, lifted) = match &news {
                Some(news) => (news.reset, news.revoked.as_slice(), news.lifted.as_slice()),
                None => (said.is_none(), [].as_slice(), [].as_slice()),
            };
            for update in pages(reset, revoked, lifted) {
                if updates.send(Ok(update)).await.is_err() {
                    return;
                }
            }
            said = Some(news.map_or(0, |news| news.count));
            told.clone_from(&book);
        }
        let changed = async {
            match (&book, said) {
                // One that came between the look and here is seen: the count is another one then.
                (Some(book), Some(said)) => drop(book.changes().wait_for(|count| *count != said).await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(Duration::from_millis(HEARTBEAT_MS)) => {}
            () = engine.draining() => return,
            () = updates.closed() => return,
        }
    }
}

/// One update or several: none of them is longer than a filter reads.
fn pages(reset: bool, revoked: &[Tag], lifted: &[Tag]) -> Vec<Update> {
    let mut pages: Vec<Update> = lifted
        .chunks(UPDATE_TAGS_MAX)
        .map(|part| Update { lifted: part.concat(), ..Update::default() })
        .chain(revoked.chunks(UPDATE_TAGS_MAX).map(|part| Update { revoked: part.concat(), ..Update::default() }))
        .collect();
    if pages.is_empty() {
        pages.push(Update::default());
    }
    if let Some(first) = pages.first_mut() {
        first.reset = reset;
    }
    if let Some(last) = pages.last_mut() {
        last.complete = true;
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_update_comes_in_parts_and_only_its_last_is_complete() {
        let revoked: Vec<Tag> = (0..UPDATE_TAGS_MAX + 1).map(|n| [u8::try_from(n % 251).unwrap(); 16]).collect();
        let parts = pages(true, &revoked, &[[9; 16]]);
        assert_eq!(
            parts.iter().map(|part| (part.reset, part.complete)).collect::<Vec<_>>(),
            [(true, false), (false, false), (false, true)]
        );
        assert_eq!(parts.iter().map(|part| part.revoked.len() / 16).sum::<usize>(), revoked.len());
        assert_eq!(pages(false, &[], &[]), [Update { complete: true, ..Update::default() }]);
    }
}
