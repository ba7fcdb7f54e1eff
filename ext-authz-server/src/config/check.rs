//! Finding everything that is well-formed but must not run. One pass collects all problems, so that a person corrects a
//! file once.

mod binding;
mod certificate;
mod identity;
pub(crate) mod names;
mod perimeter;
mod placeholder;
pub(crate) mod resource;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use super::{Config, Credential, Destination, ListenAddress, Provider, SecretSource, Server};
use crate::perimeter::authority::{Authority, HostPattern};
use crate::perimeter::path;
use crate::secret::{RESERVED_SCHEMES, Secrets};

/// A problem before its position is known.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) key: String,
    pub(super) message: String,
    pub(super) remedy: &'static str,
}

/// Collects what it finds.
pub(crate) struct Checker<'a> {
    config: &'a Config,
    secrets: Secrets,
    found: Vec<Found>,
}

const NAME_REMEDY: &str = "use 1 to 64 characters of a-z, 0-9, `-`, `_` and `.`";
const HOST_REMEDY: &str = "write `host`, `host:port` or `*.host`";

// === impl Checker ===

impl Checker<'_> {
    /// Everything that is wrong.
    pub(super) fn run(config: &Config) -> Vec<Found> {
        let mut checker = Checker { config, secrets: Secrets::of(config, Path::new("")), found: Vec::new() };
        if config.version != 1 {
            checker.add("version", format!("`{}` is not a known version", config.version), "write `version: 1`");
        }
        checker.name("environment", &config.environment);
        checker.listen();
        checker.issuers("identity", &config.identity);
        checker.policy();
        checker.audit();
        checker.stores();
        checker.outbound(&config.outbound);
        checker.state();
        checker.servers();
        checker.resources();
        checker.perimeter();
        checker.bindings();
        config.check_tenants(&mut checker);
        if let Some(throttles) = &config.throttles {
            throttles.check(&mut checker);
        }
        checker.placeholders();
        checker.certificates();
        checker.found
    }

    pub(crate) fn add(&mut self, key: impl Into<String>, message: impl Into<String>, remedy: &'static str) {
        self.found.push(Found { key: key.into(), message: message.into(), remedy });
    }

    pub(crate) fn name(&mut self, key: impl Into<String>, name: &str) {
        if !names::is_name(name) {
            self.add(key, format!("`{name}` is not a name"), NAME_REMEDY);
        }
    }

    pub(crate) fn text(&mut self, key: impl Into<String>, text: &str) {
        if text.trim().is_empty() || text.len() > 2048 || text.chars().any(char::is_control) {
            self.add(key, "empty, longer than 2048 bytes or with control characters", "write a plain text");
        }
    }

    pub(crate) fn range<N: PartialOrd + std::fmt::Display>(
        &mut self,
        key: impl Into<String>,
        value: N,
        range: RangeInclusive<N>,
    ) {
        if !range.contains(&value) {
            let message = format!("`{value}` is not from {} to {}", range.start(), range.end());
            self.add(key, message, "choose a value in that range");
        }
    }

    /// `kind` names what must not be empty.
    pub(crate) fn not_empty<T>(&mut self, key: impl Into<String>, list: &[T], max: usize, remedy: &'static str) {
        if list.is_empty() {
            self.add(key, "the list is empty", remedy);
        } else if list.len() > max {
            self.add(key, format!("more than {max} entries"), "split the entry");
        }
    }

    pub(crate) fn distinct<T: PartialEq + std::fmt::Debug>(&mut self, key: &str, list: &[T]) {
        for (index, item) in list.iter().enumerate() {
            if list.iter().take(index).any(|earlier| earlier == item) {
                self.add(format!("{key}[{index}]"), "the entry occurs twice", "keep one");
            }
        }
    }

    fn listen(&mut self) {
        let listen = &self.config.listen;
        if !listen.grpc.is_local() && listen.tls.is_none() {
            let message = format!("`{}` can be reached from other machines without TLS", listen.grpc);
            self.add("listen.grpc", message, "listen on loopback or on a unix socket, or configure `listen.tls`");
        }
        let credentials = || self.config.bindings.iter().flat_map(|binding| &binding.credentials);
        let is_open = matches!(listen.grpc, ListenAddress::Tcp(_)) && listen.tls.is_none();
        if is_open
            && !listen.secrets_on_loopback
            && credentials().any(|own| matches!(own, Credential::ClientCertificate(_)))
        {
            let message = "every program on this machine could ask for the keys of client certificates here";
            let remedy = "listen on a unix socket that only Envoy can open, configure `listen.tls`, or set \
                          `listen.secrets_on_loopback: true`";
            self.add("listen.grpc", message, remedy);
        }
        if matches!(listen.grpc, ListenAddress::Unix(_)) && listen.tls.is_some() {
            self.add("listen.tls", "a unix socket is served without TLS", "remove it, or listen on `ip:port`");
        }
        match &listen.admin {
            ListenAddress::Unix(_) => {
                self.add("listen.admin", "a unix socket is not supported here", "write `ip:port`");
            }
            admin if !admin.is_local() && !listen.admin_public => {
                let message = format!("`{admin}` can be reached from other machines");
                self.add("listen.admin", message, "listen on loopback, or set `listen.admin_public: true`");
            }
            _ => {}
        }
        if listen.grpc == listen.admin && !matches!(&listen.grpc, ListenAddress::Tcp(address) if address.port() == 0) {
            self.add("listen.admin", "the same address as `listen.grpc`", "choose another port");
        }
        match &listen.connect {
            Some(ListenAddress::Unix(_)) => {
                self.add("listen.connect", "a unix socket is not supported here", "write `ip:port`");
            }
            Some(address) if !address.is_local() && !listen.connect_public => {
                let message = format!("`{address}` can be reached from other machines without TLS");
                let remedy = "listen on loopback behind a proxy with TLS, or set `listen.connect_public: true`";
                self.add("listen.connect", message, remedy);
            }
            Some(_) if self.config.connect.is_none() => {
                self.add("listen.connect", "there is nothing to serve", "add the section `connect`");
            }
            _ => {}
        }
        match &listen.api {
            Some(address) if !address.is_local() => {
                let message = format!("`{address}` can be reached from other machines without TLS");
                self.add("listen.api", message, "listen on loopback or on a unix socket, behind a proxy with TLS");
            }
            Some(_) if self.config.api.is_none() => {
                self.add("listen.api", "nobody may use it", "add the section `api`");
            }
            _ => {}
        }
        self.range("listen.max_concurrent_checks", listen.max_concurrent_checks, 1..=65536);
        self.range("listen.drain_secs", listen.drain_secs, 0..=300);
    }

    fn policy(&mut self) {
        let policy = &self.config.policy;
        self.range("policy.evaluation_timeout_ms", policy.evaluation_timeout_ms, 1..=1000);
        self.range("policy.max_instructions", policy.max_instructions, 1000..=100_000_000);
    }

    fn audit(&mut self) {
        let audit = &self.config.audit;
        if audit.file.as_os_str().is_empty() {
            self.add("audit.file", "the path is empty", "name a file, or `-` for standard output");
        }
        self.secret("audit.hmac_key", &audit.hmac_key);
        self.range("audit.queue_records", audit.queue_records, 1..=1_000_000);
    }

    fn stores(&mut self) {
        for (name, store) in &self.config.stores {
            let key = format!("stores.{name}");
            let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if name.is_empty() || name.len() > 64 || !letters {
                self.add(
                    &key,
                    format!("`{name}` is not the name of a store"),
                    "use 1 to 64 characters of a-z, 0-9 and `-`",
                );
            } else if RESERVED_SCHEMES.contains(&name.as_str()) {
                self.add(&key, format!("`{name}` is always there"), "choose another name");
            }
            for (field, source) in store.kind().secrets() {
                self.secret(&format!("{key}.{field}"), source);
                if !source.is_local() {
                    let remedy = "write `env://NAME` or `file:///absolute/path`";
                    self.add(format!("{key}.{field}.ref"), "a store cannot need another store", remedy);
                }
            }
            store.kind().check(&key, self);
        }
    }

    /// What is kept, and where people connect.
    fn state(&mut self) {
        let config = self.config;
        if let Some(database) = &config.database {
            database.check(self);
        }
        if let Some(lifecycle) = config.lifecycle {
            lifecycle.check(self);
        }
        config.sessions.check(self);
        if let Some(revocation) = config.revocation {
            revocation.check(self);
        }
        if let Some(connect) = &config.connect {
            connect.check(self);
        }
        if let Some(api) = &config.api {
            self.issuers("api.identity", &api.identity);
            api.check(self);
        }
        for (name, provider) in &config.providers {
            let key = format!("providers.{name}");
            self.name(&key, name);
            provider.check(&key, self);
        }
        for (index, binding) in config.bindings.iter().enumerate() {
            for (inner, credential) in binding.credentials.iter().enumerate() {
                self.provider_of(&format!("bindings[{index}].credentials[{inner}]"), credential);
            }
        }
    }

    /// A refresh token never goes to an upstream, and a person's own key never to a token endpoint.
    fn provider_of(&mut self, key: &str, credential: &Credential) {
        let providers = &self.config.providers;
        let goes_upstream = !matches!(credential, Credential::Oauth(_) | Credential::Aws(_));
        for (field, source) in credential.kind().secrets() {
            if !goes_upstream && source.provider().is_some() {
                let message = "a person's own key goes to an upstream, never into what is minted for others";
                self.add(format!("{key}.{field}.ref"), message, "name a secret of the service");
            } else if let Some(name) = source.provider()
                && !matches!(providers.get(name), Some(Provider::ApiKey(_)))
            {
                let message = "it names no provider of type `api_key`";
                self.add(format!("{key}.{field}.ref"), message, "name an entry of `providers` with `type: api_key`");
            }
        }
        if let Credential::Oauth(own) = credential
            && let Some(name) = &own.provider
            && !matches!(providers.get(name), Some(Provider::Oauth(_)))
        {
            let message = format!("there is no provider `{name}` of type `oauth`");
            self.add(format!("{key}.provider"), message, "name an entry of `providers` with `type: oauth`");
        }
    }

    /// The configuration that is checked.
    pub(crate) fn config(&self) -> &Config {
        self.config
    }

    /// A secret that is needed before any store is open.
    pub(crate) fn own_secret(&mut self, key: &str, source: &SecretSource) {
        self.secret(key, source);
        if !source.is_local() {
            let remedy = "write `env://NAME` or `file:///absolute/path`";
            self.add(format!("{key}.ref"), "it is needed before any store is open", remedy);
        }
    }

    /// A list that names entries of `servers`.
    pub(crate) fn server_names(&mut self, key: &str, names: &[String]) {
        self.not_empty(key, names, 256, "name the servers");
        self.distinct(key, names);
        for (index, name) in names.iter().enumerate() {
            if !self.config.servers.contains_key(name) {
                let message = format!("there is no server `{name}`");
                self.add(format!("{key}[{index}]"), message, "name an entry of `servers`");
            }
        }
    }

    fn servers(&mut self) {
        let servers = &self.config.servers;
        if servers.is_empty() {
            self.add("servers", "there is no server", "add one; what no server names is denied");
        }
        let mut seen = BTreeMap::new();
        for (name, server) in servers {
            let key = format!("servers.{name}");
            self.name(&key, name);
            self.server(&key, server);
            for (index, destination) in server.destinations.iter().enumerate() {
                let same = (&destination.host, destination.port, &destination.path);
                if let Some(other) = seen.insert(same, name) {
                    let message = format!("host, port and path are those of another destination of `{other}`");
                    self.add(format!("{key}.destinations[{index}]"), message, "name each destination once");
                }
            }
        }
    }

    fn server(&mut self, key: &str, server: &Server) {
        let list = format!("{key}.destinations");
        self.not_empty(&list, &server.destinations, 256, "add the hosts whose requests belong to this server");
        for (index, destination) in server.destinations.iter().enumerate() {
            self.destination(&format!("{list}[{index}]"), destination);
        }
        if let Some(authority) = &server.upstream_authority
            && let Err(cause) = Authority::parse(authority)
        {
            let message = format!("`{authority}` is not an authority: {cause}");
            self.add(format!("{key}.upstream_authority"), message, "write `host` or `host:port`");
        }
        for name in server.leak_guard.rules.keys().filter(|name| keyward_contract::patterns::rule(name).is_none()) {
            let message = format!("there is no rule `{name}`");
            self.add(format!("{key}.leak_guard.rules.{name}"), message, "name one that docs/security.md lists");
        }
        if let Some(environment) = &server.environment {
            self.name(format!("{key}.environment"), environment);
        }
        if let Some(cluster) = &server.cluster {
            self.text(format!("{key}.cluster"), cluster);
        }
        self.range(format!("{key}.max_body_bytes"), server.max_body_bytes, 1024..=3_145_728);
    }

    fn destination(&mut self, key: &str, destination: &Destination) {
        if let Err(cause) = HostPattern::parse(&destination.host, destination.port) {
            let message = format!("`{}` is not a host: {cause}", destination.host);
            self.add(format!("{key}.host"), message, "write a name, an IP address or `*.name`");
        } else if destination.host.ends_with(|last: char| last.is_ascii_digit())
            && destination.host.contains(':')
            && destination.host.parse::<IpAddr>().is_err()
            && !destination.host.starts_with('[')
        {
            self.add(format!("{key}.host"), "the host holds a port", "write the port under `port`");
        }
        if destination.port == Some(0) {
            self.add(format!("{key}.port"), "`0` is not a port", "write 1 to 65535, or leave it out for any");
        }
        if let Err(cause) = path::check_prefix(&destination.path) {
            let message = format!("`{}` is not a canonical path: {cause}", destination.path);
            self.add(format!("{key}.path"), message, "write a path like `/mcp`");
        } else if destination.path.contains('%') {
            let message = format!("`{}` is not a canonical path: it holds a `%`", destination.path);
            self.add(format!("{key}.path"), message, "write a path like `/mcp`");
        }
        self.not_empty(format!("{key}.methods"), &destination.methods, 3, "leave it out for all methods");
        self.distinct(&format!("{key}.methods"), &destination.methods);
    }
}
