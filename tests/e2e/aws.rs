//! The credential kind `aws` and the stores of AWS, against moto with its IAM turned on: agents call AWS's services through
//! Envoy, and hold nothing.

mod identity;
mod kms;
mod refusals;
mod scene;
mod sessions;
mod signing;
mod stores;
mod tenants;
