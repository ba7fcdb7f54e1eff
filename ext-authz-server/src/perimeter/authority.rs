//! The authority of a request and the patterns it is matched against.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The longest authority that is read, in bytes: a DNS name, brackets and a port.
const MAX_AUTHORITY_BYTES: usize = 270;

/// A host and, where it was named, a port. The host is in one canonical form: ASCII lower case, no trailing dot, IPv6
/// in brackets as RFC 5952 writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    host: String,
    port: Option<u16>,
}

/// `example.org`, `example.org:443`, `*.example.org` or `[::1]:8080`: what an authority may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    host: String,
    wildcard: bool,
    port: Option<u16>,
}

/// How closely a pattern names the host it matched; greater is closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closeness {
    /// The host is named in full.
    pub exact_host: bool,
    /// Length of the suffix, so that `*.a.example` is closer than `*.example`.
    pub host_bytes: usize,
    /// The port is named.
    pub exact_port: bool,
}

/// Why an authority or a pattern was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// Longer than any name can be.
    #[error("the host is longer than {MAX_AUTHORITY_BYTES} bytes")]
    TooLong,
    /// `user@host`.
    #[error("an authority must not hold user information")]
    UserInformation,
    /// Not a DNS name or IP address.
    #[error("the host is not a DNS name or an IP address")]
    Host,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
    /// A `*` that is not the whole first label, or with nothing but one label behind it.
    #[error("`*` may only stand for the first label, as in `*.example.org`")]
    Wildcard,
}

// === impl Authority ===

impl Authority {
    /// Reads an authority as it stands on the wire (RFC 9110, 7.2). Names outside ASCII do not occur there and are refused.
    ///
    /// # Errors
    /// User information, a bad port, and whatever is not a DNS name or an IP address.
    pub fn parse(text: &str) -> Result<Authority, AuthorityError> {
        let (host, port) = split(text)?;
        Ok(Authority { host: canonical_host(host)?, port })
    }

