//! One revision of everything a decision reads, the two doors through which it asks, identity and policy, and the
//! sources of its credentials.
//!
//! A plan never changes. A reload makes a new one; decisions under way finish on the one they began with.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use keyward_contract::json::Value;
use keyward_contract::reason::Reason;

use crate::audit::Digester;
use crate::binding::{Candidate, Catalogue};
use crate::caller::Caller;
use crate::decision::Signal;
pub use crate::identity::Principal;
use crate::perimeter::{MethodClass, Perimeter};
use crate::request::Request;
use crate::resource::Resource;
use crate::revocation::Gate;
use crate::secret::SecretBytes;
use crate::sources::Sources;
use crate::tenancy::Tenancy;
use crate::throttle::Throttle;

/// A future behind a door.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why nobody was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotIdentified {
    /// There was no token.
    Missing,
    /// There was one, and it was refused. The cause is for the operator.
    Refused(String),
    /// The keys to check it with could not be had. The cause is for the operator.
    Unavailable(String),
    /// There was a good one, and it does not serve here, or not in these hands.
    Unproven {
        /// What the agent reads.
        reason: Reason,
        /// What the operator reads.
        cause: String,
        /// What it may be a sign of.
        signal: Option<Signal>,
        /// What the next proof has to hold, where proofs need a nonce.
        nonce: Option<String>,
    },
}

/// What policy is asked about one operation.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The MCP revision; absent for plain HTTP.
    pub revision: Option<&'static str>,
    /// The environment.
    pub environment: &'a str,
    /// The server entry.
    pub server: &'a str,
    /// How the server entry's requests are read.
    pub mode: Mode,
    /// Who asks.
    pub principal: &'a Principal,
    /// `request`, `notification`, `response`, `stream_open`, `session_end` or `http`.
    pub kind: &'static str,
    /// The MCP method or HTTP method.
    pub method: &'a str,
    /// Tool, prompt, resource, task or path.
    pub target: Option<&'a str>,
    /// The arguments of a tool or prompt.
    pub arguments: Option<&'a Value<'a>>,
    /// All parameters.
    pub params: Option<&'a Value<'a>>,
    /// The HTTP method.
    pub http_method: &'a str,
    /// The canonical path.
    pub http_path: &'a str,
    /// The authority of the request.
    pub http_authority: &'a str,
    /// The class of the HTTP method.
    pub class: MethodClass,
    /// The bindings that could serve the request; absent where they are too many to show.
    pub bindings: Option<&'a [Candidate<'a>]>,
    /// The address of Envoy's peer.
    pub source: Option<&'a str>,
}

/// What policy answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the operation may be.
    pub allow: bool,
    /// The rule that decided.
    pub rule: Option<String>,
    /// Why, for the operator.
    pub explanation: Option<String>,
    /// The bindings that policy names, in its order.
    pub bindings: Vec<String>,
    /// The scopes that the caller's token must hold for it.
    pub required_scopes: Vec<String>,
}

/// What a caller shows of who it is: headers and the connection, and where it wants to go.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The server entry that it seems to be for; whether it may go there is decided later.
    pub server: Option<&'a Server>,
    /// Whether it is only asked what would be: what serves once is not used up.
    pub is_trial: bool,
}

/// Recognises who asks.
pub trait Identify: Send + Sync {
    /// The principal.
    fn identify<'a>(&'a self, presented: &'a Presented<'a>) -> Pending<'a, Result<Arc<Principal>, NotIdentified>>;

    /// What keeps it from recognising anybody now, one sentence each; for readiness.
    fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Decides on one operation. An error denies; its text is for the operator.
pub trait Decide: Send + Sync {
    /// The verdict.
    ///
    /// # Errors
    /// No decision, or one that cannot be understood.
    fn decide(&self, question: &Question<'_>) -> Result<Verdict, String>;
}

/// How a server entry's requests are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As MCP messages.
    Mcp,
    /// As plain HTTP.
    Http,
}

