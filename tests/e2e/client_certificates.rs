//! Upstreams that want a client certificate: Envoy presents it, Keyward keeps its key, and neither is restarted when both are
//! replaced.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use envoy_types::pb::google::rpc::Status;
use keyward_tests::client::{Answer, Request};
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, Stack};
use keyward_tests::stores::{Kind, Store};
use rcgen::{PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::certificates::{Authority, Pair};
use crate::{certificates, expect, scripted};

const UPSTREAM: &str = "bank.internal";
const NAME: &str = "bank";
const TOKEN: &str = "canary-certificates-token-61fe";
/// Everything but what is under `/scripted/closed`.
const POLICY: &str = r#"package keyward

default decision := {"allow": false, "rule": "closed", "explanation": "a test"}

decision := {"allow": true, "rule": "open", "explanation": "a test"} if input.http.path != "/scripted/closed"
"#;

/// An upstream over TLS that lets nobody in without a certificate of its authority.
struct Bank {
    authority: Authority,
    /// The certificate of each request, as the handshake showed it.
    seen: Mutex<Vec<Vec<u8>>>,
    connections: Mutex<usize>,
}

// === impl Bank ===

impl Bank {
    async fn start() -> (Arc<Bank>, SocketAddr) {
        let authority = Authority::new();
        let own = authority.pair(UPSTREAM);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&authority.certificate)).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
        let config = config.with_client_cert_verifier(verifier);
        let config = Arc::new(config.with_single_cert(vec![certificate(&own.certificate)], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bank = Arc::new(Bank { authority, seen: Mutex::default(), connections: Mutex::default() });
        let own = bank.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *own.connections.lock().unwrap() += 1;
                let (own, acceptor) = (own.clone(), TlsAcceptor::from(config.clone()));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
                    let answer = |_: &str| {
                        own.seen.lock().unwrap().push(shown.clone());
                        vec![scripted::response("200 OK", "content-type: text/plain\r\n", b"done")]
                    };
                    drop(scripted::serve(stream, answer).await);
                });
            }
        });
        (bank, address)
    }

    /// How many requests came, and whether the last one's certificate is this pair's.
    fn last_is(&self, pair: &Pair) -> bool {
        self.seen.lock().unwrap().last().is_some_and(|shown| *shown == certificate(&pair.certificate).to_vec())
    }

    fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A stack whose cluster has its certificate from Keyward, out of these places.
fn stack(test: &str, bank: &Bank, address: SocketAddr, certificate: Value, key: Value) -> Builder {
    let asks = json!({"name": NAME, "sds_config": {"resource_api_version": "V3", "initial_fetch_timeout": "2s", "api_config_source": {
        "api_type": "GRPC", "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "keyward"}}],
    }}});
    let socket = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": UPSTREAM,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [asks],
            "validation_context": {
                "trusted_ca": {"inline_string": bank.authority.certificate},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": UPSTREAM}}],
            },
        },
    }});
    scripted::route(Stack::builder(test).policy(POLICY), address, "http")
        .envoy(|envoy| {
            if let Some(cluster) = envoy.clusters.last_mut() {
                cluster.transport_socket = socket;
            }
        })
        .config(|config| {
            config["listen"]["secrets_on_loopback"] = json!(true);
            config["bindings"][0]["servers"] = json!(["demo"]);
            let binding = json!({
                "id": "bank", "mode": "service_account", "owner": "payments", "environment": "development",
                "servers": ["scripted"], "hosts": [scripted::AUTHORITY],
                "credentials": [{"type": "client_certificate", "name": NAME, "certificate": certificate, "key": key}],
            });
            if let Some(bindings) = config["bindings"].as_array_mut() {
                bindings.push(binding);
            }
        })
}

fn of_files(test: &str, bank: &Bank, address: SocketAddr, pair: &Pair) -> Builder {
    let place = |end: &str| json!({"ref": format!("file://secrets/bank.{end}")});
    stack(test, bank, address, place("pem"), place("key"))
        .file("secrets/bank.pem", &pair.certificate)
        .file("secrets/bank.key", &pair.key)
}

fn call() -> Request {
    Request::post(scripted::PATH, &json!({}))
}

