//! For whom a credential is wanted: what references, keys and mints may depend on.

use std::sync::Arc;

use crate::identity::Principal;
use crate::percent;
use crate::secret::SecretBytes;

/// The principal of one decision, and where the decision is made.
#[derive(Clone)]
pub struct Caller {
    /// The environment of this server.
    pub environment: String,
    /// The server entry that is called.
    pub server: String,
    /// Who acts.
    pub principal: Arc<Principal>,
    /// The caller's own access token, for grants that exchange it. It never reaches an upstream.
    pub token: Option<Arc<SecretBytes>>,
    /// The decision, for records at the other side.
    pub decision_id: String,
}

/// Why a template could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// There is no such placeholder.
    #[error(
        "`{{{0}}}` is no placeholder; there are {{tenant}}, {{environment}}, {{server}}, {{user}}, {{agent}}, {{issuer}}"
    )]
    Unknown(String),
    /// A brace without its partner.
    #[error("a brace has no partner")]
    Unbalanced,
    /// Two placeholders that nothing keeps apart: what one caller has in the first, another has in the second.
    #[error("two placeholders have nothing between them that no value can hold, so two callers could be one")]
    Touching,
    /// Letters that the store does not tell from others, so that two callers could be one there.
    #[error("the store does not tell capital letters from small ones, and the caller's value has some")]
    Capitals,
    /// The caller has no such property: an agent for itself has no user, a user without an agent has no agent.
    #[error("the caller has no {0}")]
    Absent(&'static str),
}

/// What stays as it is in a filled-in placeholder besides letters and digits: not the dot, so that none is `..`.
const KEPT: &[u8] = b"-_~";

/// What to do about [`PlaceholderError::Touching`]: neither is in a filled-in placeholder.
pub const TOUCHING_REMEDY: &str = "separate them with `/` or `.`";

/// The placeholders of references and other templates.
pub const PLACEHOLDERS: [&str; 6] = ["tenant", "environment", "server", "user", "agent", "issuer"];

// === impl Caller ===

impl Caller {
    /// Nobody in particular, for what does not depend on a caller. Templates with a placeholder for a person fail for it.
    #[must_use]
    pub fn none(environment: &str) -> Caller {
        Caller {
            environment: environment.to_owned(),
            server: String::new(),
            principal: Arc::new(Principal::nobody()),
            token: None,
            decision_id: String::new(),
        }
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.principal.tenant
    }

    /// `template` with each `{name}` replaced by the caller's property, percent-encoded up to the unreserved characters of
    /// RFC 3986 without `.`: no value can name another folder or end a path. Between two placeholders stands something
    /// that no value holds, so callers who differ in any of them never come to the same text.
    ///
    /// # Errors
    /// A template that [`check`] refuses, or a placeholder that this caller has no value for.
    pub fn fill(&self, template: &str) -> Result<String, PlaceholderError> {
        let mut filled = String::with_capacity(template.len() + 64);
        for piece in pieces(template)? {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Placeholder(name) => percent::encode_into(&mut filled, self.property(name)?.as_bytes(), KEPT),
            }
        }
        Ok(filled)
    }

    /// The value of one placeholder, not encoded.
    ///
    /// # Errors
    /// An unknown placeholder, or one that this caller has no value for.
    pub fn property(&self, name: &str) -> Result<&str, PlaceholderError> {
        use crate::identity::PrincipalKind;
        let principal = &*self.principal;
        let is_user = principal.kind == PrincipalKind::User;
        let (value, shown) = match name {
            "tenant" => (Some(principal.tenant.as_str()), "tenant"),
            "environment" => (Some(self.environment.as_str()), "environment"),
            "server" => (Some(self.server.as_str()), "server"),
            "user" => (Some(principal.subject.as_str()).filter(|_| is_user), "user"),
            "agent" => (principal.agent.as_deref(), "agent"),
            "issuer" => (Some(principal.issuer.as_str()), "issuer"),
            other => return Err(PlaceholderError::Unknown(other.to_owned())),
        };
        value.filter(|value| !value.is_empty()).ok_or(PlaceholderError::Absent(shown))
    }
}

/// Whether a template holds any placeholder.
#[must_use]
pub fn is_template(text: &str) -> bool {
    text.contains('{')
}

/// Checks a template without a caller.
///
/// # Errors
/// An unknown placeholder, unbalanced braces, or two placeholders that nothing keeps apart.
pub fn check(template: &str) -> Result<(), PlaceholderError> {
    for piece in pieces(template)? {
        if let Piece::Placeholder(name) = piece
            && !PLACEHOLDERS.contains(&name)
        {
            return Err(PlaceholderError::Unknown(name.to_owned()));
        }
    }
    Ok(())
}

/// Whether a template filled in for some caller can be this text.
#[must_use]
pub fn could_be(template: &str, text: &str) -> bool {
    pieces(template).is_ok_and(|pieces| fits(&pieces, text))
}

