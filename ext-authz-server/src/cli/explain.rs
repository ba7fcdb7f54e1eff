//! `keyward explain`: the arguments, made into the request that Envoy would ask about.

use std::collections::HashMap;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::Value;

use super::{CommandError, ConfigFile, book, borrowing, load, look};
use crate::assembly::assemble_with;
use crate::audit::Digester;
use crate::config::{Config, ServerMode};
use crate::explain::{Described, ExplainRequest, explain};
use crate::perimeter::authority::Authority;
use crate::perimeter::{Facts, Perimeter, PerimeterError, path};

/// The largest request, in bytes.
const MAX_REQUEST_BYTES: u64 = 4 * 1024 * 1024;

/// The revision of a body that names none.
const EARLIER_REVISION: &str = "2025-11-25";
/// Where a body of 2026-07-28 and later names its revision.
const REVISION_POINTER: &str = "/params/_meta/io.modelcontextprotocol~1protocolVersion";

#[derive(Debug, Args)]
#[command(after_help = "\
Example, with the policy of this repository:
  keyward explain --config policies/keyward.yaml --server demo --request call.json --source 10.1.2.3 \\
    --claims '{\"iss\":\"https://issuer.example\",\"aud\":\"https://mcp.example/mcp\",\"exp\":4102444800,
               \"sub\":\"alice\",\"client_id\":\"demo-agent\",\"roles\":[\"demo-user\"]}'

