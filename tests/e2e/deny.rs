//! Deny is deny: whatever is wrong, the upstream receives nothing and the client a well-formed answer.

mod failure;
mod policy;
mod token;
mod transport;
