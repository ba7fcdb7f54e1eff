//! One decision, from the message to the answer. [`decide`] is the list of stages; everything else here keeps it bounded,
//! denies when it fails, and leaves the record before the answer.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use keyward_contract::reason::Reason;
use keyward_contract::revocation::Tag;
use tonic::{Response, Status};

use crate::answer::{self, Refused, Shape};
use crate::audit::{Event, Record};
use crate::binding::{Asker, Choice};
use crate::connect::{Attempt, AttemptError, Invited, request_digest};
use crate::credential::{self, Injection};
use crate::decision::{Denial, Stage};
use crate::operation::Content;
use crate::perimeter::authority::Authority;
use crate::perimeter::{Facts, Passage};
use crate::plan::{NotIdentified, Plan, Presented, Principal, Server};
use crate::request::Request;
use crate::revocation;
use crate::trail::Trail;
use crate::verdict::{self, Verdicts};

pub use crate::engine::Engine;

/// How long one decision may take altogether.
pub const DECISION_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a person's invitation may take.
const INVITATION_TIMEOUT: Duration = Duration::from_secs(1);

/// The service behind `envoy.service.auth.v3.Authorization`.
pub struct Service {
    engine: Arc<Engine>,
}

/// THE list: each stage gets what the one before it found, and ends the request or hands on.
///
/// Audit and answer follow in [`Engine::check`], whatever happened here.
///
/// # Errors
/// The first denial.
pub async fn decide(plan: &Plan, request: &Request<'_>, trail: &mut Trail) -> Result<Injection, Denial> {
    let read = read(plan, request, trail);
    let principal = identify(plan, request, trail).await;
    let principal = trail.note(Stage::Identity, principal)?;
    trail.principal = Some(principal.clone());
    // A malformed message is refused only now: who is not recognised learns nothing else.
    let content = trail.note(Stage::Request, read)?;
    let admitted = admit(plan, request, trail);
    let (server, passage) = trail.note(Stage::Perimeter, admitted)?;
    if plan.revocation().is_some() {
        trail.subjects = revocation::of_call(plan.environment(), &principal, &server.name, request.access_token());
    }
    let granted = standing(plan, request, &trail.subjects);
    trail.note(Stage::Revocation, granted)?;
    // Throttling comes here.
    let verdicts = ask(plan, request, &content, server, &passage, &principal);
    trail.verdicts = verdicts;
    let allowed = trail.verdicts.denial().map_or(Ok(()), Err);
    trail.note(Stage::Policy, allowed)?;
    // Approval comes here.
    let choice = choose(plan, request, &content, server, &principal, trail);
    let choice = trail.note(Stage::Binding, choice)?;
    if plan.revocation().is_some() {
        let bindings = choice.bindings.iter().map(|binding| revocation::of_binding(plan.environment(), &binding.id));
        trail.subjects.extend(bindings);
    }
    trail.choice = Some(choice);
    let injection = inject(plan, request, &content, server, trail).await;
    // What was revoked meanwhile counts, too, and so do the bindings.
    let injection = injection.and_then(|injection| standing(plan, request, &trail.subjects).map(|()| injection));
    trail.patterns = injection.as_ref().map(|injection| injection.patterns().to_vec()).unwrap_or_default();
    trail.note(Stage::Credential, injection)
}

// === the stages, each called with its own small input ===

fn read<'a>(plan: &Plan, request: &'a Request<'a>, trail: &mut Trail) -> Result<Content<'a>, Denial> {
    let closest = || {
        let (authority, target) = (request.authority.as_ref().ok()?, request.target.as_ref().ok()?);
        plan.perimeter().server_of(authority, target.path)
    };
    let server = request.server.or_else(closest).and_then(|name| plan.server(name));
    if let Some(server) = server {
        trail.at(server);
    }
    match Content::read(request, server) {
        Ok(content) => {
            trail.shape = content.shape();
            trail.revision = content.revision();
            trail.asking = content.asking();
            let path = request.target.map(|target| target.path).unwrap_or_default();
            let operations = content.operations(request.method, path);
            trail.operation_count = operations.len();
            trail.operations = operations.iter().map(|operation| operation.record(plan.digester())).collect();
            drop(operations);
            Ok(content)
        }
        Err(malformed) => {
            trail.shape = malformed.shape;
            trail.prescribed = malformed.prescribed;
            Err(malformed.denial)
        }
    }
}

async fn identify(plan: &Plan, request: &Request<'_>, trail: &Trail) -> Result<Arc<Principal>, Denial> {
    let server = trail.server.as_deref().and_then(|name| plan.server(name));
    let identified = plan.identity().identify(&Presented { request, server }).await;
    identified.map_err(|error| match error {
        NotIdentified::Missing => Denial::new(Stage::Identity, Reason::Unauthenticated, "no access token"),
        NotIdentified::Refused(cause) => Denial::new(Stage::Identity, Reason::InvalidToken, cause),
        NotIdentified::Unavailable(cause) => Denial::new(Stage::Identity, Reason::DecisionUnavailable, cause),
    })
}

