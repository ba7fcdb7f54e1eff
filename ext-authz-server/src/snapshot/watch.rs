//! Noticing that a file changed: by looking twice a second, and at once by SIGHUP.
//!
//! The kernel's file events would tell sooner, but not on network file systems, and would wake this program for each line
//! of an audit file that lies beside the configuration.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use super::Snapshots;
use crate::config::ConfigError;

/// How often it is looked. Two looks in a row must see the same.
const LOOK: Duration = Duration::from_millis(500);

/// Reloads whenever a file of the snapshot changes, and keeps fetched keys fresh. Runs until it is dropped. `refused` hears
/// of each snapshot that was refused, once.
pub async fn watch(snapshots: Arc<Snapshots>, refused: impl Fn(&ConfigError) + Send + Sync) {
    let mut hang_up = signal(SignalKind::hangup()).ok();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let keys = tokio::spawn(keep_keys_fresh(snapshots.clone()));
    let _keys = AbortOnDrop(keys);
    loop {
        let at_once = tokio::select! {
            _ = look.tick() => false,
            Some(()) = hung_up(&mut hang_up) => {
                tracing::info!("reload on SIGHUP");
                true
            }
        };
        let reloading = snapshots.clone();
        let reload = move || if at_once { reloading.reload_once() } else { reloading.look() };
        match tokio::task::spawn_blocking(reload).await {
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
        let snapshot = snapshots.current();
        snapshot.identity.refresh().await;
        if let Some(operators) = &snapshot.operators {
            operators.refresh().await;
        }
    }
}

async fn hung_up(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}
