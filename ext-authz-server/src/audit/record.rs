//! What an audit record holds: who, what, where, decided by which revision and why; never a secret, never an argument.
//!
//! Strings that a client chose are bounded and only the method and the target are taken from the request body.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// The longest string from outside that a record keeps, in characters.
pub const MAX_TEXT_CHARS: usize = 256;
/// The most elements of a batch that are listed; the count is always right.
pub const MAX_OPERATIONS: usize = 64;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A request was allowed or denied.
    Decision,
    /// The upstream's answer held a secret and was redacted.
    SecretEchoed,
    /// The upstream's answer held what looks like a credential.
    PatternFound,
    /// The upstream answered 401 or 403 to a request with a credential.
    CredentialRefused,
    /// The upstream's answer could not be scrubbed and was withheld.
    ResponseWithheld,
    /// The filter refused a request by itself.
    RequestRefused,
    /// A proof or a one-time token was shown again, and refused.
    ReplayRefused,
    /// A token came without what it is bound to, or with a proof that does not hold, and was refused.
    ProofRefused,
    /// A token wanted more than its scopes or its kind allow.
    ScopeRefused,
    /// A token came to a resource for which it was not made.
    AudienceRefused,
    /// A person connected an account.
    Connected,
    /// A person, or the provider in their name, declined to connect an account.
    ConnectDeclined,
    /// A person could not connect an account; the detail says why.
    ConnectRefused,
    /// An operator ended sessions of MCP; the detail names them.
    SessionsEnded,
    /// A grant was deleted by an operator.
    GrantRevoked,
    /// An operator stored a secret; the detail is its reference and version.
    SecretStored,
    /// An operator deleted a secret; the detail is its reference.
    SecretDeleted,
    /// An operator wrapped the data keys anew; the detail says how many.
    KeysRotated,
    /// Somebody took a step in the lifecycle of a binding.
    BindingChanged,
    /// This server has found such a step and serves by it, from now on or since its start.
    BindingChangeInForce,
    /// Somebody revoked access, or lifted a revocation.
    RevocationChanged,
    /// This server has found such a change and serves by it, from now on.
    RevocationInForce,
    /// The filter ended a request, or its answer while it streamed, because what it rests on was revoked.
    StreamEnded,
    /// Somebody asked the operator API; the detail says for what, and what came of it.
    OperatorRequest,
    /// An Envoy was given a client certificate and its key.
    CertificateGiven,
    /// Something of one tenant was to serve another; the decision besides.
    CrossTenant,
    /// Something of one environment was to serve another; the decision besides.
    CrossEnvironment,
    /// A new configuration or policy serves.
    ConfigReloaded,
    /// A new configuration or policy was refused; the last good one serves.
    ConfigRefused,
    /// The server began to serve.
    Started,
    /// The server has ended.
    Stopped,
}

/// One line of the audit trail.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// RFC 3339, UTC, microseconds.
    pub time: String,
    /// What happened.
    pub event: Event,
    /// The environment of the configuration.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub environment: String,
    /// The revision of the snapshot that served.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_revision: String,
    /// The decision, where the event is one.
    #[serde(flatten)]
    pub decision: Option<Box<DecisionRecord>>,
    /// The filter's report, where the event is one.
    #[serde(flatten)]
    pub report: Option<ReportRecord>,
    /// The grant, where the event is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantRecord>,
    /// The step, where the event is one in the lifecycle of a binding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<StepRecord>,
    /// The revocation, where the event is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<RevocationRecord>,
    /// Who asked the operator API; absent where nobody was recognised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorRecord>,
    /// The client certificate, where the event is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateRecord>,
    /// What was wrong or what changed, for events of the server.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A grant: whose, where and for what; never its value.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GrantRecord {
    /// The tenant.
    pub tenant: String,
    /// The principal's key.
    pub principal: String,
    /// The provider.
    pub provider: String,
    /// The scopes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// A step in the lifecycle of a binding.
#[derive(Clone, Debug, Serialize)]
pub struct StepRecord {
    /// The binding's id.
    pub id: String,
    /// `approve`, `activate`, `disable` or `revoke`.
    pub action: &'static str,
    /// The state before.
    pub from: &'static str,
    /// The state after.
    pub to: &'static str,
    /// The number of steps, with this one.
    pub version: i64,
    /// The digest of the definition.
    pub definition: String,
    /// Who says to have done it.
    pub by: String,
    /// The system's user that ran the command.
    pub user: String,
    /// Why, as that person wrote it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it was done.
    pub at: String,
}

/// A revocation, or the end of one.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RevocationRecord {
    /// Its place in the log.
    pub number: i64,
    /// What kind of thing was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The server entry, where it is for one only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The number of the revocation that was lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifts: Option<i64>,
    /// Who says to have done it.
    pub by: String,
    /// What the system knows of them.
    pub user: String,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it was done.
    pub at: String,
    /// How many minted credentials of the tenant this server dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub materials_dropped: Option<usize>,
}

/// Who asked the operator API.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorRecord {
    /// The name of the issuer that vouched.
    pub issuer: String,
    /// The subject there.
    pub subject: String,
}

/// A client certificate that an Envoy was given; never its key.
#[derive(Clone, Debug, Serialize)]
pub struct CertificateRecord {
    /// Its name in the configuration.
    pub name: String,
    /// The beginning of the SHA-256 of the chain, which Envoy is told as the version.
    pub version: String,
    /// Who asked, as the connection shows: the subject and the SHA-256 of the peer's own certificate, `unix socket`, `loopback`,
    /// or an address.
    pub peer: String,
    /// The id that Envoy says to have.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
}

