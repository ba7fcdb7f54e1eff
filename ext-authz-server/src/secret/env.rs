//! Secrets in the environment of the process: `env://NAME`.

use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use super::{MAX_SECRET_BYTES, Resolved, Resolving, SecretBytes, SecretError, SecretStore};

/// The environment of the process, read at each resolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct EnvStore;

// === impl EnvStore ===

impl EnvStore {
    fn read(name: &str) -> Result<Arc<SecretBytes>, SecretError> {
        let reference = || format!("env://{name}");
        match std::env::var_os(name) {
            None => Err(SecretError::NotSet { reference: reference() }),
            Some(value) if value.is_empty() => Err(SecretError::NotSet { reference: reference() }),
            Some(value) => {
                let secret = SecretBytes::new(value.into_vec());
                if secret.len() > MAX_SECRET_BYTES {
                    return Err(SecretError::TooLarge { reference: reference() });
                }
                Ok(Arc::new(secret))
            }
        }
    }
}

impl SecretStore for EnvStore {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let name = rest.bytes().next().is_some_and(letter) && rest.bytes().all(|b| letter(b) || b.is_ascii_digit());
        if name {
            return Ok(());
        }
        Err(SecretError::Reference { cause: "what follows `env://` is the name of an environment variable" })
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        let content = EnvStore::read(rest);
        Box::pin(std::future::ready(content.map(|content| Resolved { content, good_for: None })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_what_is_set() {
        let path = EnvStore.resolve("PATH").await.unwrap();
        assert_eq!(path.content.expose(), std::env::var("PATH").unwrap().as_bytes());
    }

    #[tokio::test]
    async fn an_unset_variable_is_named() {
        let error = EnvStore.resolve("KEYWARD_NO_SUCH_VARIABLE").await.err().unwrap();
        assert_eq!(error.to_string(), "secret `env://KEYWARD_NO_SUCH_VARIABLE` is not set");
    }

    #[test]
    fn a_name_is_letters_digits_and_underscores() {
        assert!(EnvStore.check("A_1").is_ok());
        for name in ["", "1A", "A B", "A=B", "A/B", "Ä"] {
            assert!(EnvStore.check(name).is_err(), "{name}");
        }
    }
}
