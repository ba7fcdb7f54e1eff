//! One thread that writes audit lines, behind a bounded queue.
//!
//! A record counts as accepted once it is in the queue. A full queue and a writer that cannot write both refuse, and the
//! caller denies. Accepted lines survive a full disk: the writer keeps what it could not write and tries again.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::record::Record;

/// How long the writer waits before it tries a failed write again, and looks for a wish to reopen.
const RETRY: Duration = Duration::from_millis(100);
/// How long the end waits for a sink that takes nothing: a file system that hangs keeps no server from ending.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes that are gathered into one write.
const MAX_WRITE_BYTES: usize = 256 * 1024;

/// Where lines go.
pub enum Sink {
    /// A file, appended to, created with mode 0600, reopened on demand.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Any other writer; for tests.
    Other(Box<dyn Write + Send>),
}

/// Why a record was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The queue is full.
    #[error("the audit queue is full")]
    Full,
    /// The writer cannot write.
    #[error("the audit writer cannot write")]
    Failed,
    /// The writer has ended.
    #[error("the audit writer has ended")]
    Closed,
}

/// The handle to the writer.
pub struct Writer {
    queue: Mutex<Option<SyncSender<Line>>>,
    state: Arc<State>,
    /// Disconnected when the thread ends.
    thread: Mutex<Option<Receiver<Infallible>>>,
    capacity: usize,
}

enum Line {
    Record(Vec<u8>),
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct State {
    failed: AtomicBool,
    reopen: AtomicBool,
    closing: AtomicBool,
    queued: AtomicU64,
    written: AtomicU64,
    refused: AtomicU64,
    /// Bytes that the sink has taken.
    taken_bytes: AtomicU64,
}

// === impl Writer ===

impl Writer {
    /// Opens the sink and starts the thread. `queue_records` bounds the queue, at least 1.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread cannot be started.
    pub fn start(sink: Sink, queue_records: usize) -> io::Result<Writer> {
        let mut output = Output::open(sink)?;
        let capacity = queue_records.max(1);
        let (queue, lines) = sync_channel(capacity);
        let state = Arc::new(State::default());
        let shared = state.clone();
        let (alive, thread) = sync_channel(0);
        std::thread::Builder::new().name("audit".into()).spawn(move || {
            let _alive = alive;
            run(&mut output, &lines, &shared);
        })?;
        Ok(Writer { queue: Mutex::new(Some(queue)), state, thread: Mutex::new(Some(thread)), capacity })
    }

    /// Hands a record to the writer. Returns once it is in the queue; never waits.
    ///
    /// # Errors
    /// The queue is full, or the writer cannot write: the caller must deny.
    pub fn accept(&self, record: &Record) -> Result<(), AuditError> {
        let result = self.send(record);
        if result.is_err() {
            self.state.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn send(&self, record: &Record) -> Result<(), AuditError> {
        if self.is_failed() {
            return Err(AuditError::Failed);
        }
        let line = record.line();
        let queue = self.queue.lock().map_err(|_| AuditError::Closed)?;
        let queue = queue.as_ref().ok_or(AuditError::Closed)?;
        self.state.queued.fetch_add(1, Ordering::AcqRel);
        queue.try_send(Line::Record(line)).map_err(|error| {
            self.state.queued.fetch_sub(1, Ordering::AcqRel);
            match error {
                TrySendError::Full(_) => AuditError::Full,
                TrySendError::Disconnected(_) => AuditError::Closed,
            }
        })
    }

    /// Whether the last write failed.
    #[must_use]
    pub fn is_failed(&self) -> bool {
        self.state.failed.load(Ordering::Acquire)
    }

    /// Whether the queue has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queued() >= u64::try_from(self.capacity).unwrap_or(u64::MAX)
    }

    /// Records accepted and not yet taken up by the writer.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.state.queued.load(Ordering::Acquire)
    }

    /// Records written since the start.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.state.written.load(Ordering::Acquire)
    }