/// A server entry.
#[derive(Clone)]
pub struct Server {
    /// The name.
    pub name: String,
    /// How its requests are read.
    pub mode: Mode,
    /// What the upstream gets as Host.
    pub upstream_authority: Option<String>,
    /// The largest body.
    pub max_body_bytes: usize,
    /// What is looked for in requests and answers.
    pub leaks: crate::leak::Rules,
    /// What makes it a protected resource.
    pub resource: Option<Arc<Resource>>,
}

/// What a plan is made of.
#[derive(Clone)]
pub struct Parts {
    /// The environment.
    pub environment: String,
    /// The revision of configuration and policy.
    pub revision: String,
    /// When configuration and policy were last known to be what is on disk.
    pub loaded: Instant,
    /// Server entries in order of declaration.
    pub servers: Vec<Server>,
    /// Destinations.
    pub perimeter: Perimeter,
    /// Bindings.
    pub catalogue: Catalogue,
    /// Digests for the audit trail.
    pub digester: Digester,
    /// Who asks.
    pub identity: Arc<dyn Identify>,
    /// May they.
    pub policy: Arc<dyn Decide>,
    /// What is revoked; absent where nothing can be.
    pub revocation: Option<Gate>,
    /// With what.
    pub sources: Arc<Sources>,
    /// How often.
    pub throttle: Throttle,
    /// In whose name.
    pub tenancy: Tenancy,
}

/// One revision of everything.
pub struct Plan(Parts);

/// Recognises one principal, whatever the request shows.
struct Known(Arc<Principal>);

impl Identify for Known {
    fn identify<'a>(&'a self, presented: &'a Presented<'a>) -> Pending<'a, Result<Arc<Principal>, NotIdentified>> {
        // What it would have to prove is not asked; for which resource its token is, is.
        let resource = presented.server.and_then(|server| server.resource.as_deref());
        let cause = resource.and_then(|resource| resource.refuses(&self.0));
        let known = cause.map_or(Ok(self.0.clone()), |cause| Err(NotIdentified::Refused(cause.to_owned())));
        Box::pin(std::future::ready(known))
    }
}

// === impl Verdict ===

impl Verdict {
    /// What is left of a permission where another policy, which `named` names for the operator, is asked besides: what either
    /// denies is denied, and of the bindings that both name only those serve that are the same.
    #[must_use]
    pub fn narrowed(self, by: Verdict, named: &str) -> Verdict {
        if !by.allow {
            let explanation = by.explanation.unwrap_or_else(|| "no rule allows it".to_owned());
            return Verdict { explanation: Some(format!("{named}: {explanation}")), bindings: Vec::new(), ..by };
        }
        let mut own = self;
        own.required_scopes.extend(by.required_scopes.iter().cloned());
        if own.bindings.is_empty() {
            return Verdict { bindings: by.bindings, ..own };
        }
        if by.bindings.is_empty() {
            return own;
        }
        let both: Vec<String> = own.bindings.iter().filter(|id| by.bindings.contains(id)).cloned().collect();
        if both.is_empty() {
            let explanation = Some(format!("{named}: it names none of the bindings that the policy for all names"));
            return Verdict { allow: false, explanation, bindings: Vec::new(), ..by };
        }
        Verdict { bindings: both, ..own }
    }
}

// === impl Mode ===

impl Mode {
    /// The name as configuration writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mode::Mcp => "mcp",
            Mode::Http => "http",
        }
    }
}

// === impl Plan ===

