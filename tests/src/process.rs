//! Child processes that write to files and never outlive the program that started them.
//!
//! Each child has its own process group, so that Ctrl-C reaches only the parent, which then stops its children in
//! order. Should the parent die without doing so, one small watcher, which notices by the end of its input, kills what
//! is left.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const POLL: Duration = Duration::from_millis(5);

/// A running child process with its log files.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    exited: Option<ExitStatus>,
}

/// Kills, at the end of its input, every process it was told of: lines `+ PID` and `- PID`.
const WATCHER: &str = r#"trap '' INT TERM HUP
all=""
while read -r sign pid; do
  if [ "$sign" = + ]; then all="$all $pid"; else
    kept=""; for one in $all; do [ "$one" = "$pid" ] || kept="$kept $one"; done; all="$kept"
  fi
done
[ -z "$all" ] && exit 0
kill -TERM $all 2>/dev/null; sleep 1; kill -KILL $all 2>/dev/null
exit 0"#;

// === impl Process ===

impl Process {
    /// Starts `command`; its output goes to `FOLDER/NAME.out` and `FOLDER/NAME.err`, appended if it ran before.
    ///
    /// # Errors
    /// Names the program that could not be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let stdout = folder.join(format!("{name}.out"));
        let stderr = folder.join(format!("{name}.err"));
        let log = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .with_context(|| format!("opening `{}`", path.display()))
        };
        fs::write(&stdout, "").with_context(|| format!("writing `{}`", stdout.display()))?;
        command.stdin(Stdio::null()).stdout(log(&stdout)?).stderr(log(&stderr)?).process_group(0);
        let child =
            command.spawn().with_context(|| format!("starting `{}`", command.get_program().to_string_lossy()))?;
        tell_watcher('+', child.id());
        Ok(Self { name: name.to_owned(), child, stdout, stderr, exited: None })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it wrote so far, standard output first.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        read(&self.stdout) + &read(&self.stderr)
    }

    /// What it wrote to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    /// The exit status, once it ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().ok().flatten();
            if self.exited.is_some() {
                tell_watcher('-', self.child.id());
            }
        }
        self.exited
    }

    /// Waits for the first line of standard output that is a JSON object: the addresses our programs listen on.
    ///
    /// # Errors
    /// With the end of its log where it ended before, or took longer than `limit`.
    pub fn announcement(&mut self, limit: Duration) -> Result<Value> {
        let stdout = self.stdout.clone();
        self.wait_for(limit, "its addresses", || {
            let text = fs::read_to_string(&stdout).ok()?;
            let complete = text.get(..=text.rfind('\n')?)?;
            complete.lines().find_map(|line| serde_json::from_str(line).ok().filter(Value::is_object))
        })
    }

    /// Polls `ready` until it yields something.
    ///
    /// # Errors
    /// With the end of its log where the process ended before, or took longer than `limit`.
    pub fn wait_for<T>(&mut self, limit: Duration, what: &str, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
        let started = Instant::now();
        loop {
            if let Some(found) = ready() {
                return Ok(found);
            }
            if let Some(status) = self.exit_status() {
                bail!("`{}` ended with {status} while waiting for {what}:\n{}", self.name, self.log_end());
            }
            if started.elapsed() > limit {
                bail!("`{}` did not give {what} within {limit:?}:\n{}", self.name, self.log_end());
            }
            sleep(POLL);
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// With the end of its log where it takes longer than `limit`.
    pub fn finish(&mut self, limit: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if started.elapsed() > limit {
                bail!("`{}` did not end within {limit:?}:\n{}", self.name, self.log_end());
            }
            sleep(POLL);
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exit_status() {
            bail!("`{}` already ended with {status}", self.name);
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| anyhow!("`{}` has no process id", self.name))?;
        kill_process(pid, signal).with_context(|| format!("sending a signal to `{}`", self.name))
    }

    /// Asks it to end (SIGTERM), waits up to `limit`, then kills it. Returns its exit status.
    pub fn stop(&mut self, limit: Duration) -> Option<ExitStatus> {
        if self.signal(Signal::TERM).is_ok() {
            let started = Instant::now();
            while self.exit_status().is_none() && started.elapsed() < limit {
                sleep(POLL);
            }
        }
        self.kill();
        self.exited
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        if self.exit_status().is_none() {
            let _ = self.child.kill();
            self.exited = self.child.wait().ok();
            tell_watcher('-', self.child.id());
        }
    }

    /// CPU time spent so far, user and system.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let (user, system) =
            ticks(11).zip(ticks(12)).ok_or_else(|| anyhow!("no CPU time in /proc of `{}`", self.name))?;
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_millis((user + system) * 1000 / ticks_per_second))
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default();
        format!("{}\n(all of it: {} and {})", tail.join("\n"), self.stdout.display(), self.stderr.display())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(2));
    }
}

fn tell_watcher(sign: char, pid: u32) {
    static WATCHER_INPUT: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();
    let input = WATCHER_INPUT.get_or_init(|| {
        let started = Command::new("sh").args(["-c", WATCHER]).stdin(Stdio::piped()).process_group(0).spawn();
        Mutex::new(started.ok().and_then(|mut child| child.stdin.take()))
    });
    if let Some(input) = input.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        let _ = writeln!(input, "{sign} {pid}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        crate::files::run_folder(name).unwrap()
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn an_announcement_is_the_first_json_line() {
        let script = r#"echo starting; echo '{"grpc":"127.0.0.1:1"}'; sleep 30"#;
        let mut process = Process::start("child", shell(script), &folder("process")).unwrap();
        let announced = process.announcement(Duration::from_secs(5)).unwrap();
        assert_eq!(announced["grpc"], "127.0.0.1:1");
    }

    #[test]
    fn an_early_end_shows_the_log() {
        let script = "echo the port is taken >&2; exit 3";
        let mut process = Process::start("child", shell(script), &folder("process")).unwrap();
        let error = process.announcement(Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("the port is taken") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn what_ignores_the_request_to_end_is_killed() {
        let script = "trap '' TERM; echo '{}'; while true; do sleep 0.05; done";
        let mut process = Process::start("child", shell(script), &folder("process")).unwrap();
        process.announcement(Duration::from_secs(5)).unwrap();
        assert!(!process.stop(Duration::from_millis(200)).unwrap().success());
    }

    #[test]
    fn the_watcher_kills_what_a_dead_parent_left() {
        let orphan = Command::new("sleep").arg("60").spawn().unwrap();
        let mut watcher = Command::new("sh").args(["-c", WATCHER]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = watcher.stdin.take().unwrap();
        writeln!(input, "+ 999999\n+ {}\n- 999999", orphan.id()).unwrap();
        drop(input);
        let mut orphan = orphan;
        assert!(!orphan.wait().unwrap().success());
        watcher.wait().unwrap();
    }
}
