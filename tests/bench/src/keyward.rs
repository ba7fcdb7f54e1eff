//! The configuration of the real server for the benchmark: a token, a policy, a binding and a credential.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use keyward_tests::issuer::{AUDIENCE, ISSUER, Issuer, Token};
use serde_json::{Value, json};

use crate::bootstrap::SERVER;
use crate::load::AUTHORITY;
use crate::upstream::{CREDENTIAL_HEADER, CREDENTIAL_VARIABLE};

/// The environment variable with the key of the audit trail.
pub const AUDIT_KEY_VARIABLE: &str = "KEYWARD_BENCH_AUDIT_KEY";

const TOKEN_SECS: i64 = 3600;

/// One role may call one tool with a message of bounded length.
const POLICY: &str = r#"package keyward

import rego.v1

default decision := {"allow": false, "rule": "default", "explanation": "no rule allows this"}

decision := {"allow": true, "rule": "echo", "explanation": "agents may echo"} if {
	input.server.name == "bench"
	"bench-user" in input.principal.roles
	input.operation.kind == "request"
	input.operation.method == "tools/call"
	input.operation.target == "echo"
	count(input.operation.arguments.message) < 4096
}
"#;

/// The credential of one variant.
#[derive(Clone, Copy, Debug)]
pub enum Credential {
    /// A static key in a header.
    Header,
    /// An access token, minted at this endpoint.
    Oauth(SocketAddr),
    /// A signature with AWS's SigV4.
    Sigv4,
}

/// A folder that `keyward serve` can run on, and a token that it accepts.
pub struct Setup {
    folder: PathBuf,
    /// An ES256 token, valid for an hour.
    pub token: String,
}

// === impl Setup ===

impl Setup {
    /// Writes policy and keys into `folder`.
    ///
    /// # Errors
    /// Where a file cannot be written or a key cannot be made.
    pub fn write(folder: &Path) -> Result<Setup> {
        fs::create_dir_all(folder.join("policies"))?;
        let issuer = Issuer::new()?;
        let token = issuer.sign(&Token::new("alice", &["bench-user"]).lifetime(0, TOKEN_SECS))?;
        write(folder, "jwks.json", &issuer.jwks().to_string())?;
        write(folder, "policies/bench.rego", POLICY)?;
        Ok(Setup { folder: folder.to_owned(), token })
    }

    /// Writes the configuration of a variant and returns its path.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn configuration(&self, variant: &str, credential: Credential) -> Result<PathBuf> {
        // JSON is YAML.
        let text = serde_json::to_string_pretty(&configuration(variant, credential))?;
        write(&self.folder, &format!("{variant}.yaml"), &text)
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("writing `{}`", path.display()))?;
    Ok(path)
}

fn configuration(variant: &str, credential: Credential) -> Value {
    let secret = json!({"ref": format!("env://{CREDENTIAL_VARIABLE}")});
    let credential = match credential {
        Credential::Header => {
            json!({"type": "header", "name": CREDENTIAL_HEADER, "template": "{secret}", "secret": secret})
        }
        Credential::Oauth(endpoint) => json!({
            "type": "oauth",
            "grant": "client_credentials",
            "token_endpoint": format!("http://{endpoint}/token"),
            "client": {"id": "bench", "secret": secret},
        }),
        Credential::Sigv4 => json!({
            "type": "aws",
            "regions": ["eu-central-1"],
            "services": ["execute-api"],
            "source": {"type": "static", "access_key_id": secret, "secret_access_key": secret},
        }),
    };
    json!({
        "version": 1,
        "environment": "bench",
        "listen": {"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "identity": {"issuers": [{
            "name": "bench",
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "algorithms": ["ES256"],
            "jwks": {"file": "jwks.json"},
            "subject_claim": "sub",
            "agent_claim": "client_id",
            "roles_claim": "roles",
        }]},
        "policy": {"directory": "policies"},
        "audit": {"file": format!("{variant}.audit.jsonl"), "hmac_key": {"ref": format!("env://{AUDIT_KEY_VARIABLE}")}},
        "servers": {SERVER: {
            "mode": "mcp",
            "destinations": [{"host": AUTHORITY, "path": "/mcp", "methods": ["read", "write"]}],
            "cluster": "upstream",
        }},
        "bindings": [{
            "id": "bench-api-key",
            "mode": "service_account",
            "owner": "benchmark",
            "environment": "bench",
            "servers": [SERVER],
            "principals": {"roles": ["bench-user"]},
            "hosts": [AUTHORITY],
            "credentials": [credential],
        }],
    })
}
