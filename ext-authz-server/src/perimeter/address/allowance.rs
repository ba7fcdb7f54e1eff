//! What an operator allows beyond the public Internet: hosts, hosts with a port, and networks.

use std::net::IpAddr;

use super::{AddressError, Class, class_of, judge_host};
use crate::perimeter::authority::{Authority, AuthorityError, HostPattern};

/// Places that are allowed although they are not public. They add up with the public ones and take nothing from the
/// floor: metadata endpoints and link-local addresses stay refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    hosts: Vec<HostPattern>,
    networks: Vec<Network>,
}

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

/// An entry that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowanceError {
    /// Not `host`, `host:port` or `*.host`.
    #[error("not a host: {0}")]
    Host(#[from] AuthorityError),
    /// Not `address/bits`.
    #[error("not a network: write an address, a slash and the number of leading bits")]
    Network,
    /// Allows nothing, because nothing can allow it.
    #[error("it is {0}, which nothing can allow")]
    Never(Class),
}

// === impl Allowance ===

impl Allowance {
    /// Reads the entries: `host`, `host:port`, `*.host` or a network such as `10.1.0.0/16`.
    ///
    /// # Errors
    /// The position of the first entry that cannot be used, and why.
    pub fn parse<T: AsRef<str>>(entries: &[T]) -> Result<Allowance, (usize, AllowanceError)> {
        let mut allowance = Allowance::default();
        for (position, entry) in entries.iter().enumerate() {
            allowance.add(entry.as_ref()).map_err(|error| (position, error))?;
        }
        Ok(allowance)
    }

    /// Whether this host may be connected to, before it is resolved. `host` is as in a URL, IPv6 in brackets.
    ///
    /// # Errors
    /// What the host is.
    pub fn check_host(&self, host: &str, port: u16) -> Result<(), AddressError> {
        match judge_host(host)? {
            None => Ok(()),
            Some(class) if class.is_never_allowed() => Err(AddressError::Class(class)),
            Some(_) if self.names(host, port) => Ok(()),
            // A name that nobody can own leads where this network's resolver says; its addresses tell.
            Some(Class::Reserved) if address_of(host).is_none() => Ok(()),
            // Whether a private name is in an allowed network shows when it is resolved.
            Some(_) if !self.networks.is_empty() && address_of(host).is_none() => Ok(()),
            Some(class) => match address_of(host) {
                Some(address) if self.holds(address) => Ok(()),
                _ => Err(AddressError::Class(class)),
            },
        }
    }

    /// Whether a connection to this host and port may go to this one of its addresses.
    ///
    /// # Errors
    /// What the address is.
    pub fn check_address(&self, host: &str, port: u16, address: IpAddr) -> Result<(), AddressError> {
        match class_of(address) {
            None => Ok(()),
            Some(class) if class.is_never_allowed() => Err(AddressError::Class(class)),
            Some(_) if self.names(host, port) || self.holds(address) => Ok(()),
            Some(class) => Err(AddressError::Class(class)),
        }
    }

    /// [`Allowance::check_address`] for every address of a host: one that is refused refuses them all, so that a resolver
    /// cannot mix a good address with a bad one.
    ///
    /// # Errors
    /// What the first refused address is, or that there is none.
    pub fn check_resolved(&self, host: &str, port: u16, addresses: &[IpAddr]) -> Result<(), AddressError> {
        if addresses.is_empty() {
            return Err(AddressError::Unresolved);
        }
        addresses.iter().try_for_each(|address| self.check_address(host, port, *address))
    }

    /// Whether everything that a pattern names is allowed by name or as an address.
    #[must_use]
    pub fn covers(&self, pattern: &HostPattern) -> bool {
        self.hosts.iter().any(|host| host.covers(pattern))
            || address_of(pattern.host()).is_some_and(|address| self.holds(address))
    }

    fn add(&mut self, entry: &str) -> Result<(), AllowanceError> {
        if let Some((address, bits)) = entry.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| AllowanceError::Network)?;
            let bits: u32 = bits.parse().map_err(|_| AllowanceError::Network)?;
            let network = Network { address, bits };
            if bits > network.width() || bits == 0 || !network.is_aligned() {
                return Err(AllowanceError::Network);
            }
            // A network that holds nothing but refused addresses is a misunderstanding.
            match class_of(address) {
                Some(class) if class.is_never_allowed() => return Err(AllowanceError::Never(class)),
                _ => self.networks.push(network),
            }
            return Ok(());
        }
        let pattern = HostPattern::parse(entry, None)?;
        if let Ok(authority) = Authority::parse(entry)
            && let Ok(Some(class)) = judge_host(authority.host())
            && class.is_never_allowed()
        {
            return Err(AllowanceError::Never(class));
        }
        self.hosts.push(pattern);
        Ok(())
    }

    fn names(&self, host: &str, port: u16) -> bool {
        let authority = Authority::parse(&format!("{host}:{port}"));
        authority.is_ok_and(|authority| self.hosts.iter().any(|pattern| pattern.matches(&authority).is_some()))
    }

    fn holds(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.holds(address.to_canonical()))
    }
}

// === impl Network ===

impl Network {
    fn width(&self) -> u32 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn is_aligned(&self) -> bool {
        self.holds(self.address) && bits_of(self.address).checked_shl(128 - self.width() + self.bits).unwrap_or(0) == 0
    }

    fn holds(&self, address: IpAddr) -> bool {
        let differs = bits_of(self.address) ^ bits_of(address);
        self.address.is_ipv4() == address.is_ipv4() && differs.checked_shr(self.width() - self.bits).unwrap_or(0) == 0
    }
}

/// The bits of an address, at the low end.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address_of(host: &str) -> Option<IpAddr> {
    match super::read_literal(host) {
        super::Literal::Address(address) => Some(address),
        _ => None,
    }
}
