//! The plugin configuration: one JSON object in Envoy's `PluginConfig.configuration`.

use std::time::Duration;

use serde::Deserialize;

/// How the filter reads requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// The upstream is an MCP server: each body is read as MCP, denials are JSON-RPC errors.
    #[default]
    Mcp,
    /// The upstream is any HTTP server: bodies are opaque, denials are plain HTTP errors.
    Http,
}

/// What the operator configured. Unknown keys are refused, and Envoy then refuses the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configuration {
    /// The Envoy cluster of Keyward's server.
    pub(crate) cluster: String,
    /// The server entry of `keyward.yaml` for every route. Absent: each route names its own in its metadata,
    /// `filter_metadata: {keyward: {server: NAME}}`; a route without leaves the choice to the request's authority.
    #[serde(default)]
    pub(crate) server: Option<String>,
    /// `mcp` (the default) or `http`. A route may name its own in its metadata where `server` is absent here.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// How long a decision may take, in milliseconds, 1 to 60000, default 1000.
    #[serde(default = "default_timeout_ms")]
    timeout_ms: u64,
    /// The largest request body, in bytes, 1 to 16777216, default 1048576.
    #[serde(default = "default_max_body_bytes")]
    pub(crate) max_body_bytes: usize,
    /// How long a request body may take to arrive, in milliseconds, 100 to 300000, default 10000.
    #[serde(default = "default_body_timeout_ms")]
    body_timeout_ms: u64,
    /// How long the server may not say what is revoked, in milliseconds, 1000 to 600000, default 10000. Then every request is
    /// denied that rests on what can be revoked.
    #[serde(default = "default_max_silence_ms")]
    max_silence_ms: u64,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigurationError {
    /// Not the expected JSON.
    #[error("plugin configuration is not valid: {0}")]
    Json(#[from] serde_json::Error),
    /// A value out of its range.
    #[error("plugin configuration: `{key}` must be {range}")]
    Range {
        /// The key.
        key: &'static str,
        /// What is allowed.
        range: &'static str,
    },
}

fn default_timeout_ms() -> u64 {
    1_000
}

fn default_max_body_bytes() -> usize {
    1_048_576
}

fn default_body_timeout_ms() -> u64 {
    10_000
}

fn default_max_silence_ms() -> u64 {
    10_000
}

// === impl Configuration ===

impl Configuration {
    /// Reads and checks the JSON.
    pub(crate) fn parse(json: &[u8]) -> Result<Configuration, ConfigurationError> {
        let configuration: Configuration = serde_json::from_slice(json)?;
        let range = |ok: bool, key, range| if ok { Ok(()) } else { Err(ConfigurationError::Range { key, range }) };
        range(!configuration.cluster.is_empty(), "cluster", "the name of an Envoy cluster")?;
        range(configuration.server.as_deref() != Some(""), "server", "a name, or absent")?;
        range((1..=60_000).contains(&configuration.timeout_ms), "timeout_ms", "1 to 60000")?;
        range((1..=16_777_216).contains(&configuration.max_body_bytes), "max_body_bytes", "1 to 16777216")?;
        range((100..=300_000).contains(&configuration.body_timeout_ms), "body_timeout_ms", "100 to 300000")?;
        range((1_000..=600_000).contains(&configuration.max_silence_ms), "max_silence_ms", "1000 to 600000")?;
        Ok(configuration)
    }

    /// How long a decision may take.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How long a request body may take to arrive.
    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    /// How long the server may not say what is revoked.
    pub(crate) fn max_silence(&self) -> Duration {
        Duration::from_millis(self.max_silence_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_cluster_is_required() {
        let configuration = Configuration::parse(br#"{"cluster":"keyward"}"#).unwrap();
        assert_eq!(configuration.mode, Mode::Mcp);
        assert_eq!(configuration.timeout(), Duration::from_secs(1));
        assert_eq!(configuration.max_body_bytes, 1_048_576);
    }

    #[test]
    fn refuses_what_it_does_not_know_and_says_where() {
        for (json, says) in [
            ("", "EOF"),
            ("{}", "missing field `cluster`"),
            (r#"{"cluster":"k","fail_open":true}"#, "unknown field `fail_open`"),
            (r#"{"cluster":""}"#, "`cluster` must be"),
            (r#"{"cluster":"k","mode":"tcp"}"#, "unknown variant `tcp`"),
            (r#"{"cluster":"k","timeout_ms":0}"#, "`timeout_ms` must be 1 to 60000"),
            (r#"{"cluster":"k","max_body_bytes":17000000}"#, "`max_body_bytes` must be"),
            (r#"{"cluster":"k","body_timeout_ms":1}"#, "`body_timeout_ms` must be"),
            (r#"{"cluster":"k","max_silence_ms":999}"#, "`max_silence_ms` must be 1000 to 600000"),
        ] {
            let error = Configuration::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
