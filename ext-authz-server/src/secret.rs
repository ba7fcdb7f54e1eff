//! Where secrets come from, and the type that keeps them in.

mod bytes;
mod env;
mod file;

pub use bytes::SecretBytes;
pub use env::EnvStore;
pub use file::FileStore;

use std::borrow::Cow;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use keyward_contract::json;
use zeroize::Zeroizing;

use crate::config::SecretSource;

/// The largest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A future that a [`SecretStore`] returns.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Arc<SecretBytes>, SecretError>> + Send + 'a>>;

/// One kind of place where secrets are kept, named by the scheme of a reference.
pub trait SecretStore: Send + Sync {
    /// The scheme, for example `file`.
    fn scheme(&self) -> &'static str;

    /// Whether a reference has the right form, without opening anything. `rest` is what follows `scheme://`.
    ///
    /// # Errors
    /// What is wrong with it, as [`SecretError::Reference`].
    fn check(&self, rest: &str) -> Result<(), SecretError>;

    /// The whole content as of now.
    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a>;
}

/// Every store, by scheme.
pub struct Secrets {
    stores: Vec<Box<dyn SecretStore>>,
}

/// Why a secret cannot be had. Never holds any part of a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The reference has no known form. No part of it is shown, since it may be the secret itself.
    #[error("not a secret reference (not shown, it may be a secret): {cause}")]
    Reference {
        /// What is wrong with it.
        cause: &'static str,
    },
    /// There is nothing there.
    #[error("secret `{reference}` is not set")]
    NotSet {
        /// The reference.
        reference: String,
    },
    /// It cannot be read.
    #[error("secret `{reference}` cannot be read: {cause}")]
    Read {
        /// The reference.
        reference: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is larger than [`MAX_SECRET_BYTES`].
    #[error("secret `{reference}` is larger than {MAX_SECRET_BYTES} bytes")]
    TooLarge {
        /// The reference.
        reference: String,
    },
    /// It is not a regular file.
    #[error("secret `{reference}` is not a regular file")]
    NotAFile {
        /// The reference.
        reference: String,
    },
    /// It is not a JSON object with a string under the key.
    #[error("secret `{reference}` is not a JSON object with a string in `{json_key}`")]
    JsonKey {
        /// The reference.
        reference: String,
        /// The key.
        json_key: String,
    },
}

// === impl Secrets ===

impl Secrets {
    /// The stores `env://` and `file://`; relative files are relative to `base`.
    #[must_use]
    pub fn standard(base: &Path) -> Secrets {
        Secrets { stores: vec![Box::new(EnvStore), Box::new(FileStore::new(base))] }
    }

    /// Whether a source has the right form, without opening anything.
    ///
    /// # Errors
    /// [`SecretError::Reference`].
    pub fn check(&self, source: &SecretSource) -> Result<(), SecretError> {
        let (store, rest) = self.store(&source.reference)?;
        store.check(rest)
    }

    /// The secret as of now.
    ///
    /// # Errors
    /// Nothing there, unreadable, too large, or not of the form that the source says.
    pub async fn resolve(&self, source: &SecretSource) -> Result<Arc<SecretBytes>, SecretError> {
        let (store, rest) = self.store(&source.reference)?;
        store.check(rest)?;
        let whole = store.resolve(rest).await?;
        if source.json_key.is_none() && !source.trim_newline {
            return Ok(whole);
        }
        let part = match &source.json_key {
            Some(json_key) => field(whole.expose(), json_key).ok_or_else(|| SecretError::JsonKey {
                reference: source.reference.clone(),
                json_key: json_key.clone(),
            })?,
            None => Cow::Borrowed(whole.expose()),
        };
        let mut part = Zeroizing::new(part.into_owned());
        if source.trim_newline && part.ends_with(b"\n") {
            part.pop();
            if part.ends_with(b"\r") {
                part.pop();
            }
        }
        if part.is_empty() {
            return Err(SecretError::NotSet { reference: source.reference.clone() });
        }
        Ok(Arc::new(SecretBytes::new(std::mem::take(&mut *part))))
    }