/// A decision.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DecisionRecord {
    /// The id that the answer carries too.
    pub decision_id: String,
    /// Envoy's request id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The server entry.
    pub server: Option<String>,
    /// `mcp` or `http`.
    pub mode: Option<&'static str>,
    /// Who asked; absent where nobody was recognised.
    pub principal: Option<PrincipalRecord>,
    /// What was asked: one operation, or the elements of a batch.
    pub operations: Vec<OperationRecord>,
    /// How many operations there were, listed or not.
    pub operation_count: usize,
    /// `allow` or `deny`.
    pub decision: &'static str,
    /// The stage that denied.
    pub stage: Option<&'static str>,
    /// The reason code that the agent read.
    pub reason: Option<&'static str>,
    /// The rule of the policy that decided.
    pub rule: Option<String>,
    /// Why, for the operator.
    pub explanation: Option<String>,
    /// The bindings in use.
    pub bindings: Vec<BindingRecord>,
    /// The destination: the authority that the upstream reads.
    pub destination: Option<String>,
    /// The Envoy cluster of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// The address of Envoy's peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The MCP revision.
    pub protocol_revision: Option<&'static str>,
    /// The name of the MCP session, which `keyward sessions` knows; a digest of its sealed id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The kinds of credentials that the request seemed to hold, and that were let through or masked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<&'static str>,
    /// How long the decision took, in microseconds.
    pub latency_us: u64,
}

/// Who asked.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PrincipalRecord {
    /// The key under which policy and bindings know the principal.
    pub key: String,
    /// `user` or `agent`.
    pub kind: String,
    /// The subject.
    pub subject: String,
    /// The agent acting.
    pub agent: Option<String>,
    /// The issuer that vouched.
    pub issuer: String,
    /// The tenant.
    pub tenant: String,
    /// The chain of those who act, by subject, the current one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<String>,
}

/// One operation.
#[derive(Clone, Debug, Default, Serialize)]
pub struct OperationRecord {
    /// The MCP method or HTTP method.
    pub method: String,
    /// The tool, prompt, resource or path.
    pub target: Option<String>,
    /// The keyed digest of the arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments_digest: Option<String>,
    /// What was decided for this element alone.
    pub reason: Option<&'static str>,
}

/// A binding in use. References, never values.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BindingRecord {
    /// The binding's id.
    pub id: String,
    /// The credential mode.
    pub mode: String,
    /// The secret references in use.
    pub references: Vec<String>,
}

/// What the filter reported.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReportRecord {
    /// The decision this belongs to.
    pub decision_id: String,
    /// The server entry.
    pub server: String,
    /// The reason code.
    pub reason: Option<&'static str>,
    /// How many times a form of a secret was replaced.
    pub redactions: u64,
    /// Where.
    pub carriers: Vec<&'static str>,
    /// What the client got.
    pub http_status: u32,
    /// What the answer seemed to hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<&'static str>,
}

// === impl Record ===

impl Record {
    /// A record of `event`, now.
    #[must_use]
    pub fn new(event: Event, environment: &str, policy_revision: &str) -> Record {
        Record {
            time: rfc3339(SystemTime::now()),
            event,
            environment: environment.to_owned(),
            policy_revision: policy_revision.to_owned(),
            decision: None,
            report: None,
            grant: None,
            binding: None,
            revocation: None,
            operator: None,
            certificate: None,
            detail: String::new(),
        }
    }

    /// The record as one line of JSON, with its line feed.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        // Every field is a string, a number or a list of them: this cannot fail, and if it did the line would say so.
        let mut line = serde_json::to_vec(self).unwrap_or_else(|_| br#"{"event":"unreadable"}"#.to_vec());
        line.push(b'\n');
        line
    }
}

/// `text` cut to [`MAX_TEXT_CHARS`], with `…` where something was cut and control characters replaced.
#[must_use]
pub fn bounded(text: &str) -> String {
    let mut kept: String =
        text.chars().take(MAX_TEXT_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_TEXT_CHARS).is_some() {
        kept.push('…');
    }
    kept
}

/// A time as RFC 3339 in UTC with microseconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = since.as_secs();
    let (year, month, day) = civil_from_days(secs / 86_400);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
}

/// Year, month and day of a count of days since 1970-01-01, by whole 400-year eras of the Gregorian calendar.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000Z"),
            (1_795_248_812, "2026-11-21T08:13:32.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ];
        for (secs, expected) in cases {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(secs)), expected);
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_a_client_sends() {
        let mut record = Record::new(Event::Decision, "test", "r1");
        let method = bounded(&format!("a\nb\u{0}{}", "x".repeat(1000)));
        record.decision = Some(Box::new(DecisionRecord {
            decision_id: "0".repeat(32),
            operations: vec![OperationRecord { method, ..OperationRecord::default() }],
            decision: "deny",
            ..DecisionRecord::default()
        }));
        let line = String::from_utf8(record.line()).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], "decision");
        assert_eq!(value["decision"], "deny");
        assert_eq!(value["operations"][0]["method"].as_str().unwrap().chars().count(), MAX_TEXT_CHARS + 1);
        assert!(value.get("redactions").is_none());
    }
}
