//! A PostgreSQL server of a test's own, with a relay in front of it that can be cut.

pub mod cluster;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::process::Process;
use crate::relay::Relay;
use crate::tools;
use cluster::Cluster;

/// What it writes when it takes connections.
const READY: &str = "ready to accept connections";
/// How long it may take to start or to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A running server. It ends before its files are deleted.
pub struct Postgres {
    /// What stands between it and whoever uses [`Postgres::url`].
    pub relay: Relay,
    process: Process,
    cluster: Cluster,
}

// === impl Postgres ===

impl Postgres {
    /// Makes an empty database and starts its server; the log goes to `folder`. Returns when it listens.
    ///
    /// # Errors
    /// With the end of its log where it does not.
    pub async fn start(folder: &Path) -> Result<Postgres> {
        let cluster = Cluster::new(&tools::postgres()?).context("making a PostgreSQL database")?;
        let process = run(&cluster, folder).await?;
        let relay = Relay::start(([127, 0, 0, 1], cluster.port).into()).await?;
        Ok(Postgres { relay, process, cluster })
    }

    /// Its address, through the relay.
    #[must_use]
    pub fn url(&self) -> String {
        self.cluster.url(self.relay.address.port())
    }

    /// Its address, past the relay: for what measures, or has one thread.
    #[must_use]
    pub fn url_past_the_relay(&self) -> String {
        self.cluster.url(self.cluster.port)
    }

    /// Ends it with all its connections, and starts it anew on the same port.
    ///
    /// # Errors
    /// With the end of its log where it does not come back.
    pub async fn restart(&mut self, folder: &Path) -> Result<()> {
        self.stop();
        self.process = run(&self.cluster, folder).await?;
        Ok(())
    }

    /// Ends it: SIGTERM alone would wait for its clients.
    pub fn stop(&mut self) {
        let _ = self.process.signal(Signal::INT);
        let _ = self.process.finish(LIMIT);
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn run(cluster: &Cluster, folder: &Path) -> Result<Process> {
    let name = format!("postgres-{}", cluster.port);
    // The log of an earlier run is gone on with.
    let earlier =
        std::fs::read_to_string(folder.join(format!("{name}.err"))).unwrap_or_default().matches(READY).count();
    let mut process = Process::start(&name, cluster.server(), folder)?;
    let began = Instant::now();
    // It listens a little before it takes anybody.
    while process.log().matches(READY).count() <= earlier {
        if process.exit_status().is_some() || began.elapsed() > LIMIT {
            bail!("PostgreSQL does not start:\n{}", process.log());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(process)
}
