//! Reading `keyward.yaml`, with the position of everything that is wrong.

use std::path::{Path, PathBuf};

use serde_saphyr::Error as YamlError;

use super::check::Checker;
use super::node::Node;
use super::position::Positions;
use super::{Config, ConfigError, Problem, definition, shape};

/// The largest configuration file, in bytes.
const MAX_CONFIG_BYTES: usize = 4 * 1024 * 1024;

/// A configuration and where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration. Its paths have the directory of the file in front, where they are relative.
    pub config: Config,
    /// The file.
    pub file: PathBuf,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Reads and checks a configuration file.
///
/// # Errors
/// A file that cannot be read, is not YAML of this shape, or must not run.
pub fn load(file: &Path) -> Result<Loaded, ConfigError> {
    Loaded::parse(file, read(file)?)
}

/// Reads a configuration file, and nothing in it.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(file).map_err(|cause| whole(file, format!("cannot be read: {cause}"), "name an existing file"))
}

/// Reads and checks a configuration; `file` names it in problems, and relative paths start from its directory.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
    if text.len() > MAX_CONFIG_BYTES {
        let message = format!("is larger than {MAX_CONFIG_BYTES} bytes");
        return Err(whole(file, message, "split the work over several servers"));
    }
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        reject_unsupported_tags: true,
    };
    let mut config: Config = match serde_saphyr::from_str_with_options(text, options) {
        Ok(config) => config,
        Err(error) => return Err(ConfigError { problems: refused(file, text, &error) }),
    };
    let problems = Checker::run(&config);
    if !problems.is_empty() {
        let positions = Positions::read(text);
        let mut problems: Vec<Problem> = problems
            .into_iter()
            .map(|found| {
                let (line, column) = positions.of(&found.key);
                Problem {
                    file: file.to_owned(),
                    line,
                    column,
                    key: found.key,
                    message: found.message,
                    remedy: found.remedy.to_owned(),
                }
            })
            .collect();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        return Err(ConfigError { problems });
    }
    definition::note(&mut config, text);
    config.resolve_paths(file.parent().unwrap_or(Path::new("")));
    Ok(config)
}

fn whole(file: &Path, message: String, remedy: &str) -> ConfigError {
    let (key, remedy) = (String::new(), remedy.to_owned());
    ConfigError { problems: vec![Problem { file: file.to_owned(), line: 0, column: 0, key, message, remedy }] }
}

/// What is wrong with a file that the typed reader refused: its syntax, or its shape, or else what that reader says.
fn refused(file: &Path, text: &str, error: &YamlError) -> Vec<Problem> {
    let problem = |error: &YamlError, message: String, remedy: &str| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
        let (file, key, remedy) = (file.to_owned(), Positions::read(text).key_at(line, column), remedy.to_owned());
        Problem { file, line, column, key, message, remedy }
    };
    let said = |error: &YamlError| plain(&error.without_snippet().to_string());
    match Node::read(text) {
        Err(error @ YamlError::MultipleDocuments { .. }) => {
            vec![problem(&error, "a second document begins here".to_owned(), "keep one in the file")]
        }
        Err(error) => vec![problem(&error, said(&error), "look at the indentation, quotes and brackets there")],
        Ok(document) => match shape::problems(file, &document) {
            problems if problems.is_empty() => vec![problem(error, said(error), "")],
            problems => problems,
        },
    }
}

/// The reader's own message on one line, without the position that stands in front of it already.
fn plain(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message.get(..end).unwrap_or(message).trim_start_matches("error: ").trim_end_matches('.').to_owned()
}

// === impl Loaded ===

impl Loaded {
    /// Reads and checks the bytes of a configuration file.
    pub(crate) fn parse(file: &Path, bytes: Vec<u8>) -> Result<Loaded, ConfigError> {
        let config = match std::str::from_utf8(&bytes) {
            Ok(text) => parse(file, text)?,
            Err(cause) => return Err(whole(file, format!("is not UTF-8: {cause}"), "save it as UTF-8")),
        };
        Ok(Loaded { config, file: file.to_owned(), bytes })
    }

    /// A problem with what a key of the file names, for example a missing file, at the place of that key.
    #[must_use]
    pub fn problem(&self, key: &str, message: String, remedy: &str) -> Problem {
        let (line, column) = Positions::read(&String::from_utf8_lossy(&self.bytes)).of(key);
        let (file, key, remedy) = (self.file.clone(), key.to_owned(), remedy.to_owned());
        Problem { file, line, column, key, message, remedy }
    }
}

// === impl Config ===

impl Config {
    fn resolve_paths(&mut self, base: &Path) {
        let resolve = |path: &mut PathBuf| *path = base.join(&*path);
        resolve(&mut self.policy.directory);
        if self.audit.file != Path::new("-") {
            resolve(&mut self.audit.file);
        }
        if let Some(tls) = &mut self.listen.tls {
            resolve(&mut tls.certificate_file);
            resolve(&mut tls.key_file);
            resolve(&mut tls.client_ca_file);
        }
        for tenant in self.tenants.iter_mut().flat_map(std::collections::BTreeMap::values_mut) {
            tenant.policy_directory.iter_mut().for_each(resolve);
        }
        if let Some(database) = &mut self.database {
            database.resolve_paths(base);
        }
        for store in self.stores.values_mut() {
            store.kind_mut().resolve_paths(base);
        }
        let operators = self.api.iter_mut().flat_map(|api| &mut api.identity.issuers);
        for issuer in self.identity.issuers.iter_mut().chain(operators) {
            issuer.jwks.file.iter_mut().for_each(resolve);
        }
    }
}
