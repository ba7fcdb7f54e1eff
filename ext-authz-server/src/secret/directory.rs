//! A folder of secret files, `NAME://path/in/the/folder`: mounted secrets, or one file a client under its id.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::SystemTime;

use super::{FileStore, Resolving, SecretError, SecretStore};
use crate::config::DirectoryStore;

/// Files of one folder, read at each use.
pub(super) struct Directory(FileStore);

// === impl Directory ===

impl Directory {
    pub(super) fn new(config: &DirectoryStore) -> Directory {
        Directory(FileStore::new(Path::new(&config.path)))
    }
}

impl SecretStore for Directory {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        let inside =
            |segment: &str| !segment.is_empty() && !segment.starts_with('.') && !segment.contains(['\\', '\0']);
        if rest.split('/').all(inside) {
            return Ok(());
        }
        Err(SecretError::Reference {
            cause: "what follows `://` is a path inside the folder, without `.` at a beginning",
        })
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        self.0.resolve(rest)
    }

    fn changed<'a>(&'a self, rest: &'a str) -> Pin<Box<dyn Future<Output = Option<SystemTime>> + Send + 'a>> {
        self.0.changed(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[tokio::test]
    async fn no_reference_leads_out() {
        let dir = Scratch::new();
        dir.write("keys/one", "first value");
        dir.write("outside", "canary");
        let store = Directory::new(&DirectoryStore { path: dir.path().join("keys") });
        assert_eq!(store.resolve("one").await.ok().unwrap().content.expose(), b"first value");
        for rest in ["", "..", "../outside", "a/../../outside", "/etc/passwd", "a//b", ".hidden", "a\\b", "one/"] {
            assert!(store.check(rest).is_err(), "{rest}");
        }
        assert!(store.check("a/b%2E%2E").is_ok());
    }
}
