//! One meaning or none: what two readers could understand differently does not get to the upstream.

mod batch;
mod envelope;
mod json;
