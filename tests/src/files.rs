//! Where things lie: the workspace, what cargo built, and the folders that a run writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// `target` in the workspace: tools, logs, the demo's and the benchmark's files. It stays there whatever
/// `CARGO_TARGET_DIR` says, because the README names these paths.
#[must_use]
pub fn target() -> PathBuf {
    workspace().join("target")
}

/// Cargo's own target folder, as the running program was built into it.
#[must_use]
pub fn cargo_target() -> PathBuf {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR") {
        return workspace().join(dir);
    }
    target()
}

/// A program that this workspace builds, for example `keyward`.
///
/// # Errors
/// Where it was not built yet; the message says how.
pub fn program(name: &str) -> Result<PathBuf> {
    built(cargo_target().join("release").join(name))
}

/// The filter as Envoy loads it; `KEYWARD_WASM` names another one.
///
/// # Errors
/// Where it was not built yet; the message says how.
pub fn filter_module() -> Result<PathBuf> {
    match std::env::var_os("KEYWARD_WASM") {
        Some(path) => built(workspace().join(path)),
        None => built(cargo_target().join("wasm32-wasip1/wasm/keyward_filter.wasm")),
    }
}

/// A new, empty folder `target/e2e/NAME-N`, numbered within this process.
///
/// # Errors
/// Where the folder cannot be made.
pub fn run_folder(name: &str) -> Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let folder = target().join("e2e").join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fresh_folder(&folder)?;
    Ok(folder)
}

/// Makes `folder` an existing, empty folder.
///
/// # Errors
/// Where it cannot be emptied or made.
pub fn fresh_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("emptying `{}`", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("making `{}`", folder.display()))
}

/// Copies the files of one folder, without subfolders, into another that is made where needed.
///
/// # Errors
/// Names the file that could not be copied.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making `{}`", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading `{}`", from.display()))? {
        let path = entry?.path();
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).with_context(|| format!("copying `{}`", path.display()))?;
        }
    }
    Ok(())
}

/// Writes a file so that a reader sees the old or the new content, never half of it.
///
/// # Errors
/// Names the file.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, content).with_context(|| format!("writing `{}`", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("replacing `{}`", path.display()))
}

fn built(path: PathBuf) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("`{}` is missing: run `cargo xtask build` first", path.display());
    }
    Ok(path)
}