    fn store<'r>(&self, reference: &'r str) -> Result<(&dyn SecretStore, &'r str), SecretError> {
        let refused = |cause| SecretError::Reference { cause };
        let (scheme, rest) = reference.split_once("://").ok_or(refused("there is no `://`"))?;
        let store = self.stores.iter().find(|store| store.scheme() == scheme);
        Ok((store.ok_or(refused("what stands before `://` names no store"))?.as_ref(), rest))
    }
}

/// The string in a field of a JSON object.
fn field<'a>(json: &'a [u8], key: &str) -> Option<Cow<'a, [u8]>> {
    match json::parse(json, &json::Limits::default()).ok()? {
        json::Value::Object(object) => match object.into_iter().find(|(name, _)| name == key)?.1 {
            json::Value::String(Cow::Borrowed(text)) => Some(Cow::Borrowed(text.as_bytes())),
            json::Value::String(Cow::Owned(text)) => Some(Cow::Owned(text.into_bytes())),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn source(reference: &str, json_key: Option<&str>, trim_newline: bool) -> SecretSource {
        SecretSource { reference: reference.into(), json_key: json_key.map(Into::into), trim_newline }
    }

    async fn value(dir: &Scratch, source: SecretSource) -> Result<String, String> {
        let secrets = Secrets::standard(dir.path());
        let secret = secrets.resolve(&source).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(secret.expose().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn one_newline_goes_only_where_that_is_asked_for() {
        let dir = Scratch::new();
        dir.write("key", "marked-value\n\n");
        assert_eq!(value(&dir, source("file://key", None, false)).await.unwrap(), "marked-value\n\n");
        assert_eq!(value(&dir, source("file://key", None, true)).await.unwrap(), "marked-value\n");
        dir.write("key", "marked-value\r\n");
        assert_eq!(value(&dir, source("file://key", None, true)).await.unwrap(), "marked-value");
    }

    #[tokio::test]
    async fn a_field_is_taken_out_of_json() {
        let dir = Scratch::new();
        dir.write("key", r#"{"password": "marked\u002dvalue", "port": 1}"#);
        assert_eq!(value(&dir, source("file://key", Some("password"), false)).await.unwrap(), "marked-value");
        for field in ["port", "none"] {
            let error = value(&dir, source("file://key", Some(field), false)).await.unwrap_err();
            assert_eq!(error, format!("secret `file://key` is not a JSON object with a string in `{field}`"));
            assert!(!error.contains("marked"));
        }
    }

    #[tokio::test]
    async fn a_reference_needs_a_known_scheme() {
        let dir = Scratch::new();
        for reference in ["", "key", "vault://key", "FILE://key", "file://", "env://A B"] {
            let error = value(&dir, source(reference, None, false)).await.unwrap_err();
            assert!(error.starts_with("not a secret reference"), "{reference}: {error}");
        }
        for misplaced in
            ["marked-value", "marked-value://x", "vault://marked-value", "env://marked-value", "file://marked/"]
        {
            let error = value(&dir, source(misplaced, None, false)).await.unwrap_err();
            assert!(!error.contains("marked"), "{error}");
        }
    }

    #[test]
    fn a_fingerprint_depends_on_key_and_value() {
        let bytes = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
        let one = bytes("one").fingerprint(&bytes("key"));
        assert_eq!(one.len(), 16);
        assert_eq!(one, bytes("one").fingerprint(&bytes("key")));
        assert_ne!(one, bytes("two").fingerprint(&bytes("key")));
        assert_ne!(one, bytes("one").fingerprint(&bytes("yek")));
        assert!(bytes("one").ct_eq(&bytes("one")) && !bytes("one").ct_eq(&bytes("two")));
    }
}
