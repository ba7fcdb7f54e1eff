//! Text with the caller's properties in it, for session names, tags, roles and policies.
//!
//! Besides the placeholders of references there are `{subject}`, who acts, user or agent; `{claim:NAME}`, a text claim of
//! the caller's token; and `{request}`, the decision's id. IAM's own policy variables, `${aws:username}`, stay as they are.

use crate::caller::{Caller, PLACEHOLDERS, PlaceholderError};

/// The placeholder of the decision's id. With it every request has a session of its own.
const REQUEST: &str = "request";
const SUBJECT: &str = "subject";
const CLAIM: &str = "claim:";

/// A template, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Property(String),
}

/// Why a template cannot be used or filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No such placeholder.
    #[error(
        "`{{{0}}}` is no placeholder; there are {{tenant}}, {{environment}}, {{server}}, {{user}}, {{agent}}, {{issuer}}, {{subject}}, {{claim:NAME}} and {{request}}"
    )]
    Unknown(String),
    /// A brace without its partner.
    #[error("a brace has no partner")]
    Unbalanced,
    /// The caller has no such property.
    #[error("the caller has no {0}")]
    Absent(String),
}

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// An unknown placeholder, or a brace without its partner.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(position) = rest.find(['{', '}']) {
            let (before, from_brace) = rest.split_at(position);
            let Some(inside) = from_brace.strip_prefix('{') else { return Err(TemplateError::Unbalanced) };
            let (name, after) = inside.split_once('}').ok_or(TemplateError::Unbalanced)?;
            plain.push_str(before);
            if before.ends_with('$') {
                plain.push_str(&format!("{{{name}}}"));
            } else if is_known(name) {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Property(name.to_owned()));
            } else {
                return Err(TemplateError::Unknown(name.to_owned()));
            }
            rest = after;
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        Ok(Template(pieces))
    }

    /// The text with `stand_in` in place of each value.
    #[must_use]
    pub fn with_each(&self, stand_in: &str) -> String {
        self.0.iter().map(|piece| if let Piece::Text(text) = piece { text } else { stand_in }).collect()
    }

    /// The text for a caller; every value goes through `encode`, the template's own text does not.
    ///
    /// # Errors
    /// The caller has no value for a placeholder.
    pub fn fill(&self, caller: &Caller, encode: impl Fn(&str) -> String) -> Result<String, TemplateError> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Property(name) => filled.push_str(&encode(property(caller, name)?)),
            }
        }
        Ok(filled)
    }
}

fn is_known(name: &str) -> bool {
    PLACEHOLDERS.contains(&name)
        || [REQUEST, SUBJECT].contains(&name)
        || name.strip_prefix(CLAIM).is_some_and(|claim| !claim.is_empty())
}

fn property<'a>(caller: &'a Caller, name: &str) -> Result<&'a str, TemplateError> {
    let absent = || TemplateError::Absent(name.to_owned());
    let value = match name.strip_prefix(CLAIM) {
        Some(claim) => caller.principal.claims.get(claim).and_then(serde_json::Value::as_str).ok_or_else(absent)?,
        None if name == REQUEST => &caller.decision_id,
        None if name == SUBJECT => &caller.principal.subject,
        None => caller.property(name).map_err(|error| match error {
            PlaceholderError::Unknown(name) => TemplateError::Unknown(name),
            PlaceholderError::Unbalanced => TemplateError::Unbalanced,
            PlaceholderError::Absent(_) => absent(),
        })?,
    };
    if value.is_empty() { Err(absent()) } else { Ok(value) }
}

/// The value itself.
#[must_use]
pub fn plain(value: &str) -> String {
    value.to_owned()
}

/// The value within a session's name: letters, digits and `_.@-` stay, every other byte becomes `=` and two hexadecimal
/// digits, so that two callers never share a name.
#[must_use]
pub fn for_name(value: &str) -> String {
    escape(value, '=', b"_.@-")
}

/// The value within a role's ARN: letters, digits and `_+=,.@-` stay; every other byte becomes what no ARN holds, so that
/// a value with a slash names no other path.
#[must_use]
pub fn for_arn(value: &str) -> String {
    escape(value, '%', b"_+=,.@-")
}

/// The value within a policy: letters, digits and `-_.~` stay, every other byte becomes `%` and two hexadecimal digits, so
/// that no value is a wildcard, a policy variable, or reaches past its segment of a name.
#[must_use]
pub fn for_policy(value: &str) -> String {
    escape(value, '%', b"-_.~")
}

fn escape(value: &str, sign: char, kept: &[u8]) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("{sign}{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::identity::Principal;

    fn caller() -> Caller {
        let principal = Principal {
            subject: "auth0|ä b".into(),
            tenant: "acme".into(),
            agent: Some("cli-1".into()),
            claims: serde_json::json!({"team": "blue*", "level": 3}),
            ..Principal::nobody()
        };
        Caller { principal: Arc::new(principal), decision_id: "d".repeat(32), ..Caller::none("test") }
    }

    #[test]
    fn a_value_is_escaped_for_where_it_stands() {
        let template = Template::parse("{user}@{agent}/{claim:team}/${aws:username}").unwrap();
        let caller = caller();
        assert_eq!(template.fill(&caller, plain).unwrap(), "auth0|ä b@cli-1/blue*/${aws:username}");
        let template = Template::parse("{user}").unwrap();
        assert_eq!(template.fill(&caller, for_name).unwrap(), "auth0=7C=C3=A4=20b");
        let template = Template::parse("b/{claim:team}/*").unwrap();
        assert_eq!(template.fill(&caller, for_policy).unwrap(), "b/blue%2A/*");
        assert_eq!(Template::parse("{request}").unwrap().fill(&caller, plain).unwrap(), "d".repeat(32));
    }

    #[test]
    fn what_the_caller_does_not_have_is_an_error() {
        for text in ["{issuer}", "{claim:level}", "{claim:none}"] {
            let template = Template::parse(text).unwrap();
            assert!(matches!(template.fill(&caller(), plain), Err(TemplateError::Absent(_))), "{text}");
        }
        for text in ["{who}", "{", "}", "{claim:}", "{user", "a}b", "{}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
