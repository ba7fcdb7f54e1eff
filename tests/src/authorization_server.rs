//! The certified authorization server of `tests/node/authorization_server.mjs`, with resources that check their tokens.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http::Method;
use serde_json::Value;

use crate::client::{self, Request, RequestBody};
use crate::peers;
use crate::process::Process;
use crate::server::address;

/// A running authorization server.
pub struct AuthorizationServer {
    /// Its issuer identifier; the token endpoint is `/token` below it.
    pub issuer: String,
    /// Its second address, which asks for client certificates, where `tls` was given.
    pub mtls: Option<String>,
    /// Where the resources are served, each below `/NAME`.
    pub resource: SocketAddr,
    /// The side port.
    pub report: SocketAddr,
    /// The process.
    pub process: Process,
}

// === impl AuthorizationServer ===

impl AuthorizationServer {
    /// Starts it with these options, which the script explains. Returns when it listens.
    ///
    /// # Errors
    /// With the end of its log where it does not get ready.
    pub fn start(name: &str, options: &Value, folder: &Path) -> Result<Self> {
        let mut command = peers::node(folder)?;
        command.arg("authorization_server.mjs").env("AUTHORIZATION_SERVER", options.to_string());
        let mut process = Process::start(name, command, folder)?;
        let announced = process.announcement(Duration::from_secs(30))?;
        let text = |name: &str| announced.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            issuer: text("issuer").ok_or_else(|| anyhow!("no issuer in `{announced}`"))?,
            mtls: text("mtls"),
            resource: address(&announced, "resource")?,
            report: address(&announced, "report")?,
            process,
        })
    }

    /// The requests that the resources received, oldest first, each with `claims` or `refused`.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn received(&self) -> Result<Vec<Value>> {
        self.list("/received").await
    }

    /// The requests to the token endpoint, oldest first: `client`, `grant`, `scope`, `resource`, `audience`, `status`.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn token_calls(&self) -> Result<Vec<Value>> {
        self.list("/token_calls").await
    }

    /// Forgets both.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn reset(&self) -> Result<()> {
        client::get(self.report, "/reset").await.map(drop)
    }

    /// A refresh token of this account for this client, as if the account had gone through the authorization code flow.
    ///
    /// # Errors
    /// Where the client is not known.
    pub async fn seed_refresh_token(&self, client: &str, account: &str, scope: &str, resource: &str) -> Result<String> {
        let scope = scope.replace(' ', "+");
        let path = format!("/seed_refresh_token?client={client}&account={account}&scope={scope}&resource={resource}");
        let answer: Value = serde_json::from_str(&client::get(self.report, &path).await?)?;
        let token = answer.get("refresh_token").and_then(Value::as_str);
        Ok(token.with_context(|| format!("no refresh token in `{answer}`"))?.to_owned())
    }

    /// Whether this refresh token could still be used.
    ///
    /// # Errors
    /// Where the side port does not answer.
    pub async fn is_live(&self, refresh_token: &str) -> Result<bool> {
        let answer = self.post("/refresh_token", refresh_token).await?;
        Ok(answer.get("live") == Some(&Value::Bool(true)))
    }

    /// Revokes a refresh token, or an opaque access token of a client, behind everybody's back.
    ///
    /// # Errors
    /// Where it is not known.
    pub async fn revoke(&self, token: &str) -> Result<()> {
        let answer = self.post("/revoke", token).await?;
        if answer.get("revoked") != Some(&Value::Bool(true)) {
            bail!("the token is not known");
        }
        Ok(())
    }

    async fn list(&self, path: &str) -> Result<Vec<Value>> {
        Ok(serde_json::from_str(&client::get(self.report, path).await?)?)
    }

    async fn post(&self, path: &str, body: &str) -> Result<Value> {
        let mut request = Request::new(Method::POST, path);
        request.body = RequestBody::Whole(body.to_owned().into());
        Ok(serde_json::from_str(&request.send(self.report).await?.text())?)
    }
}
