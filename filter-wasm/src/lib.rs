//! Keyward's filter for Envoy and Istio: it parses each request, asks Keyward's server for a decision and a credential,
//! puts the credential on the request, and takes every trace of it out of the response.
//!
//! The filter decides nothing: whatever goes wrong denies. It keeps no secret past a request. [`exchange`] is the way of
//! one call; [`host`] is the only file that talks to the proxy.
#![deny(clippy::indexing_slicing, clippy::string_slice)]

mod answer;
mod apply;
mod ask;
mod configuration;
mod exchange;
mod gateway;
mod headers;
mod host;
mod line;
mod report;
mod response;
mod revocations;
mod session;
mod statistics;
mod watch;
mod wire;

pub use gateway::Gateway;

#[cfg(target_family = "wasm")]
mod entry {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|id| Box::new(crate::Gateway::new(id)));
    }}
}

#[cfg(test)]
mod tests;
