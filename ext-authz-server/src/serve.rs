//! The running service: the gRPC listener, the admin listener, and an end that loses no request.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin;
use crate::api::{self, Api, ApiListener};
use crate::audit::{Event, Record};
use crate::check::{Engine, Service};
use crate::config::ListenAddress;
use crate::connect::{self, Pages};
use crate::decisions::Lines;
use crate::report::proto::decisions_server::DecisionsServer;
use crate::report::proto::filter_reports_server::FilterReportsServer;
use crate::report::proto::revocations_server::RevocationsServer;
use crate::report::{DESCRIPTORS, Reports};
use crate::revocation::Watches;
use crate::sds::{self, SecretDiscovery};
use crate::tls::{ListenerTls, Tls, TlsError};

/// The largest Check message, in bytes: a body of the largest configurable size and its headers.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// The largest request for certificates, in bytes: an Envoy describes itself in it.
const MAX_NODE_BYTES: usize = 256 * 1024;
/// Checks under way on one connection.
const MAX_STREAMS: u32 = 1024;
/// The largest HTTP/2 frame, in bytes.
const MAX_FRAME_BYTES: u32 = 64 * 1024;
/// How much may be on its way on one HTTP/2 stream.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// How long requests under way may take to end once the listeners are closed.
const FINISH: Duration = Duration::from_secs(10);
/// How often readiness is looked at for the gRPC health service.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// The services whose health is reported.
const SERVICES: [&str; 5] = [
    "",
    keyward_contract::check::SERVICE,
    keyward_contract::decisions::SERVICE,
    keyward_contract::report::SERVICE,
    keyward_contract::revocation::SERVICE,
];

/// Where and how to listen.
#[derive(Clone, Debug)]
pub struct Listen {
    /// The gRPC address.
    pub grpc: Address,
    /// The address of health, readiness, metrics and bindings.
    pub admin: SocketAddr,
    /// TLS for gRPC over TCP.
    pub tls: Option<Tls>,
    /// Whether client certificates with their keys are given over plaintext on loopback.
    pub secrets_on_loopback: bool,
    /// How long to keep serving after the wish to stop, so that Envoy notices.
    pub drain: Duration,
}

/// A TCP or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, created with mode 0660.
    Unix(PathBuf),
}

/// Why the service could not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be bound.
    #[error("listen on `{address}`: {cause}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The TLS files are not usable.
    #[error("listen.tls: {0}")]
    Tls(#[from] TlsError),
    /// Plaintext beyond this machine.
    #[error("listen.grpc `{0}` is not a loopback address: tls is required there")]
    Plaintext(SocketAddr),
    /// Signals cannot be received.
    #[error("signals: {0}")]
    Signals(io::Error),
    /// The last records could not be written.
    #[error("audit records were lost at the end: the sink takes nothing")]
    Audit,
    /// A listener failed while serving.
    #[error("serve: {0}")]
    Transport(String),
}

/// A service that is bound but not yet serving.
pub struct Bound {
    engine: Arc<Engine>,
    grpc: GrpcListener,
    admin: TcpListener,
    gives_secrets: bool,
    drain: Duration,
    pages: Option<(TcpListener, Arc<Pages>)>,
    api: Option<(ApiListener, Api)>,
}

enum GrpcListener {
    Tcp(TcpListener),
    Tls(TcpListener, Arc<ListenerTls>),
    Unix(UnixListener, PathBuf),
}

// === impl Address ===

impl From<&ListenAddress> for Address {
    fn from(configured: &ListenAddress) -> Address {
        match configured {
            ListenAddress::Tcp(address) => Address::Tcp(*address),
            ListenAddress::Unix(path) => Address::Unix(path.clone()),
        }
    }
}

// === impl Bound ===

