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
use tonic::{Response, Status};

use crate::answer::{self, Refused, Shape};
use crate::audit::record::bounded;
use crate::audit::{Digester, Event, Record};
use crate::binding::{Asker, Choice};
use crate::connect::{Attempt, AttemptError, Invited, request_digest};
use crate::credential::{self, Injection};
use crate::database::DatabaseThrottles;
use crate::decision::{Denial, Stage};
use crate::operation::{Content, Operation};
use crate::perimeter::authority::Authority;
use crate::perimeter::{Facts, Passage};
use crate::plan::{Plan, Presented, Principal, Server};
use crate::request::Request;
use crate::trail::Trail;
use crate::verdict::{self, Verdicts};
use crate::{resource, revocation, session, throttle};

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
    trail.principal = principal.as_ref().ok().cloned();
    if plan.tenancy().has_tenants() {
        keep_apart(plan, request, &read, trail);
    }
    let principal = trail.note(Stage::Identity, principal.and_then(|found| recognise(plan, request, found)))?;
    // A malformed message is refused only now: who is not recognised learns nothing else.
    let content = trail.note(Stage::Request, read)?;
    let admitted = admit(plan, request, &principal, trail);
    let (server, passage) = trail.note(Stage::Perimeter, admitted)?;
    trail.subjects = revocation::of(plan, request, server, &principal);
    let granted = revocation::standing(plan, request, &trail.subjects);
    trail.note(Stage::Revocation, granted)?;
    let session = session::admit(plan, request, &content, server, &principal).await;
    trail.session = trail.note(Stage::Session, session)?;
    if !plan.throttle().is_off() || plan.tenancy().has_tenants() {
        let passed = throttle(plan, request, &content, server, &passage, &principal, trail).await;
        trail.note(Stage::Throttle, passed)?;
    }
    let verdicts = ask(plan, request, &content, server, &passage, &principal);
    trail.verdicts = verdicts;
    let allowed = trail.verdicts.denial(server, &principal).map_or(Ok(()), Err);
    trail.note(Stage::Policy, allowed)?;
    // Approval comes here.
    let choice = choose(plan, request, &content, server, &principal, trail)
        .and_then(|choice| resource::keep_from_bootstrap(&principal, &choice).map(|()| choice));
    let choice = trail.note(Stage::Binding, choice)?;
    trail.subjects.extend(revocation::of_choice(plan, &choice));
    trail.choice = Some(choice);
    let injection = inject(plan, request, &content, server, trail).await;
    // What was revoked meanwhile counts, too, and so do the bindings.
    let injection =
        injection.and_then(|injection| revocation::standing(plan, request, &trail.subjects).map(|()| injection));
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
            trail.operations = operations.iter().map(Operation::record).collect();
            drop(operations);
            if !plan.tenancy().has_tenants() {
                note_arguments(plan.digester(), request, &content, trail);
            }
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
    let identified = plan.identity().identify(&Presented { request, server, is_trial: trail.is_trial }).await;
    identified.map_err(|error| resource::unrecognised(error, server, request))
}

/// Whether this tenant may be named by this issuer, and called for at this host.
fn recognise(plan: &Plan, request: &Request<'_>, principal: Arc<Principal>) -> Result<Arc<Principal>, Denial> {
    let authority = request.authority.as_ref().map_err(|error| *error);
    plan.tenancy().recognise(&principal, authority).map(|()| principal)
}

/// Notes the digests of the arguments under a key of the tenant's own, or of nobody's.
fn keep_apart(plan: &Plan, request: &Request<'_>, read: &Result<Content<'_>, Denial>, trail: &mut Trail) {
    let Ok(content) = read else { return };
    let digester = match &trail.principal {
        Some(principal) => plan.digester().of_tenant(&principal.tenant),
        None => plan.digester().clone(),
    };
    note_arguments(&digester, request, content, trail);
}

fn note_arguments(digester: &Digester, request: &Request<'_>, content: &Content<'_>, trail: &mut Trail) {
    let path = request.target.map(|target| target.path).unwrap_or_default();
    for (record, operation) in trail.operations.iter_mut().zip(content.operations(request.method, path)) {
        record.arguments_digest = operation.arguments_digest(digester);
    }
}

fn admit<'a>(
    plan: &'a Plan,
    request: &Request<'_>,
    principal: &Principal,
    trail: &mut Trail,
) -> Result<(&'a Server, Passage<'a>), Denial> {
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
    plan.tenancy().admit(principal, &server.name)?;
    Ok((server, passage))
}

async fn throttle(
    plan: &Plan,
    request: &Request<'_>,
    content: &Content<'_>,
    server: &Server,
    passage: &Passage<'_>,
    principal: &Principal,
    trail: &mut Trail,
) -> Result<(), Denial> {
    if trail.is_trial {
        return Ok(());
    }
    trail.place = plan.tenancy().enter(principal)?;
    if plan.throttle().is_off() {
        return Ok(());
    }
    let path = request.target.map(|target| target.path).unwrap_or_default();
    let operations = content.operations(request.method, path);
    let host = passage.host.to_string();
    let facts = throttle::Facts { principal, host: &host, server: &server.name, operations: &operations };
    let shared = plan.sources().secrets.state().get();
    let shared = shared.map(|state| DatabaseThrottles::new(state.database.clone()));
    plan.throttle().take(&facts, shared.as_ref()).await.map_err(throttle::Refused::denial)
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
        if let Some((answer, answered)) = resource::metadata::answer(&plan, &request) {
            self.metrics().metadata(answered);
            return answer;
        }
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
                let (session, subjects) = (&trail.session, trail.subjects.as_slice());
                answer::allowed(&injection, session, authority, guard, subjects, request.from_filter)
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
        let denial = result.as_ref().err();
        if let Some((denial, event)) = denial.and_then(|denial| Some((denial, denial.incident.as_ref()?.event()?))) {
            // The decision is what must be on record; this is for whoever watches for it.
            let detail = bounded(&format!("decision {}: {}", request.decision_id, denial.cause));
            self.record(Record { event, detail, ..record.clone() });
        }
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
                if let Some(incident) = &denial.incident {
                    self.metrics().incident(trail.server.as_deref(), incident);
                }
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
