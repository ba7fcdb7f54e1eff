//! Reading `keyward.yaml`, with the position of everything that is wrong.

use std::path::{Path, PathBuf};

use serde_saphyr::Error as YamlError;

use super::check::Checker;
use super::position::Positions;
use super::{Config, ConfigError, Problem};

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
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(cause) => return Err(whole(file, format!("cannot be read: {cause}"), "name an existing file")),
    };
    let config = match std::str::from_utf8(&bytes) {
        Ok(text) => parse(file, text)?,
        Err(cause) => return Err(whole(file, format!("is not UTF-8: {cause}"), "save it as UTF-8")),
    };
    Ok(Loaded { config, file: file.to_owned(), bytes })
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
        Err(error) => return Err(ConfigError { problems: vec![describe(file, text, &error)] }),
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
    config.resolve_paths(file.parent().unwrap_or(Path::new("")));
    Ok(config)
}

fn whole(file: &Path, message: String, remedy: &str) -> ConfigError {
    let (key, remedy) = (String::new(), remedy.to_owned());
    ConfigError { problems: vec![Problem { file: file.to_owned(), line: 0, column: 0, key, message, remedy }] }
}

/// One problem for what the reader refused.
fn describe(file: &Path, text: &str, error: &YamlError) -> Problem {
    let error = error.without_snippet();
    let (line, column) = error.location().map_or((1, 1), |location| (location.line(), location.column()));
    let parent = Positions::read(text).key_at(line, column);
    let (key, message, remedy) = match error {
        YamlError::SerdeUnknownField { field, expected, .. } => {
            let remedy = match closest(field, expected) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known keys here are {}", listed(expected)),
            };
            (key_of_field(&parent, field), "unknown key".to_owned(), remedy)
        }
        YamlError::SerdeUnknownVariant { variant, expected, .. } => {
            (parent, format!("`{variant}` is not one of the choices"), format!("write one of {}", listed(expected)))
        }
        YamlError::SerdeMissingField { field, .. } => (parent, format!("`{field}` is missing"), "add it".to_owned()),
        YamlError::DuplicateMappingKey { .. } => (parent, "the key occurs twice".to_owned(), "keep one".to_owned()),
        other => (parent, plain(&other.to_string()), String::new()),
    };
    Problem { file: file.to_owned(), line, column, key, message, remedy }
}

/// The path of an unknown key, whose own position is the one reported.
fn key_of_field(at: &str, field: &str) -> String {
    if at == field || at.ends_with(&format!(".{field}")) {
        return at.to_owned();
    }
    match at.rsplit_once('.') {
        Some((parent, _)) => format!("{parent}.{field}"),
        None => field.to_owned(),
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The reader's own message on one line, without the position that stands in front of it already.
fn plain(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let end = message.rfind(" at line ").unwrap_or(message.len());
    message.get(..end).unwrap_or(message).trim_start_matches("error: ").trim_end_matches('.').to_owned()
}

/// The known name that a misspelt one is closest to, at most a third of its letters away.
fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let limit = name.len().div_ceil(3);
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(d, _)| *d <= limit)
        .min()
        .map(|(_, c)| c)
}

/// Levenshtein distance.
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (b, above) in two.iter().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(a != *b)).min(above + 1).min(left + 1);
            diagonal = *above;
            left = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
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
        for issuer in &mut self.identity.issuers {
            issuer.jwks.file.iter_mut().for_each(resolve);
        }
    }
}