    /// Records refused since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.state.refused.load(Ordering::Acquire)
    }

    /// Asks the writer to open its file anew, after it was moved away. Takes effect within [`RETRY`].
    pub fn reopen(&self) {
        self.state.reopen.store(true, Ordering::Release);
    }

    /// Waits, at most `timeout`, until everything accepted so far is written. True if it is.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        let (done, written) = sync_channel(1);
        let queue = self.queue.lock().ok().and_then(|queue| queue.as_ref().cloned());
        queue.is_some_and(|queue| queue.try_send(Line::Flush(done)).is_ok() && written.recv_timeout(timeout).is_ok())
    }

    /// Closes the queue, writes what is in it, ends the thread. Waits as long as the sink takes something, and `patience`
    /// more. False where records were lost; that is logged, too.
    #[must_use]
    pub fn close_within(&self, patience: Duration) -> bool {
        self.state.closing.store(true, Ordering::Release);
        if let Ok(mut queue) = self.queue.lock() {
            queue.take();
        }
        let Some(thread) = self.thread.lock().ok().and_then(|mut thread| thread.take()) else {
            return !self.is_failed();
        };
        let taken = || self.state.taken_bytes.load(Ordering::Acquire);
        let mut before = taken();
        while matches!(thread.recv_timeout(patience), Err(RecvTimeoutError::Timeout)) && taken() != before {
            before = taken();
        }
        let queued = self.queued();
        if queued > 0 {
            tracing::error!(queued, "audit records were lost: the sink takes nothing, or the writer is gone");
        }
        queued == 0 && !self.is_failed()
    }

    /// The same, with the patience that a server has.
    #[must_use]
    pub fn close(&self) -> bool {
        self.close_within(PATIENCE)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It is logged if something was lost.
        let _ = self.close();
    }
}

// === the thread ===

enum Output {
    File { path: PathBuf, file: File },
    Other(Box<dyn Write + Send>),
}

