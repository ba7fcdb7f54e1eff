//! What a token that was verified has to be besides, at the resource that was called: made for it, by an issuer of it, in the
//! hands of whoever it is bound to, and not used up.
//!
//! A verified token is remembered for a while; all of this is asked at every request.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyward_contract::reason::Reason;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::nonce;
use super::proof::{self, ProofError, Wanted};
use super::replay::{ReplayError, Use};
use super::{Confirmation, Credentials, Identity, Principal, Scheme};
use crate::config::Dpop;
use crate::decision::Signal;
use crate::plan::{NotIdentified, Presented};
use crate::resource::Resource;
use crate::sources::Sources;

// === impl Identity ===

impl Identity {
    /// Whether the principal of a verified token may come with it to the server that was called.
    ///
    /// # Errors
    /// The token is for another resource, bound to somebody else, used up, or that cannot be told.
    pub async fn admit(
        &self,
        presented: &Presented<'_>,
        credentials: Credentials<'_>,
        principal: &Principal,
        sources: &Sources,
    ) -> Result<(), NotIdentified> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(u64::MAX, |now| now.as_secs());
        let resource = presented.server.and_then(|server| server.resource.as_deref());
        self.is_meant(resource, principal)?;
        self.is_possessed(resource, presented, credentials, principal, (sources, now)).await?;
        let issuer = self.named(&principal.issuer).map(|verifier| &verifier.issuer);
        let issuer = issuer.ok_or_else(|| refused("its issuer is gone", Signal::Audience))?;
        if issuer.one_time {
            let Some(id) = &principal.token.id else {
                return Err(NotIdentified::Refused("a token that serves once must have a `jti`".to_owned()));
            };
            let id = format!("token\0{}\0{id}", issuer.name);
            let ends = principal.expires_unix_secs.saturating_add(issuer.clock_skew_secs);
            let what = Use { id: &id, decision_id: &presented.request.decision_id, now, ends };
            self.use_once(what, presented, sources).await.map_err(|error| match error {
                ReplayError::Used => refused("the access token was used before", Signal::Replay),
                error @ ReplayError::Unavailable(_) => NotIdentified::Unavailable(error.to_string()),
            })?;
        }
        Ok(())
    }

    /// Whether the token is for what was called.
    fn is_meant(&self, resource: Option<&Resource>, principal: &Principal) -> Result<(), NotIdentified> {
        let holds = |audiences: &[String]| principal.token.audiences.iter().any(|own| audiences.contains(own));
        let cause = match resource {
            Some(resource) => resource.refuses(principal),
            None => {
                let verifier = self.named(&principal.issuer);
                let is_meant = verifier.is_some_and(|verifier| holds(&verifier.issuer.audiences));
                (!is_meant).then_some("it is for another audience")
            }
        };
        cause.map_or(Ok(()), |cause| Err(refused(cause, Signal::Audience)))
    }

    /// Whether the caller holds what the token is bound to.
    async fn is_possessed(
        &self,
        resource: Option<&Resource>,
        presented: &Presented<'_>,
        credentials: Credentials<'_>,
        principal: &Principal,
        (sources, now): (&Sources, u64),
    ) -> Result<(), NotIdentified> {
        let dpop = resource.and_then(|resource| resource.dpop.as_ref());
        let wants_key = dpop.is_some_and(|dpop| dpop.required);
        let wants_certificate = resource.is_some_and(|resource| resource.certificate_required);
        match (&principal.token.confirmation, credentials.scheme) {
            (Some(Confirmation::Jkt(jkt)), Scheme::Dpop) if !wants_certificate => match (resource, dpop) {
                (Some(resource), Some(dpop)) => {
                    let proving = Proving { presented, token: credentials.token, jkt, resource, dpop };
                    self.is_proven(proving, (sources, now)).await
                }
                _ => Err(refused("this server takes no proofs of possession", Signal::Proof)),
            },
            (Some(Confirmation::X5tS256(digest)), Scheme::Bearer) if !wants_key => {
                let shown = presented.request.peer.certificate_sha256;
                if shown.and_then(base64url_of_hex).is_some_and(|shown| same(&shown, digest)) {
                    Ok(())
                } else {
                    Err(refused("it is bound to a certificate that the connection does not show", Signal::Proof))
                }
            }
            (None, Scheme::Bearer) if !wants_key && !wants_certificate => Ok(()),
            (Some(Confirmation::Jkt(_)), Scheme::Bearer) => {
                Err(refused("it is bound to a key and came as a bearer token", Signal::Proof))
            }
            (_, Scheme::Dpop) => Err(refused("it came with a proof and is not bound to a key", Signal::Proof)),
            _ => Err(refused("it is not bound as this server demands", Signal::Proof)),
        }
    }

    async fn is_proven(&self, proving: Proving<'_>, (sources, now): (&Sources, u64)) -> Result<(), NotIdentified> {
        let Proving { presented, token, jkt, resource, dpop } = proving;
        let request = presented.request;
        let key = if dpop.nonce { Some(self.nonce_key(sources).await?) } else { None };
        let fresh = key.as_ref().map(|key| nonce::make(key, now));
        let unproven = |reason, cause: String, signal| NotIdentified::Unproven {
            reason,
            cause: format!("proof of possession: {cause}"),
            signal,
            nonce: fresh.clone(),
        };
        let bad = |error: ProofError| unproven(Reason::InvalidProof, error.to_string(), Some(Signal::Proof));
        let text = request.headers.find("dpop").ok_or_else(|| bad(ProofError::Missing))?;
        let path = request.target.as_ref().map_err(|_| bad(ProofError::Target))?.path;
        let (method, address) = (request.method, &resource.address);
        let wanted = Wanted { method, address, path, token, jkt, terms: dpop, unix_secs: now };
        let proof = proof::check(text, &wanted).map_err(bad)?;
        if let Some(key) = &key {
            match &proof.nonce {
                Some(nonce) if nonce::is_fresh(key, nonce, now) => {}
                // Not a sign of anything: every client begins without one, and every nonce ends.
                found => {
                    let cause =
                        if found.is_some() { "its nonce is not one of ours, or old" } else { "it has no nonce" };
                    return Err(unproven(Reason::UseDpopNonce, cause.to_owned(), None));
                }
            }
        }
        let id = format!("dpop\0{jkt}\0{}", proof.id);
        let what = Use { id: &id, decision_id: &request.decision_id, now, ends: proof.ends_unix_secs };
        self.use_once(what, presented, sources).await.map_err(|error| match error {
            ReplayError::Used => unproven(Reason::InvalidProof, error.to_string(), Some(Signal::Replay)),
            ReplayError::Unavailable(_) => NotIdentified::Unavailable(error.to_string()),
        })
    }

    async fn use_once(&self, what: Use<'_>, presented: &Presented<'_>, sources: &Sources) -> Result<(), ReplayError> {
        if presented.is_trial {
            return Ok(());
        }
        self.kept.replay.use_once(what, self.max_replay_entries, sources).await
    }

    /// The key of nonces: the configured one, or this process's own.
    async fn nonce_key(&self, sources: &Sources) -> Result<Zeroizing<Vec<u8>>, NotIdentified> {
        let unavailable = |cause: String| NotIdentified::Unavailable(format!("identity.dpop_nonce_key: {cause}"));
        let Some(source) = &self.nonce_key else {
            let own = self.kept.nonce_key.get().ok_or_else(|| unavailable("there is no randomness".to_owned()))?;
            return Ok(Zeroizing::new(own.to_vec()));
        };
        let key = sources.secrets.resolve(source).await.map_err(|error| unavailable(error.to_string()))?;
        if key.len() < nonce::MIN_KEY_BYTES {
            return Err(unavailable(format!("it is shorter than {} bytes", nonce::MIN_KEY_BYTES)));
        }
        Ok(Zeroizing::new(key.expose().to_vec()))
    }
}

/// What a proof is for.
struct Proving<'a> {
    presented: &'a Presented<'a>,
    token: &'a str,
    jkt: &'a str,
    resource: &'a Resource,
    dpop: &'a Dpop,
}

fn refused(cause: &str, signal: Signal) -> NotIdentified {
    let (reason, cause) = (Reason::InvalidToken, format!("the access token was refused: {cause}"));
    NotIdentified::Unproven { reason, cause, signal: Some(signal), nonce: None }
}

/// The digest of a certificate as `x5t#S256` writes it, from 64 hexadecimal digits.
fn base64url_of_hex(hex: &str) -> Option<String> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..64).step_by(2).map(byte).collect::<Option<_>>()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

fn same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}
