//! What every remote store has to say, and the [`SecretStore`] that follows from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{StoreError, StoreErrorKind};
use crate::config::Caching;
use crate::freshness::Terms;
use crate::secret::{MAX_SECRET_BYTES, Resolved, Resolving, SecretBytes, SecretError, SecretStore};

/// What a store gave, and for how long it is good; none: as long as configuration says.
pub(crate) type Given = (Arc<SecretBytes>, Option<Duration>);

/// One remote store.
pub(crate) trait RemoteStore: Send + Sync {
    /// Its name in configuration.
    fn name(&self) -> &str;

    /// How long its values are used.
    fn caching(&self) -> Caching;

    /// Whether what follows `NAME://` has the right form; placeholders may be in it.
    ///
    /// # Errors
    /// What is wrong with it; no part of it.
    fn check_form(&self, rest: &str) -> Result<(), &'static str>;

    /// Whether names that differ in capital and small letters alone are one name there.
    fn folds_case(&self) -> bool {
        false
    }

    /// What is there now.
    fn read(&self, rest: &str) -> impl Future<Output = Result<Given, StoreError>> + Send;

    /// Logs in. The text says what was seen.
    fn try_login(&self) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// Gives back what the store lent for references that are not in use any more. Returns these.
    fn give_back_unused(
        &self,
        _in_use: &(dyn Fn(&str) -> bool + Send + Sync),
    ) -> impl Future<Output = Vec<String>> + Send {
        std::future::ready(Vec::new())
    }

    /// Gives back everything that the store lent.
    fn give_back_all(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

impl<S: RemoteStore> SecretStore for S {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        self.check_form(rest).map_err(|cause| SecretError::Reference { cause })
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let reference = || format!("{}://{rest}", self.name());
            match self.read(rest).await {
                Ok((content, _)) if content.is_empty() => Err(SecretError::NotSet { reference: reference() }),
                Ok((content, _)) if content.len() > MAX_SECRET_BYTES => {
                    Err(SecretError::TooLarge { reference: reference() })
                }
                Ok((content, good_for)) => Ok(Resolved { content, good_for }),
                Err(error) => {
                    tracing::warn!(reference = reference(), %error, "a secret could not be had");
                    Err(as_secret_error(&error, reference()))
                }
            }
        })
    }

    fn ignores_case(&self) -> bool {
        self.folds_case()
    }

    fn terms(&self) -> Option<Terms> {
        let Caching { refresh_secs, max_stale_secs } = self.caching();
        let (refresh, max_stale) = (Duration::from_secs(refresh_secs), Duration::from_secs(max_stale_secs));
        Some(Terms::Stored { refresh, max_stale })
    }

    fn probe(&self) -> Pin<Box<dyn Future<Output = Result<String, SecretError>> + Send + '_>> {
        Box::pin(async move {
            self.try_login().await.map_err(|error| as_secret_error(&error, format!("{}://", self.name())))
        })
    }

    fn retain<'a>(
        &'a self,
        in_use: &'a (dyn Fn(&str) -> bool + Send + Sync),
    ) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>> {
        Box::pin(self.give_back_unused(in_use))
    }

    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.give_back_all())
    }
}

fn as_secret_error(error: &StoreError, reference: String) -> SecretError {
    let cause = error.to_string();
    match error.kind() {
        StoreErrorKind::Outage => SecretError::Unavailable { reference, cause },
        _ => SecretError::Refused { reference, cause },
    }
}
