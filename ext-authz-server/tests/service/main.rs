//! The service as Envoy sees it: real gRPC, real stages, and doors that the tests hold.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may end by a panic, in its scenery too")]

#[path = "../fixture/mod.rs"]
mod fixture;

mod allow;
mod aws_page;
mod binding_states;
mod command_line;
mod configuration;
mod deny;
mod encryption_keys;
mod lifecycle;
mod oauth;
mod perimeter;
mod real;
mod resource_page;
mod running;
mod scene;
mod secrecy;
mod sessions;
mod stores;
mod tenants;
mod tls;
mod tools;