impl Bound {
    /// Binds both listeners.
    ///
    /// # Errors
    /// An address in use, plaintext beyond loopback, or unusable TLS files.
    pub async fn bind(engine: Arc<Engine>, listen: &Listen) -> Result<Bound, ServeError> {
        let tls = listen.tls.as_ref().map(ListenerTls::load).transpose()?.map(Arc::new);
        let verifies = listen.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some());
        let (grpc, is_private) = match (&listen.grpc, tls) {
            (Address::Tcp(address), None) if !address.ip().is_loopback() => {
                return Err(ServeError::Plaintext(*address));
            }
            (Address::Tcp(address), None) => (GrpcListener::Tcp(bind_tcp(*address).await?), listen.secrets_on_loopback),
            (Address::Tcp(address), Some(tls)) => (GrpcListener::Tls(bind_tcp(*address).await?, tls), verifies),
            (Address::Unix(path), _) => (GrpcListener::Unix(bind_unix(path)?, path.clone()), true),
        };
        let admin = bind_tcp(listen.admin).await?;
        Ok(Bound { engine, grpc, admin, gives_secrets: is_private, drain: listen.drain, pages: None, api: None })
    }

    /// Binds the listener of the connect pages, too.
    ///
    /// # Errors
    /// An address in use.
    pub async fn and_pages(self, address: SocketAddr, pages: Arc<Pages>) -> Result<Bound, ServeError> {
        Ok(Bound { pages: Some((bind_tcp(address).await?, pages)), ..self })
    }

    /// Binds the listener of the operator API, too.
    ///
    /// # Errors
    /// An address in use.
    pub async fn and_api(self, address: &Address, api: Api) -> Result<Bound, ServeError> {
        Ok(Bound { api: Some((ApiListener::bind(address).await?, api)), ..self })
    }

    /// The bound addresses as one line of JSON: `{"grpc":"127.0.0.1:9191","admin":"127.0.0.1:9192"}`,
    /// with `connect` where there are pages and `api` where there is an operator API.
    #[must_use]
    pub fn addresses(&self) -> String {
        let grpc = match &self.grpc {
            GrpcListener::Tcp(listener) | GrpcListener::Tls(listener, _) => {
                listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
            }
            GrpcListener::Unix(_, path) => format!("unix:{}", path.display()),
        };
        let admin = self.admin.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let mut addresses = serde_json::json!({"grpc": grpc, "admin": admin});
        if let Some(Ok(connect)) = self.pages.as_ref().map(|(listener, _)| listener.local_addr()) {
            addresses["connect"] = connect.to_string().into();
        }
        if let Some((listener, _)) = &self.api {
            addresses["api"] = listener.address().into();
        }
        addresses.to_string()
    }

    /// Serves until `stop` ends, then drains: not ready, wait, finish what is under way, write the audit trail.
    ///
    /// # Errors
    /// A listener failed.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
        let Bound { engine, grpc, admin, gives_secrets, drain, pages, api } = self;
        engine.record(Record::new(Event::Started, engine.plan().environment(), engine.plan().revision()));
        let (closing, closed) = watch::channel(false);
        let (health, router) = router(&engine, gives_secrets)?;
        let tls = match &grpc {
            GrpcListener::Tls(_, tls) => Some(tokio::spawn(tls.clone().follow(engine.clone()))),
            _ => None,
        };
        let certificates_task = tokio::spawn(sds::follow(engine.clone()));
        let mut grpc_task = tokio::spawn(serve_grpc(router, grpc, ended(closed.clone())));
        let mut admin_task = tokio::spawn(admin::serve(engine.clone(), admin, ended(closed.clone())));
        let mut pages_task = tokio::spawn({
            let end = ended(closed.clone());
            async move {
                match pages {
                    Some((listener, pages)) => connect::serve(pages, listener, end).await,
                    None => {
                        end.await;
                        Ok(())
                    }
                }
            }
        });
        let mut api_task = tokio::spawn({
            let end = ended(closed.clone());
            async move {
                match api {
                    Some((listener, api)) => api::serve(api, listener, end).await,
                    None => {
                        end.await;
                        Ok(())
                    }
                }
            }
        });
        let health_task = tokio::spawn(follow_readiness(engine.clone(), health));

        let early = tokio::select! {
            () = stop => None,
            result = &mut grpc_task => Some(flatten(result)),
            result = &mut admin_task => Some(flatten(result)),
            result = &mut pages_task => Some(flatten(result)),
            result = &mut api_task => Some(flatten(result)),
        };
        let result = match early {
            Some(result) => result.and(Err(ServeError::Transport("a listener ended by itself".into()))),
            None => {
                tracing::info!(drain_secs = drain.as_secs_f64(), "draining");
                engine.drain();
                tokio::time::sleep(drain).await;
                let _ = closing.send(true);
                let all = async {
                    let both = flatten((&mut grpc_task).await).and(flatten((&mut admin_task).await));
                    both.and(flatten((&mut pages_task).await)).and(flatten((&mut api_task).await))
                };
                match tokio::time::timeout(FINISH, all).await {
                    Ok(result) => result,
                    Err(_) => Err(ServeError::Transport("requests were still under way at the end".into())),
                }
            }
        };
        health_task.abort();
        certificates_task.abort();
        if let Some(task) = tls {
            task.abort();
        }
        grpc_task.abort();
        admin_task.abort();
        pages_task.abort();
        api_task.abort();
        engine.record(Record::new(Event::Stopped, engine.plan().environment(), engine.plan().revision()));
        if !engine.audit().close() {
            return result.and(Err(ServeError::Audit));
        }
        result
    }
}

