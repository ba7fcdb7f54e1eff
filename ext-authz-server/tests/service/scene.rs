//! A running service with test doors behind it, and what Envoy would send to it.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use keyward_server::audit::{Digester, Sink, Writer};
use keyward_server::binding::{Binding, Catalogue, Mode as BindingMode};
use keyward_server::check::Engine;
use keyward_server::config::{BasicCredential, HeaderCredential, QueryCredential, SecretSource};
use keyward_server::credential::Credential;
use keyward_server::credential::basic::Basic;
use keyward_server::credential::header::Header;
use keyward_server::credential::query::Query;
use keyward_server::identity::PrincipalKind;
use keyward_server::perimeter::authority::HostPattern;
use keyward_server::perimeter::{Destination, Entry, Perimeter};
use keyward_server::plan::{
    Decide, Identify, Mode, NotIdentified, Parts, Pending, Plan, Presented, Principal, Question, Server, Verdict,
};
use keyward_server::secret::{Resolved, Resolving, SecretError, SecretStore, Secrets};
use keyward_server::serve::{Address, Bound, Listen};
use keyward_server::session::Root;
use keyward_server::sources::Sources;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

pub(crate) const SECRET: &str = "canary-7f3a-secret";
pub(crate) const PASSWORD: &str = "canary-9b1c-password";
pub(crate) const TOKEN: &str = "Bearer canary-token-of-alice";
pub(crate) const DECISION_ID: &str = "0123456789abcdef0123456789abcdef";

/// The three doors. What a test does not change allows alice to call `echo`.
pub(crate) struct Doors {
    pub(crate) secret_missing: AtomicBool,
    /// How often a secret was looked up.
    pub(crate) lookups: AtomicUsize,
    pub(crate) stuck: AtomicBool,
    pub(crate) held: tokio::sync::Semaphore,
}

impl Identify for Doors {
    fn identify<'a>(&'a self, presented: &'a Presented<'a>) -> Pending<'a, Result<Arc<Principal>, NotIdentified>> {
        Box::pin(async move {
            let authorization = presented.request.headers.find("authorization");
            if self.stuck.load(Ordering::Acquire) {
                let _ = self.held.acquire().await;
            }
            match authorization {
                None => Err(NotIdentified::Missing),
                Some(TOKEN) => Ok(Arc::new(alice())),
                Some("Bearer keys-are-away") => Err(NotIdentified::Unavailable("keys away".into())),
                Some("Bearer panic") => panic!("canary-panic-message"),
                Some(_) => Err(NotIdentified::Refused("signature".into())),
            }
        })
    }
}

impl Decide for Doors {
    fn decide(&self, question: &Question<'_>) -> Result<Verdict, String> {
        let rule = Some("demo".to_owned());
        match (question.method, question.target) {
            ("tools/call", Some("echo")) => {
                let loud = question.arguments.and_then(|arguments| arguments.pointer("/message")?.as_str());
                Ok(Verdict { allow: loud != Some("forbidden argument"), rule, ..Verdict::default() })
            }
            ("tools/call", Some("both")) => {
                let bindings = vec!["key".to_owned(), "basic".to_owned()];
                Ok(Verdict { allow: true, rule, bindings, ..Verdict::default() })
            }
            ("tools/call", Some("elsewhere")) => {
                Ok(Verdict { allow: true, rule, bindings: vec!["elsewhere".into()], ..Verdict::default() })
            }
            ("tools/call", Some("broken")) => Err("the evaluation failed".into()),
            ("tools/call", _) => Ok(Verdict { explanation: Some("no rule".into()), ..Verdict::default() }),
            _ => Ok(Verdict { allow: true, rule, ..Verdict::default() }),
        }
    }
}

/// The scheme `env`, as these doors have it.
struct Environment(Arc<Doors>);

