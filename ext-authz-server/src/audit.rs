//! The audit trail: one JSON line for every decision, report and event of the server, accepted before an answer leaves.

pub mod digest;
pub mod record;
pub mod writer;

pub use digest::Digester;
pub use record::{DecisionRecord, Event, Record};
pub use writer::{AuditError, Sink, Writer};
