//! What a refusal of AWS means for the operator, and whether time could help.

use std::error::Error as _;

use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};

use crate::freshness::MintError;

/// The longest part of AWS's own words that is repeated, in characters.
const MAX_MESSAGE: usize = 400;

/// What was asked for, to name it and its remedy.
pub(crate) struct Asked<'a> {
    /// For example `AssumeRole`.
    pub(crate) operation: &'static str,
    /// For example the role's ARN.
    pub(crate) resource: &'a str,
    /// What has to be allowed where AWS says that it is not.
    pub(crate) permission: &'static str,
}

/// The permissions that assuming a role takes.
pub(crate) const ASSUME_ROLE: &str = "the role's trust policy has to name Keyward's identity and this tenant's `sts:ExternalId`, \
     and allow `sts:AssumeRole`, `sts:TagSession` with tags, `sts:SetSourceIdentity` with that; Keyward's identity has to be \
     allowed the same";
/// The same with a token.
pub(crate) const ASSUME_WITH_TOKEN: &str =
    "the role's trust policy has to allow `sts:AssumeRoleWithWebIdentity` to the token's issuer, audience and subject";

/// Who is who may always be asked.
pub(crate) const IDENTITY: &str =
    "set up Keyward's identity: IRSA, Pod Identity, an instance profile, or AWS_ACCESS_KEY_ID";

/// The failure as the cache and the operator see it. Never holds an answer's body.
pub(crate) fn failure<E>(error: &SdkError<E>, asked: &Asked<'_>) -> MintError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let Asked { operation, resource, permission } = asked;
    let told = |text: &str| format!("{operation} of `{resource}`: {text}");
    match error {
        SdkError::ServiceError(refused) => {
            let status = refused.raw().status().as_u16();
            let code = refused.err().code().unwrap_or_else(|| code_of(status));
            let message = shortened(refused.err().message().unwrap_or_default());
            let said = told(&format!("AWS says {code} ({status}): {message}"));
            match verdict(code, &message) {
                Verdict::Wait => MintError::transient(said),
                Verdict::Refused(remedy) => MintError::rejected(format!("{said}; {}", remedy.unwrap_or(permission))),
                Verdict::Other => MintError::rejected(said),
            }
        }
        SdkError::TimeoutError(_) => MintError::transient(told("no answer in time")),
        // The answer may hold what was asked for, so none of it is repeated.
        SdkError::ResponseError(_) => MintError::transient(told("the answer cannot be read")),
        other => {
            let mut chain = other.to_string();
            let mut source = other.source();
            while let Some(cause) = source {
                chain = format!("{chain}: {cause}");
                source = cause.source();
            }
            MintError::transient(told(&shortened(&chain)))
        }
    }
}

/// What a status without a code that can be read stands for.
fn code_of(status: u16) -> &'static str {
    match status {
        401 | 403 => "AccessDenied",
        429 => "TooManyRequests",
        500.. => "ServiceUnavailable",
        _ => "an error without a code",
    }
}

enum Verdict {
    /// Time may help.
    Wait,
    /// The operator has to do this; `None`: to allow it.
    Refused(Option<&'static str>),
    /// AWS's own words have to do.
    Other,
}

fn verdict(code: &str, message: &str) -> Verdict {
    match code {
        "ValidationError" if message.contains("MaxSessionDuration") => Verdict::Refused(Some(
            "lower `duration_secs`, or raise the role's MaxSessionDuration (`aws iam update-role --max-session-duration`)",
        )),
        "ValidationError" if message.contains("role chaining") => {
            Verdict::Refused(Some("lower `duration_secs` to 3600: a session behind another role lasts an hour at most"))
        }
        "AccessDenied" | "AccessDeniedException" => Verdict::Refused(None),
        "PackedPolicyTooLarge" => {
            Verdict::Refused(Some("use fewer or shorter session tags, or a shorter session policy"))
        }
        "MalformedPolicyDocument" => Verdict::Refused(Some("correct `session.policy`")),
        "RegionDisabledException" => {
            Verdict::Refused(Some("activate STS in this region, or name another one under `sts.region`"))
        }
        "InvalidClientTokenId" | "UnrecognizedClientException" | "SignatureDoesNotMatch" | "InvalidAccessKeyId" => {
            Verdict::Refused(Some("the keys of Keyward's identity are not valid; check them, and the machine's clock"))
        }
        "InvalidIdentityToken" | "IDPRejectedClaim" => Verdict::Refused(None),
        "ExpiredToken"
        | "ExpiredTokenException"
        | "IDPCommunicationError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServiceError"
        | "ServiceUnavailable"
        | "RequestTimeout" => Verdict::Wait,
        code if code.contains("Throttl") || code.contains("TooManyRequests") || code.contains("LimitExceeded") => {
            Verdict::Wait
        }
        _ => Verdict::Other,
    }
}

fn shortened(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests;
