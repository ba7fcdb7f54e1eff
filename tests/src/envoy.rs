//! Envoy as a process, configured by `envoy/demo.yaml` with typed changes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::Process;
use crate::{client, files, tools};

mod bootstrap;
mod egress;
mod hop;

pub use bootstrap::{AccessLog, Authorizer, Codec, Endpoint, FailurePolicy, Options, Route, UpstreamCluster};
pub use egress::Egress;

/// A running Envoy.
pub struct Envoy {
    /// Where its admin interface listens.
    pub admin: SocketAddr,
    /// The process.
    pub process: Process,
    listeners: BTreeMap<String, SocketAddr>,
    options: Options,
    folder: PathBuf,
}

// === impl Envoy ===

impl Envoy {
    /// Starts an Envoy with these options; its files go to `folder`. Returns when it is live.
    ///
    /// # Errors
    /// With the end of Envoy's log where it does not get live.
    pub async fn start(options: Options, folder: &Path) -> Result<Self> {
        let bootstrap = options.bootstrap()?;
        Self::run("envoy", options, &bootstrap, folder).await
    }

    /// Starts a hop in front of `target` that sets these headers on every request, as the conformance suite needs,
    /// which cannot send a token. Its listener is named `agents`, too.
    ///
    /// # Errors
    /// With the end of Envoy's log where it does not get live.
    pub async fn start_hop(target: SocketAddr, headers: &[(&str, &str)], folder: &Path) -> Result<Self> {
        let options = Options::default();
        let bootstrap = hop::bootstrap(target, headers);
        Self::run("hop", options, &bootstrap, folder).await
    }

    /// The address of its only listener for agents.
    ///
    /// # Errors
    /// Where there is none.
    pub fn agents(&self) -> Result<SocketAddr> {
        self.listener("agents")
    }

    /// The address of a listener.
    ///
    /// # Errors
    /// Where there is none of this name.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        self.listeners.get(name).copied().ok_or_else(|| anyhow!("Envoy has no listener `{name}`"))
    }

    /// What the options were.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// One number of `/stats`; 0 where Envoy does not know it.
    ///
    /// # Errors
    /// Where the admin interface does not answer.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let stats = client::get(self.admin, "/stats").await?;
        let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.and_then(|number| number.parse().ok()).unwrap_or_default())
    }

    /// All that the admin interface shows: configuration, clusters, statistics, memory, listeners, server information.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn everything(&self) -> Result<String> {
        let pages = [
            "/config_dump?include_eds",
            "/clusters",
            "/stats",
            "/stats/prometheus",
            "/listeners",
            "/server_info",
            "/memory",
        ];
        let mut all = String::new();
        for page in pages {
            all += &client::get(self.admin, page).await?;
        }
        Ok(all)
    }

    /// The access log so far; empty where there is none.
    #[must_use]
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.folder.join(bootstrap::ACCESS_LOG_FILE)).unwrap_or_default()
    }

    /// Stops it, then starts it with the same options on the same ports.
    ///
    /// # Errors
    /// Where it does not get live.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.stop(Duration::from_secs(5));
        let mut options = self.options.clone();
        options.listen = self.agents()?;
        options.admin = self.admin;
        *self = Self::start(options, &self.folder.clone()).await?;
        Ok(())
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.process.stop(Duration::from_secs(5));
    }

    /// Freezes it, or lets it go on.
    ///
    /// # Errors
    /// Where it is gone.
    pub fn freeze(&mut self, frozen: bool) -> Result<()> {
        self.process.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    async fn run(name: &str, options: Options, bootstrap: &Value, folder: &Path) -> Result<Self> {
        Self::run_program(&tools::envoy()?, name, options, bootstrap, folder).await
    }

    async fn run_program(
        program: &Path,
        name: &str,
        options: Options,
        bootstrap: &Value,
        folder: &Path,
    ) -> Result<Self> {
        let config = folder.join(format!("{name}.yaml"));
        let text = serde_saphyr::to_string(bootstrap).context("writing Envoy's bootstrap")?;
        files::replace(&config, text)?;
        let admin_file = folder.join(format!("{name}.admin"));
        let _ = fs::remove_file(&admin_file);

        let mut command = Command::new(program);
        command.arg("--config-path").arg(&config);
        command.arg("--admin-address-path").arg(&admin_file);
        command.args(["--disable-hot-restart", "--concurrency", &options.concurrency.to_string()]);
        command.args(["--log-level", &options.log_level, "--file-flush-interval-msec", "50"]);
        // The access log's path is relative.
        command.current_dir(folder);

        let mut process = Process::start(name, command, folder)?;
        let limit = Duration::from_secs(30);
        let admin = process.wait_for(limit, "its admin address", || {
            fs::read_to_string(&admin_file).ok()?.trim().parse::<SocketAddr>().ok()
        })?;
        let listeners = wait_live(&mut process, admin, limit).await?;
        Ok(Self { admin, process, listeners, options, folder: folder.to_path_buf() })
    }
}

