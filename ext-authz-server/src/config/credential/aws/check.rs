//! What must not stand in a credential of `type: aws`.

use super::{
    AwsCredential, AwsEndpoint, AwsExternalId, AwsIdentity, AwsKeys, AwsPayload, AwsRole, AwsSession, AwsSignature,
    AwsSource, AwsWebIdentity,
};
use crate::config::SecretSource;
use crate::config::check::Checker;
use crate::config::credential::Kind;
use crate::credential::aws::role::is_role_arn;
use crate::credential::aws::session::{SessionError, SessionTemplate};
use crate::credential::aws::sigv4::Rules;
use crate::credential::aws::template::{Place, Template};

const ROLE_REMEDY: &str = "write `arn:aws:iam::111122223333:role/NAME`";

impl Kind for AwsCredential {
    fn secrets(&self) -> Vec<(&'static str, &SecretSource)> {
        match &self.source {
            AwsSource::Static(own) => {
                keys(own, ["source.access_key_id", "source.secret_access_key", "source.session_token"])
            }
            AwsSource::WebIdentity(own) => vec![("source.token", &own.token)],
            AwsSource::Role(own) => role_secrets(own),
        }
    }

    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        names(&format!("{key}.regions"), &self.regions, 32, "name a region, for example `eu-central-1`", checker);
        names(&format!("{key}.services"), &self.services, 64, "name a service, for example `s3`", checker);
        checker.range(format!("{key}.presigned_secs"), self.presigned_secs, 1..=604_800);
        self.check_payload(key, checker);
        let key = format!("{key}.source");
        match &self.source {
            AwsSource::Role(own) => role(&key, own, checker),
            AwsSource::WebIdentity(own) => web_identity(&key, own, checker),
            AwsSource::Static(_) => {}
        }
    }
}

impl AwsCredential {
    fn check_payload(&self, key: &str, checker: &mut Checker<'_>) {
        let is_object_store = |service: &String| Rules::of(service).digest_header;
        let key = format!("{key}.payload");
        match (self.payload, self.signature) {
            (AwsPayload::Unsigned, _) if !self.services.iter().all(is_object_store) => {
                checker.add(key, "only S3 takes unsigned bodies", "write `signed`, or bind S3 apart");
            }
            (AwsPayload::Signed, AwsSignature::Query) if self.services.iter().any(is_object_store) => {
                checker.add(key, "a presigned URL of S3 does not cover the body", "write `unsigned` to accept that");
            }
            _ => {}
        }
    }
}

fn role_secrets(role: &AwsRole) -> Vec<(&'static str, &SecretSource)> {
    const IDENTITY: [&str; 3] =
        ["source.identity.access_key_id", "source.identity.secret_access_key", "source.identity.session_token"];
    let mut secrets = identity(&role.identity, IDENTITY);
    if let AwsExternalId::Derived { key } = &role.external_id {
        secrets.push(("source.external_id.key", key));
    }
    let listed = role.tenants.values().filter_map(|tenant| tenant.external_id.as_ref());
    secrets.extend(listed.map(|source| ("source.tenants", source)));
    let hops = role.via.iter().filter_map(|hop| hop.external_id.as_ref());
    secrets.extend(hops.map(|source| ("source.via", source)));
    secrets
}

/// The secrets of a store's identity.
pub(crate) fn identity_secrets(own: &AwsIdentity) -> Vec<(&'static str, &SecretSource)> {
    identity(own, ["identity.access_key_id", "identity.secret_access_key", "identity.session_token"])
}

fn identity<'a>(identity: &'a AwsIdentity, names: [&'static str; 3]) -> Vec<(&'static str, &'a SecretSource)> {
    match identity {
        AwsIdentity::Static(own) => keys(own, names),
        AwsIdentity::Server => Vec::new(),
    }
}

fn keys<'a>(keys: &'a AwsKeys, names: [&'static str; 3]) -> Vec<(&'static str, &'a SecretSource)> {
    let [id, secret, token] = names;
    let token = keys.session_token.iter().map(|source| (token, source));
    [(id, &keys.access_key_id), (secret, &keys.secret_access_key)].into_iter().chain(token).collect()
}

fn names(key: &str, list: &[String], max: usize, remedy: &'static str, checker: &mut Checker<'_>) {
    checker.not_empty(key, list, max, remedy);
    checker.distinct(key, list);
    for (index, name) in list.iter().enumerate() {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(inner) {
            checker.add(format!("{key}[{index}]"), format!("`{name}` is not a name of AWS"), remedy);
        }
    }
}

