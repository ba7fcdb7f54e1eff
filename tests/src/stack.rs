//! A whole Keyward in one value: upstream, server, Envoy and their files, started in that order and stopped on drop.
//!
//! At most as many stacks run at once as the machine has cores; a test that holds one and asks for another may wait
//! forever, so a test takes one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::agent::{self, Session};
use crate::client::{Answer, Request};
use crate::envoy::{Endpoint, Envoy, Options as EnvoyOptions};
use crate::issuer::{Issuer, Token};
use crate::server::Server;
use crate::upstream::{Options as UpstreamOptions, Slot, Upstream};
use crate::{envoy, files};

/// The subject of [`Stack::token`].
pub const SUBJECT: &str = "alice";
/// The role of [`Stack::token`]: it may call `echo` and `leak`, and not `delete_everything`.
pub const ROLE: &str = "demo-user";
/// The authority that the upstream gets.
pub use crate::upstream::AUTHORITY as UPSTREAM_AUTHORITY;

/// A running stack. Fields stay open, so that a test can stop, freeze and restart each part.
pub struct Stack {
    /// The agent's endpoint's address; the path is `/mcp`.
    pub agents: SocketAddr,
    /// Envoy.
    pub envoy: Envoy,
    /// Keyward's server.
    pub server: Server,
    /// Further replicas of the server behind the same Envoy.
    pub replicas: Vec<Server>,
    /// The upstream.
    pub upstream: Upstream,
    /// Signs tokens that the server knows.
    pub issuer: Arc<Issuer>,
    /// A token of [`SUBJECT`] with [`ROLE`].
    pub token: String,
    /// The upstream's credential.
    pub secret: String,
    /// Where its files and logs lie.
    pub folder: PathBuf,
    environment: Vec<(String, String)>,
    config: Value,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A stack in the making.
pub struct Builder {
    name: String,
    folder: Option<PathBuf>,
    secret: String,
    config: Value,
    files: Vec<(String, Vec<u8>)>,
    environment: Vec<(String, String)>,
    envoy: EnvoyOptions,
    upstream: UpstreamOptions,
    token_secs: i64,
    issuer: Option<Arc<Issuer>>,
    unbounded: bool,
    servers: usize,
}

// === impl Builder ===

impl Builder {
    /// Changes `keyward.yaml`, for example `|config| config["listen"]["grpc"] = json!("127.0.0.1:1")`.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes Envoy's options.
    #[must_use]
    pub fn envoy(mut self, change: impl FnOnce(&mut EnvoyOptions)) -> Self {
        change(&mut self.envoy);
        self
    }

    /// Changes the upstream's options.
    #[must_use]
    pub fn upstream(mut self, change: impl FnOnce(&mut UpstreamOptions)) -> Self {
        change(&mut self.upstream);
        self
    }

    /// Lets the upstream expect, and the server inject, the credential in this slot.
    #[must_use]
    pub fn slot(mut self, slot: Slot) -> Self {
        self.config["bindings"][0]["credentials"][0] = credential(&slot);
        self.upstream.slot = slot;
        self
    }

    /// Uses this upstream credential.
    #[must_use]
    pub fn secret(mut self, secret: &str) -> Self {
        secret.clone_into(&mut self.secret);
        self
    }

    /// Replaces `policies/keyward.rego`, which is otherwise the sample.
    #[must_use]
    pub fn policy(self, rego: &str) -> Self {
        self.file("policies/keyward.rego", rego)
    }

    /// Writes a file into the stack's folder before anything starts, over one of the same name.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.push((path.to_owned(), content.as_ref().to_vec()));
        self
    }

    /// Sets a variable of the server's environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Uses this folder, emptied before, instead of `target/e2e/NAME-N`.
    #[must_use]
    pub fn folder(mut self, folder: PathBuf) -> Self {
        self.folder = Some(folder);
        self
    }

    /// How long the default token is valid. Default: 600 s.
    #[must_use]
    pub fn token_secs(mut self, seconds: i64) -> Self {
        self.token_secs = seconds;
        self
    }

