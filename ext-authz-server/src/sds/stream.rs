//! The service that Envoy asks: one stream for each Envoy and certificate, state of the world.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::ROLE;
use crate::audit::record::bounded;
use crate::check::Engine;

/// The most streams at once.
pub const MAX_STREAMS: usize = 256;
/// The most certificates that one stream asks for.
pub const MAX_NAMES: usize = 64;

/// The service behind `envoy.service.secret.v3.SecretDiscoveryService`.
pub struct SecretDiscovery {
    engine: Arc<Engine>,
    permits: Arc<Semaphore>,
}

type Responses = mpsc::Sender<Result<DiscoveryResponse, Status>>;

/// What one Envoy asked for and was told.
#[derive(Default)]
struct Conversation {
    names: Vec<String>,
    /// Name and version of each certificate that was sent last.
    sent: Vec<(String, String)>,
    responses: u64,
}

// === impl SecretDiscovery ===

impl SecretDiscovery {
    /// Gives out what this engine's bindings hold.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> SecretDiscovery {
        SecretDiscovery { engine, permits: Arc::new(Semaphore::new(MAX_STREAMS)) }
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretDiscovery {
    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("ask with api_type GRPC"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let permit = self.permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("there are too many streams"))?;
        let (responses, outgoing) = mpsc::channel(1);
        tokio::spawn(serve(self.engine.clone(), request.into_inner(), responses, permit));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("ask with api_type GRPC"))
    }
}

/// Serves a stream until Envoy ends it or the drain begins.
async fn serve(
    engine: Arc<Engine>,
    mut requests: Streaming<DiscoveryRequest>,
    responses: Responses,
    _permit: OwnedSemaphorePermit,
) {
    let mut conversation = Conversation::default();
    let mut changes = engine.plan().sources().secrets.presented().changes();
    loop {
        tokio::select! {
            request = requests.message() => match request {
                Ok(Some(request)) => {
                    if let Err(status) = conversation.hear(&engine, request) {
                        let _ = responses.send(Err(status)).await;
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            },
            changed = changes.changed() => if changed.is_err() { return },
            () = engine.draining() => return,
            () = responses.closed() => return,
        }
        if let Some(response) = conversation.due(&engine)
            && responses.send(Ok(response)).await.is_err()
        {
            return;
        }
    }
}

// === impl Conversation ===

impl Conversation {
    /// Takes a request: a subscription, or what became of a response.
    fn hear(&mut self, engine: &Engine, request: DiscoveryRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != Secret::type_url() {
            return Err(Status::invalid_argument("only secrets are served here"));
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(Status::invalid_argument("too many names in one stream"));
        }
        // Of a response that another one has overtaken.
        if !request.response_nonce.is_empty() && request.response_nonce != self.responses.to_string() {
            return Ok(());
        }
        if let Some(error) = request.error_detail {
            for (name, version) in &self.sent {
                engine.metrics().certificate_loaded(ROLE, name, "refused_by_envoy");
                let cause = bounded(&error.message);
                tracing::error!(name, version, cause, "Envoy refused a client certificate and keeps the one before");
            }
        }
        self.names = request.resource_names;
        Ok(())
    }

    /// What has to be sent now: every certificate that was asked for, if one is not what was sent last.
    fn due(&mut self, engine: &Engine) -> Option<DiscoveryResponse> {
        let in_use = engine.plan().sources().clone();
        let in_use = in_use.secrets.presented();
        let found: Vec<_> = self.names.iter().filter_map(|name| Some((name.clone(), in_use.named(name)?))).collect();
        let now: Vec<_> = found.iter().map(|(name, presented)| (name.clone(), presented.version.clone())).collect();
        if now.is_empty() || now == self.sent {
            return None;
        }
        self.responses += 1;
        let version: Vec<&str> = now.iter().map(|(_, version)| version.as_str()).collect();
        let response = DiscoveryResponse {
            version_info: version.join("-"),
            resources: found.iter().map(|(name, presented)| resource(name, presented)).collect(),
            type_url: Secret::type_url(),
            nonce: self.responses.to_string(),
            ..DiscoveryResponse::default()
        };
        self.sent = now;
        Some(response)
    }
}

fn resource(name: &str, presented: &super::Presented) -> Any {
    let inline = |bytes: &[u8]| {
        Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() })
    };
    let certificate = TlsCertificate {
        certificate_chain: inline(presented.certificate.expose()),
        private_key: inline(presented.key.expose()),
        ..TlsCertificate::default()
    };
    let secret = Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) };
    Any { type_url: Secret::type_url(), value: secret.encode_to_vec() }
}