impl SecretStore for Environment {
    fn check(&self, _rest: &str) -> Result<(), SecretError> {
        Ok(())
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            self.0.lookups.fetch_add(1, Ordering::AcqRel);
            if self.0.secret_missing.load(Ordering::Acquire) {
                return Err(SecretError::NotSet { reference: format!("env://{rest}") });
            }
            let value = if rest == "PASSWORD" { PASSWORD } else { SECRET };
            Ok(Resolved::lasting(value.as_bytes().to_vec()))
        })
    }
}

fn alice() -> Principal {
    Principal {
        key: "key-of-alice".into(),
        kind: PrincipalKind::User,
        subject: "alice".into(),
        issuer: "demo".into(),
        agent: Some("bot".into()),
        roles: vec!["reader".into()],
        claims: json!({"sub": "alice"}),
        tenant: "demo".into(),
        expires_unix_secs: u64::MAX,
        ..Principal::nobody()
    }
}

fn server(name: &str, mode: Mode) -> Server {
    Server {
        name: name.into(),
        mode,
        upstream_authority: Some("upstream.internal:9000".into()),
        max_body_bytes: 64 * 1024,
        leaks: keyward_server::leak::Rules::default(),
        resource: None,
    }
}

fn entry(server: &str, host: &str, cluster: Option<&str>) -> Entry {
    Entry {
        server: server.into(),
        destinations: vec![Destination::new(host, None, Some("/mcp"), &[]).unwrap()],
        cluster: cluster.map(Into::into),
    }
}

pub(crate) fn source(reference: &str) -> SecretSource {
    SecretSource { reference: reference.into(), json_key: None, trim_newline: false }
}

fn binding(id: &str, host: &str, credential: Arc<dyn Credential>) -> Binding {
    Binding {
        id: id.into(),
        mode: BindingMode::ServiceAccount,
        owner: "team".into(),
        risk: None,
        environment: "test".into(),
        tenants: None,
        servers: vec!["demo".into(), "plain".into()],
        tools: None,
        principals: Some(keyward_server::binding::Principals { users: vec!["alice".into()], ..Default::default() }),
        hosts: vec![HostPattern::parse(host, None).unwrap()],
        credentials: vec![credential],
        passthrough: Vec::new(),
        local_secrets: Vec::new(),
        definition: String::new(),
    }
}

pub(crate) fn plan(doors: Arc<Doors>, revision: &str) -> Plan {
    let template = || "{secret}".to_owned();
    let key = HeaderCredential { name: "x-api-key".into(), template: template(), secret: source("env://SECRET") };
    let other = QueryCredential { name: "apiKey".into(), template: template(), secret: source("env://SECRET") };
    let secret = source("env://PASSWORD");
    let basic = BasicCredential { username: Some("svc".into()), username_secret: None, secret };
    let store = Arc::new(Environment(doors.clone()));
    let secrets = Secrets::standard(std::path::Path::new("")).and("env", store);
    secrets.sessions().keyring().replace(vec![Root::new([9; 32])], false, Duration::from_secs(60));
    let everybody = |binding: Binding| Binding { principals: None, ..binding };
    Plan::new(Parts {
        environment: "test".into(),
        revision: revision.into(),
        loaded: Instant::now(),
        servers: vec![server("demo", Mode::Mcp), server("plain", Mode::Http)],
        perimeter: Perimeter::new(vec![
            entry("demo", "mcp.example", None),
            entry("plain", "plain.example", None),
            entry("demo", "cluster.example", Some("blue")),
        ]),
        catalogue: Catalogue::new(
            vec![
                binding("key", "upstream.internal:9000", Arc::new(Header(key))),
                everybody(binding("basic", "upstream.internal:9000", Arc::new(Basic(basic)))),
                Binding {
                    principals: Some(keyward_server::binding::Principals {
                        roles: vec!["reader".into()],
                        ..Default::default()
                    }),
                    ..binding("elsewhere", "elsewhere.example", Arc::new(Query(other)))
                },
            ],
            "test",
            true,
        ),
        digester: Digester::new(b"an audit key of enough bytes"),
        identity: doors.clone(),
        policy: doors,
        revocation: None,
        sources: Arc::new(Sources::new(Arc::new(secrets))),
        throttle: keyward_server::throttle::Throttle::default(),
        tenancy: keyward_server::tenancy::Tenancy::default(),
    })
}

