//! The credential kind `aws`: requests signed with SigV4, with keys that STS hands out for one tenant and one caller.
//!
//! [`role`] has the keys, [`session`] says what they may do and whom they name, [`external_id`] keeps tenants apart,
//! [`target`] chooses service and region, and [`sigv4`] signs what leaves.

pub mod canonical;
pub mod external_id;
pub(crate) mod failure;
pub(crate) mod identity;
pub mod probe;
pub(crate) mod role;
#[cfg(test)]
mod scripted;
pub mod session;
pub mod sigv4;
pub mod target;
pub mod template;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::{Credential, CredentialError, Material, Minting, Outgoing, Probing, SlotName, Turn};
use crate::caller::{self, Caller};
use crate::config::credential::Kind as _;
use crate::config::{AwsCredential, AwsKeys, AwsPayload, AwsSignature, AwsSource};
use crate::freshness::{Key, MintError, MintErrorKind};
use crate::hex::hex;
use crate::secret::Secrets;
use crate::sources::Sources;
use role::{ACCESS_KEY_ID, Role, RoleError, SECRET_ACCESS_KEY, SESSION_TOKEN, WebIdentity};
use sigv4::{Keys, Location, Payload, Rules, Scope};
use target::Allowed;

/// The headers that are AWS's way of proving who asks.
const HEADERS: [&str; 4] = ["authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256"];
/// The same in a query.
const QUERY: [&str; 8] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
    "X-Amz-Content-Sha256",
];
/// Headers that are signed besides `host` and `x-amz-*`: no proxy changes them.
const SIGNED: [&str; 2] = ["content-md5", "content-type"];

/// Requests signed with AWS's SigV4.
pub struct Aws {
    configured: AwsCredential,
    allowed: Allowed,
    source: Result<Source, RoleError>,
    /// Tells this configuration's materials from another's.
    digest: String,
    /// Whether secrets that it needs depend on the caller by themselves.
    personal: bool,
}

enum Source {
    Role(Role),
    WebIdentity(WebIdentity),
    Static(AwsKeys),
}

// === impl Aws ===

impl Aws {
    /// The credential of a configuration that passed its check; of another one, every request is denied.
    #[must_use]
    pub fn new(configured: AwsCredential) -> Aws {
        let region = configured.regions.first().map(String::as_str).unwrap_or_default();
        let source = match &configured.source {
            AwsSource::Role(own) => Role::new(own, region).map(Source::Role),
            AwsSource::WebIdentity(own) => WebIdentity::new(own, region).map(Source::WebIdentity),
            AwsSource::Static(own) => Ok(Source::Static(own.clone())),
        };
        let allowed = Allowed { services: configured.services.clone(), regions: configured.regions.clone() };
        let digest = hex(&Sha256::digest(format!("{:?}", configured.source)));
        let personal = configured.secrets().iter().any(|(_, source)| caller::is_template(&source.reference));
        Aws { configured, allowed, source, digest, personal }
    }

    /// What signing puts on this request.
    fn sign(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<sigv4::Signed, CredentialError> {
        let unfit = |error: &dyn std::fmt::Display| CredentialError::Unfit(error.to_string());
        let field = |name: &'static str| material.text(name).ok_or(CredentialError::Missing(name));
        let keys = Keys {
            access_key_id: field(ACCESS_KEY_ID)?,
            secret_access_key: field(SECRET_ACCESS_KEY)?,
            session_token: material.text(SESSION_TOKEN),
        };
        if [keys.access_key_id, keys.secret_access_key, keys.session_token.unwrap_or_default()]
            .iter()
            .any(|key| key.contains(|char: char| char.is_control() || char == ' '))
        {
            return Err(CredentialError::Control);
        }
        let (service, region) = self.allowed.choose(outgoing.authority()).map_err(|error| unfit(&error))?;
        let rules = Rules::of(service);
        respell(outgoing, rules).map_err(|error| unfit(&error))?;
        let payload = match self.configured.payload {
            AwsPayload::Unsigned => Payload::Unsigned,
            AwsPayload::Signed if chunks_of_the_client(outgoing)? => Payload::UnsignedChunks,
            AwsPayload::Signed => Payload::Bytes(outgoing.body()),
        };
        let headers: Vec<(&str, &str)> = outgoing.headers().filter(|(name, _)| is_signed(name)).collect();
        let request = sigv4::Request {
            method: outgoing.method(),
            authority: outgoing.authority(),
            path: outgoing.path(),
            query: outgoing.query(),
            headers: &headers,
            payload,
        };
        let location = match self.configured.signature {
            AwsSignature::Headers => Location::Headers,
            AwsSignature::Query => Location::Query { valid: Duration::from_secs(self.configured.presigned_secs) },
        };
        let scope = Scope { region, service, time: SystemTime::now() };
        sigv4::sign(&request, keys, scope, rules, location).map_err(|error| unfit(&error))
    }
}

impl Credential for Aws {
    fn kind(&self) -> &'static str {
        "aws"
    }

    fn places(&self) -> Vec<SlotName> {
        let headers = HEADERS.iter().map(|name| SlotName::Header((*name).to_owned()));
        headers.chain(QUERY.iter().map(|name| SlotName::Query((*name).to_owned()))).collect()
    }

    fn references(&self) -> Vec<String> {
        match &self.configured.source {
            AwsSource::Role(own) => Role::references(own),
            AwsSource::WebIdentity(own) => vec![own.role_arn.clone(), own.token.reference.clone()],
            AwsSource::Static(own) => {
                vec![own.access_key_id.reference.clone(), own.secret_access_key.reference.clone()]
            }
        }
    }

