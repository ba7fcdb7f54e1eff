//! A server entry as an OAuth 2.1 protected resource (RFC 9728, RFC 8707): where clients find it, which tokens are for it, and
//! what they are told when theirs will not do (RFC 6750 section 3, RFC 9449 section 7.1).

mod address;
pub mod metadata;
mod scopes;

pub use address::{Address, AddressError};
pub use scopes::Scopes;

use keyward_contract::reason::Reason;

use crate::binding::Choice;
use crate::config::{self, Algorithm, IdentityConfig};
use crate::decision::{Denial, Signal, Stage};
use crate::plan::{NotIdentified, Principal, Server};
use crate::request::Request;

/// The header that says which credential would do.
const CHALLENGE: &str = "www-authenticate";
/// The header that carries the nonce for the next proof (RFC 9449, 8).
const NONCE: &str = "dpop-nonce";

/// One protected resource, compiled.
#[derive(Debug)]
pub struct Resource {
    /// Where clients connect.
    pub address: Address,
    /// The values of `aud` that mean it.
    pub audiences: Vec<String>,
    /// The names of the issuers whose tokens are for it.
    pub issuers: Vec<String>,
    /// The scopes that callers need.
    pub scopes: Scopes,
    /// How proofs of possession are checked; none: bound tokens are refused.
    pub dpop: Option<config::Dpop>,
    /// Whether each token must be bound to the client's certificate.
    pub certificate_required: bool,
    metadata: String,
    supported: Vec<String>,
}

// === impl Resource ===

impl Resource {
    /// The resource of this section.
    ///
    /// # Errors
    /// Its address cannot be used.
    pub fn new(config: &config::Resource, identity: &IdentityConfig) -> Result<Resource, AddressError> {
        let address = Address::parse(&config.url)?;
        let is_named = |name: &String| config.issuers.contains(name);
        let issuers = identity.issuers.iter().filter(|issuer| match config.issuers.is_empty() {
            true => !issuer.bootstrap,
            false => is_named(&issuer.name),
        });
        let (issuers, servers): (Vec<String>, Vec<&str>) =
            issuers.map(|issuer| (issuer.name.clone(), issuer.issuer.as_str())).unzip();
        let supported = config.scopes.all();
        Ok(Resource {
            metadata: metadata::document(config, &servers, &supported),
            audiences: [&config.url].into_iter().chain(&config.audiences).cloned().collect(),
            issuers,
            scopes: Scopes::new(&config.scopes),
            dpop: config.dpop.clone(),
            certificate_required: config.certificate_required,
            address,
            supported,
        })
    }

    /// What clients find as its metadata: a JSON document.
    #[must_use]
    pub fn metadata(&self) -> &str {
        &self.metadata
    }

    /// Why the token of this principal is not for this resource (RFC 8707, RFC 9068 section 4).
    #[must_use]
    pub fn refuses(&self, principal: &Principal) -> Option<&'static str> {
        if !self.issuers.contains(&principal.issuer) {
            return Some("its issuer does not serve this resource");
        }
        let is_meant = principal.token.audiences.iter().any(|own| self.audiences.contains(own));
        (!is_meant).then_some("it is for another resource")
    }

    /// The value of `www-authenticate`, with this error where there was a token, and the scopes that would do. `by_proof`
    /// says whether the token came with a proof.
    fn challenge(&self, error: Option<&str>, scopes: &[String], by_proof: bool) -> String {
        let mut parameters = Vec::new();
        if let Some(error) = error {
            parameters.push(format!("error=\"{error}\""));
        }
        if !scopes.is_empty() {
            parameters.push(format!("scope=\"{}\"", scopes.join(" ")));
        }
        parameters.push(format!("resource_metadata=\"{}\"", self.address.metadata_url()));
        let parameters = parameters.join(", ");
        let Some(dpop) = &self.dpop else { return format!("Bearer {parameters}") };
        let algorithms = algorithms(&dpop.algorithms).join(" ");
        if dpop.required || by_proof {
            return format!("DPoP {parameters}, algs=\"{algorithms}\"");
        }
        match error {
            None => format!("Bearer {parameters}, DPoP algs=\"{algorithms}\""),
            Some(_) => format!("Bearer {parameters}"),
        }
    }

    /// Which scopes a client should ask for next: those that are needed, and those it has that mean something here, so that
    /// it loses none by asking anew.
    fn step_up(&self, needed: &[String], principal: &Principal) -> Vec<String> {
        let mut scopes = needed.to_vec();
        for scope in &principal.scopes {
            if self.supported.contains(scope) && !scopes.contains(scope) {
                scopes.push(scope.clone());
            }
        }
        scopes
    }
}

