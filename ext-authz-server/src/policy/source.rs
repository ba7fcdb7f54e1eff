//! The files of a policy: which are read, how large they may be, and where an error in them stands.

use std::path::{Path, PathBuf};

use regorus::{Engine, Value};
use sha2::{Digest, Sha256};

use super::PolicyError;

/// The largest file, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The most Rego files.
const MAX_FILES: usize = 256;

/// The text of a policy, read once so that what is hashed is what is compiled.
#[derive(Clone, Debug)]
pub struct PolicySource {
    directory: PathBuf,
    rego: Vec<(PathBuf, String)>,
    data: Option<(PathBuf, String)>,
}

// === impl PolicySource ===

impl PolicySource {
    /// Reads `*.rego` (except `*_test.rego`) and `data.json` of a directory, not of those in it.
    ///
    /// # Errors
    /// Unreadable or overlarge files, and no Rego at all.
    pub fn read(directory: &Path) -> Result<PolicySource, PolicyError> {
        PolicySource::read_where(directory, |name| !name.ends_with("_test.rego"))
    }

    /// As [`PolicySource::read`], with the tests.
    ///
    /// # Errors
    /// As [`PolicySource::read`].
    pub fn read_with_tests(directory: &Path) -> Result<PolicySource, PolicyError> {
        PolicySource::read_where(directory, |_| true)
    }

    fn read_where(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<PolicySource, PolicyError> {
        let failed = |cause| PolicyError::Read { path: directory.to_owned(), cause };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".rego") && !name.starts_with('.') && wanted(name) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(PolicyError::Empty { path: directory.to_owned() });
        }
        if paths.len() > MAX_FILES {
            return Err(PolicyError::TooLarge { path: directory.to_owned(), what: "more than 256 files" });
        }
        paths.sort();
        let rego = paths.into_iter().map(|path| Ok((path.clone(), read_text(&path)?))).collect::<Result<_, _>>()?;
        let data = directory.join("data.json");
        let data = if data.exists() { Some((data.clone(), read_text(&data)?)) } else { None };
        Ok(PolicySource { directory: directory.to_owned(), rego, data })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether this stands in it as a text of its own, in code or data. A binding of whose id it does not is not named by the
    /// policy, unless the policy puts ids together.
    #[must_use]
    pub fn holds_text(&self, text: &str) -> bool {
        let quoted = [format!("\"{text}\""), format!("`{text}`")];
        self.rego.iter().chain(&self.data).any(|(_, file)| quoted.iter().any(|quoted| file.contains(quoted)))
    }

    /// Whether it looks at the bindings that could serve, out of which it may name any.
    #[must_use]
    pub fn reads_bindings(&self) -> bool {
        self.rego.iter().any(|(_, file)| file.contains("input.bindings"))
    }

    /// Adds names and bytes of all files to a digest, each with its length so that no two policies read the same.
    pub(crate) fn digest(&self, digest: &mut Sha256) {
        for (path, text) in self.rego.iter().chain(&self.data) {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            for bytes in [name, text.as_bytes()] {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            }
        }
    }

    /// An engine that holds the files.
    pub(super) fn engine(&self) -> Result<Engine, PolicyError> {
        let mut engine = Engine::new();
        for (path, text) in &self.rego {
            engine
                .add_policy(path.display().to_string(), text.clone())
                .map_err(|error| self.locate(&error.to_string()))?;
        }
        if let Some((path, text)) = &self.data {
            let failed = |cause: String| PolicyError::Data { path: path.clone(), cause };
            let data: serde_json::Value = serde_json::from_str(text).map_err(|error| failed(error.to_string()))?;
            if !data.is_object() {
                return Err(failed("it is not a JSON object".to_owned()));
            }
            engine.add_data(Value::from(data)).map_err(|error| failed(error.to_string()))?;
        }
        Ok(engine)
    }

    /// Reads file, line and column out of an error of the engine, whose first line is `--> file:line:column`.
    pub(super) fn locate(&self, error: &str) -> PolicyError {
        let place = error.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
        let cause = error.lines().find_map(|line| line.trim_start().strip_prefix("error: "));
        let cause = cause.unwrap_or_else(|| error.trim().lines().next().unwrap_or_default()).trim().to_owned();
        let parts = place.and_then(|place| {
            let (rest, column) = place.rsplit_once(':')?;
            let (file, line) = rest.rsplit_once(':')?;
            Some((PathBuf::from(file), line.parse().ok()?, column.trim().parse().ok()?))
        });
        let (path, line, column) = parts.unwrap_or_else(|| (self.directory.clone(), 0, 0));
        PolicyError::Rego { path, line, column, cause }
    }
}

fn read_text(path: &Path) -> Result<String, PolicyError> {
    let failed = |cause| PolicyError::Read { path: path.to_owned(), cause };
    if std::fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(PolicyError::TooLarge { path: path.to_owned(), what: "larger than 16 MiB" });
    }
    let bytes = std::fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| PolicyError::NotUtf8 { path: path.to_owned() })
}