impl Output {
    fn open(sink: Sink) -> io::Result<Output> {
        match sink {
            Sink::File(path) => open(&path).map(|file| Output::File { path, file }),
            Sink::Stdout => Ok(Output::Other(Box::new(io::stdout()))),
            Sink::Other(writer) => Ok(Output::Other(writer)),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Output::File { path, file } = self {
            *file = open(path)?;
        }
        Ok(())
    }

    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Output::File { file, .. } => file,
            Output::Other(writer) => writer,
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn run(output: &mut Output, lines: &Receiver<Line>, state: &State) {
    let mut pending: Vec<u8> = Vec::new();
    let mut waiting: Vec<SyncSender<()>> = Vec::new();
    loop {
        if state.reopen.swap(false, Ordering::AcqRel)
            && let Err(error) = output.reopen()
        {
            fail(state, &error);
            state.reopen.store(true, Ordering::Release);
        }
        let first = lines.recv_timeout(RETRY);
        let closed = matches!(first, Err(RecvTimeoutError::Disconnected));
        let mut taken = 0;
        let mut next = first.ok();
        while let Some(line) = next {
            match line {
                Line::Record(line) => {
                    taken += 1;
                    pending.extend_from_slice(&line);
                }
                Line::Flush(done) => waiting.push(done),
            }
            next = if pending.len() < MAX_WRITE_BYTES { lines.try_recv().ok() } else { None };
        }
        if !write(output, &mut pending, state) {
            // Nothing more is taken up while the sink fails: the queue stays the bound.
            while !state.closing.load(Ordering::Acquire) {
                std::thread::sleep(RETRY);
                if state.reopen.swap(false, Ordering::AcqRel) && output.reopen().is_err() {
                    state.reopen.store(true, Ordering::Release);
                }
                if write(output, &mut pending, state) {
                    break;
                }
            }
        }
        state.queued.fetch_sub(taken, Ordering::AcqRel);
        state.written.fetch_add(taken, Ordering::AcqRel);
        for done in waiting.drain(..) {
            let _ = done.try_send(());
        }
        if closed || (state.closing.load(Ordering::Acquire) && !pending.is_empty()) {
            if !pending.is_empty() {
                tracing::error!(bytes = pending.len(), "audit records were lost: the sink cannot be written");
            }
            return;
        }
    }
}

/// Writes as much of `pending` as the sink takes; true if nothing is left. A line cut in two is continued, not repeated.
fn write(output: &mut Output, pending: &mut Vec<u8>, state: &State) -> bool {
    while !pending.is_empty() {
        match output.writer().write(pending) {
            Ok(0) => {
                fail(state, &io::ErrorKind::WriteZero.into());
                return false;
            }
            Ok(written) => {
                pending.drain(..written.min(pending.len()));
                state.taken_bytes.fetch_add(written as u64, Ordering::AcqRel);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                fail(state, &error);
                return false;
            }
        }
    }
    if let Err(error) = output.writer().flush() {
        fail(state, &error);
        return false;
    }
    if state.failed.swap(false, Ordering::AcqRel) {
        tracing::warn!("the audit writer can write again");
    }
    true
}

fn fail(state: &State, error: &io::Error) {
    if !state.failed.swap(true, Ordering::AcqRel) {
        tracing::error!(%error, "the audit writer cannot write; every request is denied until it can");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::record::Event;
    use super::*;

    fn record(detail: &str) -> Record {
        Record { detail: detail.into(), ..Record::new(Event::Started, "test", "r1") }
    }

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("keyward-audit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    /// Says that a write came, and blocks inside it until the test lets it go.
    struct Gate(std::sync::mpsc::Sender<()>, Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(bytes.len().min(32))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Fails as long as it is told to, and takes three bytes at a time otherwise.
    struct Disk(Arc<AtomicBool>, Arc<Mutex<Vec<u8>>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.load(Ordering::Acquire) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(3);
            self.1.lock().unwrap().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn writes_every_accepted_record_before_it_closes() {
        let path = directory("close").join("audit.jsonl");
        let writer = Writer::start(Sink::File(path.clone()), 1000).unwrap();
        for n in 0..500 {
            writer.accept(&record(&n.to_string())).unwrap();
        }
        assert!(writer.close());
        assert_eq!(writer.accept(&record("late")), Err(AuditError::Closed));
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 500);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }

    /// A writer that is inside of a write, and what lets it go.
    fn held(queue_records: usize) -> (Writer, std::sync::mpsc::Sender<()>) {
        let ((came, entered), (gate, blocked)) = (channel(), channel());
        let writer = Writer::start(Sink::Other(Box::new(Gate(came, blocked))), queue_records).unwrap();
        writer.accept(&record("first")).unwrap();
        entered.recv().unwrap();
        (writer, gate)
    }

    #[test]
    fn a_full_queue_refuses_and_counts() {
        let (writer, gate) = held(2);
        let answers: Vec<_> = (0..5).map(|_| writer.accept(&record("x"))).collect();
        let full = Err(AuditError::Full);
        assert_eq!(answers, [Ok(()), Ok(()), full, full, full]);
        assert_eq!((writer.refused(), writer.is_full()), (3, true));
        drop(gate);
    }

    #[test]
    fn a_sink_that_hangs_keeps_nobody_from_ending_and_a_slow_one_loses_nothing() {
        let (writer, gate) = held(2);
        let (ended, end) = channel();
        std::thread::spawn(move || ended.send(writer.close_within(Duration::from_millis(50))));
        assert_eq!(end.recv_timeout(Duration::from_secs(30)), Ok(false));
        drop(gate);

        let (writer, gate) = held(2);
        writer.accept(&record("second")).unwrap();
        std::thread::spawn(move || {
            // Longer in all than anybody has patience for, and never so long between two writes.
            while gate.send(()).is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        assert!(writer.close_within(Duration::from_millis(1500)));
        assert_eq!(writer.written(), 2);
    }

    #[test]
    fn a_sink_that_fails_refuses_and_loses_nothing() {
        let full = Arc::new(AtomicBool::new(true));
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::start(Sink::Other(Box::new(Disk(full.clone(), written.clone()))), 100).unwrap();
        writer.accept(&record("kept")).unwrap();
        while !writer.is_failed() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(writer.accept(&record("refused")), Err(AuditError::Failed));
        full.store(false, Ordering::Release);
        while writer.is_failed() {
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.accept(&record("again")).unwrap();
        assert!(writer.flush(Duration::from_secs(5)));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let details: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["detail"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(details, ["kept", "again"]);
    }

    #[test]
    fn goes_on_in_a_new_file_after_rotation() {
        let directory = directory("rotation");
        let path = directory.join("audit.jsonl");
        let writer = Writer::start(Sink::File(path.clone()), 100).unwrap();
        writer.accept(&record("old")).unwrap();
        assert!(writer.flush(Duration::from_secs(5)));
        std::fs::rename(&path, directory.join("audit.1")).unwrap();
        writer.reopen();
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        writer.accept(&record("new")).unwrap();
        assert!(writer.close());
        assert!(std::fs::read_to_string(directory.join("audit.1")).unwrap().contains("old"));
        assert!(std::fs::read_to_string(path).unwrap().contains("new"));
    }
}
