//! Noticing that a file changed: by the kernel's word, by looking every two seconds, and by SIGHUP.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::Snapshots;
use crate::config::ConfigError;

/// How long files must be left alone before they are read.
const SETTLE: Duration = Duration::from_millis(100);
/// The longest that a file which never stops changing can put off a reload.
const SETTLE_AT_MOST: Duration = Duration::from_secs(2);
/// How often it is looked without being told: network file systems tell nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Reloads whenever a file of the snapshot changes, and keeps fetched keys fresh. Runs until it is dropped. `refused` hears
/// of each snapshot that was refused, once.
pub async fn watch(snapshots: Arc<Snapshots>, refused: impl Fn(&ConfigError) + Send + Sync) {
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let mut watcher = watcher(changed.clone());
    let mut watched = BTreeSet::new();
    let mut hang_up = signal(SignalKind::hangup()).ok();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let keys = tokio::spawn(keep_keys_fresh(snapshots.clone()));
    let _keys = AbortOnDrop(keys);
    loop {
        if let Some(watcher) = &mut watcher {
            follow(watcher, &mut watched, directories(&snapshots));
        }
        tokio::select! {
            Some(()) = changes.recv() => settle(&mut changes).await,
            _ = look.tick() => {}
            Some(()) = hung_up(&mut hang_up) => tracing::info!("reload on SIGHUP"),
        }
        let reloading = snapshots.clone();
        match tokio::task::spawn_blocking(move || reloading.reload_once()).await {
            Ok(Ok(_) | Err(None)) => {}
            Ok(Err(Some(error))) => {
                for problem in &error.problems {
                    tracing::error!(%problem, "refused; the last good configuration and policy stay in use");
                }
                refused(&error);
            }
            Err(error) => tracing::error!(%error, "the reload ended early"),
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

// === impl AbortOnDrop ===

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn keep_keys_fresh(snapshots: Arc<Snapshots>) {
    let mut due = interval(Duration::from_secs(1));
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        snapshots.current().identity.refresh().await;
    }
}

/// Waits until nothing has changed for a while.
async fn settle(changes: &mut mpsc::Receiver<()>) {
    let latest = Instant::now() + SETTLE_AT_MOST;
    loop {
        let quiet = (Instant::now() + SETTLE).min(latest);
        tokio::select! {
            () = sleep_until(quiet) => return,
            change = changes.recv() => if change.is_none() || Instant::now() >= latest { return },
        }
    }
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

fn watcher(changed: mpsc::Sender<()>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too; a full channel means that a reload is due already.
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = changed.try_send(());
        }
    });
    watcher.inspect_err(|error| tracing::warn!(%error, "no file events; looking every two seconds")).ok()
}

/// The directories that hold the files: a rename or the swap of a link shows there.
fn directories(snapshots: &Snapshots) -> BTreeSet<PathBuf> {
    let snapshot = snapshots.current();
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("."),
    };
    let mut directories: BTreeSet<PathBuf> = snapshot.identity.files().map(parent).collect();
    directories.insert(parent(snapshots.file()));
    directories.insert(snapshot.config.policy.directory.clone());
    directories
}

/// Watches what is wanted and nothing else. What cannot be watched is looked at every two seconds all the same.
fn follow(watcher: &mut RecommendedWatcher, watched: &mut BTreeSet<PathBuf>, wanted: BTreeSet<PathBuf>) {
    for gone in watched.difference(&wanted) {
        let _ = watcher.unwatch(gone);
    }
    watched.retain(|directory| wanted.contains(directory));
    for directory in wanted {
        if !watched.contains(&directory) && watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok() {
            watched.insert(directory);
        }
    }
}
