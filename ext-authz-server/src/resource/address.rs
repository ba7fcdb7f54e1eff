//! The address of a protected resource, and where its metadata is (RFC 9728 section 3.1).

use keyward_contract::check::RESOURCE_METADATA_PATH;

use crate::identity::jwks::{UrlError, check_url};
use crate::perimeter::authority::{Authority, AuthorityError};
use crate::perimeter::path::{self, TargetError};

/// The address of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// `https`, or `http` on loopback.
    scheme: String,
    /// As the configuration writes it.
    written: String,
    /// With the port.
    authority: Authority,
    /// Beginning with `/`.
    path: String,
}

/// Why an address cannot be that of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address that may be asked.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A query.
    #[error("it holds a query")]
    Query,
    /// The host or the port.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The path has two readings.
    #[error(transparent)]
    Path(#[from] TargetError),
}

// === impl Address ===

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// It is not one that clients can name in one way only.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        check_url(text)?;
        if text.contains('?') {
            return Err(AddressError::Query);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Malformed)?;
        let (written, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let scheme = scheme.to_ascii_lowercase();
        let path = if path.is_empty() { "/" } else { path };
        path::read(path)?;
        let authority = Authority::parse(written)?.with_default_port(&scheme);
        Ok(Address { authority, written: written.to_owned(), path: path.to_owned(), scheme })
    }

    /// Where its metadata is.
    #[must_use]
    pub fn metadata_url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.written, self.metadata_path())
    }

    /// The path of its metadata: that of the resource behind [`RESOURCE_METADATA_PATH`], without the slash of an empty one.
    #[must_use]
    pub fn metadata_path(&self) -> String {
        format!("{RESOURCE_METADATA_PATH}{}", if self.path == "/" { "" } else { &self.path })
    }

    /// Whether a request whose authority is written like this reached it. A proxy in front may have ended TLS, so that the
    /// scheme of the request, and with it the port that goes without saying, is another one.
    #[must_use]
    pub fn is_at(&self, raw_authority: &str) -> bool {
        Authority::parse(raw_authority).is_ok_and(|own| {
            let own = own.with_default_port(&self.scheme);
            own == self.authority
        })
    }

    /// Whether `htu` of a proof is this resource's address with the path of a request, query and fragment aside (RFC 9449
    /// section 4.3; RFC 3986 section 6.2 on what is the same).
    #[must_use]
    pub fn is_target(&self, htu: &str, path: &str) -> bool {
        let Some((scheme, rest)) = htu.split_once("://") else { return false };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, own_path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let own_path = if own_path.is_empty() { "/" } else { own_path };
        scheme.eq_ignore_ascii_case(&self.scheme)
            && Authority::parse(authority).is_ok_and(|own| own.with_default_port(&self.scheme) == self.authority)
            && own_path == path
    }
}
