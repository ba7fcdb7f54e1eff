//! What Keyward's filter and server must agree on to the byte.
//!
//! Both sides read a request with [`mcp`] over [`json`], so there is one parser and no difference between what was
//! decided and what was meant. [`check`] holds the ext_authz messages and the keys in them, [`report`] what the filter
//! tells the server afterwards, [`reason`] every reason code an agent can see. [`scrub`] finds a secret in each of the
//! forms that [`encodings`] lists, [`patterns`] recognises credentials that nobody named, [`query`] edits a request
//! target as both sides understand it, and [`session`] seals the id of an MCP session. Nothing here does I/O, and all of it
//! builds for wasm32-wasip1 and for the host.
#![forbid(unsafe_code)]

pub mod check;
pub mod decisions;
pub mod encodings;
pub mod json;
pub mod mcp;
pub mod patterns;
pub mod query;
pub mod reason;
pub mod report;
pub mod revocation;
pub mod scrub;
pub mod session;