fn admit<'a>(plan: &'a Plan, request: &Request<'_>, trail: &mut Trail) -> Result<(&'a Server, Passage<'a>), Denial> {
    let denied = |cause: &dyn ToString| Denial::new(Stage::Perimeter, Reason::DestinationDenied, cause.to_string());
    let facts = Facts {
        server: request.server,
        method: request.method,
        authority: request.authority.as_ref().map_err(|error| *error),
        path: request.target.as_ref().map(|target| target.path).map_err(|error| *error),
        cluster: request.cluster,
    };
    let passage = plan.perimeter().admit(&facts).map_err(|error| denied(&error))?;
    let server = plan.server(passage.server).ok_or_else(|| denied(&"the server entry is gone"))?;
    if trail.server.as_deref() != Some(server.name.as_str()) {
        return Err(denied(&"two server entries share this destination"));
    }
    trail.destination = Some(passage.destination.clone());
    Ok((server, passage))
}

/// Denies while something of this is revoked, and while that is not known.
fn standing(plan: &Plan, request: &Request<'_>, subjects: &[Tag]) -> Result<(), Denial> {
    let Some(gate) = plan.revocation() else { return Ok(()) };
    match gate.revoked(subjects) {
        Ok(None) => Ok(()),
        Ok(Some(number)) => {
            // MCP 2025-11-25, Transports, Session Management: a session that has ended answers 404, and the client begins anew.
            let reason = match request.headers.find("mcp-session-id") {
                Some(_) => Reason::SessionNotFound,
                None => Reason::AccessRevoked,
            };
            Err(Denial::new(Stage::Revocation, reason, format!("revocation {number}")))
        }
        Err(error) => Err(Denial::new(Stage::Revocation, Reason::DecisionUnavailable, error)),
    }
}

fn ask(
    plan: &Plan,
    request: &Request<'_>,
    content: &Content<'_>,
    server: &Server,
    passage: &Passage<'_>,
    principal: &Principal,
) -> Verdicts {
    let path = request.target.map(|target| target.path).unwrap_or_default();
    let operations = content.operations(request.method, path);
    verdict::ask(plan, request, content, &operations, server, passage, principal)
}

fn choose(
    plan: &Plan,
    request: &Request<'_>,
    content: &Content<'_>,
    server: &Server,
    principal: &Principal,
    trail: &mut Trail,
) -> Result<Choice, Denial> {
    let refused = |error| Denial::new(Stage::Binding, Reason::DestinationDenied, error);
    let authority = match &server.upstream_authority {
        Some(authority) => Authority::parse(authority),
        None => request.authority.clone(),
    };
    let authority = authority.map_err(refused)?;
    trail.authority = Some(authority.to_string());
    let path = request.target.map(|target| target.path).unwrap_or_default();
    let operations = content.operations(request.method, path);
    let (asker, named) = (Asker::from(principal), trail.verdicts.named());
    plan.catalogue().choose(&server.name, &asker, &operations, &named, &authority)
}

async fn inject(
    plan: &Plan,
    request: &Request<'_>,
    content: &Content<'_>,
    server: &Server,
    trail: &mut Trail,
) -> Result<Injection, Denial> {
    let missing = || Denial::new(Stage::Credential, Reason::CredentialUnavailable, "no binding was chosen");
    let choice = trail.choice.clone().ok_or_else(missing)?;
    let principal = trail.principal.clone().ok_or_else(missing)?;
    let refused = |error: AttemptError| Denial::new(Stage::Credential, error.reason(), error);
    let state = plan.sources().secrets.state();
    let operation = content.single_request();
    if let Some(operation) = &operation {
        trail.attempt = Attempt::read(operation, &server.name, &principal, state).await.map_err(refused)?;
    }
    let attempt = &trail.attempt;
    let authority = server.upstream_authority.as_deref().unwrap_or(request.raw_authority);
    let caller = Arc::new(plan.caller(request, server, principal));
    let body = attempt.body(request.body);
    crate::leak::note_local(plan.catalogue(), plan.revision(), plan.sources()).await;
    let guard = &server.leaks.arguments;
    let injection = credential::inject(&choice, request, authority, body, guard, &caller, plan.sources()).await;
    if let (Err(Denial { provider: Some(_), .. }), Some(operation)) = (&injection, &operation) {
        trail.request_digest = request_digest(operation, &server.name);
    }
    let injection = injection?;
    attempt.use_up(state).await.map_err(refused)?;
    Ok(injection)
}

/// What the person is told who has to connect an account first, where there is one who can be asked.
async fn invite(plan: &Plan, trail: &Trail, denial: &Denial) -> Option<Invited> {
    let (invitations, provider) = (plan.sources().invitations.as_ref()?, denial.provider.as_deref()?);
    let (attempt, digest) = (&trail.attempt, &trail.request_digest);
    if attempt.declined() {
        return None;
    }
    let principal = trail.principal.as_ref()?;
    let invited = invitations.invite(principal, provider, trail.asking, digest, attempt.carried()).await;
    invited.inspect_err(|error| tracing::warn!(error, provider, "nobody can be invited to connect")).ok()
}

