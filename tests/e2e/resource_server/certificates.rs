//! Tokens that are bound to the client's certificate (RFC 8705), over a listener that asks for one.

use std::net::SocketAddr;
use std::sync::Arc;

use keyward_tests::client::RequestBody;
use keyward_tests::prover::sha256;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{World, call};
use crate::certificates::{Authority, Pair};

/// Calls over TLS, with a certificate where there is one; returns status and body.
async fn call_over_tls(to: SocketAddr, authority: &Authority, own: Option<&Pair>, token: &str) -> (u16, String) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&authority.certificate)).unwrap();
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let config = match own {
        Some(own) => {
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            config.with_client_auth_cert(vec![certificate(&own.certificate)], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let request = call().bearer(token);
    let body = match &request.body {
        RequestBody::Whole(body) => body.clone(),
        _ => unreachable!("a call has a body"),
    };
    let mut head =
        format!("POST /mcp HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in &request.headers {
        head += &format!("{name}: {}\r\n", String::from_utf8_lossy(value));
    }
    stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).await.unwrap();
    let mut answer = Vec::new();
    // Not everybody says goodbye before the connection ends.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

fn thumbprint(pair: &Pair) -> String {
    sha256(&certificate(&pair.certificate))
}

async fn start(name: &str, authority: &Authority, section: Value) -> World {
    let own = authority.pair("localhost");
    let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": false,
        "common_tls_context": {
            "tls_certificates": [{
                "certificate_chain": {"inline_string": own.certificate}, "private_key": {"inline_string": own.key},
            }],
            "validation_context": {"trusted_ca": {"inline_string": authority.certificate}},
        },
    }});
    World::start_at("https", name, section, |builder| builder.envoy(|envoy| envoy.listener_transport_socket = socket))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_token_serves_over_its_own_connection_only() {
    let authority = Authority::new();
    let (alice, mallory) = (authority.pair("alice"), authority.pair("mallory"));
    let world = start("resource-certificate", &authority, json!({})).await;
    let to = world.stack.agents;
    let bind = |confirmation: Value| world.signed(&world.token(&world.mcp, "").claim("cnf", confirmation));
    let bound = bind(json!({"x5t#S256": thumbprint(&alice)}));
    // In hexadecimal digits, as some write it, and with something that nobody here can check.
    let written = bind(json!({"x5t#S256": thumbprint(&alice).to_uppercase()}));
    let further = bind(json!({"x5t#S256": thumbprint(&alice), "x5t": "abc"}));
    for (pair, token) in [(None, &bound), (Some(&mallory), &bound), (Some(&alice), &written), (Some(&alice), &further)]
    {
        let (status, answer) = call_over_tls(to, &authority, pair, token).await;
        assert_eq!(status, 401, "{answer}");
        assert!(
            answer.contains("error=\"invalid_token\"") && answer.contains("resource_metadata=\"https://"),
            "{answer}"
        );
        world.untouched().await;
    }
    let (status, answer) = call_over_tls(to, &authority, Some(&alice), &bound).await;
    assert_eq!(status, 200, "{answer}");
    // Verified and remembered, it is still bound.
    let (status, answer) = call_over_tls(to, &authority, Some(&mallory), &bound).await;
    assert_eq!(status, 401, "{answer}");
    assert_eq!(world.stack.upstream.count().await.unwrap(), 1);
    assert!(world.events("proof_refused").await >= 3);
    // A token that is bound to nothing needs no certificate here.
    let plain = world.signed(&world.token(&world.mcp, ""));
    assert_eq!(call_over_tls(to, &authority, None, &plain).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_certificate_is_required_no_other_token_serves() {
    let authority = Authority::new();
    let alice = authority.pair("alice");
    let world = start("resource-certificate-required", &authority, json!({"certificate_required": true})).await;
    let to = world.stack.agents;
    let plain = world.signed(&world.token(&world.mcp, ""));
    for pair in [None, Some(&alice)] {
        let (status, answer) = call_over_tls(to, &authority, pair, &plain).await;
        assert_eq!(status, 401, "{answer}");
    }
    world.untouched().await;
    let bound = world.token(&world.mcp, "").claim("cnf", json!({"x5t#S256": thumbprint(&alice)}));
    let (status, answer) = call_over_tls(to, &authority, Some(&alice), &world.signed(&bound)).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_brings_a_certificate_in_a_header() {
    let world = World::start("resource-certificate-header", json!({}), |builder| builder).await;
    let authority = Authority::new();
    let alice = authority.pair("alice");
    let token = world.token(&world.mcp, "").claim("cnf", json!({"x5t#S256": thumbprint(&alice)}));
    let digest: Vec<u8> = aws_lc_rs_digest(&certificate(&alice.certificate));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let request = call()
        .bearer(&world.signed(&token))
        .header("x-forwarded-client-cert", format!("Hash={hex};Cert=\"x\""))
        .header("x-keyward-peer-certificate-sha256", &hex);
    let answer = world.send(request).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    world.untouched().await;
}

fn aws_lc_rs_digest(bytes: &[u8]) -> Vec<u8> {
    use ::aws_lc_rs::digest::{SHA256, digest};
    digest(&SHA256, bytes).as_ref().to_vec()
}
