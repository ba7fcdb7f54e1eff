//! Keys that STS hands out for one session of a role, for one tenant and one caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_sdk_sts::operation::assume_role::builders::AssumeRoleFluentBuilder;
use aws_sdk_sts::types::{PolicyDescriptorType, Tag};
use aws_smithy_types::DateTime;

use super::external_id;
use super::failure::{self, Asked};
use super::identity::{Access, text};
use super::session::{MAX_CHAINED_SECS, Session, SessionError, SessionTemplate};
use super::template::{Place, Template, TemplateError};
use crate::caller::Caller;
use crate::config::{AwsExternalId, AwsHop, AwsIdentity, AwsRole, AwsTenant, AwsWebIdentity, SecretSource};
use crate::credential::Material;
use crate::freshness::{MintError, MintErrorKind};
use crate::identity::Principal;
use crate::secret::Secrets;

/// The fields of the material.
pub(super) const ACCESS_KEY_ID: &str = "access_key_id";
pub(super) const SECRET_ACCESS_KEY: &str = "secret_access_key";
pub(super) const SESSION_TOKEN: &str = "session_token";

/// The name of Keyward's own session in a role on the way to another one.
const HOP_SESSION: &str = "keyward";

/// A role that Keyward assumes with an identity of its own.
pub(super) struct Role {
    default: Option<Template>,
    tenants: BTreeMap<String, AwsTenant>,
    external_id: AwsExternalId,
    session: SessionTemplate,
    via: Vec<AwsHop>,
    access: Access,
}

/// A role that a token of another issuer assumes.
pub(super) struct WebIdentity {
    role_arn: Template,
    token: SecretSource,
    session: SessionTemplate,
    access: Access,
}

/// One session of one role.
pub(super) struct Wanted {
    pub(super) role_arn: String,
    pub(super) session: Session,
}

