//! What is compared: one Envoy process for each variant, all of them up at the same time, each with one worker.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use keyward_tests::files;
use keyward_tests::process::Process;
use serde_json::Value;

use crate::Options;
use crate::bootstrap::{Filters, bootstrap};
use crate::keyward::{AUDIT_KEY_VARIABLE, Credential, Setup};
use crate::process::{announced, wait_for};
use crate::upstream::CREDENTIAL_VARIABLE;

/// Envoy with nothing but the router.
pub const ROUTER: &str = "router";
/// Envoy's `ext_authz` asking the always-yes server.
pub const EXT_AUTHZ: &str = "ext_authz";
/// Envoy's `mcp` and `rbac`.
pub const MCP_RBAC: &str = "mcp_rbac";
/// Keyward's whole chain.
pub const KEYWARD: &str = "keyward";
/// Keyward's whole chain with a minted access token.
pub const KEYWARD_OAUTH: &str = "keyward_oauth";
/// Keyward's whole chain with an AWS signature.
pub const KEYWARD_SIGV4: &str = "keyward_sigv4";
/// Keyward's filter asking the always-yes server.
pub const FILTER_ALWAYS_YES: &str = "filter_always_yes";

/// One thing to measure.
pub struct Variant {
    /// Its name in results.
    pub name: String,
    /// Where agents connect.
    pub address: SocketAddr,
    /// Its Envoy.
    pub envoy: Process,
    /// The server that it asks.
    pub server: Option<Rc<Process>>,
}

/// All variants, the upstream they share, and a token that Keyward accepts.
pub struct Stage {
    /// In the order in which they are measured.
    pub variants: Vec<Variant>,
    /// The bearer token to send.
    pub token: String,
    /// Tells by `GET` how many access tokens were minted.
    pub mints: SocketAddr,
    /// Lives as long as the stage.
    _upstream: Process,
}

struct Starter<'a> {
    options: &'a Options,
    folder: PathBuf,
    credential: String,
}

// === impl Stage ===

impl Stage {
    /// Starts everything; the files of this run go to `folder`, which is emptied first.
    ///
    /// # Errors
    /// Where a process does not get ready: with the end of its log.
    pub fn start(options: &Options, folder: &Path) -> Result<Stage> {
        files::fresh_folder(folder)?;
        let folder = folder.canonicalize()?;
        let setup = Setup::write(&folder)?;
        let start = Starter { options, folder, credential: random_hex(20)? };

        let mut upstream = start.own("upstream")?;
        let [open, guarded, bearer, signed, mints] =
            announced(&mut upstream, ["open", "guarded", "bearer", "signed", "token"])?;
        let mut yes = start.own("always-yes")?;
        let [yes_address] = announced(&mut yes, ["grpc"])?.map(Some);
        let yes = Some(Rc::new(yes));

        let mut variants = vec![
            start.variant(ROUTER, &Filters::None, open, None, None)?,
            start.variant(EXT_AUTHZ, &Filters::ExtAuthz, open, yes_address, yes.clone())?,
            start.variant(MCP_RBAC, &Filters::McpRbac, open, None, None)?,
        ];
        if let Some(filter) = &options.filter {
            let filters = Filters::Wasm(filter.canonicalize().with_context(|| format!("`{}`", filter.display()))?);
            if let Some(program) = &options.server {
                let kinds = [
                    (KEYWARD, guarded, Credential::Header),
                    (KEYWARD_OAUTH, bearer, Credential::Oauth(mints)),
                    (KEYWARD_SIGV4, signed, Credential::Sigv4),
                ];
                for (name, upstream, credential) in kinds {
                    let mut server = start.keyward(name, program, &setup.configuration(name, credential)?)?;
                    let [address] = announced(&mut server, ["grpc"])?.map(Some);
                    variants.push(start.variant(name, &filters, upstream, address, Some(Rc::new(server)))?);
                }
            }
            variants.push(start.variant(FILTER_ALWAYS_YES, &filters, guarded, yes_address, yes.clone())?);
        }
        for (name, filter) in &options.trials {
            let filters = Filters::Wasm(filter.canonicalize().with_context(|| format!("`{}`", filter.display()))?);
            variants.push(start.variant(name, &filters, open, yes_address, yes.clone())?);
        }
        Ok(Stage { variants, token: setup.token, mints, _upstream: upstream })
    }
}

// === impl Starter ===

impl Starter<'_> {
    /// A subcommand of this program.
    fn own(&self, subcommand: &str) -> Result<Process> {
        let mut command = Command::new(&self.options.own_program);
        command.arg(subcommand).env(CREDENTIAL_VARIABLE, &self.credential);
        Process::start(subcommand, command, &self.folder)
    }

    fn keyward(&self, name: &str, program: &Path, config: &Path) -> Result<Process> {
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(config);
        command.env(CREDENTIAL_VARIABLE, &self.credential).env(AUDIT_KEY_VARIABLE, random_hex(32)?);
        Process::start(name, command, &self.folder)
    }

    fn variant(
        &self,
        name: &str,
        filters: &Filters,
        upstream: SocketAddr,
        decisions: Option<SocketAddr>,
        server: Option<Rc<Process>>,
    ) -> Result<Variant> {
        let path = |suffix: &str| self.folder.join(format!("envoy-{name}.{suffix}"));
        let (config, admin) = (path("json"), path("admin"));
        fs::write(&config, serde_json::to_string_pretty(&bootstrap(filters, upstream, decisions))?)?;
        let mut command = Command::new(&self.options.envoy);
        command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]);
        command.arg("--config-path").arg(&config).arg("--admin-address-path").arg(&admin);
        let mut envoy = Process::start(&format!("envoy-{name}"), command, &self.folder)?;
        let address = wait_for(&mut envoy, "its listener", || {
            let admin = fs::read_to_string(&admin).ok()?.trim().parse().ok()?;
            get(admin, "/ready")?;
            let listeners: Value = serde_json::from_str(&get(admin, "/listeners?format=json")?).ok()?;
            let socket = listeners.pointer("/listener_statuses/0/local_address/socket_address")?;
            format!("{}:{}", socket.get("address")?.as_str()?, socket.get("port_value")?).parse().ok()
        })?;
        Ok(Variant { name: name.to_owned(), address, envoy, server })
    }
}

/// How many access tokens the upstream has minted.
///
/// # Errors
/// Where it does not say.
pub fn minted(mints: SocketAddr) -> Result<usize> {
    get(mints, "/minted").and_then(|text| text.trim().parse().ok()).context("the token endpoint does not say its count")
}

/// The body of an HTTP 200; nothing where anything else comes.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: envoy\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok()?;
    let text = String::from_utf8(text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if !head.starts_with("HTTP/1.1 200") {
        return None;
    }
    // The admin interface sends chunks; what is asked for here begins and ends with a brace, or does not matter.
    let json = body.find('{').zip(body.rfind('}')).and_then(|(start, end)| body.get(start..=end));
    Some(json.unwrap_or(body).to_owned())
}

fn random_hex(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| anyhow::anyhow!("the system has no randomness"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
