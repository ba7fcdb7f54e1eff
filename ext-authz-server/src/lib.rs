//! Keyward's ext_authz server: who asks, may they, with which credential, and a record of it all.

pub mod admin;
pub mod answer;
pub mod assembly;
pub mod audit;
pub mod binding;
pub mod caller;
pub mod check;
pub mod cli;
pub mod config;
pub mod credential;
pub mod decision;
pub mod decisions;
pub mod engine;
pub mod explain;
pub mod freshness;
pub mod hygiene;
pub mod identity;
pub mod leak;
pub mod log;
pub mod metrics;
pub mod operation;
pub mod outbound;
pub mod perimeter;
pub mod plan;
pub mod policy;
pub mod report;
pub mod request;
pub mod run;
#[cfg(test)]
mod scratch;
pub mod secret;
pub mod serve;
pub mod snapshot;
pub mod sources;
pub mod trail;
pub mod verdict;
