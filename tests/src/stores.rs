//! The secret stores of `tests/python/stores` as processes: each serves a store's published API on loopback, and a test
//! prepares it, breaks it and asks what it received through a second port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::client::Request;
use crate::process::Process;
use crate::server::address;
use crate::{files, peers, tools};

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HashiCorp Vault or OpenBao.
    Vault,
    /// The Secret API of Kubernetes, over TLS.
    Kubernetes,
    /// Google Cloud's Secret Manager.
    Gcp,
    /// Azure Key Vault.
    Azure,
    /// 1Password Connect.
    OnePassword,
}

/// A running store.
pub struct Store {
    /// Where it serves its API.
    pub address: SocketAddr,
    /// The process.
    pub process: Process,
    control: SocketAddr,
    kind: Kind,
    folder: PathBuf,
}

// === impl Kind ===

impl Kind {
    fn script(self) -> &'static str {
        match self {
            Kind::Vault => "vault",
            Kind::Kubernetes => "kubernetes",
            Kind::Gcp => "gcp",
            Kind::Azure => "azure",
            Kind::OnePassword => "onepassword",
        }
    }
}

// === impl Store ===

impl Store {
    /// Starts it with nothing in it; its files and logs lie in a folder of this test's own.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start(kind: Kind, test: &str) -> Result<Self> {
        let folder = files::run_folder(&format!("{test}-{}", kind.script()))?;
        let (process, address, control) = run(kind, &folder)?;
        Ok(Self { address, process, control, kind, folder })
    }

    /// Its address as configuration writes it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.kind == Kind::Kubernetes { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The authority that signed its certificate, where it has one.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Gives it a command: a method `control_NAME` of its script. Returns what that returns.
    ///
    /// # Errors
    /// With the mistake in the command.
    pub async fn tell(&self, command: &str, arguments: Value) -> Result<Value> {
        let answer = Request::post(&format!("/{command}"), &arguments).send(self.control).await?;
        let mut body = answer.json().with_context(|| format!("telling the store `{command}`"))?;
        if !answer.status.is_success() {
            bail!("the store did not do `{command}`: {body}");
        }
        Ok(body["result"].take())
    }

    /// Method, path and query of each request that it received.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn requests(&self) -> Result<Vec<String>> {
        let requests = self.tell("requests", serde_json::json!({})).await?;
        Ok(requests.as_array().into_iter().flatten().filter_map(|line| Some(line.as_str()?.to_owned())).collect())
    }

    /// Ends it, so that connections to its address are refused.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The arguments of a script that talks to both of its ports.
    #[must_use]
    pub fn ports(&self) -> [String; 2] {
        [self.address.to_string(), self.control.to_string()]
    }
}

/// A command that runs a script of `tests/python/stores`.
///
/// # Errors
/// Where the packages cannot be installed.
pub fn python(script: &str) -> Result<Command> {
    let mut command = Command::new(tools::python_stores()?);
    command.arg("-B").arg(files::workspace().join("tests/python/stores").join(script));
    Ok(command)
}

/// Lets hvac, an independent client of Vault, check the store of that kind; returns what it checked.
///
/// # Errors
/// With the check that failed.
pub fn check_with_hvac(store: &Store, signed: &str, service_account: &str, jwks: &Value) -> Result<Value> {
    let mut command = python("check_vault.py")?;
    command.args(store.ports()).args([signed, service_account, &jwks.to_string()]);
    peers::report("hvac", command, &store.folder, Duration::from_secs(60))
}

fn run(kind: Kind, folder: &Path) -> Result<(Process, SocketAddr, SocketAddr)> {
    let mut command = python(&format!("{}.py", kind.script()))?;
    command.arg("--folder").arg(folder);
    if kind == Kind::Kubernetes {
        command.arg("--tls");
    }
    let mut process = Process::start(kind.script(), command, folder)?;
    let announced = process.announcement(Duration::from_secs(30))?;
    Ok((process, address(&announced, "store")?, address(&announced, "control")?))
}