impl Plan {
    /// A plan of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Plan {
        Plan(parts)
    }

    /// The same plan for somebody already known: `keyward explain` asks on behalf of a principal.
    #[must_use]
    pub fn on_behalf_of(&self, principal: Principal) -> Plan {
        Plan(Parts { identity: Arc::new(Known(Arc::new(principal))), ..self.0.clone() })
    }

    /// The same plan, which goes on counting where another one ends.
    #[must_use]
    pub fn continuing(mut self, before: &Plan) -> Plan {
        self.0.throttle = self.0.throttle.continuing(&before.0.throttle);
        self.0.tenancy = self.0.tenancy.continuing(&before.0.tenancy);
        self
    }

    /// The environment.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.0.environment
    }

    /// The revision that every decision and audit record names.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.0.revision
    }

    /// When it was loaded.
    #[must_use]
    pub fn loaded(&self) -> Instant {
        self.0.loaded
    }

    /// The server entry with this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.0.servers.iter().find(|server| server.name == name)
    }

    /// `name` itself, if a server entry has it: what may become a metric label.
    #[must_use]
    pub fn server_name(&self, name: &str) -> Option<&str> {
        self.server(name).map(|server| server.name.as_str())
    }

    /// Every protected resource.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.0.servers.iter().filter_map(|server| server.resource.as_deref())
    }

    /// Destinations.
    #[must_use]
    pub fn perimeter(&self) -> &Perimeter {
        &self.0.perimeter
    }

    /// Bindings.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.0.catalogue
    }

    /// Digests for the audit trail.
    #[must_use]
    pub fn digester(&self) -> &Digester {
        &self.0.digester
    }

    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> &dyn Identify {
        &*self.0.identity
    }

    /// May they.
    #[must_use]
    pub fn policy(&self) -> &dyn Decide {
        &*self.0.policy
    }

    /// What is revoked; absent where nothing can be.
    #[must_use]
    pub fn revocation(&self) -> Option<&Gate> {
        self.0.revocation.as_ref()
    }

    /// With what.
    #[must_use]
    pub fn sources(&self) -> &Arc<Sources> {
        &self.0.sources
    }

    /// How often.
    #[must_use]
    pub fn throttle(&self) -> &Throttle {
        &self.0.throttle
    }

    /// In whose name.
    #[must_use]
    pub fn tenancy(&self) -> &Tenancy {
        &self.0.tenancy
    }

    /// For whom the credentials of this request are.
    #[must_use]
    pub fn caller(&self, request: &Request<'_>, server: &Server, principal: Arc<Principal>) -> Caller {
        let token = request.access_token();
        Caller {
            environment: self.0.environment.clone(),
            server: server.name.clone(),
            principal,
            token: token.map(|token| Arc::new(SecretBytes::new(token.as_bytes().to_vec()))),
            decision_id: request.decision_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(allow: bool, rule: &str, bindings: &[&str]) -> Verdict {
        let bindings = bindings.iter().map(|id| (*id).to_owned()).collect();
        Verdict {
            allow,
            rule: Some(rule.to_owned()),
            explanation: Some("because".to_owned()),
            bindings,
            required_scopes: Vec::new(),
        }
    }

    #[test]
    fn another_policy_only_ever_narrows() {
        let all = |bindings: &[&str]| verdict(true, "all", bindings);
        let cases: [(Verdict, Verdict, bool, &str, &[&str]); 6] = [
            (all(&[]), verdict(true, "own", &[]), true, "all", &[]),
            (all(&["a"]), verdict(true, "own", &[]), true, "all", &["a"]),
            (all(&[]), verdict(true, "own", &["b"]), true, "all", &["b"]),
            (all(&["a", "b", "c"]), verdict(true, "own", &["c", "a"]), true, "all", &["a", "c"]),
            (all(&["a"]), verdict(true, "own", &["b"]), false, "own", &[]),
            (all(&["a"]), verdict(false, "own", &["a"]), false, "own", &[]),
        ];
        for (one, two, allow, rule, bindings) in cases {
            let narrowed = one.narrowed(two, "policy of tenant `acme`");
            assert_eq!((narrowed.allow, narrowed.rule.as_deref()), (allow, Some(rule)));
            assert_eq!(narrowed.bindings, bindings);
            let explanation = narrowed.explanation.unwrap();
            assert_eq!(explanation.starts_with("policy of tenant `acme`: "), !allow, "{explanation}");
        }
    }
}
