//! A key-encryption key that never leaves AWS's Key Management Service.

use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{SealError, WrapKey};
use crate::caller::Caller;
use crate::config::{AwsEndpoint, AwsIdentity};
use crate::credential::aws::failure::{Asked, failure};
use crate::credential::aws::identity::Access;
use crate::plan::Pending;
use crate::secret::Secrets;

/// What a reference to such a key begins with.
pub const KMS_SCHEME: &str = "aws-kms";
/// The name in the encryption context under which AWS binds a data key to its place.
const CONTEXT: &str = "keyward";
const PERMISSION: &str = "allow Keyward's identity `kms:Encrypt` and `kms:Decrypt` on it";

/// A symmetric key of KMS, by its ARN.
pub struct KmsKey {
    arn: String,
    client: Client,
}

/// The region of a key's ARN; `None` for everything that is no ARN of a key. An alias is none: it can come to name another
/// key, and what was wrapped could not be opened.
#[must_use]
pub fn region_of(arn: &str) -> Option<&str> {
    let mut parts = arn.splitn(6, ':');
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let (scheme, partition, service) = (part()?, part()?, part()?);
    let (region, account, resource) = (part()?, part()?, part()?);
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let key = resource.strip_prefix("key/").filter(|key| !key.is_empty() && is_name(key));
    let is_arn = scheme == "arn" && partition.starts_with("aws") && service == "kms";
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    (is_arn && is_account && is_name(region) && key.is_some()).then_some(region)
}

// === impl KmsKey ===

impl KmsKey {
    /// The key with this ARN, used with the server's own AWS identity.
    ///
    /// # Errors
    /// It is no ARN of a key.
    pub async fn new(arn: &str, secrets: &Secrets) -> Result<KmsKey, SealError> {
        let region = region_of(arn).ok_or_else(|| SealError::Wrap(format!("`{arn}` is no ARN of a KMS key")))?;
        let access = Access::new(&AwsIdentity::Server, &AwsEndpoint { region: None, endpoint: None }, region);
        let config = access.config(&Caller::none(""), secrets).await;
        let config = config.map_err(|error| SealError::Wrap(error.cause))?;
        Ok(KmsKey { arn: arn.to_owned(), client: Client::new(&config) })
    }

    fn error<E>(&self, operation: &'static str, error: &SdkError<E>) -> SealError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
        if let Some("InvalidCiphertextException" | "IncorrectKeyException") = code {
            return SealError::Refused;
        }
        SealError::Wrap(failure(error, &Asked { operation, resource: &self.arn, permission: PERMISSION }).cause)
    }
}

impl WrapKey for KmsKey {
    fn id(&self) -> &str {
        &self.arn
    }

    fn wrap<'a>(&'a self, key: &'a [u8], bound_to: &'a [u8]) -> Pending<'a, Result<Vec<u8>, SealError>> {
        Box::pin(async move {
            let ask = self.client.encrypt().key_id(&self.arn).plaintext(Blob::new(key));
            let answer = ask.encryption_context(CONTEXT, URL_SAFE_NO_PAD.encode(bound_to)).send().await;
            let answer = answer.map_err(|error| self.error("Encrypt", &error))?;
            let blob = answer.ciphertext_blob.map(Blob::into_inner).filter(|blob| !blob.is_empty());
            blob.ok_or_else(|| SealError::Wrap("AWS answered without a ciphertext".to_owned()))
        })
    }

    fn unwrap<'a>(
        &'a self,
        wrapped: &'a [u8],
        bound_to: &'a [u8],
    ) -> Pending<'a, Result<Zeroizing<Vec<u8>>, SealError>> {
        Box::pin(async move {
            let ask = self.client.decrypt().key_id(&self.arn).ciphertext_blob(Blob::new(wrapped));
            let answer = ask.encryption_context(CONTEXT, URL_SAFE_NO_PAD.encode(bound_to)).send().await;
            let answer = answer.map_err(|error| self.error("Decrypt", &error))?;
            let key = answer.plaintext.map(|blob| Zeroizing::new(blob.into_inner()));
            key.ok_or_else(|| SealError::Wrap("AWS answered without a plaintext".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_arn() {
        let id = "1234abcd-12ab-34cd-56ef-1234567890ab";
        for (arn, region) in [
            (format!("arn:aws:kms:eu-central-1:123456789012:key/{id}"), "eu-central-1"),
            (format!("arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-{id}"), "us-gov-west-1"),
        ] {
            assert_eq!(region_of(&arn), Some(region));
        }
        for bad in [
            "",
            id,
            "arn:aws:kms:eu-central-1:123456789012:alias/keyward",
            "arn:aws:kms:eu-central-1:123456789012:key/",
            "arn:aws:kms::123456789012:key/a",
            "arn:aws:kms:eu-central-1:1234:key/a",
            "arn:aws:s3:eu-central-1:123456789012:key/a",
            "arn:aws:kms:eu-central-1:123456789012:key/a b",
            "arn:other:kms:eu-central-1:123456789012:key/a",
        ] {
            assert_eq!(region_of(bad), None, "{bad}");
        }
    }
}
