//! Secrets in files: `file:///absolute/path` or `file://relative/path`.
//!
//! Each resolution looks at the file that the path leads to now, through all symbolic links, so that the swap of a mounted
//! Kubernetes secret and an atomic rename are seen at once. The content is read again only when the file is another one.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::{MAX_SECRET_BYTES, Resolved, Resolving, SecretBytes, SecretError, SecretStore};

/// A file changed less than this ago is read again even if it looks the same: a second write within one tick of the
/// file system's clock leaves no trace.
const SETTLED: Duration = Duration::from_millis(50);

/// Files, relative to a base directory.
pub struct FileStore {
    base: PathBuf,
    known: Mutex<HashMap<PathBuf, Known>>,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    modified_ns: i128,
    changed_ns: i128,
}

struct Known {
    version: Version,
    secret: Arc<SecretBytes>,
}

// === impl FileStore ===

impl FileStore {
    /// Relative paths start at `base`.
    #[must_use]
    pub fn new(base: &Path) -> FileStore {
        FileStore { base: base.to_owned(), known: Mutex::default() }
    }

    fn read(&self, rest: &str) -> Result<Arc<SecretBytes>, SecretError> {
        let path = self.base.join(rest);
        let reference = || format!("file://{rest}");
        let failed = |cause: std::io::Error| match cause.kind() {
            std::io::ErrorKind::NotFound => SecretError::NotSet { reference: reference() },
            _ => SecretError::Read { reference: reference(), cause },
        };
        // Looked at before it is opened: opening a pipe would wait for its other end.
        let seen = std::fs::metadata(&path).map_err(failed)?;
        if !seen.is_file() {
            return Err(SecretError::NotAFile { reference: reference() });
        }
        if let Some(secret) = self.cached(&path, Version::of(&seen)) {
            return Ok(secret);
        }
        let mut file = File::open(&path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile { reference: reference() });
        }
        if metadata.len() > MAX_SECRET_BYTES as u64 {
            return Err(SecretError::TooLarge { reference: reference() });
        }
        // One byte more than allowed, allocated at once so that no copy is left behind by growth.
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
        file.by_ref().take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > MAX_SECRET_BYTES {
            return Err(SecretError::TooLarge { reference: reference() });
        }
        let secret = Arc::new(SecretBytes::new(std::mem::take(&mut *bytes)));
        self.keep(path, rest, &metadata, &secret);
        Ok(secret)
    }

    fn cached(&self, path: &Path, version: Version) -> Option<Arc<SecretBytes>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(path).filter(|known| known.version == version).map(|known| known.secret.clone())
    }

    fn keep(&self, path: PathBuf, rest: &str, metadata: &std::fs::Metadata, secret: &Arc<SecretBytes>) {
        let version = Version::of(metadata);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if metadata.mode() & 0o004 != 0 && known.get(&path).is_none_or(|known| known.version != version) {
            tracing::warn!(reference = %format!("file://{rest}"), "the secret file can be read by everybody");
        }
        if is_settled(metadata) {
            known.insert(path, Known { version, secret: secret.clone() });
        } else {
            known.remove(&path);
        }
    }
}

impl SecretStore for FileStore {
    fn check(&self, rest: &str) -> Result<(), SecretError> {
        let cause = if rest.is_empty() {
            "what follows `file://` is a path"
        } else if rest.contains('\0') || rest.ends_with('/') {
            "what follows `file://` is the path of a file"
        } else {
            return Ok(());
        };
        Err(SecretError::Reference { cause })
    }

    /// When the file to which the path leads was last written.
    fn changed<'a>(&'a self, rest: &'a str) -> Pin<Box<dyn Future<Output = Option<SystemTime>> + Send + 'a>> {
        let metadata = std::fs::metadata(self.base.join(rest));
        Box::pin(std::future::ready(metadata.and_then(|metadata| metadata.modified()).ok()))
    }

    fn resolve<'a>(&'a self, rest: &'a str) -> Resolving<'a> {
        // A look at a local file takes microseconds; handing it to another thread would take longer.
        let content = self.read(rest);
        Box::pin(std::future::ready(content.map(|content| Resolved { content, good_for: None })))
    }
}

// === impl Version ===

impl Version {
    fn of(metadata: &std::fs::Metadata) -> Version {
        let ns = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
        Version {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Whether the file was last changed long enough ago for its version to be unmistakable.
fn is_settled(metadata: &std::fs::Metadata) -> bool {
    let changed =
        Duration::new(metadata.ctime().try_into().unwrap_or(0), metadata.ctime_nsec().try_into().unwrap_or(0));
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|now| now.saturating_sub(changed) > SETTLED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    async fn value(store: &FileStore, rest: &str) -> Result<Vec<u8>, String> {
        store.resolve(rest).await.map(|secret| secret.content.expose().to_vec()).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn every_change_is_seen_at_once_and_bytes_are_exact() {
        let dir = Scratch::new();
        let store = FileStore::new(dir.path());
        for round in 0..50 {
            let content = format!("value {round:02}\n");
            dir.write("key", &content);
            assert_eq!(value(&store, "key").await.unwrap(), content.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_settled_file_is_not_read_again() {
        let dir = Scratch::new();
        dir.write("key", "settled value");
        std::thread::sleep(SETTLED * 2);
        let store = FileStore::new(dir.path());
        let first = store.resolve("key").await.unwrap().content;
        assert!(Arc::ptr_eq(&first, &store.resolve("key").await.unwrap().content));
    }

    #[tokio::test]
    async fn a_kubernetes_swap_and_a_rename_are_seen_at_once() {
        use std::os::unix::fs::symlink;
        let dir = Scratch::new();
        dir.write("..one/key", "first version");
        dir.write("..two/key", "other version");
        symlink("..one", dir.path().join("..data")).unwrap();
        symlink("..data/key", dir.path().join("key")).unwrap();
        std::thread::sleep(SETTLED * 2);
        let store = FileStore::new(dir.path());
        assert_eq!(value(&store, "key").await.unwrap(), b"first version");
        symlink("..two", dir.path().join("..tmp")).unwrap();
        std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        assert_eq!(value(&store, "key").await.unwrap(), b"other version");
        dir.write("new", "third version");
        std::fs::rename(dir.path().join("new"), dir.path().join("..two/key")).unwrap();
        assert_eq!(value(&store, "key").await.unwrap(), b"third version");
    }

    #[tokio::test]
    async fn what_is_no_secret_file_is_named_without_content() {
        let dir = Scratch::new();
        dir.write("large", &"x".repeat(MAX_SECRET_BYTES + 1));
        let store = FileStore::new(dir.path());
        assert_eq!(value(&store, "none").await.unwrap_err(), "secret `file://none` is not set");
        assert_eq!(value(&store, "large").await.unwrap_err(), "secret `file://large` is larger than 65536 bytes");
        assert_eq!(value(&store, ".").await.unwrap_err(), "secret `file://.` is not a regular file");
        std::fs::remove_file(dir.path().join("large")).unwrap();
        assert_eq!(value(&store, "large").await.unwrap_err(), "secret `file://large` is not set");
    }
}
