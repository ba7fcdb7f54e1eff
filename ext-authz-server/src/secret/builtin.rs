//! The stores that are part of Keyward: `keyward://PATH` is an operator's secret, put with `keyward secrets put`;
//! `grant://PROVIDER` is the key that the calling person entered on the connect page.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Resolved, Resolving, SecretBytes, SecretError, SecretStore};
use crate::caller::Caller;
use crate::freshness::Terms;
use crate::grants::GrantKey;
use crate::state::{State, StateDoor};

/// The scheme of operators' secrets.
pub const BUILTIN_SCHEME: &str = "keyward";
/// The scheme of people's own keys.
pub const GRANT_SCHEME: &str = "grant";
/// The longest path, in bytes.
const MAX_PATH_BYTES: usize = 512;

/// Operators' secrets.
pub(super) struct Builtin(pub(super) StateDoor);

/// The calling person's own key.
pub(super) struct Personal(pub(super) StateDoor);

/// Whether this can be the path of a secret: segments of unreserved characters, percent signs included.
#[must_use]
pub fn is_path(path: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~.%".contains(&byte);
    let is_segment =
        |segment: &str| !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(is_allowed);
    path.len() <= MAX_PATH_BYTES && path.split('/').all(is_segment)
}

fn opened(door: &StateDoor, reference: &str) -> Result<Arc<State>, SecretError> {
    door.get().cloned().ok_or_else(|| SecretError::Unavailable {
        reference: reference.to_owned(),
        cause: "there is no open `database`".to_owned(),
    })
}

// === impl Builtin ===

impl SecretStore for Builtin {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        // Placeholders are filled in with characters that a path can have.
        if is_path(&rest.replace(['{', '}'], "_")) {
            return Ok(());
        }
        Err(SecretError::Reference {
            cause: "what follows `keyward://` is a path of segments of a-z, 0-9, `-`, `_`, `.`",
        })
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let reference = format!("{BUILTIN_SCHEME}://{rest}");
            let state = opened(&self.0, &reference)?;
            match state.secrets.get(rest).await {
                Ok(Some(mut value)) => Ok(Resolved::lasting(std::mem::take(&mut *value))),
                Ok(None) => Err(SecretError::NotSet { reference }),
                Err(error) => Err(SecretError::Unavailable { reference, cause: error.to_string() }),
            }
        })
    }

    fn changed<'a>(&'a self, rest: &'a str) -> Pin<Box<dyn Future<Output = Option<SystemTime>> + Send + 'a>> {
        Box::pin(async move { self.0.get()?.secrets.changed(rest).await.ok()? })
    }

    fn terms(&self) -> Option<Terms> {
        Some(Terms::Stored { refresh: Duration::from_secs(2), max_stale: Duration::from_secs(300) })
    }
}

// === impl Personal ===

impl SecretStore for Personal {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        if !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(is_name) {
            return Ok(());
        }
        Err(SecretError::Reference { cause: "what follows `grant://` is the name of a provider" })
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        let reference = format!("{GRANT_SCHEME}://{rest}");
        let cause = crate::caller::PlaceholderError::Absent("user");
        Box::pin(std::future::ready(Err(SecretError::Caller { reference, cause })))
    }

    fn resolve_for<'a>(&'a self, rest: &'a str, caller: &'a Caller) -> Resolving<'a> {
        if caller.principal.key.is_empty() {
            return self.resolve(rest);
        }
        Box::pin(async move {
            let reference = format!("{GRANT_SCHEME}://{rest}");
            let state = opened(&self.0, &reference)?;
            let key = GrantKey::new(caller.tenant(), &caller.principal.key, rest);
            match state.grants.load(&key).await {
                Ok(Some((grant, _))) => {
                    let content: Arc<SecretBytes> = grant.secret.clone();
                    Ok(Resolved { content, good_for: None })
                }
                Ok(None) => Err(SecretError::Consent { reference }),
                Err(error) => Err(SecretError::Unavailable { reference, cause: error.to_string() }),
            }
        })
    }

    fn is_personal(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling_and_stays_in_the_store() {
        for good in ["key", "team/key", "kv/%2E%2E/a.b", "a~b_c-d"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["", "/", "a//b", "a/", "/a", ".", "a/../b", "a b", "a?b", "ä", &"x".repeat(513)] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn without_a_database_nothing_is_there() {
        let builtin = Builtin(StateDoor::default());
        assert!(builtin.check("kv/{tenant}/{user}").is_ok() && builtin.check("a//b").is_err());
        assert!(matches!(builtin.resolve("a").await, Err(SecretError::Unavailable { .. })));
        let personal = Personal(StateDoor::default());
        assert!(personal.check("calendar").is_ok() && personal.check("{user}").is_err());
        assert!(matches!(personal.resolve("calendar").await, Err(SecretError::Caller { .. })));
    }
}
