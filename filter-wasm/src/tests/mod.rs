//! Drives real request contexts natively, against a stand-in for the proxy.

mod line;
mod requests;
mod responses;
mod standin;
