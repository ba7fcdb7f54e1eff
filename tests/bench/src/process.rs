//! What the benchmark needs of processes beyond the harness: announcing addresses, and CPU time to the nanosecond.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use keyward_tests::process::Process;
use serde_json::{Map, Value};

/// How long a process may take to get ready.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Prints the addresses that this process listens on as one line of JSON, for [`announced`].
pub fn announce(addresses: &[(&str, SocketAddr)]) {
    let all: Map<String, Value> =
        addresses.iter().map(|(name, address)| ((*name).to_owned(), Value::from(address.to_string()))).collect();
    println!("{}", Value::Object(all));
}

/// Waits until a child announces its addresses, and returns those named.
///
/// # Errors
/// With the end of its log where it ends before, or 20 s pass.
pub fn announced<const COUNT: usize>(process: &mut Process, names: [&str; COUNT]) -> Result<[SocketAddr; COUNT]> {
    let all = process.announcement(READY_LIMIT)?;
    let mut addresses = Vec::with_capacity(COUNT);
    for name in names {
        let text = all.get(name).and_then(Value::as_str).ok_or_else(|| anyhow!("`{all}` has no `{name}`"))?;
        addresses.push(text.parse().with_context(|| format!("`{text}` is not an address"))?);
    }
    addresses.try_into().map_err(|_| anyhow!("`{all}` is not complete"))
}

/// Polls `ready` until it yields something.
///
/// # Errors
/// With the end of the process's log where it ends before, or 20 s pass.
pub fn wait_for<T>(process: &mut Process, what: &str, ready: impl FnMut() -> Option<T>) -> Result<T> {
    process.wait_for(READY_LIMIT, what, ready)
}

/// CPU time of all threads of a process so far, user and system. Exact to the nanosecond where the kernel keeps scheduler
/// statistics (threads that ended are not counted then), else to the clock tick.
///
/// # Errors
/// Where the process is gone.
pub fn cpu_time(process: &Process) -> Result<Duration> {
    let tasks = PathBuf::from(format!("/proc/{}/task", process.id()));
    scheduled(&tasks).map_or_else(|| process.cpu_time(), Ok)
}

fn scheduled(tasks: &Path) -> Option<Duration> {
    let mut nanos = 0_u64;
    for task in fs::read_dir(tasks).ok()? {
        // A thread may end between the two reads.
        let Ok(text) = fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        nanos = nanos.checked_add(text.split_whitespace().next()?.parse().ok()?)?;
    }
    (nanos > 0).then(|| Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn both_ways_to_read_cpu_time_agree() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let folder = keyward_tests::files::run_folder("bench-cpu").unwrap();
        let child = Process::start("spin", command, &folder).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let coarse = child.cpu_time().unwrap();
        let spent = cpu_time(&child).unwrap();
        assert!(spent > Duration::from_millis(50), "{spent:?}");
        assert!(spent.abs_diff(coarse) < Duration::from_millis(60), "{spent:?} {coarse:?}");
    }
}
