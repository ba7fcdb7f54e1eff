//! Which addresses and names nobody may be led to, however they are spelled, and what an operator may allow beyond that.
//!
//! A name is judged before it is resolved ([`judge_host`]) and every address it resolves to afterwards ([`class_of`]); both
//! are pure. An [`Allowance`] adds private places to the public ones. It never adds a metadata endpoint or a link-local
//! address: those hand out credentials to whoever asks.

mod allowance;
mod literal;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use allowance::{Allowance, AllowanceError};
pub use literal::{Literal, read_literal};

/// What an address that is not on the public Internet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Hands out a machine's credentials. Never allowed.
    Metadata,
    /// 169.254.0.0/16, fe80::/10 (RFC 3927, RFC 4291). Never allowed.
    LinkLocal,
    /// 127.0.0.0/8, `::1`, names below `localhost`.
    Loopback,
    /// RFC 1918, fc00::/7 (RFC 4193) and the site-local addresses before it; names that only exist inside.
    Private,
    /// 100.64.0.0/10 (RFC 6598).
    CarrierGrade,
    /// 0.0.0.0/8 and `::` (RFC 1122): the machine itself to many systems.
    ThisNetwork,
    /// 224.0.0.0/4, ff00::/8.
    Multicast,
    /// Everything else that no host on the public Internet has (IANA special-purpose registries).
    Reserved,
    /// 192.0.2.0/24 and its like (RFC 5737, RFC 3849, RFC 9637).
    Documentation,
}

/// Why a host or an address is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not public and not allowed.
    #[error("it is {0}")]
    Class(Class),
    /// It reads as one thing here and as another elsewhere: `0x7f.1`, `127.1`, `%31`, `１２７`, a zone.
    #[error("it is an address in a spelling that not everybody reads alike")]
    Spelling,
    /// Neither a name nor an address.
    #[error("it is neither a DNS name nor an IP address")]
    Host,
    /// The name resolved to nothing.
    #[error("it has no address")]
    Unresolved,
}

/// Addresses at which clouds hand out credentials and configuration of the machine that asks. Some are in public ranges.
const METADATA: [IpAddr; 9] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The names of those endpoints.
const METADATA_NAMES: [&str; 6] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "instance-data",
    "instance-data.ec2.internal",
    "metadata.azure.internal",
];

/// The last labels of names that only exist inside a machine, a cluster or an organisation.
const PRIVATE_SUFFIXES: [&str; 9] =
    ["local", "internal", "cluster.local", "svc", "home.arpa", "lan", "intranet", "corp", "private"];

/// The last labels of names that nobody can own (RFC 6761, RFC 9476).
const UNOWNED_SUFFIXES: [&str; 5] = ["test", "example", "invalid", "alt", "onion"];

// === impl Class ===

impl Class {
    /// Whether no configuration can allow it.
    #[must_use]
    pub fn is_never_allowed(self) -> bool {
        matches!(self, Class::Metadata | Class::LinkLocal)
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Metadata => "a metadata endpoint",
            Class::LinkLocal => "link-local",
            Class::Loopback => "loopback",
            Class::Private => "private",
            Class::CarrierGrade => "shared address space of a carrier",
            Class::ThisNetwork => "an address of this machine",
            Class::Multicast => "multicast",
            Class::Reserved => "reserved",
            Class::Documentation => "for documentation only",
        })
    }
}

// === judging ===

/// What this address is, if it is not a public one. An IPv4 address inside an IPv6 one counts as itself.
#[must_use]
pub fn class_of(address: IpAddr) -> Option<Class> {
    if METADATA.contains(&address) {
        return Some(Class::Metadata);
    }
    match address {
        IpAddr::V4(address) => class_of_v4(address),
        IpAddr::V6(address) => class_of_v6(address),
    }
}

