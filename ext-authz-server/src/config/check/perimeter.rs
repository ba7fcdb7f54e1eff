//! Which upstreams lie inside the perimeter, which outside, and which nowhere anybody may go.

use super::{Checker, HOST_REMEDY};
use crate::config::{PerimeterClass, Server, ServerMode};
use crate::perimeter::address::{Allowance, Class, judge_host};
use crate::perimeter::authority::HostPattern;

const NEVER_REMEDY: &str = "name another host: nothing allows this one";

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn perimeter(&mut self) {
        let perimeter = &self.config.perimeter;
        let inside = Allowance::parse(&perimeter.enterprise_hosts).unwrap_or_else(|(index, cause)| {
            let key = format!("perimeter.enterprise_hosts[{index}]");
            self.add(key, cause.to_string(), "write `host`, `host:port`, `*.host` or a network");
            Allowance::default()
        });
        let mut public = Vec::new();
        for (index, host) in perimeter.public_hosts.iter().enumerate() {
            let key = format!("perimeter.public_hosts[{index}]");
            match HostPattern::parse(host, None) {
                Err(cause) => self.add(key, format!("`{host}` is not a host: {cause}"), HOST_REMEDY),
                Ok(pattern) => match judge_host(pattern.host()) {
                    Ok(None) => public.push(pattern),
                    Ok(Some(class)) => self.add(key, format!("`{host}` is {class}"), "name a public host"),
                    Err(cause) => self.add(key, format!("`{host}`: {cause}"), HOST_REMEDY),
                },
            }
        }
        for (name, server) in &self.config.servers {
            let key = format!("servers.{name}");
            for (index, destination) in server.destinations.iter().enumerate() {
                if let Ok(pattern) = HostPattern::parse(&destination.host, destination.port) {
                    self.never(&format!("{key}.destinations[{index}].host"), &pattern);
                }
            }
            for (key, pattern) in leads_to(&key, server) {
                self.never(&key, &pattern);
                self.side(&key, server, &pattern, &inside, &public);
            }
        }
        for (index, binding) in self.config.bindings.iter().enumerate() {
            for (position, host) in binding.hosts.iter().enumerate() {
                if let Ok(pattern) = HostPattern::parse(host, None) {
                    self.never(&format!("bindings[{index}].hosts[{position}]"), &pattern);
                }
            }
        }
    }

    fn never(&mut self, key: &str, pattern: &HostPattern) {
        if let Ok(Some(class)) = judge_host(pattern.host())
            && class.is_never_allowed()
        {
            self.add(key, format!("`{pattern}` is {class}"), NEVER_REMEDY);
        }
    }

    /// Whether the upstream is on the side of the perimeter on which its entry says that it is.
    fn side(&mut self, key: &str, server: &Server, host: &HostPattern, inside: &Allowance, public: &[HostPattern]) {
        // What cannot be read is a problem of its own.
        let Ok(class) = judge_host(host.host()) else { return };
        if class.is_some_and(Class::is_never_allowed) {
            return;
        }
        let side = match (server.perimeter, server.mode) {
            (Some(side), _) => side,
            (None, ServerMode::Mcp) => PerimeterClass::Enterprise,
            (None, ServerMode::Http) => return,
        };
        let is_inside = class.is_some() || inside.covers(host);
        match side {
            PerimeterClass::Enterprise if !is_inside => {
                let remedy = "list it under `perimeter.enterprise_hosts` if it lies inside; if it is public, set \
                              `perimeter: public` and list it under `perimeter.public_hosts`";
                self.add(key, format!("`{host}` is not known to lie inside the perimeter"), remedy);
            }
            PerimeterClass::Public if is_inside => {
                let message = format!("`{host}` lies inside the perimeter, and the entry says `perimeter: public`");
                self.add(key, message, "name a public host, or write `perimeter: enterprise`");
            }
            PerimeterClass::Public if !public.iter().any(|pattern| pattern.covers(host)) => {
                let message = format!("`{host}` is not one of `perimeter.public_hosts`");
                self.add(key, message, "list it there: each public host is an explicit choice");
            }
            _ => {}
        }
    }
}

/// The hosts that an entry's upstream can have, each with its key.
pub(super) fn leads_to(key: &str, server: &Server) -> Vec<(String, HostPattern)> {
    if let Some(authority) = &server.upstream_authority {
        let pattern = HostPattern::parse(authority, None).ok();
        return pattern.into_iter().map(|pattern| (format!("{key}.upstream_authority"), pattern)).collect();
    }
    let destinations = server.destinations.iter().enumerate();
    destinations
        .filter_map(|(index, destination)| {
            let pattern = HostPattern::parse(&destination.host, destination.port).ok()?;
            Some((format!("{key}.destinations[{index}].host"), pattern))
        })
        .collect()
}
