//! Makes a plan of a snapshot: compiles destinations and bindings, and opens the doors to identity and policy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keyward_contract::json::Value as Json;
use sha2::{Digest, Sha256};

use crate::audit::Digester;
use crate::binding::{Binding, Catalogue, Mode as BindingMode, Principals, Tools};
use crate::caller::is_template;
use crate::config::{self, ServerMode};
use crate::credential::kinds;
use crate::identity::IdentityError;
use crate::lifecycle::{Book, Gate};
use crate::perimeter::authority::{AuthorityError, HostPattern};
use crate::perimeter::{Destination, DestinationError, Entry, MethodClass, Perimeter};
use crate::plan::{
    Decide, Identify, Mode, NotIdentified, Parts, Pending, Plan, Presented, Principal, Question, Server, Verdict,
};
use crate::policy;
use crate::revocation;
use crate::snapshot::Snapshot;

/// How long a verified token is not verified again.
const VERIFIED_FOR: Duration = Duration::from_secs(60);
/// The most verified tokens that are remembered.
const MAX_VERIFIED: usize = 4096;

/// A snapshot that cannot serve although its configuration passed the check.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A destination.
    #[error("servers.{server}: destination {position}: {cause}")]
    Destination {
        /// The server entry.
        server: String,
        /// The position in its list, from 0.
        position: usize,
        /// What is wrong.
        cause: DestinationError,
    },
    /// A binding's host.
    #[error("binding `{binding}`: host `{host}`: {cause}")]
    Host {
        /// The binding.
        binding: String,
        /// The pattern.
        host: String,
        /// What is wrong.
        cause: AuthorityError,
    },
}

/// The plan of this snapshot.
///
/// # Errors
/// Names the destination or the binding that cannot be used.
pub fn assemble(snapshot: Arc<Snapshot>, digester: Digester) -> Result<Plan, AssemblyError> {
    let book = snapshot.sources.secrets.state().get().map(|state| state.book.clone());
    assemble_with(snapshot, digester, book)
}

/// The same where this is known of the lifecycle of bindings, and not what an open database says.
///
/// # Errors
/// As [`assemble`].
pub fn assemble_with(
    snapshot: Arc<Snapshot>,
    digester: Digester,
    book: Option<Arc<Book>>,
) -> Result<Plan, AssemblyError> {
    let config = &snapshot.config;
    let gate = config.lifecycle.map(|rule| Gate::new(rule, &config.environment, book));
    let revoked = snapshot.sources.secrets.state().get().map(|state| state.revoked.clone());
    let revocation = config.revocation.map(|rule| revocation::Gate::new(rule.max_stale(), revoked));
    let servers = config.servers.iter().map(|(name, server)| Server {
        name: name.clone(),
        mode: mode(server.mode),
        upstream_authority: server.upstream_authority.clone(),
        max_body_bytes: server.max_body_bytes,
        leaks: leaks(&server.leak_guard),
    });
    let entries = config.servers.iter().map(|(name, server)| entry(name, server)).collect::<Result<_, _>>()?;
    let bindings = config.bindings.iter().map(binding).collect::<Result<_, _>>()?;
    let doors = Arc::new(Doors { snapshot: snapshot.clone(), verified: Mutex::default() });
    Ok(Plan::new(Parts {
        environment: config.environment.clone(),
        revision: snapshot.revision.clone(),
        loaded: Instant::now(),
        servers: servers.collect(),
        perimeter: Perimeter::new(entries),
        catalogue: Catalogue::new(bindings, &config.environment, config.identity.issuers.len() == 1)
            .with_lifecycle(gate),
        digester,
        identity: doors.clone(),
        policy: doors,
        revocation,
        sources: snapshot.sources.clone(),
    }))
}

fn leaks(configured: &config::LeakGuard) -> crate::leak::Rules {
    let (arguments, responses) = configured.guards();
    crate::leak::Rules { arguments, responses: (!responses.is_off()).then(|| responses.to_text()) }
}