async fn until(what: &str, stack: &Stack, holds: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !holds().await {
        let log = stack.server.process.log();
        assert!(started.elapsed() < Duration::from_secs(15), "{what} did not come\n{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn counted(stack: &Stack, result: &str) -> bool {
    let line = format!(r#"keyward_certificate_loads_total{{role="client",name="{NAME}",result="{result}"}}"#);
    stack.server.metrics().await.unwrap().contains(&line)
}

/// The middle lines of a key: what of it must not be written anywhere.
fn inside(key: &str) -> &str {
    key.lines().nth(1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allowed_call_arrives_with_the_certificate_and_a_denied_one_opens_no_connection() {
    let (bank, address) = Bank::start().await;
    let pair = bank.authority.pair("agents");
    let stack = of_files("certificates-allowed", &bank, address, &pair).start().await.unwrap();
    for denied in [Request::post("/scripted/closed", &json!({})).bearer(&stack.token), call()] {
        let answer = stack.send_bare(denied).await.unwrap();
        assert!([401, 403].contains(&answer.status.as_u16()), "{}", answer.text());
    }
    assert_eq!((bank.connections(), bank.requests()), (0, 0));

    let answer = stack.send(call()).await.unwrap();
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), stack.envoy.process.log());
    assert!(bank.last_is(&pair));
    let record = stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!(record["bindings"][0]["id"], "bank", "{record}");
    assert!(record.to_string().contains("file://secrets/bank.key"), "{record}");
    let metrics = stack.server.metrics().await.unwrap();
    let name = format!(r#"keyward_certificate_expiration_timestamp_seconds{{role="client",name="{NAME}"}}"#);
    assert!(metrics.contains(&name), "{metrics}");
    expect::nothing_written(&stack, &[inside(&pair.key)]).await;

    let config = stack.folder.join("keyward.yaml").display().to_string();
    let seen = Server::run(&["doctor", "--config", &config], stack.variables()).unwrap();
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.contains("pass  binding `bank`, credential 0: client_certificate from"), "{seen}");
    assert!(seen.contains("the certificate ends on "), "{seen}");

    // What is not configured is not answered, and neither is who asks for too much.
    let channel = Endpoint::new(format!("http://{}", stack.server.grpc)).unwrap().connect().await.unwrap();
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let mut ask = async |names: Vec<String>| {
        let request = DiscoveryRequest { resource_names: names, ..DiscoveryRequest::default() };
        let (requests, outgoing) = mpsc::channel(1);
        requests.send(request).await.unwrap();
        let mut answers = client.stream_secrets(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let answer = tokio::time::timeout(Duration::from_secs(2), answers.message()).await;
        (answer, requests)
    };
    let (nothing, _) = ask(vec!["another".to_owned()]).await;
    assert!(nothing.is_err(), "something came for a name that is not configured");
    assert!(ask(vec!["x".to_owned(); 65]).await.0.unwrap().is_err());
    let (answer, requests) = ask(vec![NAME.to_owned()]).await;
    let answer = answer.unwrap().unwrap().unwrap();
    assert_eq!(answer.resources.len(), 1);
    // What Envoy says that it does not take is counted.
    let error_detail = Some(Status { message: "a kind of key".to_owned(), ..Status::default() });
    let refusal = DiscoveryRequest {
        resource_names: vec![NAME.to_owned()],
        response_nonce: answer.nonce,
        error_detail,
        ..DiscoveryRequest::default()
    };
    requests.send(refusal).await.unwrap();
    until("the refusal", &stack, async || counted(&stack, "refused_by_envoy").await).await;
    assert!(stack.server.process.log().contains("a kind of key"));
}

/// What an SDS client of its own gets for a name, within two seconds.
async fn asked(stack: &Stack, node: &str) -> Option<String> {
    let channel = Endpoint::new(format!("http://{}", stack.server.grpc)).unwrap().connect().await.unwrap();
    let (requests, outgoing) = mpsc::channel(1);
    let request = DiscoveryRequest {
        node: Some(Node { id: node.to_owned(), ..Node::default() }),
        resource_names: vec![NAME.to_owned()],
        ..DiscoveryRequest::default()
    };
    requests.send(request).await.unwrap();
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let mut answers = client.stream_secrets(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let answer = tokio::time::timeout(Duration::from_secs(2), answers.message()).await.ok()?;
    Some(answer.unwrap().unwrap().version_info)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_given_only_while_its_binding_serves_and_each_time_is_recorded() {
    let (bank, address) = Bank::start().await;
    let pair = bank.authority.pair("agents");
    let stack = of_files("certificates-lifecycle", &bank, address, &pair)
        .variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
        .config(|config| {
            config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
            config["lifecycle"] = json!({"approvals": 1});
        })
        .start()
        .await
        .unwrap();
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let step = |action: &str| {
        let arguments = ["bindings", action, "bank", "--by", "alice", "--config", config.as_str()];
        let output = Server::run(&arguments, stack.variables()).unwrap();
        assert!(output.status.success(), "{action}: {}", String::from_utf8_lossy(&output.stderr));
    };
    // A draft, and approved, but not active.
    assert_eq!(asked(&stack, "nobody").await, None);
    step("approve");
    assert_eq!(asked(&stack, "nobody").await, None);
    let denied = stack.send(call()).await.unwrap();
    assert_eq!(denied.status, 403, "{}", denied.text());
    assert!(denied.text().contains("binding_inactive"), "{}", denied.text());
    assert_eq!((bank.connections(), bank.requests()), (0, 0));
    assert!(!stack.server.metrics().await.unwrap().contains(r#"keyward_certificate_loads_total{role="client""#));

    step("activate");
    until("the certificate", &stack, async || stack.send(call()).await.unwrap().status == 200).await;
    assert!(bank.last_is(&pair));
    let version = asked(&stack, "envoy-of-the-test").await.unwrap();
    let is_own = |record: &Value| record["certificate"]["node"] == "envoy-of-the-test";
    let record = stack.server.audit_record(is_own).await.unwrap();
    assert_eq!(record["event"], "certificate_given", "{record}");
    assert_eq!(
        record["certificate"],
        json!({"name": NAME, "version": version, "peer": "loopback", "node": "envoy-of-the-test"}),
        "{record}"
    );
    expect::nothing_written(&stack, &[inside(&pair.key)]).await;

    step("revoke");
    until("the end", &stack, async || stack.send(call()).await.unwrap().status == 403).await;
    assert_eq!(asked(&stack, "too-late").await, None);
    let records = stack.server.audit().unwrap();
    let given: Vec<&Value> = records.iter().filter(|record| record["event"] == "certificate_given").collect();
    let to = |nobody: &str| given.iter().any(|record| record["certificate"]["node"] == nobody);
    assert!(given.len() >= 2 && !to("nobody") && !to("too-late"), "{given:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_in_a_store_is_replaced_under_load_and_no_call_fails() {
    let (bank, address) = Bank::start().await;
    let (before, after) = (bank.authority.pair("before"), bank.authority.pair("after"));
    let store = Store::start(Kind::Vault, "certificates-rotated").unwrap();
    store.tell("mount", json!({"path": "kv", "kind": "kv"})).await.unwrap();
    store.tell("policy", json!({"name": "keyward", "rules": {"kv/data/*": ["read"]}})).await.unwrap();
    store.tell("token", json!({"policies": ["keyward"], "token": TOKEN})).await.unwrap();
    let put = async |pair: &Pair| {
        let data = json!({"certificate": pair.certificate, "key": pair.key});
        store.tell("put", json!({"mount": "kv", "path": "bank", "data": data})).await.unwrap();
    };
    put(&before).await;
    let place = |field: &str| json!({"ref": "vault://kv/bank", "json_key": field});
    let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
    let vault = json!({"type": "vault", "address": store.url(), "auth": auth, "caching": {"refresh_secs": 1}});
    let stack = stack("certificates-rotated", &bank, address, place("certificate"), place("key"))
        .variable("VAULT_TOKEN", TOKEN)
        .config(|config| config["stores"] = json!({"vault": vault}))
        .start()
        .await
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let worker = |_| {
        let (stop, agents, token) = (stop.clone(), stack.agents, stack.token.clone());
        tokio::spawn(async move {
            let mut answers: Vec<Answer> = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                answers.push(call().bearer(&token).send(agents).await.unwrap());
            }
            answers
        })
    };
    let workers: Vec<_> = (0..4).map(worker).collect();
    until("the first certificate", &stack, async || bank.last_is(&before)).await;
    let mut slowest = Duration::ZERO;
    for pair in [&after, &before, &after] {
        let began = Instant::now();
        put(pair).await;
        until("the new certificate", &stack, async || bank.last_is(pair)).await;
        slowest = slowest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut answers = Vec::new();
    for worker in workers {
        answers.extend(worker.await.unwrap());
    }
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).map(Answer::text).collect();
    println!("{} calls, {} failed; a new pair took {} ms at most", answers.len(), failed.len(), slowest.as_millis());
    assert!(answers.len() > 50 && failed.is_empty(), "{failed:?}");
    expect::nothing_written(&stack, &[inside(&before.key), inside(&after.key), TOKEN]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_cannot_be_used_leaves_the_one_before_in_use() {
    let (bank, address) = Bank::start().await;
    let (before, after) = (bank.authority.pair("before"), bank.authority.pair("after"));
    let stack = of_files("certificates-broken", &bank, address, &before).start().await.unwrap();
    assert_eq!(stack.send(call()).await.unwrap().status, 200);
    assert!(bank.last_is(&before));

    let works_with = async |pair: &Pair| {
        let answer = stack.send(call()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(bank.last_is(pair));
    };
    // Of two pairs; then no certificate at all.
    stack.change_file("secrets/bank.pem", &after.certificate).unwrap();
    until("a refusal", &stack, async || counted(&stack, "refused").await).await;
    works_with(&before).await;
    stack.change_file("secrets/bank.pem", "no certificate").unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    works_with(&before).await;
    assert!(stack.server.process.log().contains("do not belong together"), "{}", stack.server.process.log());
    // The two files of a pair, one after the other.
    stack.change_file("secrets/bank.pem", &after.certificate).unwrap();
    stack.change_file("secrets/bank.key", &after.key).unwrap();
    until("the new certificate", &stack, async || {
        assert_eq!(stack.send(call()).await.unwrap().status, 200);
        bank.last_is(&after)
    })
    .await;
    expect::nothing_written(&stack, &[inside(&before.key), inside(&after.key)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_that_passes_are_presented() {
    let (bank, address) = Bank::start().await;
    let first = bank.authority.pair("first");
    let stack = of_files("certificates-kinds", &bank, address, &first).start().await.unwrap();
    for (name, kind) in [("rsa", &PKCS_RSA_SHA256), ("p384", &PKCS_ECDSA_P384_SHA384), ("ed25519", &PKCS_ED25519)] {
        let pair = bank.authority.pair_with(&certificates::params(name), kind);
        stack.change_file("secrets/bank.pem", &pair.certificate).unwrap();
        stack.change_file("secrets/bank.key", &pair.key).unwrap();
        until(name, &stack, async || {
            let answer = stack.send(call()).await.unwrap();
            assert_eq!(answer.status, 200, "{name}: {}", answer.text());
            bank.last_is(&pair)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_calls_are_denied_until_there_is_one() {
    let (bank, address) = Bank::start().await;
    let (pair, other) = (bank.authority.pair("agents"), bank.authority.pair("other"));
    let mixed = Pair { certificate: pair.certificate.clone(), key: other.key };
    let builder = of_files("certificates-missing", &bank, address, &mixed);
    let stack = builder.start().await.unwrap();
    let denied = stack.send(call()).await.unwrap();
    assert_eq!(denied.status, 503, "{}", denied.text());
    assert_eq!(denied.json().unwrap()["error"]["reason"], "credential_unavailable", "{}", denied.text());
    assert_eq!(bank.connections(), 0);
    stack.change_file("secrets/bank.key", &pair.key).unwrap();
    until("the certificate", &stack, async || stack.send(call()).await.unwrap().status == 200).await;
    assert!(bank.last_is(&pair));
}
