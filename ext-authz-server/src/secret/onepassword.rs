//! A 1Password Connect server: `VAULT/ITEM/FIELD` or `VAULT/ITEM/SECTION/FIELD`, as in 1Password's own references.
//!
//! Vaults and items are named by title or id, sections and fields by label or id. A name that fits twice is refused.

use std::sync::Arc;

use keyward_contract::json::Value;

use super::local::Local;
use super::remote::{Answer, Call, Given, Remote, RemoteStore, StoreError, StoreErrorKind};
use super::{SecretBytes, Secrets};
use crate::config::{Caching, OnePasswordStore};
use crate::outbound::Outbound;

/// The length of an id: letters and digits, lower case.
const ID_LENGTH: usize = 26;

/// One Connect server.
pub(super) struct OnePassword {
    name: String,
    config: OnePasswordStore,
    remote: Remote,
    local: Local,
}

struct Reference<'a> {
    vault: &'a str,
    item: &'a str,
    section: Option<&'a str>,
    field: &'a str,
}

// === impl Reference ===

impl<'a> Reference<'a> {
    fn read(rest: &'a str) -> Result<Reference<'a>, &'static str> {
        let parts: Vec<&str> = rest.split('/').collect();
        let is_name = |name: &&str| !name.trim().is_empty() && !name.chars().any(char::is_control);
        if !parts.iter().all(is_name) {
            return Err("a name is empty or holds a control character");
        }
        match *parts.as_slice() {
            [vault, item, field] => Ok(Reference { vault, item, section: None, field }),
            [vault, item, section, field] => Ok(Reference { vault, item, section: Some(section), field }),
            _ => Err("what follows `://` is `VAULT/ITEM/FIELD` or `VAULT/ITEM/SECTION/FIELD`"),
        }
    }
}

// === impl OnePassword ===

impl OnePassword {
    pub(super) fn new(
        name: &str,
        config: &OnePasswordStore,
        secrets: &Arc<Secrets>,
        outbound: &Outbound,
    ) -> OnePassword {
        let remote = Remote::new(&config.address, config.ca_file.as_deref(), outbound);
        OnePassword { name: name.to_owned(), config: config.clone(), remote, local: Local::new(secrets) }
    }

    async fn ask(&self, call: Call) -> Result<Answer, StoreError> {
        let token = self.local.text(&self.config.token).await?;
        let answer = self.remote.send(&call.bearer(&token)).await?;
        match answer.status() {
            200 => Ok(answer),
            401 => Err(answer.error(StoreErrorKind::Refused, "make a new access token for this Connect server")),
            403 => Err(answer.error(StoreErrorKind::Refused, "give the access token this vault")),
            404 => Err(answer.error(StoreErrorKind::Missing, "correct the vault and the item in the reference")),
            _ => Err(answer.error(StoreErrorKind::Refused, "correct the reference")),
        }
    }

    /// The id of what has this name in a list; an id stands for itself.
    async fn id(&self, path: &[&str], attribute: &str, kind: &str, name: &str) -> Result<String, StoreError> {
        if is_id(name) {
            return Ok(name.to_owned());
        }
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        let call = Call::get(path.iter().copied(), format!("look for the {kind} `{name}`"));
        let answer = self.ask(call.query("filter", format!("{attribute} eq \"{quoted}\""))).await?;
        let value = answer.json()?;
        let listed = value.as_array().ok_or_else(|| answer.malformed("the answer is not a list"))?;
        let named =
            listed.iter().filter(|entry| entry.pointer(&format!("/{attribute}")).and_then(Value::as_str) == Some(name));
        let ids: Vec<&str> = named.filter_map(|entry| entry.pointer("/id")?.as_str()).filter(|id| is_id(id)).collect();
        match *ids.as_slice() {
            [id] => Ok(id.to_owned()),
            [] => {
                let remedy = "correct the name, or give the access token its vault";
                Err(answer.error_because(StoreErrorKind::Missing, format!("there is no such {kind}"), remedy))
            }
            _ => {
                let cause = format!("there is more than one {kind} with this name");
                Err(answer.error_because(StoreErrorKind::Refused, cause, "write its id instead of its name"))
            }
        }
    }
}