    /// Uses this issuer, which others know already.
    #[must_use]
    pub fn issuer(mut self, issuer: Arc<Issuer>) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// Does not wait for other stacks to end: for programs that are no tests.
    #[must_use]
    pub fn unbounded(mut self) -> Self {
        self.unbounded = true;
        self
    }

    /// How many replicas of the server are started, all at once. Default: 1.
    #[must_use]
    pub fn servers(mut self, count: usize) -> Self {
        self.servers = count;
        self
    }

    /// What tells this stack's secrets from those of others.
    #[must_use]
    pub fn random(&self) -> &str {
        self.secret.rsplit('/').next().unwrap_or_default()
    }

    /// Starts everything.
    ///
    /// # Errors
    /// Names the part that does not start, with the end of its log.
    pub async fn start(mut self) -> Result<Stack> {
        static RUNNING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
            let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
            Arc::new(Semaphore::new(cores.max(2)))
        });
        let permit = if self.unbounded { None } else { Some(RUNNING.clone().acquire_owned().await?) };
        let folder = match self.folder.take() {
            Some(folder) => {
                files::fresh_folder(&folder)?;
                folder
            }
            None => files::run_folder(&self.name)?,
        };
        let issuer = match self.issuer.take() {
            Some(issuer) => issuer,
            None => Arc::new(Issuer::new()?),
        };
        self.write_files(&folder, &issuer)?;

        self.upstream.secret.clone_from(&self.secret);
        let upstream = Upstream::start(&self.upstream, &folder)?;
        let (server, replicas) = self.start_servers(&folder)?;
        self.envoy.keyward = Endpoint::Tcp(server.grpc);
        self.envoy.replicas = replicas.iter().map(|replica| replica.grpc).collect();
        self.envoy.upstream.endpoint = Endpoint::Tcp(upstream.address);
        let envoy = Envoy::start(self.envoy, &folder).await?;

        let token = issuer.sign(&Token::new(SUBJECT, &[ROLE]).lifetime(0, self.token_secs))?;
        Ok(Stack {
            agents: envoy.agents()?,
            envoy,
            server,
            replicas,
            upstream,
            issuer,
            token,
            secret: self.secret,
            folder,
            environment: self.environment,
            config: self.config,
            _permit: permit,
        })
    }

    fn start_servers(&self, folder: &Path) -> Result<(Server, Vec<Server>)> {
        for number in 1..self.servers {
            write_replica(folder, number, &self.config, None)?;
        }
        std::thread::scope(|scope| {
            let starting: Vec<_> = (1..self.servers)
                .map(|number| scope.spawn(move || start_replica(folder, number, &self.environment)))
                .collect();
            let server = Server::start(&folder.join("keyward.yaml"), &self.environment, folder)?;
            let replicas = starting.into_iter().map(|one| match one.join() {
                Ok(started) => started,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            Ok((server, replicas.collect::<Result<_>>()?))
        })
    }

    fn write_files(&self, folder: &Path, issuer: &Issuer) -> Result<()> {
        files::copy_folder(&files::workspace().join("policies"), &folder.join("policies"))?;
        fs::create_dir_all(folder.join("secrets")).context("making the folder of secrets")?;
        files::replace(&folder.join("jwks.json"), issuer.jwks().to_string())?;
        files::replace(&folder.join("secrets/demo"), &self.secret)?;
        write_config(folder, &self.config)?;
        for (path, content) in &self.files {
            if let Some(parent) = folder.join(path).parent() {
                fs::create_dir_all(parent).with_context(|| format!("making the folder of `{path}`"))?;
            }
            files::replace(&folder.join(path), content)?;
        }
        Ok(())
    }
}

// === impl Stack ===

impl Stack {
    /// A stack as the demo shows it: one MCP server `demo`, one binding, the sample policy. `name` is that of the test.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        let mut bytes = [0; 16];
        // Randomness only keeps the secrets of two stacks apart; without it they are equal.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let upstream = UpstreamOptions::default();
        Builder {
            name: name.to_owned(),
            folder: None,
            secret: format!("demo+key/{random}"),
            config: sample_config(&upstream.slot),
            files: Vec::new(),
            environment: vec![("KEYWARD_AUDIT_KEY".to_owned(), format!("audit-{random}"))],
            envoy: EnvoyOptions::default(),
            upstream,
            token_secs: 600,
            issuer: None,
            unbounded: false,
            servers: 1,
        }
    }

    /// Signs a token for this subject with these roles.
    ///
    /// # Errors
    /// Where the crypto library refuses.
    pub fn token_for(&self, subject: &str, roles: &[&str]) -> Result<String> {
        self.issuer.sign(&Token::new(subject, roles))
    }

    /// Calls a tool in the newest revision, with id 1 and the default token.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn call_tool(&self, tool: &str, arguments: Value) -> Result<Answer> {
        self.send(agent::tool_call(1, tool, arguments)).await
    }

    /// Sends a request with the default token.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn send(&self, request: Request) -> Result<Answer> {
        request.bearer(&self.token).send(self.agents).await
    }

    /// Sends a request as it is.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn send_bare(&self, request: Request) -> Result<Answer> {
        request.send(self.agents).await
    }

    /// Opens a session of an earlier revision with the default token.
    ///
    /// # Errors
    /// Where the upstream or Keyward refuses.
    pub async fn session(&self, revision: &str) -> Result<Session> {
        Session::open(self.agents, revision, &self.token).await
    }

    /// The server's environment, for other commands of its program.
    #[must_use]
    pub fn variables(&self) -> &[(String, String)] {
        &self.environment
    }

    /// `keyward.yaml` as it is now.
    #[must_use]
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Changes `keyward.yaml` while the server runs; nothing waits for the server to notice.
    ///
    /// # Errors
    /// Where the file cannot be replaced.
    pub fn change_config(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        change(&mut self.config);
        write_config(&self.folder, &self.config)
    }

    /// Replaces a file of the stack's folder, for example `policies/keyward.rego` or `secrets/demo`, in one step.
    ///
    /// # Errors
    /// Where the file cannot be replaced.
    pub fn change_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        files::replace(&self.folder.join(path), content)
    }

    /// Runs a statement in the database of SQLite, as somebody else would while the server runs.
    ///
    /// # Errors
    /// Where it fails.
    pub fn change_database(&self, statement: &str) -> Result<()> {
        let program =
            "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], timeout=10)\nc.execute(sys.argv[2])\nc.commit()";
        let mut command = Command::new("python3");
        let done = command.args(["-c", program]).arg(self.folder.join("keyward.db")).arg(statement).status();
        anyhow::ensure!(done.context("starting `python3`")?.success(), "`{statement}` failed");
        Ok(())
    }

    /// Stops the server, where it still runs, and starts it on the same ports and files.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn restart_server(&mut self) -> Result<()> {
        self.server.process.stop(Duration::from_secs(10));
        self.config["listen"]["grpc"] = json!(self.server.grpc.to_string());
        self.config["listen"]["admin"] = json!(self.server.admin.to_string());
        write_config(&self.folder, &self.config)?;
        self.server = Server::start(&self.folder.join("keyward.yaml"), &self.environment, &self.folder)?;
        Ok(())
    }

    /// The same for one of [`Stack::replicas`].
    ///
    /// # Errors
    /// Where there is none of this index, or it does not start.
    pub fn restart_replica(&mut self, index: usize) -> Result<()> {
        let replica = self.replicas.get_mut(index).context("there is no such replica")?;
        replica.process.stop(Duration::from_secs(10));
        write_replica(&self.folder, index + 1, &self.config, Some((replica.grpc, replica.admin)))?;
        *replica = start_replica(&self.folder, index + 1, &self.environment)?;
        Ok(())
    }

    /// Everything that any part wrote: logs, audit records, the access log, and Envoy's and the server's admin pages.
    ///
    /// # Errors
    /// Where an admin page does not answer.
    pub async fn everything_written(&self) -> Result<String> {
        let mut all = self.envoy.everything().await? + &self.server.metrics().await?;
        for log in [self.envoy.process.log(), self.server.process.log(), self.envoy.access_log()] {
            all += &log;
        }
        for record in self.server.audit()? {
            all += &record.to_string();
        }
        Ok(all)
    }

    /// Stops every part in order: Envoy, the server, the upstream.
    pub fn stop(&mut self) {
        self.envoy.stop();
        self.server.process.stop(Duration::from_secs(10));
        for replica in &mut self.replicas {
            replica.process.stop(Duration::from_secs(10));
        }
        self.upstream.process.stop(Duration::from_secs(5));
    }
}

