//! TLS of the gRPC listener: certificate, key and the authority of the callers change while it serves.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use keyward_server::serve::{Address, Bound, Listen, ServeError};
use keyward_server::tls::Tls;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::scene::Scene;

/// A directory of this test's own.
struct Files(PathBuf);

// === impl Files ===

impl Files {
    /// With `one` in use.
    fn new() -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let files = Files(std::env::temp_dir().join(format!("keyward-tls-{}-{number}", std::process::id())));
        std::fs::create_dir_all(&files.0).unwrap();
        make(&files.0);
        for file in ["server.pem", "server.key", "authority.pem"] {
            files.put("one", file);
        }
        files
    }

    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.0.join(file)).unwrap()
    }

    /// Puts one of an authority's files in use.
    fn put(&self, authority: &str, file: &str) {
        self.write(file, &self.read(&format!("{authority}/{file}")));
    }

    fn write(&self, file: &str, content: &[u8]) {
        std::fs::write(self.0.join("new"), content).unwrap();
        std::fs::rename(self.0.join("new"), self.0.join(file)).unwrap();
    }

    fn tls(&self) -> Tls {
        let file = |name: &str| self.0.join(name);
        Tls {
            certificate_file: file("server.pem"),
            key_file: file("server.key"),
            client_ca_file: Some(file("authority.pem")),
        }
    }

    /// A listener with what is in use.
    fn listen(&self) -> Listen {
        Listen {
            grpc: Address::Tcp("127.0.0.1:0".parse().unwrap()),
            admin: "127.0.0.1:0".parse().unwrap(),
            tls: Some(self.tls()),
            secrets_on_loopback: false,
            drain: Duration::ZERO,
        }
    }

    /// A caller of this authority that trusts that one. Were its connection cut, another one would need files that are not in
    /// use any more, so that it shows.
    async fn connect(&self, address: &str, caller: &str, trusted: &str) -> Option<HealthClient<Channel>> {
        let mut client = HealthClient::new(self.channel(address, caller, trusted).await?);
        // With TLS 1.3 the server's refusal comes after the client's own handshake.
        ask(&mut client).await.then_some(client)
    }

    async fn channel(&self, address: &str, caller: &str, trusted: &str) -> Option<Channel> {
        let identity =
            Identity::from_pem(self.read(&format!("{caller}/caller.pem")), self.read(&format!("{caller}/caller.key")));
        let authority = Certificate::from_pem(self.read(&format!("{trusted}/authority.pem")));
        let tls = ClientTlsConfig::new().ca_certificate(authority).identity(identity).domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
        endpoint.connect().await.ok()
    }

    async fn until(&self, address: &str, caller: &str, trusted: &str) -> HealthClient<Channel> {
        let started = Instant::now();
        loop {
            if let Some(client) = self.connect(address, caller, trusted).await {
                return client;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "still what served before");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two authorities, and of each a server's and a caller's pair: `one/server.pem`, `two/caller.key` and so on.
fn make(folder: &Path) {
    for authority in ["one", "two"] {
        let folder = folder.join(authority);
        std::fs::create_dir(&folder).unwrap();
        let write = |file: &str, content: String| std::fs::write(folder.join(file), content).unwrap();
        let mut own = params("authority");
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap();
        write("authority.pem", authority.pem());
        for name in ["server", "caller"] {
            let key = KeyPair::generate().unwrap();
            write(&format!("{name}.pem"), params(name).signed_by(&key, &authority).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
    }
}

/// What a certificate of this common name says, for `localhost` as a host.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

async fn ask(client: &mut HealthClient<Channel>) -> bool {
    client.check(HealthCheckRequest { service: String::new() }).await.is_ok()
}

/// Serves at a free port until the task is aborted.
async fn serve(scene: &Scene, listen: &Listen) -> (String, JoinHandle<Result<(), ServeError>>) {
    let bound = Bound::bind(scene.engine.clone(), listen).await.unwrap();
    let addresses: Value = serde_json::from_str(&bound.addresses()).unwrap();
    let address = addresses["grpc"].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
    (address, tokio::spawn(bound.serve(std::future::pending())))
}

#[tokio::test]
async fn new_files_serve_new_connections_and_bad_ones_change_nothing() {
    let scene = Scene::start().await;
    let files = Files::new();
    let listen = files.listen();
    let (address, serving) = serve(&scene, &listen).await;
    let address = address.as_str();

    let mut first = files.until(address, "one", "one").await;
    assert!(files.connect(address, "two", "one").await.is_none(), "a stranger's certificate was taken");

    // Files of two pairs, and then no certificate: nothing changes, and that is counted.
    files.put("two", "server.pem");
    let started = Instant::now();
    let refused = r#"keyward_certificate_loads_total{role="server",name="listen.tls",result="refused"} 1"#;
    while !scene.page("/metrics").await.1.contains(refused) {
        assert!(started.elapsed() < Duration::from_secs(10), "nothing was refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(files.connect(address, "one", "one").await.is_some());

    // The other file of that pair: it serves, and the connection before goes on.
    files.put("two", "server.key");
    let mut second = files.until(address, "one", "two").await;
    assert!(files.connect(address, "one", "one").await.is_none(), "the certificate before still serves");
    assert!(ask(&mut first).await, "a connection that stood was cut");

    // Another authority for the callers.
    files.put("two", "authority.pem");
    let mut third = files.until(address, "two", "two").await;
    assert!(files.connect(address, "one", "two").await.is_none(), "a caller of the authority before was let in");
    for client in [&mut first, &mut second, &mut third] {
        assert!(ask(client).await, "a connection that stood was cut");
    }
    let (_, metrics) = scene.page("/metrics").await;
    for line in [
        r#"keyward_certificate_loads_total{role="server",name="listen.tls",result="accepted"} 2"#,
        r#"keyward_certificate_expiration_timestamp_seconds{role="server",name="listen.tls"}"#,
    ] {
        assert!(metrics.contains(line), "{line} not in\n{metrics}");
    }
    serving.abort();

    // At the start there is nothing to fall back on.
    files.write("server.key", b"no key");
    let refused = Bound::bind(scene.engine.clone(), &listen).await;
    assert!(matches!(refused, Err(ServeError::Tls(_))));
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let scene = Scene::start().await;
    let files = Files::new();
    let listen = files.listen();
    let (address, serving) = serve(&scene, &listen).await;
    let address = address.as_str();
    let mut silent = Vec::new();
    for _ in 0..260 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    assert!(files.connect(address, "one", "one").await.is_some());
    // Room was made by ending the oldest: those after it still have their time.
    let ended = |stream: &tokio::net::TcpStream| !matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(ended(&silent[0]), "nothing made room");
    assert!(!ended(&silent[100]), "it took until handshakes had run out of time");
    serving.abort();
}

/// Whether a caller who asks for keys is served at a listener.
async fn asked_for_keys(scene: &Scene, files: &Files, listen: Listen) -> bool {
    let (address, serving) = serve(scene, &listen).await;
    let channel = match listen.tls {
        Some(_) => files.channel(&address, "one", "one").await.unwrap(),
        None => Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap(),
    };
    let (_requests, outgoing) = tokio::sync::mpsc::channel::<DiscoveryRequest>(1);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let answer = SecretDiscoveryServiceClient::new(channel).stream_secrets(outgoing).await;
    serving.abort();
    match answer {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::Unimplemented, "{status}");
            false
        }
    }
}

#[tokio::test]
async fn keys_are_given_to_callers_with_a_certificate_and_on_loopback_only_where_that_is_asked_for() {
    let scene = Scene::start().await;
    let files = Files::new();
    let listen = |address: &str, tls, secrets_on_loopback| Listen {
        grpc: Address::Tcp(address.parse().unwrap()),
        admin: "127.0.0.1:0".parse().unwrap(),
        tls,
        secrets_on_loopback,
        drain: Duration::ZERO,
    };
    let anybody = Tls { client_ca_file: None, ..files.tls() };
    for (listen, given) in [
        (listen("0.0.0.0:0", Some(files.tls()), false), true),
        (listen("127.0.0.1:0", Some(files.tls()), false), true),
        (listen("0.0.0.0:0", Some(anybody.clone()), true), false),
        (listen("127.0.0.1:0", Some(anybody), true), false),
        (listen("127.0.0.1:0", None, false), false),
        (listen("127.0.0.1:0", None, true), true),
    ] {
        let shown = format!("{listen:?}");
        assert_eq!(asked_for_keys(&scene, &files, listen).await, given, "{shown}");
    }
}