    /// The host in canonical form.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, where one was named.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same authority with the port that `scheme` implies where none was named.
    #[must_use]
    pub fn with_default_port(mut self, scheme: &str) -> Authority {
        if self.port.is_none() {
            self.port = match scheme {
                "https" => Some(443),
                "http" => Some(80),
                _ => None,
            };
        }
        self
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

// === impl HostPattern ===

impl HostPattern {
    /// Reads a pattern from configuration. `port` is a port given beside it.
    ///
    /// # Errors
    /// As [`Authority::parse`], and a `*` anywhere but as the whole first label.
    pub fn parse(text: &str, port: Option<u16>) -> Result<HostPattern, AuthorityError> {
        let (host, own_port) = split(text)?;
        let (wildcard, host) = match host.strip_prefix("*.") {
            Some(suffix) if suffix.contains('*') => return Err(AuthorityError::Wildcard),
            Some(suffix) => (true, suffix),
            None if host.contains('*') => return Err(AuthorityError::Wildcard),
            None => (false, host),
        };
        let host = if host.is_ascii() { canonical_host(host)? } else { international_host(host)? };
        let is_address = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
        if wildcard && is_address {
            return Err(AuthorityError::Wildcard);
        }
        if let (Some(own), Some(beside)) = (own_port, port)
            && own != beside
        {
            return Err(AuthorityError::Port);
        }
        Ok(HostPattern { host, wildcard, port: own_port.or(port) })
    }

    /// The host, or what stands behind `*.`, in canonical form.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether everything that `other` names is named by this one, too.
    #[must_use]
    pub fn covers(&self, other: &HostPattern) -> bool {
        if self.port.is_some() && self.port != other.port {
            return false;
        }
        match (self.wildcard, other.host.strip_suffix(self.host.as_str())) {
            (true, Some(label)) => label.is_empty() && other.wildcard || label.len() > 1 && label.ends_with('.'),
            (false, Some(label)) => label.is_empty() && !other.wildcard,
            (_, None) => false,
        }
    }

    /// Whether something is named by both.
    #[must_use]
    pub fn meets(&self, other: &HostPattern) -> bool {
        let bare = |pattern: &HostPattern| HostPattern { port: None, ..pattern.clone() };
        let (one, two) = (bare(self), bare(other));
        let is_one_port = self.port.is_none() || other.port.is_none() || self.port == other.port;
        is_one_port && (one.covers(&two) || two.covers(&one))
    }

    /// Whether, and how closely, this pattern names `authority`. A pattern with a port does not match an authority whose
    /// port is unknown.
    #[must_use]
    pub fn matches(&self, authority: &Authority) -> Option<Closeness> {
        if self.port.is_some() && self.port != authority.port {
            return None;
        }
        let named = if self.wildcard {
            authority.host.strip_suffix(self.host.as_str()).is_some_and(|label| label.len() > 1 && label.ends_with('.'))
        } else {
            authority.host == self.host
        };
        named.then_some(Closeness {
            exact_host: !self.wildcard,
            host_bytes: self.host.len(),
            exact_port: self.port.is_some(),
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.wildcard {
            f.write_str("*.")?;
        }
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

// === bodies ===

fn split(text: &str) -> Result<(&str, Option<u16>), AuthorityError> {
    if text.len() > MAX_AUTHORITY_BYTES {
        return Err(AuthorityError::TooLong);
    }
    if text.contains('@') {
        return Err(AuthorityError::UserInformation);
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (_, after) = rest.split_once(']').ok_or(AuthorityError::Host)?;
            let host = text.strip_suffix(after).ok_or(AuthorityError::Host)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(AuthorityError::Host),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err(AuthorityError::Empty);
    }
    let port = match port {
        Some(digits) if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(AuthorityError::Port);
        }
        Some(digits) => match digits.parse::<u16>() {
            Ok(0) | Err(_) => return Err(AuthorityError::Port),
            Ok(port) => Some(port),
        },
        None => None,
    };
    Ok((host, port))
}

fn canonical_host(host: &str) -> Result<String, AuthorityError> {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| AuthorityError::Host)?;
        return Ok(format!("[{address}]"));
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let label_is_valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if host.len() > 253 || !host.split('.').all(label_is_valid) {
        return Err(AuthorityError::Host);
    }
    // `0x7f.1`, `2130706433` and `127.1` are addresses to some readers and names to others.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if numeric && host.parse::<Ipv4Addr>().is_err() {
        return Err(AuthorityError::Host);
    }
    Ok(host.to_ascii_lowercase())
}

/// A name outside ASCII, as configuration may hold it, in the form in which the wire carries it (UTS 46).
fn international_host(host: &str) -> Result<String, AuthorityError> {
    let url = reqwest::Url::parse(&format!("https://{host}/")).map_err(|_| AuthorityError::Host)?;
    canonical_host(url.host_str().ok_or(AuthorityError::Host)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_come_out_in_one_form_or_not_at_all() {
        let cases = [
            ("Example.ORG", Ok("example.org")),
            ("example.org.", Ok("example.org")),
            ("example.org.:443", Ok("example.org:443")),
            ("example.org:0443", Ok("example.org:443")),
            ("[::1]", Ok("[::1]")),
            ("[0:0::0001]:8080", Ok("[::1]:8080")),
            ("127.0.0.1:80", Ok("127.0.0.1:80")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("demo_upstream", Ok("demo_upstream")),
            ("", Err(AuthorityError::Empty)),
            (":443", Err(AuthorityError::Empty)),
            ("good.example@evil.example", Err(AuthorityError::UserInformation)),
            ("user:pw@evil.example", Err(AuthorityError::UserInformation)),
            ("example.org:", Err(AuthorityError::Port)),
            ("example.org:0", Err(AuthorityError::Port)),
            ("example.org:65536", Err(AuthorityError::Port)),
            ("example.org:+80", Err(AuthorityError::Port)),
            ("example.org:80:90", Err(AuthorityError::Port)),
            ("example.org..", Err(AuthorityError::Host)),
            ("a..b", Err(AuthorityError::Host)),
            ("exa mple.org", Err(AuthorityError::Host)),
            ("example.org/x", Err(AuthorityError::Host)),
            ("exam\u{200d}ple.org", Err(AuthorityError::Host)),
            ("bücher.example", Err(AuthorityError::Host)),
            ("127.1", Err(AuthorityError::Host)),
            ("2130706433", Err(AuthorityError::Host)),
            ("127.0.0.0x1", Err(AuthorityError::Host)),
            ("0177.0.0.1", Err(AuthorityError::Host)),
            ("[::1", Err(AuthorityError::Host)),
            ("[::1]x", Err(AuthorityError::Host)),
            ("[fe80::1%25eth0]", Err(AuthorityError::Host)),
            ("%65xample.org", Err(AuthorityError::Host)),
        ];
        for (text, expected) in cases {
            let found = Authority::parse(text).map(|authority| authority.to_string());
            assert_eq!(found, expected.map(str::to_owned), "{text}");
        }
        assert_eq!(Authority::parse(&"a".repeat(300)), Err(AuthorityError::TooLong));
    }

    #[test]
    fn patterns_match_what_they_name_and_nothing_beside_it() {
        let cases = [
            ("api.example", "api.example", true),
            ("api.example", "api.example:8443", true),
            ("api.example:443", "api.example:443", true),
            ("api.example:443", "api.example", false),
            ("api.example:443", "api.example:8443", false),
            ("api.example", "evilapi.example", false),
            ("api.example", "api.example.evil", false),
            ("*.example", "api.example", true),
            ("*.example", "a.b.example", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("*.example", "evilexample", false),
            ("bücher.example", "xn--bcher-kva.example", true),
            ("[::1]:80", "[0::1]:80", true),
        ];
        for (pattern, authority, expected) in cases {
            let pattern = HostPattern::parse(pattern, None).unwrap();
            let matched = Authority::parse(authority).is_ok_and(|authority| pattern.matches(&authority).is_some());
            assert_eq!(matched, expected, "{pattern} {authority}");
        }
    }

    #[test]
    fn a_pattern_covers_what_is_no_wider() {
        let cases = [
            ("api.example", "api.example", true),
            ("api.example", "api.example:443", true),
            ("api.example:443", "api.example", false),
            ("*.example", "api.example", true),
            ("*.example", "*.example", true),
            ("*.example", "*.a.example:443", true),
            ("*.example", "example", false),
            ("*.a.example", "*.example", false),
            ("api.example", "*.api.example", false),
            ("*.example", "evilexample", false),
        ];
        for (wide, narrow, expected) in cases {
            let covers = HostPattern::parse(wide, None).unwrap().covers(&HostPattern::parse(narrow, None).unwrap());
            assert_eq!(covers, expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn patterns_meet_where_something_is_named_by_both() {
        let cases = [
            ("api.example", "api.example:443", true),
            ("api.example:443", "api.example:8443", false),
            ("*.example:443", "api.example", true),
            ("*.example:443", "api.example:80", false),
            ("*.example", "*.a.example:443", true),
            ("*.a.example", "*.b.example", false),
            ("*.example", "example", false),
        ];
        for (one, other, expected) in cases {
            let pattern = |text| HostPattern::parse(text, None).unwrap();
            assert_eq!(pattern(one).meets(&pattern(other)), expected, "{one} {other}");
            assert_eq!(pattern(other).meets(&pattern(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_first_labels_only() {
        for text in ["*", "*.", "a.*.example", "*a.example", "**.example", "*.*.example", "*.1.2.3.4", "*.[::1]"] {
            assert!(HostPattern::parse(text, None).is_err(), "{text}");
        }
    }
}
