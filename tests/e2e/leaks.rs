//! Secrets that would leave where they must not: brokered ones in requests to other hosts, and what looks like a credential
//! in either direction.

mod brokered;
mod patterns;
