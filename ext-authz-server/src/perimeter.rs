//! Whether a request may go where it wants to: deny by default, the closest registered destination decides.
//!
//! An exact host beats a wildcard, a named port beats any port, then the longest literal path prefix, then the order of
//! declaration. The closest destination decides alone: its method classes are not widened by a broader one.

pub mod address;
pub mod authority;
pub mod path;

use std::cmp::Reverse;

use address::Class;
use authority::{Authority, AuthorityError, Closeness, HostPattern};
use path::TargetError;

/// What an HTTP method does, as destinations name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodClass {
    /// GET and HEAD.
    Read,
    /// POST, PUT and PATCH.
    Write,
    /// DELETE.
    Delete,
}

/// One registered destination, ready to match.
#[derive(Clone, Debug)]
pub struct Destination {
    host: HostPattern,
    path: String,
    methods: Vec<MethodClass>,
}

/// One server entry's destinations and the cluster its route must lead to.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name of the server entry.
    pub server: String,
    /// In order of declaration.
    pub destinations: Vec<Destination>,
    /// The Envoy cluster that the route must name, where configured.
    pub cluster: Option<String>,
}

/// Every destination of every server entry.
#[derive(Clone, Debug, Default)]
pub struct Perimeter {
    entries: Vec<Entry>,
}

/// What a request shows of where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The server entry that Envoy's configuration names, where it does.
    pub server: Option<&'a str>,
    /// The HTTP method.
    pub method: &'a str,
    /// The authority of the request, with the scheme's port.
    pub authority: Result<&'a Authority, AuthorityError>,
    /// The canonical path.
    pub path: Result<&'a str, TargetError>,
    /// The cluster that Envoy names, where it does.
    pub cluster: Option<&'a str>,
}

/// Why a request may not go there. For the operator; the agent reads one uniform reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PerimeterError {
    /// Envoy's configuration names a server that this configuration does not hold.
    #[error("no server entry has the name that the route carries")]
    UnknownServer,
    /// The method has no class.
    #[error("the method is neither read, write nor delete")]
    Method,
    /// The authority cannot be read.
    #[error("authority refused: {0}")]
    Authority(AuthorityError),
    /// Nobody may go there, whatever is registered: a wildcard would name it, too.
    #[error("the host is {0}")]
    Never(Class),
    /// The target has two readings.
    #[error("target refused: {0}")]
    Target(TargetError),
    /// No destination names this host, port and path.
    #[error("no destination names this host, port and path")]
    Unregistered,
    /// The closest destination does not allow this method class.
    #[error("the destination `{0}` does not allow this method class")]
    MethodClass(String),
    /// The route leads to another cluster.
    #[error("the route does not lead to the cluster `{0}`")]
    Cluster(String),
}

/// A destination of a configuration that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// The host pattern.
    #[error("host: {0}")]
    Host(#[from] AuthorityError),
    /// The path prefix.
    #[error("path: {0}")]
    Path(#[from] TargetError),
}

/// Where a request goes, once it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage<'a> {
    /// The server entry.
    pub server: &'a str,
    /// The destination that matched, as `host/path`.
    pub destination: String,
    /// The host, as that destination names it.
    pub host: &'a HostPattern,
    /// The class of the method.
    pub class: MethodClass,
}

// === impl MethodClass ===

impl MethodClass {
    /// All classes.
    pub const ALL: [MethodClass; 3] = [MethodClass::Read, MethodClass::Write, MethodClass::Delete];

    /// The class of an HTTP method; the methods of RFC 9110 and RFC 5789 that change or read a resource, no others.
    #[must_use]
    pub fn of(method: &str) -> Option<MethodClass> {
        match method {
            "GET" | "HEAD" => Some(MethodClass::Read),
            "POST" | "PUT" | "PATCH" => Some(MethodClass::Write),
            "DELETE" => Some(MethodClass::Delete),
            _ => None,
        }
    }

    /// The name as configuration and policy write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MethodClass::Read => "read",
            MethodClass::Write => "write",
            MethodClass::Delete => "delete",
        }
    }
}

// === impl Destination ===

impl Destination {
    /// A destination from configuration. No path means `/`, no method classes means all.
    ///
    /// # Errors
    /// A host that is no pattern, or a prefix that has two readings.
    pub fn new(
        host: &str,
        port: Option<u16>,
        path: Option<&str>,
        methods: &[MethodClass],
    ) -> Result<Destination, DestinationError> {
        let path = path.unwrap_or("/");
        path::check_prefix(path)?;
        let methods = if methods.is_empty() { &MethodClass::ALL } else { methods };
        Ok(Destination { host: HostPattern::parse(host, port)?, path: path.to_owned(), methods: methods.to_vec() })
    }

