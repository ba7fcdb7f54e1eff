//! AWS Signature Version 4 of one request, in headers or in the query, computed by the official `aws-sigv4`.
//!
//! What is signed is what the caller hands in, so it must be exactly what leaves. See "Create a signed AWS API request"
//! in the IAM user guide.

#[cfg(test)]
mod suite;

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    self, PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest, SignatureLocation,
    SigningSettings, UriPathNormalizationMode,
};
use aws_sigv4::sign::v4;
use zeroize::Zeroizing;

use crate::credential::query::encode;

/// A request as it will leave. Path and query are in the spelling of [`canonical`](super::canonical).
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The authority that the upstream gets.
    pub authority: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query without `?`.
    pub query: Option<&'a str>,
    /// The headers to sign besides `host`; repeated names are allowed.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, as far as it is signed.
    pub payload: Payload<'a>,
}

/// What the signature says about the body.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// Its SHA-256.
    Bytes(&'a [u8]),
    /// Nothing: `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// That it comes in unsigned chunks with a trailer: `STREAMING-UNSIGNED-PAYLOAD-TRAILER`.
    UnsignedChunks,
}

/// The keys. No `Debug`: it holds secrets.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// The id, which is no secret.
    pub access_key_id: &'a str,
    /// The secret.
    pub secret_access_key: &'a str,
    /// With temporary keys.
    pub session_token: Option<&'a str>,
}

/// For what a signature is good.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The region, for example `eu-central-1`.
    pub region: &'a str,
    /// The service's signing name, for example `s3`.
    pub service: &'a str,
    /// When it is made; AWS takes it for 5 minutes around, for S3 15 minutes.
    pub time: SystemTime,
}

/// What differs between services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether the path is encoded once more.
    pub encode_twice: bool,
    /// Whether `.`, `..` and empty segments are resolved.
    pub normalise_path: bool,
    /// Whether the body's digest goes into `x-amz-content-sha256`.
    pub digest_header: bool,
    /// Whether the session token is signed, too.
    pub sign_token: bool,
}

/// Where the signature goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// Into `authorization` and its companions.
    Headers,
    /// Into the query: a presigned URL.
    Query {
        /// How long it is good.
        valid: Duration,
    },
}

/// What to put on the request, and what to look for in the answer. No `Debug`: it holds secrets.
pub struct Signed {
    /// Headers to set, names in lower case.
    pub headers: Vec<(&'static str, Zeroizing<String>)>,
    /// Parameters to add, in this order, values encoded.
    pub query: Vec<(&'static str, Zeroizing<String>)>,
    /// The signature in hexadecimal.
    pub signature: Zeroizing<String>,
    /// The derived key: it signs anything for this day, region and service.
    pub signing_key: Zeroizing<Vec<u8>>,
}

/// A request that cannot be signed. Holds nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be signed: its target or a header is not what SigV4 allows")]
pub struct SigningError;

// === impl Rules ===

impl Rules {
    /// The rules of a service.
    #[must_use]
    pub fn of(service: &str) -> Rules {
        let object_store = matches!(service, "s3" | "s3-outposts" | "s3-object-lambda" | "s3express");
        Rules {
            encode_twice: !object_store,
            normalise_path: !object_store,
            digest_header: object_store,
            sign_token: service != "iotdevicegateway",
        }
    }
}

/// Signs a request.
///
/// # Errors
/// The target is no URL, or a header no header.
pub fn sign(
    request: &Request<'_>,
    keys: Keys<'_>,
    scope: Scope<'_>,
    rules: Rules,
    location: Location,
) -> Result<Signed, SigningError> {
    let token = keys.session_token.map(str::to_owned);
    let identity = Credentials::new(keys.access_key_id, keys.secret_access_key, token, None, "keyward").into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(scope.region)
        .name(scope.service)
        .time(scope.time)
        .settings(settings(rules, location))
        .build()
        .map_err(|_| SigningError)?
        .into();
    let query = request.query.filter(|query| !query.is_empty());
    let question = if query.is_some() { "?" } else { "" };
    let url = format!("https://{}{}{question}{}", request.authority, request.path, query.unwrap_or_default());
    let headers = [("host", request.authority)].into_iter().chain(request.headers.iter().copied());
    let payload = match request.payload {
        Payload::Bytes(bytes) => SignableBody::Bytes(bytes),
        Payload::Unsigned => SignableBody::UnsignedPayload,
        Payload::UnsignedChunks => SignableBody::StreamingUnsignedPayloadTrailer,
    };
    let signable = SignableRequest::new(request.method, url, headers, payload).map_err(|_| SigningError)?;
    let (instructions, signature) = http_request::sign(signable, &parameters).map_err(|_| SigningError)?.into_parts();
    let (headers, query) = instructions.into_parts();
    let key = v4::generate_signing_key(keys.secret_access_key, scope.time, scope.region, scope.service);
    Ok(Signed {
        headers: headers.into_iter().map(|header| (header.name(), Zeroizing::new(header.value().to_owned()))).collect(),
        query: in_order(query.into_iter().map(|(name, value)| (name, encode(value.as_bytes()))).collect()),
        signature: Zeroizing::new(signature),
        signing_key: Zeroizing::new(key.as_ref().to_vec()),
    })
}

fn settings(rules: Rules, location: Location) -> SigningSettings {
    let mut settings = SigningSettings::default();
    settings.percent_encoding_mode =
        if rules.encode_twice { PercentEncodingMode::Double } else { PercentEncodingMode::Single };
    settings.uri_path_normalization_mode = UriPathNormalizationMode::from(rules.normalise_path);
    settings.payload_checksum_kind =
        if rules.digest_header { PayloadChecksumKind::XAmzSha256 } else { PayloadChecksumKind::NoHeader };
    settings.session_token_mode = if rules.sign_token { SessionTokenMode::Include } else { SessionTokenMode::Exclude };
    settings.excluded_headers = None;
    if let Location::Query { valid } = location {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(valid);
    }
    settings
}

/// The order that the published signing suite shows; the signature stands last.
fn in_order(mut query: Vec<(&'static str, Zeroizing<String>)>) -> Vec<(&'static str, Zeroizing<String>)> {
    const ORDER: [&str; 7] = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-SignedHeaders",
        "X-Amz-Expires",
        "X-Amz-Security-Token",
        "X-Amz-Signature",
    ];
    query.sort_by_key(|(name, _)| ORDER.iter().position(|known| known == name));
    query
}
