//! What a role session is called and may do: name, source identity, tags and policy, made of the caller's properties and
//! checked against IAM's limits before STS is asked. What is over a limit denies; nothing is cut off.

use crate::caller::Caller;
use crate::config::AwsSession;
use crate::identity::PrincipalKind;

use super::template::{Place, Template, TemplateError};

/// The most session tags (IAM and STS quotas).
pub const MAX_TAGS: usize = 50;
/// The longest tag key and value, in characters.
pub const MAX_TAG_KEY: usize = 128;
/// The longest tag value, in characters.
pub const MAX_TAG_VALUE: usize = 256;
/// The longest session policy, in characters.
pub const MAX_POLICY: usize = 2048;
/// The most managed policies of a session.
pub const MAX_POLICY_ARNS: usize = 10;
/// The shortest and the longest session name and source identity, in characters.
pub const NAME_LENGTH: std::ops::RangeInclusive<usize> = 2..=64;
/// The longest session of a chained role, in seconds.
pub const MAX_CHAINED_SECS: u32 = 3600;

/// How sessions are made.
#[derive(Clone, Debug)]
pub struct SessionTemplate {
    /// Absent: [`who_acts`].
    name: Option<Template>,
    source_identity: Option<Template>,
    tags: Vec<(String, Template)>,
    transitive: Vec<String>,
    policy: Option<PolicyTemplate>,
    policy_arns: Vec<String>,
    duration_secs: u32,
}

/// One session, within every limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `RoleSessionName`.
    pub name: String,
    /// `SourceIdentity`.
    pub source_identity: Option<String>,
    /// Session tags.
    pub tags: Vec<(String, String)>,
    /// The keys of those that outlive a further assumed role.
    pub transitive: Vec<String>,
    /// The policy, JSON.
    pub policy: Option<String>,
    /// Managed policies.
    pub policy_arns: Vec<String>,
    /// How long, in seconds.
    pub duration_secs: u32,
}

/// Why there is no session for a caller. Shows no claim's value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// A template.
    #[error("`{what}`: {cause}")]
    Template {
        /// The key in configuration.
        what: String,
        /// What is wrong.
        cause: TemplateError,
    },
    /// Too short or too long.
    #[error("`{what}` has {length} characters for this caller, not {limit}")]
    Length {
        /// The key in configuration.
        what: String,
        /// How long it is.
        length: usize,
        /// What is allowed.
        limit: String,
    },
    /// Characters that IAM does not take.
    #[error("`{what}` holds characters for this caller that IAM does not take")]
    Characters {
        /// The key in configuration.
        what: String,
    },
    /// More than IAM takes.
    #[error("{count} {what} are more than {limit}")]
    Count {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many may be.
        limit: usize,
    },
    /// A name of AWS's own.
    #[error("`{what}` begins with `aws:`, which is AWS's own")]
    Reserved {
        /// The key in configuration.
        what: String,
    },
    /// Tag keys that differ in case only.
    #[error("the tag `{0}` occurs twice; tags compare without case")]
    Twice(String),
    /// A transitive tag that is none.
    #[error("`{0}` is no tag of this session")]
    NoTag(String),
    /// Out of range.
    #[error("`duration_secs` is {0}, not 900 to 43200")]
    Duration(u32),
}

// === impl SessionTemplate ===

impl SessionTemplate {
    /// Reads the `session` of a configuration.
    ///
    /// # Errors
    /// Whatever would fail for every caller.
    pub fn new(configured: &AwsSession) -> Result<SessionTemplate, SessionError> {
        let parse = |what: &str, place: Place, text: &str| {
            Template::parse(place, text).map_err(|cause| SessionError::Template { what: what.to_owned(), cause })
        };
        let mut tags: Vec<(String, Template)> = Vec::new();
        for (key, value) in &configured.tags {
            let what = format!("tags.{key}");
            if key.to_ascii_lowercase().starts_with("aws:") {
                return Err(SessionError::Reserved { what });
            }
            length(&what, key, 1..=MAX_TAG_KEY)?;
            characters(&what, key, is_tag_character)?;
            if tags.iter().any(|(other, _)| other.to_lowercase() == key.to_lowercase()) {
                return Err(SessionError::Twice(key.clone()));
            }
            tags.push((key.clone(), parse(&what, Place::Tag, value)?));
        }
        count("session tags", tags.len(), MAX_TAGS)?;
        count("managed policies", configured.policy_arns.len(), MAX_POLICY_ARNS)?;
        if let Some(none) = configured.transitive_tags.iter().find(|key| tags.iter().all(|(tag, _)| tag != *key)) {
            return Err(SessionError::NoTag(none.clone()));
        }
        if !(900..=43200).contains(&configured.duration_secs) {
            return Err(SessionError::Duration(configured.duration_secs));
        }
        Ok(SessionTemplate {
            name: configured.name.as_deref().map(|text| parse("name", Place::Name, text)).transpose()?,
            source_identity: configured
                .source_identity
                .as_deref()
                .map(|text| parse("source_identity", Place::Name, text))
                .transpose()?,
            tags,
            transitive: configured.transitive_tags.clone(),
            policy: configured.policy.as_ref().map(PolicyTemplate::new).transpose()?,
            policy_arns: configured.policy_arns.clone(),
            duration_secs: configured.duration_secs,
        })
    }