fn role(key: &str, role: &AwsRole, checker: &mut Checker<'_>) {
    if role.role_arn.is_none() && role.tenants.is_empty() {
        checker.add(key, "there is no role", "give a `role_arn`, or name tenants under `tenants`");
    }
    if let Some(arn) = &role.role_arn {
        arn_template(&format!("{key}.role_arn"), arn, checker);
        if role.external_id == AwsExternalId::Listed {
            let message = "tenants that are not named would have no external id";
            checker.add(format!("{key}.role_arn"), message, "remove it, or let external ids be `derived`");
        }
    }
    tenants(key, role, checker);
    if role.via.len() > 4 {
        checker.add(format!("{key}.via"), "more than 4 roles", "assume the last one more directly");
    }
    for (index, hop) in role.via.iter().enumerate() {
        arn(&format!("{key}.via[{index}].role_arn"), &hop.role_arn, checker);
    }
    if !role.via.is_empty() && role.session.duration_secs > 3600 {
        let message = "a session behind another role lasts an hour at most";
        checker.add(format!("{key}.session.duration_secs"), message, "write 3600 or less");
    }
    session(key, &role.session, checker);
    endpoint(&format!("{key}.sts"), &role.sts, checker);
}

fn tenants(key: &str, role: &AwsRole, checker: &mut Checker<'_>) {
    let mut seen: Vec<&SecretSource> = Vec::new();
    for (tenant, own) in &role.tenants {
        let key = format!("{key}.tenants.{tenant}");
        arn(&format!("{key}.role_arn"), &own.role_arn, checker);
        let key = format!("{key}.external_id");
        match (&role.external_id, &own.external_id) {
            (AwsExternalId::Listed, None) => checker.add(key, "the tenant has none", "add where it is"),
            (AwsExternalId::Derived { .. } | AwsExternalId::None, Some(_)) => {
                checker.add(key, "external ids are not listed", "write `external_id: {type: listed}`");
            }
            (_, Some(source)) if seen.contains(&source) => {
                checker.add(key, "it is another tenant's", "give each tenant its own");
            }
            (_, Some(source)) if is_a_callers(source) => {
                checker.add(key, "it is a caller's, not the tenant's", "name a secret that all of the tenant have");
            }
            (_, Some(source)) => seen.push(source),
            _ => {}
        }
    }
}

fn is_a_callers(source: &SecretSource) -> bool {
    let placeholders = ["{user}", "{agent}", "{issuer}"];
    source.provider().is_some() || placeholders.iter().any(|name| source.reference.contains(name))
}

fn web_identity(key: &str, own: &AwsWebIdentity, checker: &mut Checker<'_>) {
    arn_template(&format!("{key}.role_arn"), &own.role_arn, checker);
    let foreign = own.session.source_identity.is_some()
        || !own.session.tags.is_empty()
        || !own.session.transitive_tags.is_empty();
    if foreign {
        let message = "with a token, tags and the source identity are what the token says";
        let remedy = "remove `source_identity`, `tags` and `transitive_tags`";
        checker.add(format!("{key}.session"), message, remedy);
    }
    session(key, &own.session, checker);
    endpoint(&format!("{key}.sts"), &own.sts, checker);
}

fn arn(key: &str, arn: &str, checker: &mut Checker<'_>) {
    if !is_role_arn(arn) {
        checker.add(key, format!("`{arn}` is not the ARN of a role"), ROLE_REMEDY);
    }
}

/// An ARN whose role's name may hold placeholders; the account is not left to a token.
fn arn_template(key: &str, template: &str, checker: &mut Checker<'_>) {
    match Template::parse(Place::Arn, template) {
        Err(error) => checker.add(key, error.to_string(), error.remedy().unwrap_or(ROLE_REMEDY)),
        Ok(parsed) => arn(key, &parsed.with_each("x"), checker),
    }
}

fn session(key: &str, session: &AwsSession, checker: &mut Checker<'_>) {
    if let Err(error) = SessionTemplate::new(session) {
        let own = match &error {
            SessionError::Template { cause, .. } => cause.remedy(),
            _ => None,
        };
        let remedy = own.unwrap_or("see the quotas of IAM and STS in AWS's documentation");
        checker.add(format!("{key}.session"), error.to_string(), remedy);
    }
}

pub(crate) fn endpoint(key: &str, endpoint: &AwsEndpoint, checker: &mut Checker<'_>) {
    if let Some(region) = &endpoint.region {
        names(&format!("{key}.region"), std::slice::from_ref(region), 1, "name a region", checker);
    }
    let Some(url) = &endpoint.endpoint else { return };
    let remedy = "write `https://HOST`, or `http://127.0.0.1:PORT` for a test";
    let Ok(parsed) = reqwest::Url::parse(url) else {
        checker.add(format!("{key}.endpoint"), "it is not a URL", remedy);
        return;
    };
    let is_loopback = matches!(parsed.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    let is_plain = parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none();
    if !is_plain || !(parsed.scheme() == "https" || parsed.scheme() == "http" && is_loopback) {
        checker.add(format!("{key}.endpoint"), "it is not https, or holds more than a host", remedy);
    }
}