/// Audit lines in memory, behind a gate that a test can close.
#[derive(Clone, Default)]
pub(crate) struct Trail {
    lines: Arc<Mutex<Vec<u8>>>,
    pub(crate) shut: Arc<AtomicBool>,
    /// Whether a write waits at the gate.
    pub(crate) waits: Arc<AtomicBool>,
}

impl Write for Trail {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        while self.shut.load(Ordering::Acquire) {
            self.waits.store(true, Ordering::Release);
            std::thread::sleep(Duration::from_millis(2));
        }
        self.lines.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Trail {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.lines.lock().unwrap().clone()).unwrap()
    }
}

pub(crate) struct Scene {
    pub(crate) doors: Arc<Doors>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) trail: Trail,
    pub(crate) grpc: String,
    pub(crate) admin: String,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) served: JoinHandle<Result<(), keyward_server::serve::ServeError>>,
}

impl Scene {
    pub(crate) async fn start() -> Scene {
        Scene::with(64, 256, Duration::ZERO).await
    }

    pub(crate) async fn with(max_decisions: usize, queue_records: usize, drain: Duration) -> Scene {
        let doors = Arc::new(Doors {
            secret_missing: AtomicBool::new(false),
            lookups: AtomicUsize::new(0),
            stuck: AtomicBool::new(false),
            held: tokio::sync::Semaphore::new(0),
        });
        let trail = Trail::default();
        let writer = Writer::start(Sink::Other(Box::new(trail.clone())), queue_records).unwrap();
        let engine = Arc::new(Engine::new(plan(doors.clone(), "rev1"), writer, max_decisions));
        let listen = Listen {
            grpc: Address::Tcp("127.0.0.1:0".parse().unwrap()),
            admin: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            secrets_on_loopback: false,
            drain,
        };
        let bound = Bound::bind(engine.clone(), &listen).await.unwrap();
        let addresses: Value = serde_json::from_str(&bound.addresses()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(bound.serve(async {
            let _ = stopped.await;
        }));
        Scene {
            doors,
            engine,
            trail,
            grpc: format!("http://{}", addresses["grpc"].as_str().unwrap()),
            admin: addresses["admin"].as_str().unwrap().to_owned(),
            stop: Some(stop),
            served,
        }
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    pub(crate) async fn client(&self) -> AuthorizationClient<Channel> {
        AuthorizationClient::new(self.channel().await)
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.grpc.clone()).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn check(&self, ask: &Ask) -> Answer {
        let response = self.client().await.check(ask.message()).await.unwrap().into_inner();
        Answer(response)
    }

    /// The audit record of the last decision.
    pub(crate) fn last_decision(&self) -> Value {
        assert!(self.engine.audit().flush(Duration::from_secs(5)));
        let text = self.trail.text();
        let decisions = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        decisions.rev().find(|record| record["event"] == "decision").unwrap()
    }

    /// The body of an admin page and its status.
    pub(crate) async fn page(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

/// A request as the filter, or stock ext_authz, sends it.
pub(crate) struct Ask {
    pub(crate) filter: bool,
    pub(crate) server: Option<&'static str>,
    pub(crate) cluster: Option<&'static str>,
    pub(crate) method: &'static str,
    pub(crate) host: &'static str,
    pub(crate) path: &'static str,
    pub(crate) token: Option<&'static str>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

pub(crate) fn call(tool: &str) -> Ask {
    let params = json!({"name": tool, "arguments": {"message": "canary-argument"}});
    rpc(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}))
}

pub(crate) fn rpc(body: &Value) -> Ask {
    Ask {
        filter: true,
        server: Some("demo"),
        cluster: None,
        method: "POST",
        host: "mcp.example",
        path: "/mcp",
        token: Some(TOKEN),
        headers: vec![("mcp-protocol-version", "2025-11-25".into()), ("content-type", "application/json".into())],
        body: body.to_string(),
    }
}

impl Ask {
    pub(crate) fn message(&self) -> CheckRequest {
        use envoy_types::pb::envoy::config::core::v3::address::Address as Peer;
        use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress};
        use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
        use envoy_types::pb::envoy::service::auth::v3::attribute_context::{self, HttpRequest};
        let mut extensions = std::collections::HashMap::new();
        let mut extension = |name: &str, value: Option<&str>| {
            extensions.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        };
        extension("keyward.server", self.server);
        extension("keyward.cluster", self.cluster);
        extension("keyward.contract", self.filter.then_some("1"));
        extension("keyward.decision_id", self.filter.then_some(DECISION_ID));
        let mut headers: std::collections::HashMap<String, String> =
            self.headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        headers.extend(self.token.map(|token| ("authorization".to_owned(), token.to_owned())));
        let socket = SocketAddress { address: "192.0.2.7".into(), ..SocketAddress::default() };
        let http = HttpRequest {
            id: "envoy-request-id".into(),
            method: self.method.into(),
            headers,
            path: self.path.into(),
            host: self.host.into(),
            scheme: "https".into(),
            // The filter sends bytes; stock ext_authz sends text unless told otherwise.
            raw_body: if self.filter { self.body.clone().into_bytes() } else { Vec::new() },
            body: if self.filter { String::new() } else { self.body.clone() },
            ..HttpRequest::default()
        };
        CheckRequest {
            attributes: Some(AttributeContext {
                source: Some(attribute_context::Peer {
                    address: Some(Address { address: Some(Peer::SocketAddress(socket)) }),
                    ..attribute_context::Peer::default()
                }),
                request: Some(attribute_context::Request { http: Some(http), ..attribute_context::Request::default() }),
                context_extensions: extensions,
                ..AttributeContext::default()
            }),
        }
    }
}

pub(crate) struct Answer(pub(crate) CheckResponse);

impl Answer {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.as_ref().unwrap().code
    }

    /// Status, headers and body of a denial.
    pub(crate) fn denied(&self) -> (i32, Vec<(String, String)>, Value) {
        let Some(HttpResponse::DeniedResponse(denied)) = &self.0.http_response else { panic!("allowed") };
        let headers = denied.headers.iter().map(|option| option.header.clone().unwrap());
        (
            denied.status.as_ref().unwrap().code,
            headers.map(|header| (header.key, header.value)).collect(),
            serde_json::from_str(&denied.body).unwrap(),
        )
    }

    /// Headers to set, values to scrub.
    pub(crate) fn allowed(&self) -> (Vec<(String, String)>, Vec<String>) {
        let Some(HttpResponse::OkResponse(ok)) = &self.0.http_response else { panic!("denied: {:?}", self.denied()) };
        assert_eq!(self.code(), 0);
        let (scrub, set): (Vec<_>, Vec<_>) = ok
            .headers
            .iter()
            .inspect(|option| assert_eq!(option.append_action, 2))
            .map(|option| option.header.clone().unwrap())
            .filter(|header| header.key != "x-keyward-session")
            .partition(|header| header.key == "x-keyward-scrub");
        let scrub = scrub.into_iter().map(|header| String::from_utf8(header.raw_value).unwrap());
        (set.into_iter().map(|header| (header.key, header.value)).collect(), scrub.collect())
    }

    /// What the filter is told of the session of the answer.
    pub(crate) fn session(&self) -> Option<String> {
        let Some(HttpResponse::OkResponse(ok)) = &self.0.http_response else { panic!("denied: {:?}", self.denied()) };
        let mut headers = ok.headers.iter().filter_map(|option| option.header.clone());
        let told = headers.find(|header| header.key == "x-keyward-session")?;
        Some(String::from_utf8(told.raw_value).unwrap())
    }

    pub(crate) fn removed(&self) -> (Vec<String>, Vec<String>) {
        let Some(HttpResponse::OkResponse(ok)) = &self.0.http_response else { panic!("denied") };
        (ok.headers_to_remove.clone(), ok.query_parameters_to_remove.clone())
    }
}
