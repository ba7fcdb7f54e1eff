//! The demo as containers: `docker-compose.yaml`, staged, brought up, checked and taken down.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::client::{Answer, Request};
use crate::files;

mod checks;
mod stage;

/// The services of `docker-compose.yaml`.
pub const SERVICES: [&str; 3] = ["envoy", "keyward", "upstream"];
/// The port of the agents' listener inside Envoy's container.
const AGENTS_PORT: &str = "10000";
const HINT: &str = "docs/containers.md says what is needed";

/// What to bring up, and under which name.
#[derive(Clone, Debug)]
pub struct Options {
    /// The compose project: the prefix of every container, network, volume and image.
    pub project: String,
    /// Where configuration, secrets and artefacts are staged; emptied before.
    pub folder: PathBuf,
    /// The published port on this machine's loopback; 0 takes a free one.
    pub port: u16,
    /// How long the token is valid.
    pub token_lifetime: Duration,
}

/// The running demo. It is taken down, with its volumes, networks, images and staged files, when this is dropped.
pub struct Containers {
    /// The address that Envoy is published at; the agent's endpoint is `/mcp` there.
    pub agents: SocketAddr,
    /// A token whose principal may call `echo` and `leak`, and not `delete_everything`.
    pub token: String,
    /// The upstream's API key, which the agent must never see.
    pub secret: String,
    project: Project,
}

/// A compose project with its staged files, whether it runs or not.
struct Project {
    name: String,
    folder: PathBuf,
    port: u16,
}

/// Says why no container engine can be used here; none where one answers.
#[must_use]
pub fn missing_engine() -> Option<String> {
    let version = ["version", "--format", "{{.Server.Version}}"];
    for arguments in [&version[..], &["compose", "version"]] {
        let line = format!("`docker {}`", arguments.join(" "));
        match Command::new("docker").args(arguments).stdin(Stdio::null()).output() {
            Err(error) => return Some(format!("{line} does not start: {error}")),
            Ok(output) if !output.status.success() => {
                let text = String::from_utf8_lossy(&output.stderr);
                return Some(format!("{line} fails: {}", text.lines().next().unwrap_or("without a word")));
            }
            Ok(_) => {}
        }
    }
    None
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            project: "keyward".to_owned(),
            folder: files::target().join("compose"),
            port: 10_000,
            token_lifetime: Duration::from_secs(8 * 3600),
        }
    }
}

impl Options {
    /// A project of its own for one run of the checks, so that a demo that is up is left alone.
    #[must_use]
    pub fn for_one_run() -> Self {
        let project = format!("keyward-once-{}", std::process::id());
        let folder = files::target().join("compose-once").join(&project);
        Self { project, folder, port: 0, token_lifetime: Duration::from_secs(600) }
    }
}

// === impl Containers ===

impl Containers {
    /// Stages the files, builds the images and brings the project up. Returns when every container is healthy.
    ///
    /// # Errors
    /// Where there is no engine, an artefact was not built, or a container does not get healthy, with the logs' ends.
    pub fn start(options: &Options) -> Result<Self> {
        if let Some(why) = missing_engine() {
            bail!("there is no container engine with compose v2: {why} ({HINT})");
        }
        let project = Project { name: options.project.clone(), folder: options.folder.clone(), port: options.port };
        let staged = stage::fill(&project.folder, options.token_lifetime)?;
        project.up()?;
        let published = project.compose(&["port", "envoy", AGENTS_PORT])?;
        let agents = published.trim().parse().with_context(|| format!("`{}` is not an address", published.trim()))?;
        Ok(Self { agents, token: staged.token, secret: staged.secret, project })
    }

    /// Asks for a page on a container's own loopback, and returns its body.
    ///
    /// # Errors
    /// Where the page does not answer 200.
    pub fn page(&self, service: &str, port: u16, path: &str) -> Result<String> {
        self.project.compose(&["exec", "-T", service, "probe", &port.to_string(), path])
    }

