//! How to make and start a PostgreSQL server of one's own, with the standard library alone: the server's unit tests include
//! this file by its path, for they must not depend on the harness.

use std::io::{Error, Result};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The variable that names the folder of `initdb` and `postgres`; `cargo xtask test` sets it.
pub const PROGRAMS_VARIABLE: &str = "KEYWARD_TEST_POSTGRES_BIN";
/// `nobody`, as whom it runs where the tests are root's: PostgreSQL refuses root.
const NOBODY: u32 = 65_534;

/// A folder with an empty database, and the address at which a server of it will listen.
#[derive(Debug)]
pub struct Cluster {
    /// What [`Cluster::server`] listens on, on loopback.
    pub port: u16,
    folder: PathBuf,
    programs: PathBuf,
    is_root: bool,
}

// === impl Cluster ===

impl Cluster {
    /// Makes the database in a folder of its own, which is deleted with this value.
    ///
    /// # Errors
    /// With what `initdb` said.
    pub fn new(programs: &Path) -> Result<Cluster> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // Not in the workspace: `nobody` may not be allowed to enter that.
        let folder = std::env::temp_dir().join(format!("keyward-postgres-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder)?;
        // What was just made is its maker's.
        let is_root = std::fs::metadata(&folder)?.uid() == 0;
        let cluster = Cluster { port, folder, programs: programs.to_owned(), is_root };
        cluster.give(&cluster.folder)?;
        let mut initdb = cluster.command("initdb");
        let made = initdb.args(["-D", "data", "-A", "trust", "-U", "keyward", "-E", "UTF8", "-N"]).output()?;
        if !made.status.success() {
            return Err(Error::other(format!("`initdb`: {}", String::from_utf8_lossy(&made.stderr).trim_end())));
        }
        Ok(cluster)
    }

    /// The server, not started yet. It syncs nothing to disk, which only a test may do. SIGINT ends it at once and in order.
    #[must_use]
    pub fn server(&self) -> Command {
        let mut command = self.command("postgres");
        command.args(["-D", "data", "-F", "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        command.args(["-c", "max_connections=200", "-c", "timezone=UTC", "-p", &self.port.to_string()]);
        command
    }

    /// Puts a file into its folder, which only its user can read, and returns its path.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn file(&self, name: &str, content: &str) -> Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.join(name);
        std::fs::write(&path, content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        self.give(&path)?;
        Ok(path)
    }

    /// Its address for Keyward, with another port where something stands in front of it.
    #[must_use]
    pub fn url(&self, port: u16) -> String {
        format!("postgres://keyward@127.0.0.1:{port}/postgres")
    }

    fn give(&self, path: &Path) -> Result<()> {
        if self.is_root { chown(path, Some(NOBODY), Some(NOBODY)) } else { Ok(()) }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.folder).env("LC_ALL", "C");
        if self.is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The folder of PostgreSQL's programs: the one that the variable names, else what Debian's packages installed, newest first,
/// else what `pg_config` on PATH says. `None` where there is none.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAMS_VARIABLE) {
        return Some(named.into());
    }
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<PathBuf> = entries.map(|entry| entry.path().join("bin")).collect();
    let version = |path: &PathBuf| path.iter().nth_back(1).and_then(|name| name.to_str()?.parse::<u32>().ok());
    versions.sort_by_key(version);
    let said = Command::new("pg_config").arg("--bindir").output().ok();
    let said = said.and_then(|output| String::from_utf8(output.stdout).ok()).map(|text| PathBuf::from(text.trim()));
    let is_whole = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
    versions.into_iter().rev().chain(said).find(is_whole)
}
