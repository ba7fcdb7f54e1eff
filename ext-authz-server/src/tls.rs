//! TLS of the gRPC listener. Its files are looked at every second: a new certificate or another authority of the callers serves
//! the next connection, connections that stand go on, and what cannot be used changes nothing.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use zeroize::Zeroizing;

use crate::audit::record::rfc3339;
use crate::certificate::{Pair, chain, provider};
use crate::check::Engine;
use crate::config;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The most handshakes under way. For one more the oldest ends, once it had [`PATIENCE`]: who means it is done by then.
const MAX_HANDSHAKES: usize = 256;
/// How long a handshake may take where others wait for its place.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often it is looked whether there is room for one more.
const ROOM: Duration = Duration::from_millis(5);
/// How long to wait after a connection could not be accepted: mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Whose certificate it is, and its name, in metrics.
const METRIC: (&str, &str) = ("server", "listen.tls");

/// PEM files.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificate chain.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Who may sign client certificates; when set, a client certificate is required.
    pub client_ca_file: Option<PathBuf>,
}

/// Why TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of them cannot be read.
    #[error("read `{}`: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// What they hold cannot be used.
    #[error("`{}`: {cause}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// The files of a listener, and what serves its connections.
pub struct ListenerTls {
    files: Tls,
    serving: ArcSwap<Serving>,
}

/// What serves.
pub struct Serving {
    config: Arc<ServerConfig>,
    /// The pair of the server.
    pub pair: Pair,
    /// SHA-256 of the files.
    stamp: [u8; 32],
}

/// The files, read.
struct Content {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    authority: Option<Vec<u8>>,
}

// === impl Tls ===

impl From<&config::Tls> for Tls {
    fn from(tls: &config::Tls) -> Tls {
        Tls {
            certificate_file: tls.certificate_file.clone(),
            key_file: tls.key_file.clone(),
            client_ca_file: Some(tls.client_ca_file.clone()),
        }
    }
}

impl Tls {
    fn read(&self) -> Result<Content, TlsError> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|cause| TlsError::File { path: path.clone(), cause });
        Ok(Content {
            certificate: read(&self.certificate_file)?,
            key: Zeroizing::new(read(&self.key_file)?),
            authority: self.client_ca_file.as_ref().map(read).transpose()?,
        })
    }

    /// Reads the files and sees whether they can serve.
    ///
    /// # Errors
    /// Names the file.
    pub fn load(&self) -> Result<Serving, TlsError> {
        let content = self.read()?;
        self.serving(&content)
    }

    fn serving(&self, content: &Content) -> Result<Serving, TlsError> {
        let wrong = |path: &PathBuf, cause: String| TlsError::Content { path: path.clone(), cause };
        let pair = Pair::read(&content.certificate, &content.key, SystemTime::now());
        let pair = pair.map_err(|error| wrong(&self.certificate_file, error.to_string()))?;
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| wrong(&self.certificate_file, error.to_string()))?;
        let builder = match (&self.client_ca_file, &content.authority) {
            (Some(path), Some(authority)) => {
                let mut roots = RootCertStore::empty();
                for certificate in chain(authority).map_err(|error| wrong(path, error.to_string()))? {
                    roots.add(certificate).map_err(|error| wrong(path, error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(path, error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified.clone())));
        config.alpn_protocols.push(b"h2".to_vec());
        Ok(Serving { config: Arc::new(config), pair, stamp: content.stamp() })
    }
}

// === impl Content ===

impl Content {
    fn stamp(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [Some(self.certificate.as_slice()), Some(self.key.as_slice()), self.authority.as_deref()] {
            digest.update(Sha256::digest(part.unwrap_or_default()));
        }
        digest.finalize().into()
    }
}

// === impl ListenerTls ===

impl ListenerTls {
    /// What these files hold.
    ///
    /// # Errors
    /// They cannot serve.
    pub fn load(files: &Tls) -> Result<ListenerTls, TlsError> {
        Ok(ListenerTls { files: files.clone(), serving: ArcSwap::from_pointee(files.load()?) })
    }

    /// Keeps up with the files, without end.
    pub async fn follow(self: Arc<Self>, engine: Arc<Engine>) {
        let (role, name) = METRIC;
        let mut refused = String::new();
        // What was wrong at the last look: files are replaced one after the other, so it is said of what stays wrong.
        let mut seen = String::new();
        loop {
            engine.metrics().certificate_ends(role, name, self.serving.load().pair.ends);
            tokio::time::sleep(LOOK).await;
            let own = self.clone();
            let looked = tokio::task::spawn_blocking(move || own.look()).await;
            match looked {
                Ok(Ok(None)) => {
                    refused.clear();
                    seen.clear();
                }
                Ok(Ok(Some(serving))) => {
                    let ends = rfc3339(serving.pair.ends);
                    tracing::info!(ends, "another certificate or authority serves new connections of `listen.tls`");
                    self.serving.store(Arc::new(serving));
                    engine.metrics().certificate_loaded(role, name, "accepted");
                }
                Ok(Err(error)) => {
                    let cause = error.to_string();
                    if seen == cause && refused != cause {
                        tracing::error!(cause, "`listen.tls` was refused; what served before stays in use");
                        engine.metrics().certificate_loaded(role, name, "refused");
                        refused.clone_from(&cause);
                    }
                    seen = cause;
                }
                Err(error) => tracing::error!(%error, "the look at `listen.tls` ended early"),
            }
        }
    }

    /// What the files hold, if it is something else than what serves.
    fn look(&self) -> Result<Option<Serving>, TlsError> {
        let content = self.files.read()?;
        if content.stamp() == self.serving.load().stamp {
            return Ok(None);
        }
        self.files.serving(&content).map(Some)
    }

    /// The connections of a listener, once their handshake is done. Ends when nobody takes them any more.
    #[must_use]
    pub fn incoming(self: Arc<Self>, listener: TcpListener) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
        let (connections, incoming) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut handshakes: VecDeque<(Instant, AbortHandle)> = VecDeque::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = connections.closed() => return,
                };
                let Ok((stream, _)) = accepted else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                loop {
                    handshakes.retain(|(_, handshake)| !handshake.is_finished());
                    match handshakes.front() {
                        Some((begun, oldest)) if handshakes.len() >= MAX_HANDSHAKES => {
                            if begun.elapsed() >= PATIENCE {
                                tracing::debug!("a TLS handshake took too long for how many there are");
                                oldest.abort();
                            }
                            tokio::time::sleep(ROOM).await;
                        }
                        _ => break,
                    }
                }
                let acceptor = TlsAcceptor::from(self.serving.load().config.clone());
                let connections = connections.clone();
                let handshake = tokio::spawn(async move {
                    // Without it small answers would wait for others; a failure costs time only.
                    let _ = stream.set_nodelay(true);
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(tokio::spawn(async move { connections.send(Ok(stream)).await })),
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                });
                handshakes.push_back((Instant::now(), handshake.abort_handle()));
            }
        });
        ReceiverStream::new(incoming)
    }
}
