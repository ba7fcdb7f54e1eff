//! The harness that the end-to-end tests, the demo and the benchmark share: real tools, real processes, a raw client.

pub mod agent;
pub mod authorization_server;
pub mod browser;
pub mod client;
pub mod compose;
pub mod envoy;
pub mod example;
pub mod files;
pub mod issuer;
pub mod moto;
pub mod peers;
pub mod postgres;
pub mod process;
pub mod prover;
pub mod relay;
pub mod server;
pub mod sse;
pub mod stack;
pub mod stores;
pub mod tools;
pub mod upstream;
