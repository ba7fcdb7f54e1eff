//! Makes a plan of a snapshot: compiles destinations and bindings, and opens the doors to identity and policy.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keyward_contract::json::Value as Json;
use keyward_contract::reason::Reason;
use sha2::{Digest, Sha256};

use crate::audit::Digester;
use crate::binding::{Binding, Catalogue, Mode as BindingMode, Principals, Tools};
use crate::caller::is_template;
use crate::config::{self, ServerMode};
use crate::credential::kinds;
use crate::identity::{self, Credentials, IdentityError, Scheme};
use crate::lifecycle::{Book, Gate};
use crate::perimeter::authority::{AuthorityError, HostPattern};
use crate::perimeter::{Destination, DestinationError, Entry, MethodClass, Perimeter};
use crate::plan::{
    Decide, Identify, Mode, NotIdentified, Parts, Pending, Plan, Presented, Principal, Question, Server, Verdict,
};
use crate::policy;
use crate::resource::{AddressError, Resource};
use crate::revocation;
use crate::snapshot::Snapshot;
use crate::tenancy::Tenancy;
use crate::throttle::Throttle;

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
    /// The address of a protected resource.
    #[error("servers.{server}: resource.url: {cause}")]
    Resource {
        /// The server entry.
        server: String,
        /// What is wrong.
        cause: AddressError,
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
    let servers = config.servers.iter().map(|(name, server)| {
        Ok(Server {
            name: name.clone(),
            mode: mode(server.mode),
            upstream_authority: server.upstream_authority.clone(),
            max_body_bytes: server.max_body_bytes,
            leaks: leaks(&server.leak_guard),
            resource: resource(name, server, &config.identity)?,
        })
    });
    let entries = config.servers.iter().map(|(name, server)| entry(name, server)).collect::<Result<_, _>>()?;
    let bindings = config.bindings.iter().map(binding).collect::<Result<_, _>>()?;
    let doors = Arc::new(Doors { snapshot: snapshot.clone(), verified: Mutex::default() });
    Ok(Plan::new(Parts {
        environment: config.environment.clone(),
        revision: snapshot.revision.clone(),
        loaded: Instant::now(),
        servers: servers.collect::<Result<_, AssemblyError>>()?,
        perimeter: Perimeter::new(entries),
        catalogue: Catalogue::new(bindings, &config.environment, config.identity.issuers.len() == 1)
            .with_lifecycle(gate),
        digester,
        identity: doors.clone(),
        policy: doors,
        revocation,
        sources: snapshot.sources.clone(),
        throttle: config.throttles.as_ref().map(|rules| Throttle::new(rules, &config.environment)).unwrap_or_default(),
        tenancy: Tenancy::new(config),
    }))
}

fn resource(
    name: &str,
    server: &config::Server,
    identity: &config::IdentityConfig,
) -> Result<Option<Arc<Resource>>, AssemblyError> {
    let Some(configured) = &server.resource else { return Ok(None) };
    match Resource::new(configured, identity) {
        Ok(resource) => Ok(Some(Arc::new(resource))),
        Err(cause) => Err(AssemblyError::Resource { server: name.to_owned(), cause }),
    }
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
        tenants: binding.tenants.clone().filter(|names| names.iter().all(|name| name != config::EVERY_TENANT)),
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

    fn remember(&self, digest: [u8; 32], principal: &Arc<Principal>, at_most: Duration) {
        let now_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = Duration::from_secs(principal.expires_unix_secs.saturating_sub(now_secs));
        let now = Instant::now();
        let Ok(mut verified) = self.verified.lock() else { return };
        if verified.len() >= MAX_VERIFIED {
            verified.retain(|_, entry| entry.until > now);
        }
        if verified.len() < MAX_VERIFIED {
            verified.insert(digest, Verified { principal: principal.clone(), until: now + left.min(at_most) });
        }
    }

    /// Whose a token is, whatever it is to be used for.
    async fn principal_of(
        &self,
        presented: &Presented<'_>,
        credentials: Credentials<'_>,
        digest: [u8; 32],
    ) -> Result<Arc<Principal>, IdentityError> {
        if let Some(principal) = self.remembered(&digest) {
            return Ok(principal);
        }
        let identity = &self.snapshot.identity;
        let (principal, at_most) = if credentials.is_opaque() {
            let resource = presented.server.and_then(|server| server.resource.as_deref());
            identity.look_up(credentials.token, digest, resource, &self.snapshot.sources).await?
        } else {
            (identity.verify(presented.request.headers.find("authorization")).await?, VERIFIED_FOR)
        };
        let principal = Arc::new(principal);
        self.remember(digest, &principal, at_most);
        Ok(principal)
    }
}

impl Identify for Doors {
    fn identify<'a>(&'a self, presented: &'a Presented<'a>) -> Pending<'a, Result<Arc<Principal>, NotIdentified>> {
        Box::pin(async move {
            let not_identified = |error: IdentityError| match error.reason() {
                Reason::Unauthenticated => NotIdentified::Missing,
                Reason::DecisionUnavailable => NotIdentified::Unavailable(error.to_string()),
                _ => NotIdentified::Refused(error.to_string()),
            };
            let authorization = presented.request.headers.find("authorization");
            let credentials = identity::credentials(authorization).map_err(not_identified)?;
            let resource = presented.server.and_then(|server| server.resource.as_deref());
            // Where no proofs are taken, their scheme is no attempt at one that is (RFC 6750, 3.1).
            if credentials.scheme == Scheme::Dpop && resource.is_none_or(|resource| resource.dpop.is_none()) {
                return Err(NotIdentified::Missing);
            }
            let digest: [u8; 32] = Sha256::digest(authorization.unwrap_or_default().as_bytes()).into();
            let principal = self.principal_of(presented, credentials, digest).await.map_err(not_identified)?;
            self.snapshot.identity.admit(presented, credentials, &principal, &self.snapshot.sources).await?;
            Ok(principal)
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
        let own = self.snapshot.tenant_policies.get(&question.principal.tenant);
        let Some(own) = own else { return understood(self.snapshot.policy.decide(&input)) };
        let input = input.to_value();
        let verdict = understood(self.snapshot.policy.decide_value(input.clone()))?;
        if !verdict.allow {
            return Ok(verdict);
        }
        let of_tenant = format!("policy of tenant `{}`", question.principal.tenant);
        let narrowed = understood(own.decide_value(input)).map_err(|cause| format!("{of_tenant}: {cause}"))?;
        Ok(verdict.narrowed(narrowed, &of_tenant))
    }
}

/// A decision of the engine; one that failed is none.
fn understood(verdict: policy::Verdict) -> Result<Verdict, String> {
    let policy::Verdict { allow, rule, explanation, bindings, required_scopes, failure } = verdict;
    match failure {
        Some(failure) => Err(failure.to_string()),
        None => Ok(Verdict { allow, rule, explanation, bindings, required_scopes }),
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