/// Why there is no role for a caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RoleError {
    /// No role for the tenant.
    #[error("tenant `{0}` has no role: name it under `tenants`, or give a `role_arn`")]
    NoRole(String),
    /// A template that cannot be filled in.
    #[error("`role_arn`: {0}")]
    Template(#[from] TemplateError),
    /// What came of it is no role.
    #[error("`role_arn` is not the ARN of a role for this caller")]
    NotAnArn,
    /// The session.
    #[error("session: {0}")]
    Session(#[from] SessionError),
    /// No external id for the tenant.
    #[error("tenant `{0}` has no external id: list it under `tenants`")]
    NoExternalId(String),
    /// One that STS does not take, or that can be guessed.
    #[error("the external id of tenant `{0}` is not 16 to 1224 characters of letters, digits and `_+=,.@:/-`")]
    ExternalId(String),
    /// One that another tenant has as well: by it one tenant's role could be assumed for the other.
    #[error("tenants `{0}` and `{1}` have one external id: give each tenant its own")]
    SharedExternalId(String, String),
    /// The key that ids are derived with.
    #[error("`external_id.key` is shorter than 32 bytes")]
    ShortKey,
}

// === impl RoleError ===

impl RoleError {
    /// Whether a caller lacks what a template names, so that another one may have a role.
    pub(super) fn lacks_a_property(&self) -> bool {
        match self {
            RoleError::Template(cause) | RoleError::Session(SessionError::Template { cause, .. }) => {
                matches!(cause, TemplateError::Absent(_))
            }
            _ => false,
        }
    }

    /// The failure as the cache sees it: without a caller, it is the caller that is missing.
    fn minting(self, caller: &Caller) -> MintError {
        if caller.tenant().is_empty() { MintError::needs_caller(self) } else { MintError::rejected(self) }
    }
}

// === impl Role ===

impl Role {
    pub(super) fn new(configured: &AwsRole, region: &str) -> Result<Role, RoleError> {
        Ok(Role {
            default: configured.role_arn.as_deref().map(|text| Template::parse(Place::Arn, text)).transpose()?,
            tenants: configured.tenants.clone(),
            external_id: configured.external_id.clone(),
            session: SessionTemplate::new(&configured.session)?,
            via: configured.via.clone(),
            access: Access::new(&configured.identity, &configured.sts, region),
        })
    }

    /// What is asked of STS for this caller. Nothing of it comes from the request.
    pub(super) fn wanted(&self, caller: &Caller) -> Result<Wanted, RoleError> {
        let tenant = caller.tenant();
        let role_arn = match (self.tenants.get(tenant), &self.default) {
            (Some(own), _) => own.role_arn.clone(),
            (None, Some(template)) => template.fill(caller)?,
            (None, None) => return Err(RoleError::NoRole(tenant.to_owned())),
        };
        if !is_role_arn(&role_arn) {
            return Err(RoleError::NotAnArn);
        }
        Ok(Wanted { role_arn, session: self.session.of(caller)? })
    }

    pub(super) async fn mint(&self, caller: &Caller, secrets: &Secrets) -> Result<Material, MintError> {
        let Wanted { role_arn, mut session } = self.wanted(caller).map_err(|error| error.minting(caller))?;
        let external_id = self.external_id(caller, secrets).await?;
        let chained = !self.via.is_empty() || self.access.is_temporary(caller, secrets).await?;
        if chained {
            session.duration_secs = session.duration_secs.min(MAX_CHAINED_SECS);
        }
        let mut config = self.access.config(caller, secrets).await?;
        for hop in &self.via {
            let external_id = match &hop.external_id {
                Some(source) => Some(text(source, caller, secrets).await?),
                None => None,
            };
            let ask = self.access.sts(&config).assume_role().role_session_name(HOP_SESSION);
            let keys = assume(ask.set_external_id(external_id), &hop.role_arn).await?;
            config = self.access.with(keys).await;
        }
        let ask = with_session(self.access.sts(&config).assume_role(), session);
        Ok(material(&assume(ask.set_external_id(external_id), &role_arn).await?))
    }

    /// The external id that the tenant's role demands: of the configuration and the tenant alone.
    pub(super) async fn external_id(&self, caller: &Caller, secrets: &Secrets) -> Result<Option<String>, MintError> {
        let tenant = caller.tenant();
        match &self.external_id {
            AwsExternalId::None => Ok(None),
            _ if tenant.is_empty() => Err(MintError::needs_caller("an external id is a tenant's")),
            AwsExternalId::Derived { key } => {
                let key = secrets.get(key, caller).await?;
                let derived = external_id::derive(key.value.expose(), tenant);
                derived.map(Some).ok_or_else(|| MintError::rejected(RoleError::ShortKey))
            }
            AwsExternalId::Listed => {
                let missing = || MintError::rejected(RoleError::NoExternalId(tenant.to_owned()));
                let own = self.tenants.get(tenant).and_then(|own| own.external_id.as_ref()).ok_or_else(missing)?;
                let listed = text(own, caller, secrets).await?;
                if !external_id::is_usable(&listed) {
                    return Err(MintError::rejected(RoleError::ExternalId(tenant.to_owned())));
                }
                self.is_nobody_elses(&listed, caller, secrets).await?;
                Ok(Some(listed))
            }
        }
    }

    /// Fails where another tenant has this external id, too: two references can hold one value. Whose it is nobody
    /// here knows, so neither tenant is served. Nor is one served while another's cannot be read, since it could be the
    /// same; what its store says is gone or forbidden serves nobody, and is passed over.
    async fn is_nobody_elses(&self, external_id: &str, caller: &Caller, secrets: &Secrets) -> Result<(), MintError> {
        let own = caller.tenant();
        for (tenant, other) in self.tenants.iter().filter(|(tenant, _)| *tenant != own) {
            let Some(source) = &other.external_id else { continue };
            let principal = Principal { tenant: tenant.clone(), ..Principal::nobody() };
            let (server, principal) = (caller.server.clone(), Arc::new(principal));
            let theirs = Caller { server, principal, ..Caller::none(&caller.environment) };
            match text(source, &theirs, secrets).await {
                Ok(theirs) if theirs == external_id => {
                    let shared = RoleError::SharedExternalId(own.to_owned(), tenant.clone());
                    return Err(MintError::rejected(shared));
                }
                Ok(_) => {}
                Err(error) if error.kind == MintErrorKind::Rejected => {}
                Err(error) => {
                    let cause = format!("the external id of tenant `{tenant}` cannot be compared: {}", error.cause);
                    return Err(MintError { cause, ..error });
                }
            }
        }
        Ok(())
    }

    /// Who asks STS, as STS knows it, and whether that is a session itself.
    pub(super) async fn identity(&self, caller: &Caller, secrets: &Secrets) -> Result<(String, bool), MintError> {
        let config = self.access.config(caller, secrets).await?;
        let asked =
            Asked { operation: "GetCallerIdentity", resource: self.access.region(), permission: failure::IDENTITY };
        let answer = self.access.sts(&config).get_caller_identity().send().await;
        let answer = answer.map_err(|error| failure::failure(&error, &asked))?;
        Ok((answer.arn.unwrap_or_default(), self.access.is_temporary(caller, secrets).await?))
    }

    /// The roles, for records.
    pub(super) fn references(configured: &AwsRole) -> Vec<String> {
        let own = configured.tenants.values().map(|tenant| &tenant.role_arn);
        let via = configured.via.iter().map(|hop| &hop.role_arn);
        configured.role_arn.iter().chain(own).chain(via).cloned().collect()
    }
}

// === impl WebIdentity ===

impl WebIdentity {
    pub(super) fn new(configured: &AwsWebIdentity, region: &str) -> Result<WebIdentity, RoleError> {
        Ok(WebIdentity {
            role_arn: Template::parse(Place::Arn, &configured.role_arn)?,
            token: configured.token.clone(),
            session: SessionTemplate::new(&configured.session)?,
            access: Access::new(&AwsIdentity::Server, &configured.sts, region),
        })
    }

    pub(super) fn wanted(&self, caller: &Caller) -> Result<Wanted, RoleError> {
        let role_arn = self.role_arn.fill(caller)?;
        if !is_role_arn(&role_arn) {
            return Err(RoleError::NotAnArn);
        }
        Ok(Wanted { role_arn, session: self.session.of(caller)? })
    }

    pub(super) async fn mint(&self, caller: &Caller, secrets: &Secrets) -> Result<Material, MintError> {
        let Wanted { role_arn, session } = self.wanted(caller).map_err(|error| error.minting(caller))?;
        let token = text(&self.token, caller, secrets).await?;
        let answer = self
            .access
            .anonymous_sts()
            .await
            .assume_role_with_web_identity()
            .role_arn(&role_arn)
            .role_session_name(session.name)
            .web_identity_token(token.trim_end())
            .duration_seconds(i32::try_from(session.duration_secs).unwrap_or(i32::MAX))
            .set_policy(session.policy)
            .set_policy_arns(descriptors(session.policy_arns))
            .send()
            .await;
        let asked = Asked {
            operation: "AssumeRoleWithWebIdentity",
            resource: &role_arn,
            permission: failure::ASSUME_WITH_TOKEN,
        };
        let answer = answer.map_err(|error| failure::failure(&error, &asked))?;
        keys(answer.credentials(), &role_arn).map(|keys| material(&keys))
    }
}

// === asking ===

fn with_session(ask: AssumeRoleFluentBuilder, session: Session) -> AssumeRoleFluentBuilder {
    // Both parts are there, so none is left out.
    let tag = |(key, value): (String, String)| Tag::builder().key(key).value(value).build().ok();
    let tags: Vec<Tag> = session.tags.into_iter().filter_map(tag).collect();
    ask.role_session_name(session.name)
        .set_source_identity(session.source_identity)
        .set_tags((!tags.is_empty()).then_some(tags))
        .set_transitive_tag_keys((!session.transitive.is_empty()).then_some(session.transitive))
        .set_policy(session.policy)
        .set_policy_arns(descriptors(session.policy_arns))
        .duration_seconds(i32::try_from(session.duration_secs).unwrap_or(i32::MAX))
}

fn descriptors(arns: Vec<String>) -> Option<Vec<PolicyDescriptorType>> {
    let descriptor = |arn| PolicyDescriptorType::builder().arn(arn).build();
    (!arns.is_empty()).then(|| arns.into_iter().map(descriptor).collect())
}

async fn assume(ask: AssumeRoleFluentBuilder, role_arn: &str) -> Result<Credentials, MintError> {
    let asked = Asked { operation: "AssumeRole", resource: role_arn, permission: failure::ASSUME_ROLE };
    let answer = ask.role_arn(role_arn).send().await.map_err(|error| failure::failure(&error, &asked))?;
    keys(answer.credentials(), role_arn)
}

fn keys(found: Option<&aws_sdk_sts::types::Credentials>, role_arn: &str) -> Result<Credentials, MintError> {
    let missing = || MintError::transient(format!("STS answered for `{role_arn}` without keys"));
    let found = found.ok_or_else(missing)?;
    let expires = expiration(found.expiration()).ok_or_else(missing)?;
    let token = Some(found.session_token().to_owned());
    Ok(Credentials::new(found.access_key_id(), found.secret_access_key(), token, Some(expires), "keyward"))
}

fn expiration(time: &DateTime) -> Option<std::time::SystemTime> {
    std::time::SystemTime::try_from(*time).ok()
}

/// Keys as the cache keeps them.
fn material(keys: &Credentials) -> Material {
    let material = Material::new()
        .plain(ACCESS_KEY_ID, keys.access_key_id())
        .secret(SECRET_ACCESS_KEY, keys.secret_access_key().as_bytes().to_vec());
    let material = match keys.session_token() {
        Some(token) => material.secret(SESSION_TOKEN, token.as_bytes().to_vec()),
        None => material,
    };
    match keys.expiry() {
        Some(end) => material.until(end),
        None => material,
    }
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`.
#[must_use]
pub(crate) fn is_role_arn(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = parts.as_slice() else { return false };
    let Some(name) = resource.strip_prefix("role/") else { return false };
    ["aws", "aws-cn", "aws-us-gov", "aws-iso", "aws-iso-b", "aws-iso-e", "aws-iso-f", "aws-eusc"].contains(partition)
        && account.len() == 12
        && account.bytes().all(|byte| byte.is_ascii_digit())
        && arn.len() <= 2048
        && name.split('/').all(|segment| !segment.is_empty())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-/".contains(&byte))
}

#[cfg(test)]
mod tests;