/// The sample configuration: what the README shows, with this stack's files.
fn sample_config(slot: &Slot) -> Value {
    json!({
        "version": 1,
        "environment": "development",
        "listen": {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "identity": {"issuers": [{
            "name": "demo",
            "issuer": crate::issuer::ISSUER,
            "audiences": [crate::issuer::AUDIENCE],
            "algorithms": ["ES256", "RS256", "EdDSA"],
            "jwks": {"file": "jwks.json"},
            "subject_claim": "sub",
            "agent_claim": "client_id",
            "roles_claim": "roles",
        }]},
        "policy": {"directory": "policies"},
        "audit": {"file": "audit.jsonl", "hmac_key": {"ref": "env://KEYWARD_AUDIT_KEY"}},
        "servers": {"demo": {
            "mode": "mcp",
            "destinations": [{"host": "127.0.0.1", "path": "/mcp"}],
            "upstream_authority": UPSTREAM_AUTHORITY,
            "cluster": envoy::Options::default().upstream.name,
            "max_body_bytes": 1_048_576,
        }},
        "bindings": [{
            "id": "demo-api-key",
            "mode": "service_account",
            "owner": "platform-team",
            "environment": "development",
            "servers": ["demo"],
            "hosts": [UPSTREAM_AUTHORITY],
            "credentials": [credential(slot)],
        }],
    })
}

fn credential(slot: &Slot) -> Value {
    let secret = json!({"ref": "file://secrets/demo"});
    match slot {
        Slot::Header(name) => json!({"type": "header", "name": name, "template": "{secret}", "secret": secret}),
        Slot::Query(name) => json!({"type": "query", "name": name, "secret": secret}),
        Slot::Basic(user) => json!({"type": "basic", "username": user, "secret": secret}),
    }
}

/// Writes the configuration of a replica beside that of the first server: only the ports and the audit file are its own.
fn write_replica(folder: &Path, number: usize, config: &Value, ports: Option<(SocketAddr, SocketAddr)>) -> Result<()> {
    let mut config = config.clone();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let (grpc, admin) = ports.unwrap_or((any, any));
    config["listen"]["grpc"] = json!(grpc.to_string());
    config["listen"]["admin"] = json!(admin.to_string());
    let name = replica_name(number);
    config["audit"]["file"] = json!(format!("{name}/audit.jsonl"));
    fs::create_dir_all(folder.join(&name)).with_context(|| format!("making the folder `{name}`"))?;
    let text = serde_saphyr::to_string(&config).context("writing a replica's configuration")?;
    files::replace(&folder.join(format!("{name}.yaml")), text)
}

fn start_replica(folder: &Path, number: usize, environment: &[(String, String)]) -> Result<Server> {
    let name = replica_name(number);
    Server::start(&folder.join(format!("{name}.yaml")), environment, &folder.join(name))
}

fn replica_name(number: usize) -> String {
    format!("replica-{number}")
}

fn write_config(folder: &Path, config: &Value) -> Result<()> {
    let text = serde_saphyr::to_string(config).context("writing keyward.yaml")?;
    files::replace(&folder.join("keyward.yaml"), text)
}
