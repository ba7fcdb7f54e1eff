//! What a store answered.

use keyward_contract::json::{self, Value};
use zeroize::Zeroizing;

use super::{MAX_ANSWER_BYTES, StoreError, StoreErrorKind};
use crate::outbound;

/// The most that is shown of what a store says about an error, in characters.
const MAX_SAID: usize = 120;

/// A whole answer.
pub(crate) struct Answer {
    place: String,
    answer: outbound::Answer,
    /// What was presented: a message that repeats it is not shown.
    presented: Vec<Zeroizing<String>>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(
        place: String,
        answer: outbound::Answer,
        presented: impl Iterator<Item = Zeroizing<String>>,
    ) -> Answer {
        Answer { place, answer, presented: presented.collect() }
    }

    /// The status.
    pub(crate) fn status(&self) -> u16 {
        self.answer.status
    }

    /// A header, where it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.answer.header(name)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not JSON.
    pub(crate) fn json(&self) -> Result<Value<'_>, StoreError> {
        let limits = json::Limits { max_bytes: MAX_ANSWER_BYTES, ..json::Limits::default() };
        json::parse(self.answer.body(), &limits)
            .map_err(|cause| self.malformed(format!("the answer is not JSON: {cause}")))
    }

    /// An error that says that this answer is not what the published description says.
    pub(crate) fn malformed(&self, cause: impl Into<String>) -> StoreError {
        StoreError::malformed(&self.place, cause)
    }

    /// An error of this kind with the status and what the store says about it.
    pub(crate) fn error(&self, kind: StoreErrorKind, remedy: &'static str) -> StoreError {
        StoreError::new(kind, &self.place, format!("status {}{}", self.status(), self.said()), remedy)
    }

    /// An error of this kind with a cause of our own.
    pub(crate) fn error_because(
        &self,
        kind: StoreErrorKind,
        cause: impl Into<String>,
        remedy: &'static str,
    ) -> StoreError {
        StoreError::new(kind, &self.place, cause, remedy)
    }

    /// What the store says about an error, ready to follow the status: known places of its JSON only, on one line, short,
    /// and nothing at all where it repeats what was presented.
    pub(super) fn said(&self) -> String {
        self.json().map(|value| message(&value, &self.presented)).unwrap_or_default()
    }
}

fn message(value: &Value<'_>, presented: &[Zeroizing<String>]) -> String {
    let known = ["/errors/0", "/error/message", "/error_description", "/message", "/error"];
    let Some(text) = known.iter().find_map(|pointer| value.pointer(pointer)?.as_str()) else { return String::new() };
    let repeats = |secret: &Zeroizing<String>| {
        let token = secret.strip_prefix("Bearer ").unwrap_or(secret);
        token.len() >= 8 && text.contains(token)
    };
    if presented.iter().any(repeats) {
        return String::new();
    }
    let words = text.split(|char: char| char.is_whitespace() || char.is_control()).filter(|word| !word.is_empty());
    let line: String = words.collect::<Vec<_>>().join(" ").chars().take(MAX_SAID).collect();
    format!(" (it says: {line})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> String {
        let presented = [Zeroizing::new("Bearer marked-token".to_owned())];
        let parsed = json::parse(body.as_bytes(), &json::Limits::default());
        parsed.map(|value| message(&value, &presented)).unwrap_or_default()
    }

    #[test]
    fn the_message_of_each_store_is_shown_on_one_line() {
        let denied = r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#;
        assert_eq!(said(denied), " (it says: 1 error occurred: * permission denied)");
        assert_eq!(said(r#"{"error":{"code":403,"message":"no access"}}"#), " (it says: no access)");
        assert_eq!(said(r#"{"error":"invalid_client","error_description":"wrong"}"#), " (it says: wrong)");
        assert_eq!(said(r#"{"kind":"Status","message":"forbidden"}"#), " (it says: forbidden)");
        assert_eq!(said("<html>"), "");
        assert_eq!(said(&format!(r#"{{"message":"{}"}}"#, "x".repeat(9999))).len(), MAX_SAID + " (it says: )".len());
    }

    #[test]
    fn a_message_that_repeats_the_token_is_not_shown() {
        assert_eq!(said(r#"{"message":"unknown token marked-token"}"#), "");
    }
}
