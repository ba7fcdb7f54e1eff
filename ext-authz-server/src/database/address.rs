//! The address of a PostgreSQL database: what may stand in it, and that nothing goes to another machine in the clear.

use std::collections::HashSet;
use std::net::IpAddr;

use url::Url;
use zeroize::Zeroizing;

use super::DatabaseError;

/// The parameters of an address. What the driver does not know it would write to the log with its value.
const PARAMETERS: [&str; 8] =
    ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "application_name", "options", "statement-cache-capacity"];
/// What proves who the other side is (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
const VERIFYING: [&str; 2] = ["verify-full", "verify-ca"];

/// The address as the driver gets it: with `sslmode=verify-full` where it names another machine and says nothing about it.
///
/// # Errors
/// It is no address, has a parameter that is unknown or stands twice, or goes to another machine without proof of which one.
pub(super) fn postgres(text: &str) -> Result<Zeroizing<String>, DatabaseError> {
    let mut url = Url::parse(text).map_err(|_| DatabaseError::Url)?;
    let mut named = HashSet::new();
    let mut mode = None;
    // The driver would otherwise take a host from its environment.
    let mut host = url.host_str().filter(|host| !host.is_empty()).map(str::to_owned);
    for (name, value) in url.query_pairs() {
        if !PARAMETERS.contains(&&*name) || !named.insert(name.to_string()) {
            return Err(DatabaseError::Parameter);
        }
        match &*name {
            "sslmode" => mode = Some(value.into_owned()),
            "host" => host = Some(value.into_owned()),
            _ => {}
        }
    }
    let is_here = is_here(&host.ok_or(DatabaseError::Url)?);
    match mode.as_deref() {
        None => drop(url.query_pairs_mut().append_pair("sslmode", if is_here { "prefer" } else { "verify-full" })),
        Some(mode) if is_here || VERIFYING.contains(&mode) => {}
        Some(_) => return Err(DatabaseError::NotVerified),
    }
    Ok(Zeroizing::new(url.into()))
}

/// Whether a host is this machine: a socket's folder or a loopback address.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_socket = host.starts_with('/') || host.starts_with("%2F") || host.starts_with("%2f");
    is_socket || host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_is_verified_unless_the_address_says_how() {
        for (given, expected) in [
            ("postgres://k:p@db.example/keyward", "postgres://k:p@db.example/keyward?sslmode=verify-full"),
            ("postgres://k@10.0.0.7:5433/k", "postgres://k@10.0.0.7:5433/k?sslmode=verify-full"),
            ("postgres://k@db.example/k?sslmode=verify-ca", "postgres://k@db.example/k?sslmode=verify-ca"),
            ("postgres://k@127.0.0.1/k", "postgres://k@127.0.0.1/k?sslmode=prefer"),
            ("postgres://k@[::1]/k", "postgres://k@[::1]/k?sslmode=prefer"),
            ("postgres://k@localhost/k?sslmode=disable", "postgres://k@localhost/k?sslmode=disable"),
            ("postgres://k@x/k?host=/run/postgresql", "postgres://k@x/k?host=/run/postgresql&sslmode=prefer"),
        ] {
            assert_eq!(postgres(given).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn what_goes_elsewhere_unproven_or_is_not_known_is_refused_without_being_shown() {
        for given in [
            "postgres://k:marked@db.example/k?sslmode=disable",
            "postgres://k:marked@db.example/k?sslmode=prefer",
            "postgres://k:marked@db.example/k?sslmode=require",
            "postgres://k:marked@127.0.0.1/k?sslmode=disable&host=db.example",
            "postgres://k:marked@db.example/k?sslmode=verify-full&sslmode=disable",
            "postgres://k@db.example/k?passwd=marked",
            "postgres://k@db.example/k?marked=1",
            "postgres://k@db.example/k?hostaddr=127.0.0.1",
            "postgres:///marked",
            "postgres://marked:marked",
        ] {
            let error = postgres(given).err().unwrap().to_string();
            assert!(!error.contains("marked"), "{error}");
        }
    }
}