/// The denial of a caller who was not recognised, with the challenge of the resource that was called.
#[must_use]
pub fn unrecognised(error: NotIdentified, server: Option<&Server>, request: &Request<'_>) -> Denial {
    let denied = |reason, cause| Denial::new(Stage::Identity, reason, cause);
    let (denial, nonce) = match error {
        NotIdentified::Missing => (denied(Reason::Unauthenticated, "no access token".to_owned()), None),
        NotIdentified::Refused(cause) => (denied(Reason::InvalidToken, cause), None),
        NotIdentified::Unavailable(cause) => (denied(Reason::DecisionUnavailable, cause), None),
        NotIdentified::Unproven { reason, cause, signal, nonce } => {
            let denial = denied(reason, cause);
            (signal.into_iter().fold(denial, Denial::signalling), nonce)
        }
    };
    let Some(resource) = server.and_then(|server| server.resource.as_deref()) else { return denial };
    let error = match denial.reason {
        Reason::Unauthenticated => None,
        Reason::InvalidToken => Some("invalid_token"),
        Reason::InvalidProof => Some("invalid_dpop_proof"),
        Reason::UseDpopNonce => Some("use_dpop_nonce"),
        _ => return denial,
    };
    let authorization = request.headers.find("authorization").unwrap_or_default();
    let by_proof = authorization.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("dpop "));
    let challenge = resource.challenge(error, &resource.scopes.required, by_proof);
    let denial = denial.with_header(CHALLENGE, challenge);
    nonce.into_iter().fold(denial, |denial, nonce| denial.with_header(NONCE, nonce))
}

/// The denial of a caller whose token lacks scopes, with all that the operation needs.
#[must_use]
pub fn lacking(needed: &[String], server: &Server, principal: &Principal, cause: String) -> Denial {
    let error = Some("insufficient_scope");
    let challenge = match server.resource.as_deref() {
        Some(resource) => {
            let by_proof = matches!(principal.token.confirmation, Some(crate::identity::Confirmation::Jkt(_)));
            resource.challenge(error, &resource.step_up(needed, principal), by_proof)
        }
        None => format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", needed.join(" ")),
    };
    let denial = Denial::new(Stage::Policy, Reason::InsufficientScope, cause);
    denial.with_header(CHALLENGE, challenge).signalling(Signal::Scope)
}

/// Refuses what would give a credential to a token that only says who calls.
///
/// # Errors
/// A binding was chosen that carries a credential, or passes one on.
pub fn keep_from_bootstrap(principal: &Principal, choice: &Choice) -> Result<(), Denial> {
    let carries = |binding: &std::sync::Arc<crate::binding::Binding>| binding.mode != crate::binding::Mode::None;
    if principal.token.bootstrap && choice.bindings.iter().any(carries) {
        let cause = "a bootstrap token leads to no credential";
        return Err(Denial::new(Stage::Binding, Reason::NotAllowed, cause).signalling(Signal::Scope));
    }
    Ok(())
}

/// The names of algorithms.
fn algorithms(algorithms: &[Algorithm]) -> Vec<&'static str> {
    algorithms.iter().map(|algorithm| algorithm.name()).collect()
}

#[cfg(test)]
mod tests;