Exit codes: 0 allowed; 1 denied, or a problem was found; 2 wrong usage.")]
pub(super) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// The entry under `servers` that Envoy's route names; absent: the authority decides. Its first destination is the
    /// default for authority and path.
    #[arg(long, value_name = "NAME", required_unless_present = "authority")]
    server: Option<String>,
    /// The host, and port, that the agent calls. Default: the server entry's first destination.
    #[arg(long, value_name = "HOST[:PORT]")]
    authority: Option<String>,
    /// A file with the agent's access token, which is verified; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "claims")]
    token_file: Option<PathBuf>,
    /// Instead of a token: the claims that a verified one would hold, as a JSON object. `iss` and `aud` must be those of
    /// an issuer in the configuration, `exp` (seconds since 1970) must be to come, `sub` says who. With neither a
    /// token nor claims the request is anonymous, and denied.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// A file with the body that the agent sends, for MCP one JSON-RPC message; `-` is standard input. Absent: no body.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The address that the request comes from, as Envoy sees it: `input.source.address` of the policy. Absent: unknown, so
    /// that a role bound to networks does not count.
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
    /// The HTTP method. Default: POST with a body, otherwise GET.
    #[arg(long, value_name = "METHOD")]
    http_method: Option<String>,
    /// The path, and query. Default: the path of the server entry's first destination.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The scheme that the agent calls with; it says which port an authority without one has.
    #[arg(long, default_value = "https", value_parser = ["http", "https"])]
    scheme: String,
    /// The Envoy cluster to which the route leads. Default: what the server entry demands.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The MCP revision that the request's header names. Default: what the body's `_meta` names, otherwise 2025-11-25.
    #[arg(long, value_name = "DATE")]
    mcp_revision: Option<String>,
    /// A further header; may be repeated. Headers that MCP demands are set already.
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<String>,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Explain) -> Result<ExitCode, CommandError> {
    let other = |error: String| CommandError::Other(error);
    let snapshots = load(&command.file)?;
    let snapshot = snapshots.current();
    let principal = match &command.claims {
        Some(claims) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |now| now.as_secs());
            let principal = snapshot.identity.assume(claims.as_bytes(), now);
            let needed = "needed are `iss` and `aud` of a configured issuer, an `exp` to come, and `sub`";
            Some(principal.map_err(|error| other(format!("--claims: {error}; {needed}")))?)
        }
        None => None,
    };
    let explanation = borrowing(&snapshot, async {
        let state = look(&snapshot).await.map_err(|error| other(error.to_string()))?;
        match &state {
            // What servers have minted is taken as it is.
            Some(state) => snapshot.sources.freshness().share(Arc::new(state.shared.clone())),
            None if snapshot.config.database.is_some() => {
                eprintln!("database: there is none yet, so that nothing can be had from it; `keyward serve` makes it");
            }
            None => {}
        }
        let book = book(state.as_deref()).await;
        // Nothing is recorded, so the key of the audit trail is not needed.
        let plan = assemble_with(snapshot.clone(), Digester::new(&[]), Some(book));
        let plan = plan.map_err(|error| other(error.to_string()))?;
        let message = describe(command, &snapshot.config, plan.perimeter())?.message();
        Ok::<_, CommandError>(explain(&plan, ExplainRequest { message: &message, principal }).await)
    })??;
    if command.json {
        println!("{}", explanation.to_json());
    } else {
        print!("{explanation}");
    }
    Ok(if explanation.allowed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn describe(command: &Explain, config: &Config, perimeter: &Perimeter) -> Result<Described, CommandError> {
    let other = |error: String| CommandError::Other(error);
    let entry = match &command.server {
        Some(name) => {
            let known = || config.servers.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let missing = || other(format!("--server: there is no server `{name}`; there is {}", known()));
            Some(config.servers.get(name).ok_or_else(missing)?)
        }
        None => None,
    };
    let destination = entry.and_then(|server| server.destinations.first());
    let authority = match (&command.authority, destination) {
        (Some(authority), _) => authority.clone(),
        (None, Some(destination)) if destination.host.starts_with("*.") => {
            return Err(other(format!(
                "--authority is needed: the server's first destination, `{}`, is more than one host",
                destination.host
            )));
        }
        (None, Some(destination)) => match destination.port {
            Some(port) => format!("{}:{port}", destination.host),
            None => destination.host.clone(),
        },
        (None, None) => return Err(other("--authority is needed: the server has no destination".to_owned())),
    };
    let body = command.request.as_ref().map(read).transpose()?.unwrap_or_default();
    let method = match &command.http_method {
        Some(method) => method.clone(),
        None if command.request.is_some() => "POST".to_owned(),
        None => "GET".to_owned(),
    };
    let path = match (&command.path, destination) {
        (Some(path), _) => path.clone(),
        (None, Some(destination)) => destination.path.clone(),
        (None, None) => "/".to_owned(),
    };
    let read_authority = Authority::parse(&authority).map(|authority| authority.with_default_port(&command.scheme));
    let facts = Facts {
        server: command.server.as_deref(),
        method: &method,
        authority: read_authority.as_ref().map_err(|error| *error),
        path: path::read(&path).map(|target| target.path),
        cluster: None,
    };
    let cluster = command.cluster.clone().or_else(|| match perimeter.admit(&facts) {
        Err(PerimeterError::Cluster(demanded)) => Some(demanded),
        _ => None,
    });
    // Without a name the authority decides.
    let entry = entry.or_else(|| config.servers.get(perimeter.server_of(facts.authority.ok()?, facts.path.ok()?)?));
    let mcp = entry.is_none_or(|server| server.mode == ServerMode::Mcp);
    Ok(Described {
        server: command.server.clone(),
        cluster,
        method,
        scheme: command.scheme.clone(),
        authority,
        path,
        headers: headers(command, mcp, &body)?,
        source: command.source.map(|source| source.to_string()),
        body,
    })
}

fn headers(command: &Explain, mcp: bool, body: &[u8]) -> Result<HashMap<String, String>, CommandError> {
    let mut headers = if mcp { mcp_headers(command.mcp_revision.as_deref(), body) } else { HashMap::new() };
    for header in &command.header {
        let (name, value) = header
            .split_once(':')
            .ok_or_else(|| CommandError::Other(format!("--header: `{header}` is not of the form `name: value`")))?;
        headers.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    if let Some(file) = &command.token_file {
        let token = String::from_utf8(read(file)?).map_err(|_| CommandError::Other("--token-file: not text".into()))?;
        headers.insert("authorization".to_owned(), format!("Bearer {}", token.trim()));
    }
    Ok(headers)
}

/// The headers that a client of the body's revision sends: from 2026-07-28 on they repeat method and target.
fn mcp_headers(revision: Option<&str>, body: &[u8]) -> HashMap<String, String> {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let named = text(REVISION_POINTER);
    let revision = revision.or(named).unwrap_or(EARLIER_REVISION);
    let mut headers = vec![("accept", "application/json, text/event-stream".to_owned())];
    headers.push(("mcp-protocol-version", revision.to_owned()));
    if !body.is_empty() {
        headers.push(("content-type", "application/json".to_owned()));
    }
    if named.is_some() {
        headers.extend(text("/method").map(|method| ("mcp-method", method.to_owned())));
        let target = ["/params/name", "/params/uri", "/params/taskId"].into_iter().find_map(text);
        headers.extend(target.map(|target| ("mcp-name", mirrored(target))));
    }
    headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A value as it travels in a header: in base64 where it is not plain ASCII, or looks as if it were in base64.
fn mirrored(value: &str) -> String {
    let plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && value.trim() == value;
    if plain && !value.starts_with("=?base64?") {
        return value.to_owned();
    }
    format!("=?base64?{}?=", STANDARD.encode(value))
}

/// A file or standard input, bounded.
fn read(file: &PathBuf) -> Result<Vec<u8>, CommandError> {
    let failed = |error: std::io::Error| CommandError::Other(format!("read `{}`: {error}", file.display()));
    let input: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    let mut bytes = Vec::new();
    input.take(MAX_REQUEST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_REQUEST_BYTES {
        return Err(CommandError::Other(format!("`{}` is larger than {MAX_REQUEST_BYTES} bytes", file.display())));
    }
    Ok(bytes)
}
