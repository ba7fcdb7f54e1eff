//! Text with the caller's properties in it, for session names, tags, roles and policies.
//!
//! Besides the placeholders of references there are `{subject}`, who acts, user or agent; `{claim:NAME}`, a text claim of
//! the caller's token; and `{request}`, the decision's id. IAM's own policy variables, `${aws:username}`, stay as they are.

use crate::caller::{Caller, PLACEHOLDERS, PlaceholderError};

/// The placeholder of the decision's id. With it every request has a session of its own.
const REQUEST: &str = "request";
const SUBJECT: &str = "subject";
const CLAIM: &str = "claim:";

/// A template, read, for one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    place: Place,
    pieces: Vec<Piece>,
}

/// Where a template stands: what becomes of values there, and what keeps two of them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A session's name or its source identity: letters, digits and `_.@-` stay, every other byte becomes `=` and two
    /// hexadecimal digits.
    Name,
    /// A role's ARN: letters, digits and `_+=,.@-` stay; every other byte becomes what no ARN holds, so that a value
    /// with a slash names no other path.
    Arn,
    /// A policy: letters, digits and `-_.~` stay, every other byte becomes `%` and two hexadecimal digits, so that no
    /// value is a wildcard, a policy variable, or reaches past its segment of a name.
    Policy,
    /// A tag: the value itself.
    Tag,
}

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
    /// Two placeholders that nothing keeps apart: what one caller has in the first, another has in the second.
    #[error("two placeholders have nothing between them that no value can hold, so two callers could be one")]
    Touching(Place),
    /// The caller has no such property.
    #[error("the caller has no {0}")]
    Absent(String),
}

// === impl TemplateError ===

impl TemplateError {
    /// What to do, where it is not what the place as a whole asks for.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        let TemplateError::Touching(place) = self else { return None };
        Some(match place {
            Place::Name => "separate them with `+` or `,`",
            Place::Arn | Place::Policy => "separate them with `/`",
            Place::Tag => "give each a tag of its own",
        })
    }
}

// === impl Place ===

impl Place {
    /// What stays of a value besides letters and digits, and what every other byte becomes before its two hexadecimal
    /// digits; `None` where all of it stays.
    fn encoding(self) -> Option<(&'static [u8], u8)> {
        match self {
            Place::Name => Some((b"_.@-", b'=')),
            Place::Arn => Some((b"_+=,.@-", b'%')),
            Place::Policy => Some((b"-_.~", b'%')),
            Place::Tag => None,
        }
    }

    /// Whether a filled-in value can hold this byte.
    fn is_filled_in(self, byte: u8) -> bool {
        self.encoding().is_none_or(|(kept, sign)| byte.is_ascii_alphanumeric() || byte == sign || kept.contains(&byte))
    }

    fn encode_into(self, out: &mut String, value: &str) {
        let Some((kept, sign)) = self.encoding() else { return out.push_str(value) };
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("{}{byte:02X}", char::from(sign)));
            }
        }
    }
}

// === impl Template ===

