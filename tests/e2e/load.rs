//! Calls that go on until told to stop, with the moment at which each began.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use keyward_tests::client::{Answer, Request};
use tokio::task::JoinHandle;

/// Four callers, each with one call under way at any time.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Vec<(Instant, Answer)>>>,
}

// === impl Load ===

impl Load {
    pub(crate) fn start(agents: SocketAddr, request: &Request) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |_| {
            let (stop, request) = (stop.clone(), request.clone());
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    answers.push((began, request.clone().send(agents).await.unwrap()));
                }
                answers
            })
        };
        Load { workers: (0..4).map(worker).collect(), stop }
    }

    /// All answers, those to calls under way included.
    pub(crate) async fn stop(self) -> Vec<(Instant, Answer)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Vec::new();
        for worker in self.workers {
            answers.extend(worker.await.unwrap());
        }
        answers
    }
}