/// What the host of a URL or an authority is before it is resolved, if it is not a public name or address. IPv6 addresses
/// stand in brackets.
///
/// # Errors
/// [`AddressError::Spelling`] for every spelling of an address but its canonical one, [`AddressError::Host`] for what is
/// no host at all.
pub fn judge_host(host: &str) -> Result<Option<Class>, AddressError> {
    match read_literal(host) {
        Literal::Address(address) => Ok(class_of(address)),
        Literal::Unclear(_) => Err(AddressError::Spelling),
        Literal::Name(name) => Ok(class_of_name(&name)),
        Literal::Neither => Err(AddressError::Host),
    }
}

/// What a name in lower case without a trailing dot is, as far as the name alone tells.
fn class_of_name(name: &str) -> Option<Class> {
    let below = |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if METADATA_NAMES.contains(&name) {
        Some(Class::Metadata)
    } else if below(&"localhost") || below(&"localdomain") {
        Some(Class::Loopback)
    } else if PRIVATE_SUFFIXES.iter().any(below) || !name.contains('.') {
        // A single label is completed by the resolver's search list, which is somebody's own network.
        Some(Class::Private)
    } else if UNOWNED_SUFFIXES.iter().any(below) {
        Some(Class::Reserved)
    } else {
        None
    }
}

fn class_of_v4(address: Ipv4Addr) -> Option<Class> {
    match address.octets() {
        [0, ..] => Some(Class::ThisNetwork),
        [127, ..] => Some(Class::Loopback),
        [169, 254, ..] => Some(Class::LinkLocal),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(Class::Private),
        [100, 64..=127, ..] => Some(Class::CarrierGrade),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some(Class::Documentation),
        [224..=239, ..] => Some(Class::Multicast),
        // Protocol assignments, the 6to4 relay, benchmarks, class E and broadcast.
        [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => Some(Class::Reserved),
        _ => None,
    }
}

fn class_of_v6(address: Ipv6Addr) -> Option<Class> {
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        class_of(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some(Class::ThisNetwork),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some(Class::Loopback),
        // IPv4-mapped, and NAT64 in its well-known prefix (RFC 6052): as the address inside.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // IPv4-compatible and IPv4-translated (RFC 4291, RFC 2765): deprecated, so refused even around a public address.
        [0, 0, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => {
            embedded(high, low).or(Some(Class::Reserved))
        }
        // NAT64 in its local prefix (RFC 8215), at the place that /96 prefixes use.
        [0x64, 0xff9b, 1, .., high, low] => embedded(high, low).or(Some(Class::Private)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo (RFC 4380): the client's address is inverted.
        [0x2001, 0, server_high, server_low, _, _, high, low] => {
            let client = embedded(!high, !low);
            client.or(embedded(server_high, server_low)).or(Some(Class::Reserved))
        }
        // ISATAP (RFC 5214) in any prefix.
        [first, .., 0 | 0x200, 0x5efe, high, low] => embedded(high, low).or_else(|| class_of_prefix(first, address)),
        [first, ..] => class_of_prefix(first, address),
    }
}

fn class_of_prefix(first: u16, address: Ipv6Addr) -> Option<Class> {
    match (first, address.segments()) {
        (0xfe80..=0xfebf, _) => Some(Class::LinkLocal),
        (0xfc00..=0xfdff | 0xfec0..=0xfeff, _) => Some(Class::Private),
        (0xff00..=0xffff, _) => Some(Class::Multicast),
        (0x2001, [_, 0xdb8, ..]) | (0x3fff, [_, 0..=0x0fff, ..]) => Some(Class::Documentation),
        // Protocol assignments (RFC 2928), among them benchmarks and ORCHID.
        (0x2001, [_, 0..=0x01ff, ..]) => Some(Class::Reserved),
        // Only 2000::/3 is handed out.
        (0x2000..=0x3fff, _) => None,
        _ => Some(Class::Reserved),
    }
}

#[cfg(test)]
mod tests;
