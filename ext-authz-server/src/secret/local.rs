//! What a store itself logs in with: a text out of the environment or a file.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::Secrets;
use super::remote::{StoreError, StoreErrorKind};
use crate::config::SecretSource;

/// The stores that need no login, for one that does.
#[derive(Clone)]
pub(super) struct Local(Arc<Secrets>);

// === impl Local ===

impl Local {
    /// Asks these, which hold `env://` and `file://` only.
    pub(super) fn new(secrets: &Arc<Secrets>) -> Local {
        Local(secrets.clone())
    }

    /// The text behind a source, read anew each time, without the line feed at its end.
    ///
    /// # Errors
    /// It cannot be read, or is no text.
    pub(super) async fn text(&self, source: &SecretSource) -> Result<Zeroizing<String>, StoreError> {
        let wrong = |cause: String| {
            StoreError::new(StoreErrorKind::Setup, "log in", cause, "set it where `keyward serve` runs")
        };
        let secret = self.0.resolve(source).await.map_err(|error| wrong(error.to_string()))?;
        let text = std::str::from_utf8(secret.expose());
        let text = text.map_err(|_| wrong(format!("secret `{}` is not UTF-8", source.reference)))?;
        Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
