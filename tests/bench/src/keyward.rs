//! The configuration of the real server for the benchmark: a token, a policy, a binding and a credential.

use std::fs;
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

/// A folder that `keyward serve` can run on, and a token that it accepts.
pub struct Setup {
    /// The path of `keyward.yaml`.
    pub config: PathBuf,
    /// An ES256 token, valid for an hour.
    pub token: String,
}

// === impl Setup ===

impl Setup {
    /// Writes configuration, policy and keys into `folder`.
    ///
    /// # Errors
    /// Where a file cannot be written or a key cannot be made.
    pub fn write(folder: &Path) -> Result<Setup> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("writing `{}`", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        fs::create_dir_all(folder.join("policies"))?;
        let issuer = Issuer::new()?;
        let token = issuer.sign(&Token::new("alice", &["bench-user"]).lifetime(0, TOKEN_SECS))?;
        write("jwks.json", &issuer.jwks().to_string())?;
        write("policies/bench.rego", POLICY)?;
        // JSON is YAML.
        let config = write("keyward.yaml", &serde_json::to_string_pretty(&configuration())?)?;
        Ok(Setup { config, token })
    }
}

fn configuration() -> Value {
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
        "audit": {"file": "audit.jsonl", "hmac_key": {"ref": format!("env://{AUDIT_KEY_VARIABLE}")}},
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
            "credentials": [{
                "type": "header",
                "name": CREDENTIAL_HEADER,
                "template": "{secret}",
                "secret": {"ref": format!("env://{CREDENTIAL_VARIABLE}")},
            }],
        }],
    })
}