fn is_id(name: &str) -> bool {
    name.len() == ID_LENGTH && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The value of the only field that the reference names.
fn field<'a>(item: &'a Value<'a>, section: Option<&str>, name: &str) -> Result<&'a str, &'static str> {
    let text = |value: &'a Value<'a>, at: &str| value.pointer(at).and_then(Value::as_str);
    let list = |at| item.pointer(at).and_then(Value::as_array).unwrap_or_default();
    let named =
        |value: &'a Value<'a>, name: &str| text(value, "/label") == Some(name) || text(value, "/id") == Some(name);
    let sections: Vec<&str> = match section {
        Some(section) => list("/sections")
            .iter()
            .filter(|entry| named(entry, section))
            .filter_map(|entry| text(entry, "/id"))
            .collect(),
        None => Vec::new(),
    };
    let fits = |field: &&'a Value<'a>| {
        let its_section = text(field, "/section/id");
        named(field, name) && (section.is_none() || its_section.is_some_and(|its| sections.contains(&its)))
    };
    let mut found = list("/fields").iter().filter(fits);
    let (first, second) = (found.next(), found.next());
    match (first, second) {
        (None, _) => Err("it has no such field"),
        (Some(_), Some(_)) => Err("more than one of its fields has this name"),
        (Some(field), None) => text(field, "/value").ok_or("the field has no value"),
    }
}

impl RemoteStore for OnePassword {
    fn name(&self) -> &str {
        &self.name
    }

    fn caching(&self) -> Caching {
        self.config.caching
    }

    fn check_form(&self, rest: &str) -> Result<(), &'static str> {
        Reference::read(rest).map(drop)
    }

    async fn read(&self, rest: &str) -> Result<Given, StoreError> {
        let setup = |cause: &str| StoreError::new(StoreErrorKind::Setup, &self.name, cause, "correct the reference");
        let reference = Reference::read(rest).map_err(setup)?;
        let vault = self.id(&["v1", "vaults"], "name", "vault", reference.vault).await?;
        let item = self.id(&["v1", "vaults", &vault, "items"], "title", "item", reference.item).await?;
        let doing = format!("read the item `{}` of `{}`", reference.item, reference.vault);
        let answer = self.ask(Call::get(["v1", "vaults", &vault, "items", &item], doing)).await?;
        let value = answer.json()?;
        let found = field(&value, reference.section, reference.field);
        let found = found.map_err(|cause| {
            let remedy = "correct section and field in the reference, or write the field's id";
            answer.error_because(StoreErrorKind::Missing, cause, remedy)
        })?;
        Ok((Arc::new(SecretBytes::new(found.as_bytes().to_vec())), None))
    }

    async fn try_login(&self) -> Result<String, StoreError> {
        let answer = self.ask(Call::get(["v1", "vaults"], "list the vaults")).await?;
        let count = answer.json()?.as_array().map(<[_]>::len).unwrap_or_default();
        Ok(format!("{} accepts the access token, which reads {count} vaults", self.remote.address()))
    }
}

#[cfg(test)]
mod tests {
    use keyward_contract::json;

    use super::*;

    const ITEM: &str = r#"{"sections":[{"id":"s1","label":"prod"},{"id":"s2","label":"test"}],"fields":[
        {"id":"password","label":"password","value":"marked-one"},
        {"id":"f1","label":"key","value":"marked-two","section":{"id":"s1"}},
        {"id":"f2","label":"key","value":"marked-three","section":{"id":"s2"}},
        {"id":"f3","label":"empty"}]}"#;

    #[test]
    fn a_field_is_found_by_label_or_id_and_only_once() {
        let item = json::parse(ITEM.as_bytes(), &json::Limits::default()).unwrap();
        let find = |section, name| field(&item, section, name);
        assert_eq!(find(None, "password"), Ok("marked-one"));
        assert_eq!(find(Some("prod"), "key"), Ok("marked-two"));
        assert_eq!(find(Some("s2"), "f2"), Ok("marked-three"));
        assert_eq!(find(None, "f1"), Ok("marked-two"));
        for (section, name) in
            [(None, "key"), (None, "none"), (Some("none"), "key"), (Some("prod"), "password"), (None, "empty")]
        {
            assert!(find(section, name).is_err(), "{section:?} {name}");
        }
    }

    #[test]
    fn references_are_read() {
        for good in ["Vault One/Item/field", "v/i/s/f", "v/{user}/password"] {
            assert!(Reference::read(good).is_ok(), "{good}");
        }
        for bad in ["", "v/i", "v//f", "v/i/s/f/x", "v/i/ ", "v/i/f\n"] {
            assert!(Reference::read(bad).is_err(), "{bad}");
        }
    }
}