impl Template {
    /// Reads a template. Between two placeholders stands something that no value holds there, so callers who differ in
    /// any of them never come to the same text.
    ///
    /// # Errors
    /// An unknown placeholder, a brace without its partner, or two placeholders that nothing keeps apart.
    pub fn parse(place: Place, text: &str) -> Result<Template, TemplateError> {
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
                if !pieces.is_empty() && plain.bytes().all(|byte| place.is_filled_in(byte)) {
                    return Err(TemplateError::Touching(place));
                }
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Property(name.to_owned()));
            } else {
                return Err(TemplateError::Unknown(name.to_owned()));
            }
            rest = after;
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        Ok(Template { place, pieces })
    }

    /// The text with `stand_in` in place of each value.
    #[must_use]
    pub fn with_each(&self, stand_in: &str) -> String {
        self.pieces.iter().map(|piece| if let Piece::Text(text) = piece { text } else { stand_in }).collect()
    }

    /// The text for a caller; every value becomes what it is in this place, the template's own text stays.
    ///
    /// # Errors
    /// The caller has no value for a placeholder.
    pub fn fill(&self, caller: &Caller) -> Result<String, TemplateError> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Property(name) => self.place.encode_into(&mut filled, property(caller, name)?),
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
            _ => absent(),
        })?,
    };
    if value.is_empty() { Err(absent()) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

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
        let caller = caller();
        let fill = |place, text: &str| Template::parse(place, text).unwrap().fill(&caller).unwrap();
        assert_eq!(fill(Place::Tag, "{user}, ${aws:username}"), "auth0|ä b, ${aws:username}");
        assert_eq!(fill(Place::Name, "{user}+{agent}"), "auth0=7C=C3=A4=20b+cli-1");
        assert_eq!(fill(Place::Arn, "role/{agent}/{claim:team}"), "role/cli-1/blue%2A");
        assert_eq!(fill(Place::Policy, "b/{claim:team}/*"), "b/blue%2A/*");
        assert_eq!(fill(Place::Tag, "{request}"), "d".repeat(32));
    }

    #[test]
    fn what_the_caller_does_not_have_is_an_error() {
        for text in ["{issuer}", "{claim:level}", "{claim:none}"] {
            let template = Template::parse(Place::Tag, text).unwrap();
            assert!(matches!(template.fill(&caller()), Err(TemplateError::Absent(_))), "{text}");
        }
        for text in ["{who}", "{", "}", "{claim:}", "{user", "a}b", "{}"] {
            assert!(Template::parse(Place::Tag, text).is_err(), "{text}");
        }
    }

    #[test]
    fn placeholders_that_nothing_keeps_apart_are_refused() {
        let refused = [
            (Place::Name, "{user}@{agent}"),
            (Place::Name, "{user}-{agent}"),
            (Place::Name, "{user}=2B{agent}"),
            (Place::Name, "{user}+{agent}{tenant}"),
            (Place::Arn, "a-{tenant}-{agent}"),
            (Place::Arn, "{tenant}+{agent}"),
            (Place::Policy, "b/{user}-{agent}"),
            (Place::Policy, "{user}%2F{agent}"),
            (Place::Tag, "{user}/{agent}"),
            (Place::Tag, "{user}${x}{agent}"),
        ];
        for (place, text) in refused {
            let error = Template::parse(place, text).unwrap_err();
            assert!(error == TemplateError::Touching(place) && error.remedy().is_some(), "{text}: {error}");
        }
        let good = [
            (Place::Name, "x-{user}+{agent},{tenant}-y"),
            (Place::Arn, "role/{tenant}/a-{agent}"),
            (Place::Policy, "b/{user}:{agent}${aws:username}{tenant}/*"),
            (Place::Tag, "x {user} y"),
        ];
        for (place, text) in good {
            assert!(Template::parse(place, text).is_ok(), "{text}");
        }
    }

    const PLACES: [Place; 4] = [Place::Name, Place::Arn, Place::Policy, Place::Tag];
    const NAMES: [&str; 4] = ["tenant", "subject", "agent", "claim:team"];

    /// Values and texts out of few characters, so that two that only look alike come up often.
    fn any_values() -> impl Strategy<Value = [String; 4]> {
        prop::array::uniform4("[+/-]{1,2}")
    }

    fn caller_of([tenant, subject, agent, team]: [String; 4]) -> Caller {
        let claims = serde_json::json!({ "team": team });
        let principal = Principal { tenant, subject, agent: Some(agent), claims, ..Principal::nobody() };
        Caller { principal: Arc::new(principal), ..Caller::none("test") }
    }

    fn any_template() -> impl Strategy<Value = String> {
        let name = prop::sample::select(NAMES.to_vec());
        prop::collection::vec((name, "[a/+=@-]{0,1}"), 1..4)
            .prop_map(|pieces| pieces.iter().map(|(name, text)| format!("{text}{{{name}}}")).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(8000) })]
        #[test]
        fn two_callers_never_share_a_text(
            place in prop::sample::select(PLACES.to_vec()), text in any_template(),
            one in any_values(), two in any_values(),
        ) {
            let (one, two) = (caller_of(one), caller_of(two));
            if let Ok(template) = Template::parse(place, &text) {
                let mut used = NAMES.iter().filter(|name| text.contains(&format!("{{{name}}}")));
                let same = used.all(|name| property(&one, name) == property(&two, name));
                prop_assert_eq!(same, template.fill(&one) == template.fill(&two), "{:?} {}", place, text);
            }
        }
    }
}
