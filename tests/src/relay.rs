//! A relay of TCP connections that can be cut, as a network is that drops packets: nobody is told.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running relay; it takes no more connections when it is dropped.
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    is_cut: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

// === impl Relay ===

impl Relay {
    /// Starts one that leads there.
    ///
    /// # Errors
    /// Where it cannot listen.
    pub async fn start(to: SocketAddr) -> Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("starting a relay")?;
        let address = listener.local_addr()?;
        let (is_cut, seen) = watch::channel(false);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(pass(near, to, seen.clone()));
            }
        });
        Ok(Relay { address, is_cut, accepting })
    }

    /// From now on nothing gets through and nobody hears of it. What was under way is lost for good, as after a long cut.
    pub fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    /// New connections get through again; those of before stay silent.
    pub fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(near: TcpStream, to: SocketAddr, mut seen: watch::Receiver<bool>) {
    if *seen.borrow_and_update() {
        // The kernel took the connection; whoever made it waits for a first word.
        silence().await;
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = near.set_nodelay(true).and(far.set_nodelay(true));
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(copy(near_read, far_write, seen.clone()), copy(far_read, near_write, seen));
}

/// Copies until one side ends, or until it is cut; then it is silent for ever.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut seen: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16_384];
    loop {
        let count = tokio::select! {
            biased;
            // A relay that is gone is cut, too.
            () = cut(&mut seen) => return silence().await,
            count = from.read(&mut buffer) => count.unwrap_or(0),
        };
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn cut(seen: &mut watch::Receiver<bool>) {
    // Not kept: it is a lock.
    drop(seen.wait_for(|is_cut| *is_cut).await);
}

async fn silence() {
    std::future::pending().await
}
