//! The `listen` section: addresses, transport security, bounds.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The gRPC service: `ip:port` or `unix:/path`, default `127.0.0.1:9191`. Beyond loopback `tls` is required.
    #[serde(default = "default_grpc")]
    pub grpc: ListenAddress,
    /// Health, readiness, metrics and public keys over plain HTTP: `ip:port`, default `127.0.0.1:9192`.
    #[serde(default = "default_admin")]
    pub admin: ListenAddress,
    /// Whether `admin` may be an address beyond loopback, default false. It shows no secret, but it shows names.
    #[serde(default)]
    pub admin_public: bool,
    /// The pages on which people connect accounts, over plain HTTP: `ip:port`, default none. Browsers reach them through a
    /// proxy with TLS, at `connect.public_url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListenAddress")]
    pub connect: Option<ListenAddress>,
    /// Whether `connect` may be an address beyond loopback, default false: only where nothing but that proxy reaches it.
    #[serde(default)]
    pub connect_public: bool,
    /// The operator API over plain HTTP: `ip:port` on loopback, or `unix:/path`, default none. Who has to reach it from elsewhere
    /// goes through a proxy with TLS beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListenAddress")]
    pub api: Option<ListenAddress>,
    /// Mutual TLS on the gRPC port.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Whether Envoy may have client certificates with their keys over plaintext on loopback, default false: every program of
    /// this machine, and of this pod, could ask for them there.
    #[serde(default)]
    pub secrets_on_loopback: bool,
    /// How many checks may be under way at once, 1 to 65536, default 1024. More are denied with `overloaded`.
    #[serde(default = "default_max_concurrent_checks")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_concurrent_checks: usize,
    /// How long to keep serving after the wish to stop, so that Envoy notices, in seconds, 0 to 300, default 5.
    #[serde(default = "default_drain_secs")]
    #[schemars(range(min = 0, max = 300))]
    pub drain_secs: u64,
}

/// Mutual TLS: PEM files, relative to the configuration file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate chain.
    pub certificate_file: PathBuf,
    /// The key of the certificate.
    pub key_file: PathBuf,
    /// The authority that signs the certificates of the callers (Envoy). A caller without one is refused.
    pub client_ca_file: PathBuf,
}

/// A TCP address or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// An IP address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

/// Text that is not a listen address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write `ip:port`, `[ipv6]:port` or `unix:/absolute/path`")]
pub struct ListenAddressError(String);

// === impl Listen ===

impl Default for Listen {
    fn default() -> Self {
        Listen {
            grpc: default_grpc(),
            admin: default_admin(),
            admin_public: false,
            connect: None,
            connect_public: false,
            api: None,
            tls: None,
            secrets_on_loopback: false,
            max_concurrent_checks: default_max_concurrent_checks(),
            drain_secs: default_drain_secs(),
        }
    }
}

fn default_grpc() -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9191))
}

fn default_admin() -> ListenAddress {
    ListenAddress::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9192))
}

fn default_max_concurrent_checks() -> usize {
    1024
}

fn default_drain_secs() -> u64 {
    5
}

// === impl ListenAddress ===

impl ListenAddress {
    /// Whether only this machine can reach the address.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            ListenAddress::Tcp(address) => address.ip().to_canonical().is_loopback(),
            ListenAddress::Unix(_) => true,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, ListenAddressError> {
        let refused = || ListenAddressError(text.to_owned());
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(ListenAddress::Unix(path.into())),
            Some(_) => Err(refused()),
            None => text.parse().map(ListenAddress::Tcp).map_err(|_| refused()),
        }
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ListenAddress {
    fn schema_name() -> Cow<'static, str> {
        "ListenAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`ip:port`, `[ipv6]:port` or `unix:/absolute/path`.",
            "pattern": r"^(unix:/.+|[0-9.]+:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5})$",
        })
    }
}
