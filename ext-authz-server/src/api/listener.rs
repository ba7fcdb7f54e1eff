//! Where the API listens: TCP on loopback, or a Unix socket that its owner and group can open.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};

use super::{Api, router};
use crate::serve::{Address, ServeError, bind_tcp, bind_unix};

/// A bound listener.
pub enum ApiListener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and its path.
    Unix(UnixListener, PathBuf),
}

// === impl ApiListener ===

impl ApiListener {
    /// Binds an address.
    ///
    /// # Errors
    /// It is in use.
    pub async fn bind(address: &Address) -> Result<ApiListener, ServeError> {
        Ok(match address {
            Address::Tcp(address) => ApiListener::Tcp(bind_tcp(*address).await?),
            Address::Unix(path) => ApiListener::Unix(bind_unix(path)?, path.clone()),
        })
    }

    /// The address, as `ip:port` or `unix:/path`.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            ApiListener::Tcp(listener) => listener.local_addr().map(|address| address.to_string()).unwrap_or_default(),
            ApiListener::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    /// The authorities under which it is reached.
    fn hosts(&self) -> Vec<String> {
        let ApiListener::Tcp(listener) = self else { return Vec::new() };
        let Ok(address) = listener.local_addr() else { return Vec::new() };
        vec![address.to_string(), format!("localhost:{}", address.port())]
    }
}

/// Serves the API until `end`.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    mut api: Api,
    listener: ApiListener,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    api.own_hosts = listener.hosts();
    let router = router(Arc::new(api));
    let served = match listener {
        ApiListener::Tcp(listener) => axum::serve(listener, router).with_graceful_shutdown(end).await,
        ApiListener::Unix(listener, path) => {
            let served = axum::serve(listener, router).with_graceful_shutdown(end).await;
            let _ = std::fs::remove_file(path);
            served
        }
    };
    served.map_err(|error| ServeError::Transport(error.to_string()))
}