fn entry(name: &str, server: &config::Server) -> Result<Entry, AssemblyError> {
    let destinations = server.destinations.iter().enumerate().map(|(position, found)| {
        let methods: Vec<MethodClass> = found.methods.iter().map(|class| method_class(*class)).collect();
        Destination::new(&found.host, found.port, Some(&found.path), &methods)
            .map_err(|cause| AssemblyError::Destination { server: name.to_owned(), position, cause })
    });
    Ok(Entry {
        server: name.to_owned(),
        destinations: destinations.collect::<Result<_, _>>()?,
        cluster: server.cluster.clone(),
    })
}

fn binding(binding: &config::Binding) -> Result<Binding, AssemblyError> {
    let hosts = binding.hosts.iter().map(|host| {
        HostPattern::parse(host, None).map_err(|cause| AssemblyError::Host {
            binding: binding.id.clone(),
            host: host.clone(),
            cause,
        })
    });
    let principals = &binding.principals;
    Ok(Binding {
        id: binding.id.clone(),
        mode: match binding.mode {
            config::BindingMode::ServiceAccount => BindingMode::ServiceAccount,
            config::BindingMode::User => BindingMode::User,
            config::BindingMode::Agent => BindingMode::Agent,
            config::BindingMode::None => BindingMode::None,
            config::BindingMode::Passthrough => BindingMode::Passthrough,
        },
        owner: binding.owner.clone(),
        risk: binding.risk,
        environment: binding.environment.clone(),
        servers: binding.servers.clone(),
        tools: binding.tools.clone().map(Tools::new),
        principals: (!principals.is_everybody()).then(|| Principals {
            users: principals.users.clone(),
            agents: principals.agents.clone(),
            roles: principals.roles.clone(),
        }),
        hosts: hosts.collect::<Result<_, _>>()?,
        credentials: kinds::of_binding(binding),
        passthrough: binding.headers.clone(),
        definition: binding.definition.clone(),
        local_secrets: binding.credentials.iter().flat_map(local_secrets).collect(),
    })
}

/// What of a credential lies on this machine, is the same for everybody, and is secret: certificates and names are shown to
/// others anyway.
fn local_secrets(credential: &config::Credential) -> Vec<config::SecretSource> {
    const PUBLIC: [&str; 3] = ["certificate", "access_key_id", "username_secret"];
    let is_local = |source: &config::SecretSource| source.is_local() && !is_template(&source.reference);
    let secrets = credential.kind().secrets().into_iter();
    let secret = secrets.filter(|(field, source)| !PUBLIC.iter().any(|name| field.ends_with(name)) && is_local(source));
    secret.map(|(_, source)| source.clone()).collect()
}

fn mode(mode: ServerMode) -> Mode {
    match mode {
        ServerMode::Mcp => Mode::Mcp,
        ServerMode::Http => Mode::Http,
    }
}

fn method_class(class: config::MethodClass) -> MethodClass {
    match class {
        config::MethodClass::Read => MethodClass::Read,
        config::MethodClass::Write => MethodClass::Write,
        config::MethodClass::Delete => MethodClass::Delete,
    }
}

// === the doors ===

/// The doors, both into one snapshot.
struct Doors {
    snapshot: Arc<Snapshot>,
    verified: Mutex<HashMap<[u8; 32], Verified>>,
}

/// A token that was verified a short while ago, by its SHA-256.
struct Verified {
    principal: Arc<Principal>,
    until: Instant,
}

impl Doors {
    fn remembered(&self, digest: &[u8; 32]) -> Option<Arc<Principal>> {
        let verified = self.verified.lock().ok()?;
        verified.get(digest).filter(|entry| entry.until > Instant::now()).map(|entry| entry.principal.clone())
    }

