//! `keyward explain`: the arguments, made into the request that Envoy would ask about.

use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::{CommandError, ConfigFile, block_on, load};
use crate::assembly::assemble;
use crate::audit::Digester;
use crate::config::{Config, ServerMode};
use crate::explain::{Described, ExplainRequest, explain};

/// The largest request, in bytes.
const MAX_REQUEST_BYTES: u64 = 4 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// The server entry that the route names; its first destination is the default for authority and path.
    #[arg(long, value_name = "NAME", required_unless_present = "authority")]
    server: Option<String>,
    /// The authority of the request.
    #[arg(long, value_name = "HOST[:PORT]")]
    authority: Option<String>,
    /// A file with the access token; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "claims")]
    token_file: Option<PathBuf>,
    /// The claims that a verified token would hold, as JSON, with `iss`, `aud`, `exp` and `sub`.
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
    /// A file with the request's body; `-` is standard input. Absent: no body.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The HTTP method. Default: POST with a body, otherwise GET.
    #[arg(long, value_name = "METHOD")]
    http_method: Option<String>,
    /// The path and query.
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The scheme.
    #[arg(long, default_value = "https", value_parser = ["http", "https"])]
    scheme: String,
    /// The Envoy cluster of the route. Default: what the server entry demands.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The MCP revision that the request's header names.
    #[arg(long, value_name = "DATE", default_value = "2025-11-25")]
    mcp_revision: String,
    /// A further header; may be repeated.
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<String>,
    /// Print JSON.
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
            Some(principal.map_err(|error| other(format!("--claims: {error}")))?)
        }
        None => None,
    };
    let message = describe(command, &snapshot.config)?.message();
    // Nothing is recorded, so the key of the audit trail is not needed.
    let plan = assemble(snapshot, Digester::new(&[])).map_err(|error| other(error.to_string()))?;
    let explanation = block_on(explain(&plan, ExplainRequest { message: &message, principal }))?;
    if command.json {
        println!("{}", explanation.to_json());
    } else {
        print!("{explanation}");
    }
    Ok(if explanation.allowed { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn describe(command: &Explain, config: &Config) -> Result<Described, CommandError> {
    let other = |error: String| CommandError::Other(error);
    let entry = match &command.server {
        Some(name) => {
            Some(config.servers.get(name).ok_or_else(|| other(format!("--server: there is no server `{name}`")))?)
        }
        None => None,
    };
    let destination = entry.and_then(|server| server.destinations.first());
    let authority = match (&command.authority, destination) {
        (Some(authority), _) => authority.clone(),
        (None, Some(destination)) if destination.host.starts_with("*.") => {
            return Err(other(format!("--authority is needed: the first destination is `{}`", destination.host)));
        }
        (None, Some(destination)) => match destination.port {
            Some(port) => format!("{}:{port}", destination.host),
            None => destination.host.clone(),
        },
        (None, None) => return Err(other("--authority is needed".to_owned())),
    };
    let body = command.request.as_ref().map(read).transpose()?.unwrap_or_default();
    let mcp = entry.is_none_or(|server| server.mode == ServerMode::Mcp);
    Ok(Described {
        server: command.server.clone(),
        cluster: command.cluster.clone().or_else(|| entry.and_then(|server| server.cluster.clone())),
        method: match &command.http_method {
            Some(method) => method.clone(),
            None if command.request.is_some() => "POST".to_owned(),
            None => "GET".to_owned(),
        },
        scheme: command.scheme.clone(),
        authority,
        path: match (&command.path, destination) {
            (Some(path), _) => path.clone(),
            (None, Some(destination)) => destination.path.clone(),
            (None, None) => "/".to_owned(),
        },
        headers: headers(command, mcp)?,
        body,
    })
}

fn headers(command: &Explain, mcp: bool) -> Result<HashMap<String, String>, CommandError> {
    let mut headers = HashMap::new();
    if mcp {
        headers.insert("accept".to_owned(), "application/json, text/event-stream".to_owned());
        headers.insert("mcp-protocol-version".to_owned(), command.mcp_revision.clone());
        if command.request.is_some() {
            headers.insert("content-type".to_owned(), "application/json".to_owned());
        }
    }
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