    /// The last request that the upstream received; `null` where there was none.
    ///
    /// # Errors
    /// Where its report does not answer.
    pub fn last(&self) -> Result<Value> {
        let page = self.page("upstream", 9001, "/last")?;
        serde_json::from_str(&page).context("reading what the upstream received last")
    }

    /// How many requests the upstream received, whether it accepted them or not.
    ///
    /// # Errors
    /// Where its report does not answer.
    pub fn count(&self) -> Result<u64> {
        let page = self.page("upstream", 9001, "/count")?;
        let counts: Value = serde_json::from_str(&page).with_context(|| format!("the upstream's report `{page}`"))?;
        counts["received"].as_u64().with_context(|| format!("no count in the upstream's report `{page}`"))
    }

    /// The audit records so far, one JSON object a line.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn audit(&self) -> Result<String> {
        self.project.compose(&["exec", "-T", "keyward", "cat", "/var/lib/keyward/audit.jsonl"])
    }

    /// What the containers wrote to their standard output and error.
    ///
    /// # Errors
    /// Where the engine does not answer.
    pub fn logs(&self) -> Result<String> {
        self.project.logs(&["--no-log-prefix"])
    }

    /// Sends a request as an agent.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn send(&self, request: Request) -> Result<Answer> {
        request.send(self.agents).await
    }

    /// Makes sure of everything that the containers promise, and tells `say` each fact that held.
    ///
    /// # Errors
    /// Names the first promise that did not hold.
    pub async fn check(&self, say: impl FnMut(&str)) -> Result<()> {
        checks::run(self, say).await
    }

    /// Everything the engine knows about the container of a service.
    fn inspect(&self, service: &str) -> Result<Value> {
        let id = self.project.compose(&["ps", "--quiet", service])?;
        let text = run(Command::new("docker").args(["inspect", id.trim()]))?;
        let mut list: Vec<Value> = serde_json::from_str(&text).context("reading `docker inspect`")?;
        list.pop().with_context(|| format!("there is no container of `{service}`"))
    }
}

// === impl Project ===

impl Project {
    fn up(&self) -> Result<()> {
        let up = ["up", "--detach", "--build", "--wait", "--wait-timeout", "120"];
        let Err(error) = self.compose(&up) else { return Ok(()) };
        let logs = self.logs(&["--tail", "20"]).unwrap_or_default();
        let hint = if logs.contains("GLIBC_") {
            "the programs need a newer C library than the base image has: name a newer one in KEYWARD_BASE_IMAGE"
        } else {
            HINT
        };
        bail!("the containers did not come up ({hint}): {error:#}\n{logs}")
    }

    fn logs(&self, arguments: &[&str]) -> Result<String> {
        let text = self.compose(&[&["logs", "--no-color"], arguments].concat())?;
        // Compose clears lines even where there is no terminal.
        Ok(text.replace("\u{1b}[2K", ""))
    }

    fn down(&self) {
        let down = ["down", "--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "10"];
        if let Err(error) = self.compose(&down) {
            eprintln!("taking the containers down: {error:#}");
        }
        // Secrets, token and copies of programs: nothing of it is of use any more.
        let _ = std::fs::remove_dir_all(&self.folder);
    }

    fn compose(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name"]).arg(&self.name);
        command.arg("--file").arg(files::workspace().join("docker-compose.yaml")).args(arguments);
        command.env("KEYWARD_COMPOSE_FOLDER", &self.folder).env("KEYWARD_PORT", self.port.to_string());
        run(&mut command)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.down();
    }
}

/// Runs a command to its end and returns its standard output.
fn run(command: &mut Command) -> Result<String> {
    let output: Output = command.stdin(Stdio::null()).output().context("`docker` does not start")?;
    if !output.status.success() {
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
        bail!("`docker {}` ended with {}:\n{end}", words.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes a file for the containers, whose users are others than this one, to read.
fn readable(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, content).with_context(|| format!("writing `{}`", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .with_context(|| format!("opening `{}` to the containers", path.display()))
}