async fn wait_live(process: &mut Process, admin: SocketAddr, limit: Duration) -> Result<BTreeMap<String, SocketAddr>> {
    let started = std::time::Instant::now();
    loop {
        let live = client::get(admin, "/ready").await;
        if live.as_ref().is_ok_and(|text| text.trim() == "LIVE") {
            let page = client::get(admin, "/listeners?format=json").await?;
            return listeners(&page).ok_or_else(|| anyhow!("unexpected list of listeners: `{page}`"));
        }
        if process.exit_status().is_some() || started.elapsed() > limit {
            // Fails at once with the end of the log.
            process.wait_for(Duration::ZERO, "a live listener", || None::<()>)?;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn listeners(page: &str) -> Option<BTreeMap<String, SocketAddr>> {
    let page: Value = serde_json::from_str(page).ok()?;
    let mut found = BTreeMap::new();
    for status in page.get("listener_statuses")?.as_array()? {
        let socket = status.pointer("/local_address/socket_address")?;
        let address = format!("{}:{}", socket.get("address")?.as_str()?, socket.get("port_value")?);
        found.insert(status.get("name")?.as_str()?.to_owned(), address.parse().ok()?);
    }
    Some(found)
}

/// A socket address as Envoy writes it.
fn socket_address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_bound_ports() {
        let page = r#"{"listener_statuses":[{"name":"agents","local_address":
            {"socket_address":{"address":"127.0.0.1","port_value":4711}}}]}"#;
        assert_eq!(listeners(page).unwrap()["agents"].port(), 4711);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_hops_run_at_once_and_set_their_headers() {
        let target = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = target.local_addr().unwrap();
        let folder = files::run_folder("hop").unwrap();
        let first = Envoy::start_hop(address, &[("authorization", "Bearer one")], &folder).await.unwrap();
        let second = Envoy::start_hop(first.agents().unwrap(), &[], &files::run_folder("hop").unwrap()).await.unwrap();
        let request = client::Request::new(http::Method::GET, "/x").send(second.agents().unwrap());
        let seen = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = target.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let count = stream.read(&mut buffer).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&buffer[..count]).into_owned()
        };
        let (answer, seen) = tokio::join!(request, seen);
        assert_eq!(answer.unwrap().status, 204);
        assert!(seen.contains("authorization: Bearer one"), "{seen}");
        assert_eq!(second.stat("http.agents.downstream_rq_total").await.unwrap(), 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_sample_starts_on_the_newest_and_the_oldest_version() {
        let route = Route { prefix: "/".to_owned(), cluster: "api".to_owned(), metadata: json!({"server": "api"}) };
        let closed = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut api = UpstreamCluster::tcp("api", closed);
        api.http2 = true;
        let options = Options {
            authorizer: Authorizer::NativeExtAuthz,
            keyward: Endpoint::Unix("keyward.sock".into()),
            codec: Codec::Http2,
            body_limit_bytes: Some(4_000_000),
            max_stream_ms: Some(1_500),
            access_log: AccessLog::Full,
            routes: vec![route],
            clusters: vec![api],
            connection_manager: json!({"http2_protocol_options": {"allow_metadata": false}}),
            ..Options::default()
        };
        let bootstrap = options.bootstrap().unwrap();
        for version in [tools::ENVOY_VERSION, tools::ENVOY_OLDEST_VERSION] {
            let folder = files::run_folder("envoy-sample").unwrap();
            let program = tools::envoy_version(version).unwrap();
            let envoy = Envoy::run_program(&program, "envoy", options.clone(), &bootstrap, &folder).await.unwrap();
            let mut request = client::Request::new(http::Method::GET, "/x").protocol(client::Protocol::Http2);
            request.authority = Some("api.example".to_owned());
            let answer = request.send(envoy.agents().unwrap()).await.unwrap();
            // Nobody listens on the socket of the server that decides.
            assert_eq!(answer.status, 403, "{version}");
            let started = std::time::Instant::now();
            while !envoy.access_log().contains("\"response_code\":403") {
                assert!(started.elapsed() < Duration::from_secs(15), "{version}: `{}`", envoy.access_log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
