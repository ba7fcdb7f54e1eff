//! The credential kind `aws`: requests signed with SigV4, with keys that STS hands out for one tenant and one caller.

pub mod canonical;
pub mod sigv4;
pub mod target;
