//! The `tenants` section: who may call in whose name, from where, and how much of the server one of them may take.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Config;
use super::check::Checker;
use crate::perimeter::authority::HostPattern;

/// The most tenants.
const MAX_TENANTS: usize = 4096;
/// The longest name of a tenant, in bytes: what a claim can hold.
const MAX_NAME_BYTES: usize = 512;
/// What stands for every tenant in `tenants` of a binding.
pub const EVERY_TENANT: &str = "*";

/// One tenant. Its name is what the token's tenant claim says, byte for byte, or the issuer's name where the issuer has no
/// `tenant_claim`. A tenant that is not listed is denied.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// The hosts of its own, `host`, `host:port` or `*.host`: its requests come to one of them, and nobody else's do. Default:
    /// none; its requests come to any host that is no other tenant's.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub hosts: Vec<String>,
    /// The names of the issuers whose tokens may name it. Required where there are several. Absent: the only one.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub issuers: Vec<String>,
    /// The names of the server entries that it may use.
    #[schemars(length(min = 1, max = 256))]
    pub servers: Vec<String>,
    /// The scopes that a token of this tenant needs for a server entry, by its name: all of them. Default: none.
    #[serde(default)]
    pub scopes: BTreeMap<String, Vec<String>>,
    /// A directory with a policy of its own, as `policy.directory` is one, relative to the configuration file. It is asked
    /// besides the policy for all; what either denies is denied. Absent: the policy for all decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PathBuf")]
    pub policy_directory: Option<PathBuf>,
    /// How many decisions for it may be under way at once, 1 to 65536. One more is denied with `overloaded`. Absent: half of
    /// `listen.max_concurrent_checks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "usize", range(min = 1, max = 65536))]
    pub max_concurrent: Option<usize>,
}

// === impl Config ===

impl Config {
    /// Adds what must not stand in `tenants`, and in what names them.
    pub(super) fn check_tenants(&self, checker: &mut Checker<'_>) {
        for (index, binding) in self.bindings.iter().enumerate() {
            self.check_tenants_of(&format!("bindings[{index}].tenants"), binding.tenants.as_deref(), checker);
        }
        let Some(tenants) = &self.tenants else { return };
        if tenants.is_empty() || tenants.len() > MAX_TENANTS {
            let remedy = "list the tenants, or leave `tenants` out";
            checker.add("tenants", format!("not 1 to {MAX_TENANTS} entries"), remedy);
        }
        let mut hosts: Vec<(HostPattern, &str)> = Vec::new();
        for (name, tenant) in tenants {
            let key = format!("tenants.{name}");
            let is_text = !name.trim().is_empty() && !name.chars().any(char::is_control);
            if !is_text || name.len() > MAX_NAME_BYTES || name == EVERY_TENANT {
                let remedy = "write what the tenant claim of its tokens says";
                checker.add(&key, format!("`{name}` is not the name of a tenant"), remedy);
            }
            tenant.check(&key, checker);
            for (index, host) in tenant.hosts.iter().enumerate() {
                let key = format!("{key}.hosts[{index}]");
                match HostPattern::parse(host, None) {
                    Ok(pattern) => {
                        if let Some((_, other)) = hosts.iter().find(|(other, _)| other.meets(&pattern)) {
                            let message = format!("`{host}` is named for tenant `{other}` already");
                            checker.add(key, message, "give each tenant hosts of its own");
                        }
                        hosts.push((pattern, name));
                    }
                    Err(cause) => {
                        let message = format!("`{host}` is not a host: {cause}");
                        checker.add(key, message, "write `host`, `host:port` or `*.host`");
                    }
                }
            }
        }
    }

    fn check_tenants_of(&self, key: &str, named: Option<&[String]>, checker: &mut Checker<'_>) {
        match (&self.tenants, named) {
            (None, None) => {}
            (None, Some(_)) => checker.add(key, "there are no `tenants`", "add the section `tenants`, or remove it"),
            (Some(_), None) => {
                let remedy = "name the tenants that it is for, or write `tenants: [\"*\"]` for each of them";
                checker.add(key, "nobody has said whose binding it is", remedy);
            }
            (Some(tenants), Some(named)) => {
                checker.not_empty(key, named, MAX_TENANTS, "name the tenants that it is for");
                checker.distinct(key, named);
                for (index, name) in named.iter().enumerate() {
                    let key = format!("{key}[{index}]");
                    if name == EVERY_TENANT && named.len() > 1 {
                        checker.add(key, "`*` is every tenant", "keep it alone, or take it out");
                    } else if name != EVERY_TENANT && !tenants.contains_key(name) {
                        checker.add(key, format!("there is no tenant `{name}`"), "name an entry of `tenants`");
                    }
                }
            }
        }
    }
}

// === impl Tenant ===

impl Tenant {
    fn check(&self, key: &str, checker: &mut Checker<'_>) {
        let issuers: Vec<String> = checker.config().identity.issuers.iter().map(|issuer| issuer.name.clone()).collect();
        let list = format!("{key}.issuers");
        if self.issuers.is_empty() && issuers.len() > 1 {
            checker.add(&list, "there are several issuers", "name those whose tokens may name this tenant");
        }
        checker.distinct(&list, &self.issuers);
        for (index, name) in self.issuers.iter().enumerate() {
            if !issuers.contains(name) {
                let message = format!("there is no issuer `{name}`");
                checker.add(format!("{list}[{index}]"), message, "name an entry of `identity.issuers`");
            }
        }
        checker.server_names(&format!("{key}.servers"), &self.servers);
        for (server, scopes) in &self.scopes {
            let key = format!("{key}.scopes.{server}");
            if !self.servers.contains(server) {
                checker.add(&key, format!("`{server}` is not one of its servers"), "name an entry of its `servers`");
            }
            checker.not_empty(&key, scopes, 64, "name the scopes, or leave the server out");
            for (index, scope) in scopes.iter().enumerate() {
                // RFC 6749, appendix A.4.
                let is_token = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
                if scope.is_empty() || scope.len() > 256 || !scope.bytes().all(is_token) {
                    let message = format!("`{scope}` is not a scope (RFC 6749, 3.3)");
                    checker.add(format!("{key}[{index}]"), message, "write one scope an entry");
                }
            }
        }
        if let Some(most) = self.max_concurrent {
            checker.range(format!("{key}.max_concurrent"), most, 1..=65536);
        }
    }
}
