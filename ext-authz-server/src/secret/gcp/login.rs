//! Tokens for Google Cloud: from the metadata server, for a service account's key (RFC 7523), or for a token of another
//! issuer (workload identity federation: RFC 8693, then the impersonation of a service account).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use keyward_contract::json::{self, Value};
use serde::Serialize;
use zeroize::Zeroizing;

use super::Gcp;
use crate::config::{GcpAuth, SecretSource};
use crate::secret::remote::{Call, Grant, StoreError, StoreErrorKind, token};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How long an impersonated token is taken to be good: the API's default is an hour.
const IMPERSONATED: Duration = Duration::from_secs(3600);
/// How long an assertion is good; Google takes an hour at most.
const ASSERTION_SECS: u64 = 600;

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

// === impl Gcp ===

impl Gcp {
    /// A token by the configured method.
    ///
    /// # Errors
    /// What the method needs cannot be had, or is not accepted.
    pub(super) async fn login(&self) -> Result<Grant, StoreError> {
        match &self.config.auth {
            GcpAuth::Metadata { address, service_account } => self.ask_metadata(address, service_account).await,
            GcpAuth::ServiceAccount { key } => self.log_in_with_key(key).await,
            GcpAuth::Federation { audience, token_url, subject_token, subject_token_type, service_account } => {
                let subject = self.local.text(subject_token).await?;
                let fields = [
                    ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                    ("audience", audience),
                    ("scope", SCOPE),
                    ("requested_token_type", ACCESS_TOKEN),
                    ("subject_token", &subject),
                    ("subject_token_type", subject_token_type),
                ];
                let call = Call::post_to(token_url, "exchange the token").form(&fields);
                let remedy =
                    "compare audience, issuer and attribute condition of the workload identity provider with the token";
                let federated = token(&self.remote.send(&call).await?, remedy)?;
                match service_account {
                    Some(email) => self.impersonate(email, &federated).await,
                    None => Ok(federated),
                }
            }
        }
    }

    async fn ask_metadata(&self, address: &str, service_account: &str) -> Result<Grant, StoreError> {
        let base = address.trim_end_matches('/');
        let url = format!("{base}/computeMetadata/v1/instance/service-accounts/{service_account}/token");
        let call = Call::get_at(&url, "ask the metadata server for a token").header("metadata-flavor", "Google");
        let answer = self.remote.send(&call.of_metadata_server()).await?;
        if answer.header("metadata-flavor") != Some("Google") {
            return Err(answer.malformed("what answers is not the metadata server: its `Metadata-Flavor` is missing"));
        }
        token(&answer, "give the machine or the pod this service account")
    }

    async fn log_in_with_key(&self, key: &SecretSource) -> Result<Grant, StoreError> {
        let file = self.local.text(key).await?;
        let wrong = |cause: &str| {
            let cause = format!("`{}`: {cause}", key.reference);
            StoreError::new(StoreErrorKind::Setup, "log in", cause, "name the JSON key file of a service account")
        };
        let value = json::parse(file.as_bytes(), &json::Limits::default()).map_err(|_| wrong("it is not JSON"))?;
        let text = |at: &str, cause: &str| value.pointer(at).and_then(Value::as_str).ok_or_else(|| wrong(cause));
        if text("/type", "there is no `type`")? != "service_account" {
            return Err(wrong("its `type` is not `service_account`"));
        }
        let url = text("/token_uri", "there is no `token_uri`")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let email = text("/client_email", "there is no `client_email`")?;
        let claims = Assertion { iss: email, scope: SCOPE, aud: url, iat: now, exp: now + ASSERTION_SECS };
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(text("/private_key_id", "there is no `private_key_id`")?.to_owned());
        let pem = text("/private_key", "there is no `private_key`")?;
        let signing =
            EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| wrong("its `private_key` is not an RSA key"))?;
        let signed = jsonwebtoken::encode(&header, &claims, &signing)
            .map_err(|_| wrong("nothing can be signed with its key"))?;
        let signed = Zeroizing::new(signed);
        let fields = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", signed.as_str())];
        let answer = self.remote.send(&Call::post_to(url, "log in as the service account").form(&fields)).await?;
        token(&answer, "look whether the key still exists, and whether this machine's clock is right")
    }

    async fn impersonate(&self, email: &str, federated: &Grant) -> Result<Grant, StoreError> {
        let base = self.config.impersonation_address.trim_end_matches('/');
        let url = format!("{base}/v1/projects/-/serviceAccounts/{email}:generateAccessToken");
        let body = format!(r#"{{"scope":["{SCOPE}"]}}"#);
        let call = Call::post_to(&url, format!("act as `{email}`")).raw_json(body).bearer(&federated.token);
        let answer = self.remote.send(&call).await?;
        if answer.status() != 200 {
            let remedy = "give the federated principal roles/iam.workloadIdentityUser on the service account";
            return Err(answer.error(StoreErrorKind::Refused, remedy));
        }
        let value = answer.json()?;
        let token = value.pointer("/accessToken").and_then(Value::as_str);
        let token = token.ok_or_else(|| answer.malformed("there is no `accessToken`"))?;
        // A token that ends earlier than is taken here is told so by 401, and had anew.
        Ok(Grant::new(token, Some(IMPERSONATED), false))
    }
}
