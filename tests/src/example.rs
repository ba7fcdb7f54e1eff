//! The stock-price example of `docs/guide.md`, running: its files are those in `docs/stock-price`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::agent;
use crate::client::{self, Answer, Request};
use crate::envoy::{Route, UpstreamCluster};
use crate::files;
use crate::issuer::Token;
use crate::peers::NodeServer;
use crate::process::Process;
use crate::stack::{Builder, Stack};

/// The client id of the MCP server.
pub const CLIENT: &str = "stock-price-server";
/// The role of the agents that may ask it.
const ROLE: &str = "analyst";

/// The running example.
pub struct Example {
    /// Envoy and Keyward.
    pub stack: Stack,
    /// The API's key of [`CLIENT`].
    pub key: String,
    api: NodeServer,
    server: NodeServer,
}

// === impl Example ===

impl Example {
    /// Starts everything, in this order: the API, Keyward and Envoy, the MCP server. `change` adjusts the stack.
    ///
    /// # Errors
    /// Names the part that does not start.
    pub async fn start(folder: &Path, change: impl FnOnce(Builder) -> Builder) -> Result<Example> {
        let source = files::workspace().join("docs/stock-price");
        let text = fs::read_to_string(source.join("keyward.yaml")).context("reading the example's configuration")?;
        let mut config: Value = serde_saphyr::from_str(&text).context("reading the example's configuration")?;
        config["listen"] = json!({"grpc": "127.0.0.1:0", "admin": "127.0.0.1:0"});
        let builder = Stack::builder("example").folder(folder.to_owned());
        let key = format!("{}-key-of-{CLIENT}", builder.random());
        let scripts = folder.with_extension("node");
        files::fresh_folder(&scripts)?;
        let api = NodeServer::start_file(&source.join("price_api.mjs"), &[("PRICE_KEYS", &key)], &scripts.join("api"))?;
        // Envoy has to know where the MCP server is, and the MCP server where Envoy is: one of them gets a port beforehand.
        let agents = free_address()?;
        let token_file = scripts.join("token");
        let environment =
            [("PRICE_API", format!("http://{agents}")), ("PRICE_TOKEN_FILE", token_file.display().to_string())];
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let server = NodeServer::start_file(&source.join("server.mjs"), &environment, &scripts.join("server"))?;
        let policy =
            fs::read_to_string(source.join("policies/keyward.rego")).context("reading the example's policy")?;
        let route = |prefix: &str, name: &str, mode: &str| Route {
            prefix: prefix.to_owned(),
            cluster: name.to_owned(),
            metadata: json!({"server": name, "mode": mode}),
        };
        let builder = builder
            .config(|own| *own = config)
            .policy(&policy)
            .file(&format!("keys/{CLIENT}"), format!("{key}\n"))
            .envoy(|envoy| {
                envoy.listen = agents;
                envoy.routes.extend([route("/stocks", "stocks", "mcp"), route("/v1", "prices", "http")]);
                envoy.clusters.push(UpstreamCluster::tcp("stocks", server.address));
                envoy.clusters.push(UpstreamCluster::tcp("prices", api.address));
            });
        let stack = change(builder).start().await?;
        // Who the MCP server is: an agent by itself, with its own client id.
        let token = Token::new(CLIENT, &["price-client"]).claim("client_id", CLIENT);
        files::replace(&token_file, stack.issuer.sign(&token)?)?;
        Ok(Example { stack, key, api, server })
    }

    /// An analyst's agent asks the MCP server.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn ask(&self, symbol: &str) -> Result<Answer> {
        let token = self.stack.token_for("alice", &[ROLE])?;
        let mut call = agent::tool_call(1, "price", json!({"symbol": symbol}));
        call.path = "/stocks".to_owned();
        call.bearer(&token).send(self.stack.agents).await
    }

    /// Somebody with this token asks the API through Envoy, past the MCP server.
    ///
    /// # Errors
    /// Where no answer comes.
    pub async fn ask_api(&self, token: &str) -> Result<Answer> {
        Request::new(http::Method::GET, "/v1/last?symbol=ACME").bearer(token).send(self.stack.agents).await
    }

    /// How many requests the API received.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn received(&self) -> Result<u64> {
        let report: Value = serde_json::from_str(&client::get(self.api.address, "/received").await?)?;
        report["received"].as_u64().context("the API does not say how much it received")
    }

    /// The processes beside Envoy and Keyward.
    pub fn processes(&mut self) -> [&mut Process; 2] {
        [&mut self.api.process, &mut self.server.process]
    }
}

fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}
