//! An ext_authz server that allows everything at once: what asking costs when deciding costs nothing.

use anyhow::{Context, Result};
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse, OkHttpResponse};
use envoy_types::pb::google::rpc;
use keyward_contract::check::{SCRUB_HEADER, extension};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

use crate::process::announce;
use crate::upstream::{CREDENTIAL_HEADER, CREDENTIAL_VARIABLE};

struct AlwaysYes {
    /// To Envoy's own filter: nothing but a yes.
    plain: CheckResponse,
    /// To Keyward's filter: a header to set and its value to scrub, as the real server sends them.
    keyward: CheckResponse,
}

/// Serves a port until the process is ended.
///
/// # Errors
/// Where no port can be had.
pub async fn serve() -> Result<()> {
    let credential = std::env::var(CREDENTIAL_VARIABLE).context(CREDENTIAL_VARIABLE)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    announce(&[("grpc", listener.local_addr()?)]);
    let service = AuthorizationServer::new(AlwaysYes::new(&credential));
    Server::builder()
        .tcp_nodelay(true)
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}

// === impl AlwaysYes ===

impl AlwaysYes {
    fn new(credential: &str) -> AlwaysYes {
        let header = |key: &str, value: &str, raw_value: &[u8]| HeaderValueOption {
            header: Some(HeaderValue { key: key.into(), value: value.into(), raw_value: raw_value.into() }),
            append_action: 2,
            ..HeaderValueOption::default()
        };
        let headers = vec![header(CREDENTIAL_HEADER, credential, b""), header(SCRUB_HEADER, "", credential.as_bytes())];
        AlwaysYes { plain: yes(Vec::new()), keyward: yes(headers) }
    }
}

#[async_trait]
impl Authorization for AlwaysYes {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let attributes = request.get_ref().attributes.as_ref();
        let of_keyward = attributes.is_some_and(|all| all.context_extensions.contains_key(extension::CONTRACT));
        Ok(Response::new(if of_keyward { self.keyward.clone() } else { self.plain.clone() }))
    }
}

fn yes(headers: Vec<HeaderValueOption>) -> CheckResponse {
    let ok = OkHttpResponse { headers, ..OkHttpResponse::default() };
    CheckResponse {
        status: Some(rpc::Status::default()),
        http_response: Some(HttpResponse::OkResponse(ok)),
        ..CheckResponse::default()
    }
}