    fn rank(&self, authority: &Authority, path: &str) -> Option<(bool, usize, bool, usize)> {
        if !path::is_below(path, &self.path) {
            return None;
        }
        let Closeness { exact_host, host_bytes, exact_port } = self.host.matches(authority)?;
        Some((exact_host, host_bytes, exact_port, self.path.len()))
    }
}

// === impl Perimeter ===

impl Perimeter {
    /// The perimeter of these server entries, in order of declaration.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Perimeter {
        Perimeter { entries }
    }

    /// Finds the destination a request goes to, and whether it may.
    ///
    /// # Errors
    /// Names what kept the request inside.
    pub fn admit<'a>(&'a self, facts: &Facts<'_>) -> Result<Passage<'a>, PerimeterError> {
        if facts.server.is_some_and(|name| self.entries.iter().all(|entry| entry.server != name)) {
            return Err(PerimeterError::UnknownServer);
        }
        let class = MethodClass::of(facts.method).ok_or(PerimeterError::Method)?;
        let authority = facts.authority.map_err(PerimeterError::Authority)?;
        if let Ok(Some(class)) = address::judge_host(authority.host())
            && class.is_never_allowed()
        {
            return Err(PerimeterError::Never(class));
        }
        let path = facts.path.map_err(PerimeterError::Target)?;
        let (entry, destination) = self.closest(facts.server, authority, path, class)?;
        if let Some(cluster) = &entry.cluster
            && facts.cluster != Some(cluster.as_str())
        {
            return Err(PerimeterError::Cluster(cluster.clone()));
        }
        Ok(Passage { server: &entry.server, destination: destination.to_string(), host: &destination.host, class })
    }

    /// The name of the server entry whose destination is closest, whatever the method. It decides which mode answers a
    /// request that names no server.
    #[must_use]
    pub fn server_of(&self, authority: &Authority, path: &str) -> Option<&str> {
        let ranked = self.ranked(None, authority, path);
        ranked.into_iter().min_by_key(|(rank, ..)| Reverse(*rank)).map(|(_, entry, _)| entry.server.as_str())
    }

    fn closest(
        &self,
        server: Option<&str>,
        authority: &Authority,
        path: &str,
        class: MethodClass,
    ) -> Result<(&Entry, &Destination), PerimeterError> {
        let ranked = self.ranked(server, authority, path);
        let best = ranked.iter().map(|(rank, ..)| *rank).max().ok_or(PerimeterError::Unregistered)?;
        let mut closest = ranked.into_iter().filter(|(rank, ..)| *rank == best).map(|(_, entry, found)| (entry, found));
        // Several entries for one place: the first that allows the class, else the first explains the refusal.
        let (first_entry, first) = closest.next().ok_or(PerimeterError::Unregistered)?;
        if first.methods.contains(&class) {
            return Ok((first_entry, first));
        }
        closest
            .find(|(_, found)| found.methods.contains(&class))
            .ok_or_else(|| PerimeterError::MethodClass(first.to_string()))
    }

    #[expect(clippy::type_complexity, reason = "the tuple is read in the two functions above and nowhere else")]
    fn ranked(
        &self,
        server: Option<&str>,
        authority: &Authority,
        path: &str,
    ) -> Vec<((bool, usize, bool, usize), &Entry, &Destination)> {
        let entries = self.entries.iter().filter(|entry| server.is_none_or(|name| entry.server == name));
        entries
            .flat_map(|entry| entry.destinations.iter().map(move |destination| (entry, destination)))
            .filter_map(|(entry, found)| found.rank(authority, path).map(|rank| (rank, entry, found)))
            .collect()
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(server: &str, cluster: Option<&str>, destinations: &[(&str, Option<u16>, &str, &[MethodClass])]) -> Entry {
        let destinations = destinations
            .iter()
            .map(|(host, port, path, methods)| Destination::new(host, *port, Some(path), methods).unwrap())
            .collect();
        Entry { server: server.into(), destinations, cluster: cluster.map(Into::into) }
    }

    fn perimeter() -> Perimeter {
        use MethodClass::{Read, Write};
        Perimeter::new(vec![
            entry("wild", None, &[("*.example", None, "/", &[])]),
            entry("deep", None, &[("*.a.example", None, "/", &[])]),
            entry("any-port", None, &[("api.example", None, "/", &[])]),
            entry(
                "port",
                None,
                &[
                    ("api.example", Some(443), "/", &[]),
                    ("api.example", Some(443), "/admin", &[Read]),
                    ("api.example", Some(443), "/split", &[Read]),
                    ("api.example", Some(443), "/split", &[Write]),
                ],
            ),
            entry("late", None, &[("api.example", Some(443), "/", &[])]),
            entry("inside", None, &[("*.internal", None, "/", &[])]),
            entry("clustered", Some("blue"), &[("blue.test", None, "/", &[])]),
        ])
    }

    fn admit(
        server: Option<&str>,
        method: &str,
        authority: &str,
        path: &str,
        cluster: Option<&str>,
    ) -> Result<String, PerimeterError> {
        let authority = Authority::parse(authority);
        let target = path::read(path).map(|target| target.path);
        let facts =
            Facts { server, method, authority: authority.as_ref().map_err(|error| *error), path: target, cluster };
        perimeter().admit(&facts).map(|passage| format!("{} {}", passage.server, passage.destination))
    }

    #[test]
    fn the_closest_destination_decides() {
        let cases = [
            (None, "x.example", "/", "wild *.example/"),
            (None, "x.a.example", "/", "deep *.a.example/"),
            (None, "vault.internal", "/", "inside *.internal/"),
            (None, "api.example:8443", "/", "any-port api.example/"),
            (None, "api.example:443", "/", "port api.example:443/"),
            (None, "api.example:443", "/adminx", "port api.example:443/"),
            (None, "api.example:443", "/admin/x", "port api.example:443/admin"),
            (Some("late"), "api.example:443", "/admin", "late api.example:443/"),
            (Some("wild"), "api.example:443", "/", "wild *.example/"),
        ];
        for (server, authority, path, expected) in cases {
            assert_eq!(admit(server, "GET", authority, path, None).as_deref(), Ok(expected), "{authority}{path}");
        }
    }

    #[test]
    fn everything_else_is_denied() {
        use PerimeterError::*;
        let cases = [
            (None, "GET", "other.test", "/", Unregistered),
            (Some("port"), "GET", "api.example:8443", "/", Unregistered),
            (Some("port"), "GET", "api.example", "/", Unregistered),
            (Some("nowhere"), "GET", "api.example", "/", UnknownServer),
            (None, "CONNECT", "api.example", "/", Method),
            (None, "get", "api.example", "/", Method),
            (None, "TRACE", "api.example", "/", Method),
            (None, "OPTIONS", "api.example", "/", Method),
            (None, "GET", "api.example@evil.test", "/", Authority(AuthorityError::UserInformation)),
            (None, "GET", "metadata.google.internal", "/", Never(Class::Metadata)),
            (None, "GET", "169.254.169.254", "/", Never(Class::Metadata)),
            (None, "GET", "[::ffff:169.254.169.254]", "/", Never(Class::Metadata)),
            (None, "GET", "api.example", "/x/../admin", Target(TargetError::Segment)),
        ];
        for (server, method, authority, path, expected) in cases {
            assert_eq!(admit(server, method, authority, path, None), Err(expected), "{method} {authority}{path}");
        }
    }

    #[test]
    fn a_broader_destination_does_not_widen_the_closest_one() {
        let denied = admit(None, "POST", "api.example:443", "/admin", None);
        assert_eq!(denied, Err(PerimeterError::MethodClass("api.example:443/admin".into())));
    }

    #[test]
    fn two_entries_for_one_place_add_up() {
        assert!(admit(None, "GET", "api.example:443", "/split", None).is_ok());
        assert!(admit(None, "PATCH", "api.example:443", "/split", None).is_ok());
        assert!(admit(None, "DELETE", "api.example:443", "/split", None).is_err());
    }

    #[test]
    fn the_route_must_lead_to_the_configured_cluster() {
        assert!(admit(None, "GET", "blue.test", "/", Some("blue")).is_ok());
        for cluster in [None, Some("green"), Some("")] {
            assert_eq!(
                admit(None, "GET", "blue.test", "/", cluster),
                Err(PerimeterError::Cluster("blue".into())),
                "{cluster:?}"
            );
        }
    }
}