    fn remember(&self, digest: [u8; 32], principal: &Arc<Principal>) {
        let now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = Duration::from_secs(principal.expires_unix_secs.saturating_sub(now_secs));
        let now = Instant::now();
        let Ok(mut verified) = self.verified.lock() else { return };
        if verified.len() >= MAX_VERIFIED {
            verified.retain(|_, entry| entry.until > now);
        }
        if verified.len() < MAX_VERIFIED {
            verified.insert(digest, Verified { principal: principal.clone(), until: now + left.min(VERIFIED_FOR) });
        }
    }
}

impl Identify for Doors {
    fn identify<'a>(&'a self, presented: &'a Presented<'a>) -> Pending<'a, Result<Arc<Principal>, NotIdentified>> {
        Box::pin(async move {
            let authorization = presented.request.headers.find("authorization");
            let digest: Option<[u8; 32]> = authorization.map(|text| Sha256::digest(text.as_bytes()).into());
            if let Some(principal) = digest.as_ref().and_then(|digest| self.remembered(digest)) {
                return Ok(principal);
            }
            match self.snapshot.identity.verify(authorization).await {
                Ok(principal) => {
                    let principal = Arc::new(principal);
                    if let Some(digest) = digest {
                        self.remember(digest, &principal);
                    }
                    Ok(principal)
                }
                Err(IdentityError::Missing) => Err(NotIdentified::Missing),
                Err(error @ IdentityError::Keys { .. }) => Err(NotIdentified::Unavailable(error.to_string())),
                Err(error) => Err(NotIdentified::Refused(error.to_string())),
            }
        })
    }

    fn problems(&self) -> Vec<String> {
        self.snapshot.identity.problems()
    }
}

impl Decide for Doors {
    fn decide(&self, question: &Question<'_>) -> Result<Verdict, String> {
        let unix_secs = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
        let input = policy::Input {
            revision: question.revision,
            environment: question.environment,
            server: question.server,
            mode: match question.mode {
                Mode::Mcp => ServerMode::Mcp,
                Mode::Http => ServerMode::Http,
            },
            principal: question.principal,
            operation: policy::Operation {
                kind: kind(question.kind),
                method: question.method,
                target: question.target,
                arguments: question.arguments.map(value),
                params: question.params.map(value),
            },
            http: policy::Http {
                method: question.http_method,
                path: question.http_path,
                authority: question.http_authority,
                class: match question.class {
                    MethodClass::Read => config::MethodClass::Read,
                    MethodClass::Write => config::MethodClass::Write,
                    MethodClass::Delete => config::MethodClass::Delete,
                },
            },
            bindings: question.bindings,
            source_address: question.source,
            unix_secs,
        };
        let policy::Verdict { allow, rule, explanation, bindings, failure } = self.snapshot.policy.decide(&input);
        match failure {
            Some(failure) => Err(failure.to_string()),
            None => Ok(Verdict { allow, rule, explanation, bindings }),
        }
    }
}

fn kind(kind: &str) -> policy::OperationKind {
    use policy::OperationKind;
    match kind {
        "request" => OperationKind::Request,
        "notification" => OperationKind::Notification,
        "response" => OperationKind::Response,
        "stream_open" => OperationKind::StreamOpen,
        "session_end" => OperationKind::SessionEnd,
        _ => OperationKind::Http,
    }
}

/// A JSON value as the policy engine sees it. The depth is bounded by the reader that made it.
fn value(json: &Json<'_>) -> policy::Value {
    match json {
        Json::Null => policy::Value::Null,
        Json::Bool(value) => policy::Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => policy::Value::from(value),
            (None, Some(value)) => policy::Value::from(value),
            (None, None) => policy::Value::from(number.as_f64()),
        },
        Json::String(text) => policy::Value::from(text.as_ref()),
        Json::Array(items) => policy::Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(object) => policy::Value::from(
            object
                .iter()
                .map(|(name, item)| (policy::Value::from(name), value(item)))
                .collect::<std::collections::BTreeMap<_, _>>(),
        ),
    }
}