/// Whether a browser's page reached us under a name that is not ours (DNS rebinding): pages send `Origin`, SDK clients do
/// not. MCP wants an HTTP error then, and no page is to read it as an answer.
fn is_rebound(request: &Request<'_>, denial: &Denial) -> bool {
    denial.stage == Stage::Perimeter && request.headers.find("origin").is_some()
}

// === impl Service ===

impl Service {
    /// Answers with this engine's decisions.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Service {
        Service { engine }
    }
}

#[tonic::async_trait]
impl Authorization for Service {
    async fn check(&self, message: tonic::Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        Ok(Response::new(self.engine.check(message.get_ref()).await))
    }
}

// === impl Engine ===

impl Engine {
    /// Decides on a message, records it, answers it. Never fails: what goes wrong is a denial.
    pub async fn check(&self, message: &CheckRequest) -> CheckResponse {
        let plan = arc_swap::Guard::into_inner(self.plan());
        let request = Request::read(message);
        let mut trail = Trail::new();
        let result = self.bounded(&plan, &request, &mut trail).await;
        let result = self.recorded(&plan, &request, &trail, result);
        self.measure(&trail, &result);
        match result {
            Ok(injection) => {
                if request.from_filter {
                    self.note_origins(&request.decision_id, injection.origins());
                }
                let server = trail.server.as_deref().and_then(|name| plan.server(name));
                let authority = server.and_then(|server| server.upstream_authority.as_deref());
                let guard = server.and_then(|server| server.leaks.responses.as_deref());
                answer::allowed(&injection, authority, guard, &trail.subjects, request.from_filter)
            }
            Err(denial) => answer::denied(&Refused {
                reason: denial.reason,
                elements: trail.elements(&denial),
                shape: if is_rebound(&request, &denial) { &Shape::Plain } else { &trail.shape },
                prescribed: trail.prescribed.as_ref().filter(|_| denial.stage == Stage::Request),
                invited: self.invited(&plan, &trail, &denial).await.as_ref(),
                headers: &denial.headers,
                decision_id: &request.decision_id,
                policy_revision: plan.revision(),
            }),
        }
    }

    /// [`invite`] within a time limit, and with a net under panics. Without an invitation the denial stands alone.
    async fn invited(&self, plan: &Plan, trail: &Trail, denial: &Denial) -> Option<Invited> {
        let _permit = self.permits().try_acquire().ok()?;
        tokio::time::timeout(INVITATION_TIMEOUT, caught(invite(plan, trail, denial))).await.ok().flatten().flatten()
    }

    /// [`decide`] within the bounds: a place among the decisions under way, a time limit, and a net under panics.
    async fn bounded(&self, plan: &Plan, request: &Request<'_>, trail: &mut Trail) -> Result<Injection, Denial> {
        let Ok(_permit) = self.permits().try_acquire() else {
            // Even this answer carries the request's id; reading is bounded and waits for nothing.
            let _ = caught(async { read(plan, request, trail).map(drop) }).await;
            return Err(Denial::new(Stage::Request, Reason::Overloaded, "too many decisions under way"));
        };
        let decided = tokio::time::timeout(DECISION_TIMEOUT, caught(decide(plan, request, trail))).await;
        let (reason, cause) = match decided {
            Ok(Some(result)) => return result,
            Ok(None) => {
                self.metrics().panicked();
                (Reason::DecisionUnavailable, "the decision ended by a panic")
            }
            Err(_) => (Reason::DecisionUnavailable, "the decision took too long"),
        };
        Err(Denial::new(trail.under_way(), reason, cause))
    }

    /// Leaves the record. A decision that cannot be recorded is a denial.
    fn recorded(
        &self,
        plan: &Plan,
        request: &Request<'_>,
        trail: &Trail,
        result: Result<Injection, Denial>,
    ) -> Result<Injection, Denial> {
        let mut record = Record::new(Event::Decision, plan.environment(), plan.revision());
        record.decision = Some(Box::new(trail.record(request, result.as_ref().err())));
        match self.audit().accept(&record) {
            Ok(()) => result,
            Err(error) => Err(Denial::new(Stage::Audit, Reason::Overloaded, error)),
        }
    }

    fn measure(&self, trail: &Trail, result: &Result<Injection, Denial>) {
        for (stage, took, _) in &trail.stages {
            self.metrics().stage(*stage, *took);
        }
        match result {
            Ok(_) => {
                self.metrics().allowed(trail.server.as_deref().unwrap_or("unknown"), trail.took());
                for binding in trail.choice.iter().flat_map(|choice| &choice.bindings) {
                    self.note_use(&binding.id);
                }
            }
            Err(denial) => {
                self.metrics().denied(trail.server.as_deref(), denial.stage, denial.reason.code(), trail.took());
            }
        }
    }
}

/// Runs a future; `None` if it panics. The panic hook of `log.rs` says where, never what.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Ready(result)) => Poll::Ready(Some(result)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
}