fn fits(pieces: &[Piece<'_>], text: &str) -> bool {
    match pieces.split_first() {
        None => text.is_empty(),
        Some((Piece::Text(own), more)) => text.strip_prefix(own).is_some_and(|rest| fits(more, rest)),
        Some((Piece::Placeholder(_), more)) => {
            let longest = text.bytes().take_while(|byte| is_filled_in(*byte)).count();
            (1..=longest).rev().any(|length| text.get(length..).is_some_and(|rest| fits(more, rest)))
        }
    }
}

/// Whether a filled-in placeholder can hold this byte.
fn is_filled_in(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'%' || KEPT.contains(&byte)
}

enum Piece<'a> {
    Text(&'a str),
    Placeholder(&'a str),
}

fn pieces(template: &str) -> Result<Vec<Piece<'_>>, PlaceholderError> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(PlaceholderError::Unbalanced)?;
        if before.contains('}') {
            return Err(PlaceholderError::Unbalanced);
        }
        if !pieces.is_empty() && before.bytes().all(is_filled_in) {
            return Err(PlaceholderError::Touching);
        }
        pieces.extend([Piece::Text(before), Piece::Placeholder(name)]);
        rest = after;
    }
    if rest.contains('}') {
        return Err(PlaceholderError::Unbalanced);
    }
    pieces.push(Piece::Text(rest));
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(subject: &str, tenant: &str) -> Caller {
        let principal =
            Principal { subject: subject.into(), tenant: tenant.into(), issuer: "main".into(), ..Principal::nobody() };
        Caller { server: "demo".into(), principal: Arc::new(principal), ..Caller::none("test") }
    }

    #[test]
    fn properties_are_filled_in_and_cannot_leave_their_segment() {
        let filled = caller("../ä.b", "acme").fill("{tenant}/{environment}/{server}/{issuer}/{user}/key");
        assert_eq!(filled.unwrap(), "acme/test/demo/main/%2E%2E%2F%C3%A4%2Eb/key");
        assert_eq!(caller("u", "t").fill("{agent}"), Err(PlaceholderError::Absent("agent")));
        assert_eq!(caller("", "t").fill("{user}"), Err(PlaceholderError::Absent("user")));
        for bad in ["{who}", "{", "}", "a}b{user}", "{user", "{{user}}"] {
            assert!(caller("u", "t").fill(bad).is_err() && check(bad).is_err(), "{bad}");
        }
        assert!(check("kv/{tenant}/{user}").is_ok());
    }

    #[test]
    fn a_template_knows_what_it_can_become() {
        assert!(could_be("db/creds/{user}?dynamic", "db/creds/alice%40x?dynamic"));
        assert!(could_be("{tenant}.-{user}", "a-b.-c") && could_be("plain", "plain"));
        for (template, text) in
            [("db/creds/{user}", "db/creds/"), ("db/creds/{user}", "db/creds/a/b"), ("plain", "other"), ("{user", "a")]
        {
            assert!(!could_be(template, text), "{template} {text}");
        }
    }

    #[test]
    fn placeholders_that_nothing_keeps_apart_are_refused() {
        // The tenant `acme-eu` and its user `bob`; the tenant `acme` and its user `eu-bob`.
        for text in
            ["{tenant}-{user}", "{tenant}{user}", "a/{tenant}_x{user}", "{tenant}%2F{user}", "{user}/{agent}~{user}"]
        {
            assert_eq!(check(text), Err(PlaceholderError::Touching), "{text}");
            assert_eq!(caller("eu-bob", "acme").fill(text), Err(PlaceholderError::Touching), "{text}");
        }
        for text in ["{tenant}/{user}", "{tenant}-/-{user}", "key.{tenant}.{user}", "{tenant}?x={user}", "x-{user}-y"] {
            assert_eq!(check(text), Ok(()), "{text}");
            assert_ne!(caller("eu-bob", "acme").fill(text), caller("bob", "acme-eu").fill(text), "{text}");
        }
    }

    /// Values and texts out of few characters, so that two that only look alike come up often.
    fn any_values() -> impl Strategy<Value = [String; 6]> {
        prop::array::uniform6("[ä/-]{1,2}")
    }

    fn caller_of([subject, tenant, agent, issuer, server, place]: [String; 6]) -> Caller {
        let principal = Principal { subject, tenant, agent: Some(agent), issuer, ..Principal::nobody() };
        Caller { server, principal: Arc::new(principal), ..Caller::none(&place) }
    }

    fn any_template() -> impl Strategy<Value = String> {
        let name = prop::sample::select(PLACEHOLDERS.to_vec());
        prop::collection::vec((name, "[a/.~%-]{0,1}"), 1..4)
            .prop_map(|pieces| pieces.iter().map(|(name, text)| format!("{text}{{{name}}}")).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(8000) })]
        #[test]
        fn two_callers_never_share_a_filled_template(
            template in any_template(), one in any_values(), two in any_values(),
        ) {
            let (one, two) = (caller_of(one), caller_of(two));
            if check(&template).is_ok() {
                let mut used = PLACEHOLDERS.iter().filter(|name| template.contains(&format!("{{{name}}}")));
                let same = used.all(|name| one.property(name) == two.property(name));
                prop_assert_eq!(same, one.fill(&template).unwrap() == two.fill(&template).unwrap(), "{}", template);
            }
        }
    }
}
