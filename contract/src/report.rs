//! What the filter tells the server after the decision: redactions, withheld answers, requests it refused by itself.
//!
//! The published form is `contract/proto/keyward/v1/report.proto`. A report never holds a value, only counts and codes.
//! Reports are best effort for the filter (bounded, dropped and counted when too many), for the server each is an audit
//! record.

/// The gRPC service that receives reports.
pub const SERVICE: &str = "keyward.v1.FilterReports";
/// The gRPC method.
pub const METHOD: &str = "Report";

/// Values of [`ReportRequest::event`].
pub mod event {
    /// The upstream's answer held the secret; it was redacted.
    pub const SECRET_ECHOED: &str = "secret_echoed";
    /// The upstream's answer could not be scrubbed and was withheld.
    pub const RESPONSE_WITHHELD: &str = "response_withheld";
    /// The upstream answered 401 or 403 to a request with a credential.
    pub const CREDENTIAL_REFUSED: &str = "credential_refused";
    /// The upstream's answer held what looks like a credential; `rules` says of which kinds.
    pub const PATTERN_FOUND: &str = "pattern_found";
    /// What the request rests on was revoked: the filter ended it, or its answer while it streamed.
    pub const STREAM_ENDED: &str = "stream_ended";
    /// The filter refused a request before or instead of a decision.
    pub const REQUEST_REFUSED: &str = "request_refused";
}

/// One report.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportRequest {
    /// The decision this belongs to.
    #[prost(string, tag = "1")]
    pub decision_id: String,
    /// The server entry of the route.
    #[prost(string, tag = "2")]
    pub server: String,
    /// What happened; see [`event`].
    #[prost(string, tag = "3")]
    pub event: String,
    /// The reason code, for refusals and withheld answers.
    #[prost(string, tag = "4")]
    pub reason: String,
    /// How many times a form of a secret was replaced.
    #[prost(uint64, tag = "5")]
    pub redactions: u64,
    /// Where: `headers`, `body`, `trailers`, joined with commas.
    #[prost(string, tag = "6")]
    pub carriers: String,
    /// The HTTP status that the client got.
    #[prost(uint32, tag = "7")]
    pub http_status: u32,
    /// For [`event::PATTERN_FOUND`]: the names of the rules, joined with commas.
    #[prost(string, tag = "8")]
    pub rules: String,
}

/// The answer to a report: nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReportResponse {}
