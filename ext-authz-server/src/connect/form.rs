//! The form with which a person decides, and what may come back from it.

use serde::Deserialize;

use super::halt::Halt;
use super::page::escaped;
use crate::config::ApiKeyProvider;

/// The lengths of a key that a person enters, in bytes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 8..=4096;

/// What a person decides. No `Debug`: it holds a secret.
#[derive(Deserialize)]
pub(super) struct Decision {
    pub(super) decision: String,
    #[serde(default)]
    pub(super) key: String,
    pub(super) days: Option<u64>,
}

impl Drop for Decision {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

/// The form of a step, with these fields between its tags.
pub(super) fn form(step: &str, fields: &str) -> String {
    format!(
        r#"<form method="post" action="/consent/{}" autocomplete="off">{fields}<button class="main" name="decision" value="connect">Connect</button> <button name="decision" value="decline" formnovalidate>Decline</button></form>"#,
        escaped(step)
    )
}

/// The fields of a person's own key.
pub(super) fn key_fields(own: &ApiKeyProvider) -> String {
    let days = [1, 7, 30, 90, 180, 366].into_iter().filter(|days| *days < own.max_ttl_days);
    let options: String = days
        .chain([own.max_ttl_days])
        .map(|days| format!(r#"<option value="{days}">{days} {}</option>"#, if days == 1 { "day" } else { "days" }))
        .collect();
    format!(
        r#"<label>Key <input type="password" name="key" required minlength="{}" maxlength="{}" autocomplete="off" spellcheck="false"></label><label>Keep for <select name="days">{options}</select></label>"#,
        KEY_BYTES.start(),
        KEY_BYTES.end(),
    )
}

/// Refuses what a browser would not have sent.
pub(super) fn check_key(own: &ApiKeyProvider, decision: &Decision) -> Result<(), Halt> {
    let key = decision.key.trim();
    if !KEY_BYTES.contains(&key.len()) {
        return Err(Halt::BadKey("its length"));
    }
    if key.chars().any(|char| char.is_control() || char.is_whitespace()) {
        return Err(Halt::BadKey("it holds white space"));
    }
    if !decision.days.is_some_and(|days| (1..=own.max_ttl_days).contains(&days)) {
        return Err(Halt::BadKey("its time"));
    }
    Ok(())
}