/// Ends at SIGTERM or SIGINT. SIGHUP meanwhile opens the audit file anew.
///
/// # Errors
/// Signals cannot be received.
pub fn signals(engine: Arc<Engine>) -> Result<impl Future<Output = ()> + Send, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hang_up.recv() => engine.audit().reopen(),
            }
        }
    })
}

fn router(engine: &Arc<Engine>, gives_secrets: bool) -> Result<(HealthReporter, Router), ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(keyward_contract::check::SERVICE)
        .with_service_name(keyward_contract::report::SERVICE)
        .with_service_name(keyward_contract::decisions::SERVICE)
        .with_service_name(keyward_contract::revocation::SERVICE)
        .with_service_name("grpc.health.v1.Health")
        .build_v1()
        .map_err(|error| ServeError::Transport(error.to_string()))?;
    let mut server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME_BYTES)
        // One stream carries the questions of a whole worker.
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(2 * STREAM_WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_pending_accept_reset_streams(Some(64))
        .accept_http1(false);
    let checks = AuthorizationServer::new(Service::new(engine.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let reports = FilterReportsServer::new(Reports::new(engine.clone())).max_decoding_message_size(64 * 1024);
    let lines = DecisionsServer::new(Lines::new(engine.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let watches = RevocationsServer::new(Watches::new(engine.clone())).max_decoding_message_size(1024);
    let services = server.add_service(health_service).add_service(reflection).add_service(watches);
    let services = services.add_service(reports).add_service(lines).add_service(checks);
    let secrets = SecretDiscoveryServiceServer::new(SecretDiscovery::new(engine.clone()));
    Ok((
        health,
        services.add_optional_service(gives_secrets.then_some(secrets.max_decoding_message_size(MAX_NODE_BYTES))),
    ))
}

async fn serve_grpc(router: Router, listener: GrpcListener, end: impl Future<Output = ()>) -> Result<(), ServeError> {
    let result = match listener {
        GrpcListener::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(incoming, end).await
        }
        GrpcListener::Tls(listener, tls) => router.serve_with_incoming_shutdown(tls.incoming(listener), end).await,
        GrpcListener::Unix(listener, path) => {
            let result = router.serve_with_incoming_shutdown(UnixListenerStream::new(listener), end).await;
            let _ = std::fs::remove_file(path);
            result
        }
    };
    result.map_err(|error| ServeError::Transport(error.to_string()))
}

/// Keeps the gRPC health service at what readiness says.
async fn follow_readiness(engine: Arc<Engine>, health: HealthReporter) {
    loop {
        let status = if engine.problems().is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            health.set_service_status(service, status).await;
        }
        tokio::select! {
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
            () = engine.draining() => {}
        }
        if engine.is_draining() {
            for service in SERVICES {
                health.set_service_status(service, ServingStatus::NotServing).await;
            }
            return;
        }
    }
}

async fn ended(mut closed: watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends the service just as well.
    let _ = closed.wait_for(|closed| *closed).await;
}

fn flatten(result: Result<Result<(), ServeError>, tokio::task::JoinError>) -> Result<(), ServeError> {
    match result {
        Ok(result) => result,
        Err(error) => Err(ServeError::Transport(error.to_string())),
    }
}

pub(crate) async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|cause| ServeError::Bind { address: address.to_string(), cause })
}

/// Binds a Unix socket. A socket that nobody listens on any more is removed; one in use, and any other file, is not.
pub(crate) fn bind_unix(path: &Path) -> Result<UnixListener, ServeError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let failed = |cause| ServeError::Bind { address: format!("unix:{}", path.display()), cause };
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        let stale = metadata.file_type().is_socket() && std::os::unix::net::UnixStream::connect(path).is_err();
        if !stale {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}