    /// The session of a caller.
    ///
    /// # Errors
    /// The caller lacks a property, or a value is over one of IAM's limits.
    pub fn of(&self, caller: &Caller) -> Result<Session, SessionError> {
        let name = |what: &str, template: &Template| {
            let filled = fill(what, template, caller)?;
            length(what, &filled, NAME_LENGTH)?;
            characters(what, &filled, is_name_character)?;
            if filled.starts_with("aws:") { Err(SessionError::Reserved { what: what.to_owned() }) } else { Ok(filled) }
        };
        let tags = self.tags.iter().map(|(key, template)| {
            let what = format!("tags.{key}");
            let value = fill(&what, template, caller)?;
            length(&what, &value, 0..=MAX_TAG_VALUE)?;
            characters(&what, &value, is_tag_character)?;
            Ok((key.clone(), value))
        });
        Ok(Session {
            name: match &self.name {
                Some(own) => name("name", own)?,
                None => name("name", &who_acts(caller)?)?,
            },
            source_identity: self
                .source_identity
                .as_ref()
                .map(|template| name("source_identity", template))
                .transpose()?,
            tags: tags.collect::<Result<_, SessionError>>()?,
            transitive: self.transitive.clone(),
            policy: self.policy.as_ref().map(|policy| policy.fill(caller)).transpose()?,
            policy_arns: self.policy_arns.clone(),
            duration_secs: self.duration_secs,
        })
    }
}

/// What a session is called that configuration gives no name: the person and the agent, each as far as there is one.
/// The `+` stays where there is no person, so that an agent for itself is never taken for a person of its name.
fn who_acts(caller: &Caller) -> Result<Template, SessionError> {
    let text = match (caller.principal.kind, &caller.principal.agent) {
        (PrincipalKind::User, Some(_)) => "{user}+{agent}",
        (PrincipalKind::User, None) => "{user}",
        (PrincipalKind::Agent | PrincipalKind::Workload, _) => "+{agent}",
    };
    Template::parse(Place::Name, text).map_err(|cause| SessionError::Template { what: "name".to_owned(), cause })
}

fn fill(what: &str, template: &Template, caller: &Caller) -> Result<String, SessionError> {
    template.fill(caller).map_err(|cause| SessionError::Template { what: what.to_owned(), cause })
}

fn length(what: &str, value: &str, limit: std::ops::RangeInclusive<usize>) -> Result<(), SessionError> {
    let length = value.chars().count();
    if limit.contains(&length) {
        return Ok(());
    }
    Err(SessionError::Length { what: what.to_owned(), length, limit: format!("{} to {}", limit.start(), limit.end()) })
}

fn characters(what: &str, value: &str, is_allowed: fn(char) -> bool) -> Result<(), SessionError> {
    if value.chars().all(is_allowed) { Ok(()) } else { Err(SessionError::Characters { what: what.to_owned() }) }
}

fn count(what: &'static str, count: usize, limit: usize) -> Result<(), SessionError> {
    if count <= limit { Ok(()) } else { Err(SessionError::Count { what, count, limit }) }
}

/// `[\w+=,.@-]`.
fn is_name_character(char: char) -> bool {
    char.is_ascii_alphanumeric() || "_+=,.@-".contains(char)
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]`.
fn is_tag_character(char: char) -> bool {
    char.is_alphanumeric() || (char.is_whitespace() && !char.is_control()) || "_.:/=+-@".contains(char)
}

/// A session policy whose texts are templates.
#[derive(Clone, Debug)]
enum PolicyTemplate {
    Text(Template),
    List(Vec<PolicyTemplate>),
    Object(Vec<(String, PolicyTemplate)>),
    Other(serde_json::Value),
}

// === impl PolicyTemplate ===

impl PolicyTemplate {
    fn new(policy: &serde_json::Value) -> Result<PolicyTemplate, SessionError> {
        use serde_json::Value;
        let new = PolicyTemplate::new;
        Ok(match policy {
            Value::String(text) => PolicyTemplate::Text(
                Template::parse(Place::Policy, text)
                    .map_err(|cause| SessionError::Template { what: "policy".into(), cause })?,
            ),
            Value::Array(items) => PolicyTemplate::List(items.iter().map(new).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| Ok((key.clone(), new(value)?)));
                PolicyTemplate::Object(fields.collect::<Result<_, SessionError>>()?)
            }
            other => PolicyTemplate::Other(other.clone()),
        })
    }

    /// The policy's text, no longer than IAM takes.
    fn fill(&self, caller: &Caller) -> Result<String, SessionError> {
        let text = self.value(caller)?.to_string();
        length("policy", &text, 1..=MAX_POLICY)?;
        Ok(text)
    }

    fn value(&self, caller: &Caller) -> Result<serde_json::Value, SessionError> {
        use serde_json::Value;
        Ok(match self {
            PolicyTemplate::Text(template) => Value::String(fill("policy", template, caller)?),
            PolicyTemplate::List(items) => {
                Value::Array(items.iter().map(|item| item.value(caller)).collect::<Result<_, _>>()?)
            }
            PolicyTemplate::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| Ok((key.clone(), value.value(caller)?)));
                Value::Object(fields.collect::<Result<_, SessionError>>()?)
            }
            PolicyTemplate::Other(other) => other.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
