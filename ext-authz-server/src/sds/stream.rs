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

use super::{LOOK, ROLE, asker};
use crate::audit::record::{CertificateRecord, bounded};
use crate::audit::{Event, Record};
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
struct Conversation {
    /// What the connection shows of it.
    peer: String,
    /// The id that it says to have.
    node: String,
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
        let conversation = Conversation::with(asker::peer(&request));
        tokio::spawn(serve(self.engine.clone(), request.into_inner(), responses, conversation, permit));
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
    mut conversation: Conversation,
    _permit: OwnedSemaphorePermit,
) {
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
            // A binding may have begun to serve.
            () = tokio::time::sleep(LOOK) => {}
            () = engine.draining() => return,
            () = responses.closed() => return,
        }
        match conversation.due(&engine) {
            Ok(None) => {}
            Ok(Some(response)) => {
                if responses.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            Err(status) => {
                let _ = responses.send(Err(status)).await;
                return;
            }
        }
    }
}

// === impl Conversation ===

impl Conversation {
    fn with(peer: String) -> Conversation {
        Conversation { peer, node: String::new(), names: Vec::new(), sent: Vec::new(), responses: 0 }
    }

    /// Takes a request: a subscription, or what became of a response.
    fn hear(&mut self, engine: &Engine, request: DiscoveryRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != Secret::type_url() {
            return Err(Status::invalid_argument("only secrets are served here"));
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(Status::invalid_argument("too many names in one stream"));
        }
        // Only the first request of a stream has to say it.
        if let Some(node) = request.node.as_ref().filter(|node| !node.id.is_empty()) {
            self.node = bounded(&node.id);
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

    /// What has to be sent now: every certificate that was asked for, if one is not what was sent last. Each that was not
    /// sent before is recorded first.
    fn due(&mut self, engine: &Engine) -> Result<Option<DiscoveryResponse>, Status> {
        if self.names.is_empty() {
            return Ok(None);
        }
        // What is in use may lag behind what serves.
        let configured = super::configured(engine);
        let in_use = engine.plan().sources().clone();
        let in_use = in_use.secrets.presented();
        let asked = self.names.iter().filter(|name| configured.contains_key(*name));
        let found: Vec<_> = asked.filter_map(|name| Some((name.clone(), in_use.named(name)?))).collect();
        let now: Vec<_> = found.iter().map(|(name, presented)| (name.clone(), presented.version.clone())).collect();
        if now.is_empty() || now == self.sent {
            return Ok(None);
        }
        for (name, version) in now.iter().filter(|one| !self.sent.contains(one)) {
            if let Err(error) = engine.audit().accept(&self.record(engine, name, version)) {
                tracing::error!(%error, name, "a client certificate is not given to Envoy: there is no record of it");
                return Err(Status::unavailable("the audit trail takes no record"));
            }
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
        Ok(Some(response))
    }

    fn record(&self, engine: &Engine, name: &str, version: &str) -> Record {
        let plan = engine.plan();
        let mut record = Record::new(Event::CertificateGiven, plan.environment(), plan.revision());
        record.certificate = Some(CertificateRecord {
            name: name.to_owned(),
            version: version.to_owned(),
            peer: self.peer.clone(),
            node: self.node.clone(),
        });
        record
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