    fn key(&self, caller: &Caller) -> Option<Key> {
        // Without a session there is nothing to keep: the mint says what is missing.
        let wanted = match self.source.as_ref().ok()? {
            Source::Role(own) => own.wanted(caller).ok()?,
            Source::WebIdentity(own) => own.wanted(caller).ok()?,
            Source::Static(_) => return None,
        };
        // The session holds name, source identity, tags and policy: whoever differs in one has other keys.
        let key = Key::new("aws", caller.tenant())
            .with("configuration", &self.digest)
            .with("role", wanted.role_arn)
            .with("session", format!("{:?}", wanted.session));
        if !self.personal {
            return Some(key);
        }
        let place = format!("{:?}", (&caller.environment, &caller.server));
        Some(key.with("place", place).with("principal", &caller.principal.key))
    }

    fn mint(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Minting {
        Box::pin(async move {
            match &self.source {
                Ok(Source::Role(own)) => own.mint(&caller, &sources.secrets).await,
                Ok(Source::WebIdentity(own)) => own.mint(&caller, &sources.secrets).await,
                Ok(Source::Static(own)) => stored(own, &caller, &sources.secrets).await,
                Err(error) => Err(MintError::rejected(error)),
            }
        })
    }

    fn probe(self: Arc<Self>, caller: Arc<Caller>, sources: Arc<Sources>) -> Option<Probing> {
        Some(Box::pin(async move {
            let mut seen = Vec::new();
            for finding in Aws::probe(&self, &caller, &sources).await {
                let step = finding.step;
                match finding.told() {
                    Ok(text) => seen.push(text),
                    // Each tenant has its own role or external id: what comes before is seen without one.
                    Err(error) if error.kind == MintErrorKind::NeedsCaller => {
                        seen.push(format!("{step}: try `keyward aws check --tenant TENANT`"));
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(seen.join(", "))
        }))
    }

    fn turn(&self) -> Turn {
        Turn::Sign
    }

    fn apply(&self, material: &Material, outgoing: &mut Outgoing<'_>) -> Result<(), CredentialError> {
        let signed = self.sign(material, outgoing)?;
        outgoing.scrub(&signed.signing_key);
        outgoing.scrub(signed.signature.as_bytes());
        outgoing.scrub(material.get(ACCESS_KEY_ID).unwrap_or_default());
        for (name, value) in &signed.headers {
            outgoing.set_header(name, value)?;
        }
        if !signed.query.is_empty() {
            let mut target = outgoing.target().to_owned();
            for (name, value) in &signed.query {
                target.push(if target.contains('?') { '&' } else { '?' });
                target.push_str(&format!("{name}={}", value.as_str()));
            }
            outgoing.set_target(&target);
        }
        Ok(())
    }
}

/// Gives path and query the one spelling that every verifier reads alike, and holds on to it.
fn respell(outgoing: &mut Outgoing<'_>, rules: Rules) -> Result<(), canonical::SpellingError> {
    let path = canonical::path(outgoing.path());
    // Where the path is encoded once more, its spelling is signed as it is.
    let path = if rules.encode_twice { outgoing.path().into() } else { path? };
    let query = canonical::query(outgoing.query().unwrap_or_default())?;
    let target = if query.is_empty() { path.to_string() } else { format!("{path}?{query}") };
    if target == outgoing.target() {
        outgoing.keep_target();
    } else {
        outgoing.set_target(&target);
    }
    Ok(())
}

fn is_signed(name: &str) -> bool {
    SIGNED.contains(&name) || (name.starts_with("x-amz-") && !HEADERS.contains(&name))
}

/// Whether the body comes in the SDKs' own chunks, unsigned, with their checksum behind them.
///
/// # Errors
/// Chunks that the client signed: its keys are none.
fn chunks_of_the_client(outgoing: &Outgoing<'_>) -> Result<bool, CredentialError> {
    let coded = outgoing.header("content-encoding").unwrap_or_default();
    if !coded.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("aws-chunked")) {
        return Ok(false);
    }
    let first_line = outgoing.body().split(|byte| *byte == b'\n').next().unwrap_or_default();
    if first_line.contains(&b';') || outgoing.header("x-amz-trailer").is_none() {
        let cause =
            "the body comes in chunks that the client signed; send it whole, or in unsigned chunks with a trailer";
        return Err(CredentialError::Unfit(cause.to_owned()));
    }
    Ok(true)
}

/// Keys out of their stores, of one content where they are in one place.
async fn stored(keys: &AwsKeys, caller: &Caller, secrets: &Secrets) -> Result<Material, MintError> {
    let wanted = [
        (ACCESS_KEY_ID, Some(&keys.access_key_id)),
        (SECRET_ACCESS_KEY, Some(&keys.secret_access_key)),
        (SESSION_TOKEN, keys.session_token.as_ref()),
    ];
    let wanted: Vec<_> = wanted.into_iter().filter_map(|(name, source)| Some((name, source?))).collect();
    let references: Vec<_> = wanted.iter().map(|(_, source)| *source).collect();
    let found = secrets.get_all(&references, caller).await?;
    let mut material = Material::new();
    for ((name, _), secret) in wanted.iter().zip(&found) {
        material = material.stored(name, secret);
    }
    Ok(material)
}

#[cfg(test)]
mod tests;
