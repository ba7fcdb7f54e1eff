//! The upstream's own tests: the binary is started and read from the wire, with no gateway between.
//!
//! Where a module has functions of its own, `cfg(test)` tells clippy that their unwraps are those of tests.

mod carriers;
mod ending;
mod forms;
mod keys;
mod plain;
#[cfg(test)]
mod report;
#[cfg(test)]
mod revisions;
#[cfg(test)]
mod running;
