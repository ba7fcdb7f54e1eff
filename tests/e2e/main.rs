//! End-to-end tests on a real Envoy, one module per capability. `cargo xtask test NAME` runs one of them.
//!
//! A test that is said to deny shows two things: the upstream received nothing, and the client a well-formed answer.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends the test")]

mod api;
mod aws;
mod certificates;
mod client_certificates;
mod clients;
mod compose;
mod conformance;
mod connect;
mod deny;
mod doctor;
mod drain;
mod expect;
mod freshness;
mod guide;
mod http_mode;
mod injection;
mod istio;
mod leak;
mod leaks;
mod lifecycle;
mod load;
mod modes;
mod native_ext_authz;
mod oauth;
mod parsing;
mod perimeter;
mod reload;
mod replica;
mod replicas;
mod resource_server;
mod revocation;
mod rotation;
mod scripted;
mod scrubbing;
mod search;
mod secrecy;
mod sessions;
mod signing;
mod store;
mod stores;
mod tenants;
mod throttles;
