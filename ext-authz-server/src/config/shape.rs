//! What is wrong with the shape of a `keyward.yaml`: every unknown, missing and repeated key, every value of another type.
//!
//! The typed reader stops at the first. Where it refuses a file, this compares an untyped reading of it with the
//! published schema, which is made from the same types, so that a person corrects the file once.

use std::path::Path;

use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use super::node::Node;
use super::suggestion::{closest, listed};
use super::{ListenAddress, Problem, json_schema};

/// The longest value that is repeated in a message, in bytes.
const MAX_SHOWN_BYTES: usize = 40;

/// Everything that is found.
pub(super) fn problems(file: &Path, document: &Spanned<Node>) -> Vec<Problem> {
    let schema = json_schema();
    let mut shape = Shape { file, root: &schema, found: Vec::new() };
    shape.check(&Place { key: String::new(), at: document.referenced, is_secret: false }, &schema, &document.value);
    shape.found.sort_by_key(|problem| (problem.line, problem.column));
    shape.found
}

struct Shape<'a> {
    file: &'a Path,
    root: &'a Value,
    found: Vec<Problem>,
}

/// Where a value stands.
struct Place {
    key: String,
    at: Location,
    /// Whether nothing that is written here may be repeated: it may be a secret in the wrong place.
    is_secret: bool,
}

// === impl Shape ===

impl<'a> Shape<'a> {
    fn add(&mut self, key: &str, at: Location, message: impl Into<String>, remedy: impl Into<String>) {
        let (key, message, remedy) = (key.to_owned(), message.into(), remedy.into());
        let (line, column) = (at.line().max(1), at.column().max(1));
        self.found.push(Problem { file: self.file.to_owned(), line, column, key, message, remedy });
    }

    fn check(&mut self, place: &Place, schema: &'a Value, node: &Node) {
        let (schema, is_secret) = self.resolve(schema);
        let place = Place { key: place.key.clone(), at: place.at, is_secret: place.is_secret || is_secret };
        match (kind(schema), node) {
            (Kind::Choice(choices), Node::Scalar(text, _)) if !choices.contains(&text.as_str()) => {
                let message = format!("{} is not one of the choices", shown(text, place.is_secret));
                self.add(&place.key, place.at, message, format!("write one of {}", listed(&choices)));
            }
            (Kind::Address, Node::Scalar(text, _)) => {
                if let Err(error) = text.parse::<ListenAddress>() {
                    self.add(&place.key, place.at, error.to_string(), "");
                }
            }
            (Kind::Choice(_) | Kind::Text, Node::Scalar(..)) => {}
            (Kind::Truth, Node::Scalar(text, _))
                if ["true", "false"].iter().any(|word| word.eq_ignore_ascii_case(text)) => {}
            (Kind::Number(least, most), Node::Scalar(text, _)) if is_number(text, least, most) => {}
            (Kind::List(items), Node::Sequence(list)) => {
                for (index, item) in list.iter().enumerate() {
                    let key = format!("{}[{index}]", place.key);
                    let place = Place { key, at: item.referenced, is_secret: place.is_secret };
                    self.check(&place, items, &item.value);
                }
            }
            (Kind::Keys, Node::Mapping(members)) => self.keys(&place, schema, members),
            (Kind::Tagged(variants), Node::Mapping(members)) => self.tagged(&place, variants, members),
            (kind, node) => {
                let got = match node {
                    Node::Nothing => "nothing".to_owned(),
                    Node::Scalar(text, _) if matches!(kind, Kind::Truth | Kind::Number(..)) => {
                        shown(text, place.is_secret)
                    }
                    Node::Scalar(..) => "a single value".to_owned(),
                    Node::Sequence(_) => "a list".to_owned(),
                    Node::Mapping(_) => "keys and values".to_owned(),
                };
                let remedy = match kind {
                    Kind::List(_) => "write `[…]`, or `-` before each entry",
                    _ => "",
                };
                self.add(&place.key, place.at, format!("expected {}, got {got}", self.form(schema)), remedy);
            }
        }
    }

    /// A mapping whose schema names the keys, or the type of every value.
    fn keys(&mut self, place: &Place, schema: &'a Value, members: &[(Spanned<String>, Spanned<Node>)]) {
        let known = known(schema);
        let by_name = schema.get("additionalProperties").filter(|schema| schema.is_object());
        let required = required(schema);
        for (index, (key, value)) in members.iter().enumerate() {
            let name = key.value.as_str();
            let path = if place.key.is_empty() { name.to_owned() } else { format!("{}.{name}", place.key) };
            if members.iter().take(index).any(|(earlier, _)| earlier.value == name) {
                self.add(&path, key.referenced, "the key occurs twice", "keep one");
                continue;
            }
            let Some(schema) = schema.pointer("/properties").and_then(|known| known.get(name)).or(by_name) else {
                if place.is_secret && matches!(value.value, Node::Nothing) {
                    self.add(&place.key, key.referenced, "unknown key (not shown, it may be a secret)", "remove it");
                    continue;
                }
                let remedy = match closest(name, &known) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known keys here are {}", listed(&known)),
                };
                self.add(&path, key.referenced, "unknown key", remedy);
                continue;
            };
            // Null reads as absent where a key may be absent and has no default.
            let may_be_null = !required.contains(&name) && by_name.is_none() && schema.get("default").is_none();
            if !(may_be_null && matches!(value.value, Node::Nothing)) {
                let place = Place { key: path, at: value.referenced, is_secret: place.is_secret };
                self.check(&place, schema, &value.value);
            }
        }
        for name in required {
            if !members.iter().any(|(key, _)| key.value == name) {
                let form = schema.pointer("/properties").and_then(|known| known.get(name)).map(|one| self.form(one));
                let remedy = format!("add it: {}", form.unwrap_or_default());
                self.add(&place.key, place.at, format!("`{name}` is missing"), remedy);
            }
        }
    }

    /// A mapping whose `type` says which keys it has.
    fn tagged(&mut self, place: &Place, variants: &'a [Value], members: &[(Spanned<String>, Spanned<Node>)]) {
        let types: Vec<&str> = variants.iter().filter_map(variant).collect();
        let Some((_, found)) = members.iter().find(|(key, _)| key.value == "type") else {
            self.add(&place.key, place.at, "`type` is missing", format!("add it: one of {}", listed(&types)));
            return;
        };
        let Node::Scalar(text, _) = &found.value else {
            let key = format!("{}.type", place.key);
            self.add(&key, found.referenced, "not a type", format!("write one of {}", listed(&types)));
            return;
        };
        match variants.iter().find(|schema| variant(schema) == Some(text)) {
            Some(schema) => self.keys(place, schema, members),
            None => {
                let message = format!("{} is not one of the choices", shown(text, false));
                let remedy = format!("write one of {}", listed(&types));
                self.add(&format!("{}.type", place.key), found.referenced, message, remedy);
            }
        }
    }

    /// The schema behind references, and whether one of them is that of a secret.
    fn resolve(&self, schema: &'a Value) -> (&'a Value, bool) {
        let (mut schema, mut is_secret) = (schema, false);
        loop {
            if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
                is_secret |= name.ends_with("/SecretSource");
                let target = name.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
                schema = target.unwrap_or(&Value::Null);
            } else if let Some(first) = schema.pointer("/anyOf/0") {
                // The other one is null.
                schema = first;
            } else {
                return (schema, is_secret);
            }
        }
    }

    /// What may stand where this schema counts, in words.
    fn form(&self, schema: &'a Value) -> String {
        let (schema, _) = self.resolve(schema);
        match kind(schema) {
            Kind::Choice(choices) => format!("one of {}", listed(&choices)),
            Kind::Address => "an address such as `127.0.0.1:9191`".to_owned(),
            Kind::Number(least, most) if least == most => format!("the number {least}"),
            Kind::Number(least, most) => format!("a whole number from {least} to {most}"),
            Kind::Truth => "`true` or `false`".to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Tagged(_) => "keys and values, with a `type`".to_owned(),
            Kind::Keys => match required(schema) {
                needed if !needed.is_empty() => format!("keys and values, with {}", listed(&needed)),
                _ if known(schema).is_empty() => "names, each with keys and values".to_owned(),
                _ => format!("keys and values, of {}", listed(&known(schema))),
            },
        }
    }
}

/// What a schema asks for.
enum Kind<'a> {
    Choice(Vec<&'a str>),
    Address,
    Number(u64, u64),
    Truth,
    Text,
    List(&'a Value),
    Tagged(&'a [Value]),
    Keys,
}

fn kind(schema: &Value) -> Kind<'_> {
    let limit = |name: &str| schema.get(name).and_then(Value::as_u64);
    let variants = schema.get("oneOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    match schema.get("type").and_then(Value::as_str) {
        Some("integer") => Kind::Number(limit("minimum").unwrap_or(0), limit("maximum").unwrap_or(u64::MAX)),
        Some("boolean") => Kind::Truth,
        Some("array") => Kind::List(schema.get("items").unwrap_or(&Value::Null)),
        Some("object") => Kind::Keys,
        // The only text with a pattern.
        Some(_) if schema.get("pattern").is_some() => Kind::Address,
        Some(_) => Kind::Text,
        None if variants.iter().any(|one| variant(one).is_some()) => Kind::Tagged(variants),
        None => Kind::Choice(variants.iter().filter_map(|one| one.get("const")?.as_str()).collect()),
    }
}

/// The `type` of one of several kinds of mappings.
fn variant(schema: &Value) -> Option<&str> {
    schema.pointer("/properties/type/const")?.as_str()
}

fn known(schema: &Value) -> Vec<&str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(|known| known.keys().map(String::as_str)).collect()
}

fn required(schema: &Value) -> Vec<&str> {
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether the reader takes this for a number in the range; it knows more spellings than decimal digits.
fn is_number(text: &str, least: u64, most: u64) -> bool {
    serde_saphyr::from_str::<u64>(text).is_ok_and(|number| (least..=most).contains(&number))
}

fn shown(text: &str, is_secret: bool) -> String {
    if is_secret || text.len() > MAX_SHOWN_BYTES || text.chars().any(char::is_control) {
        return "this (not shown)".to_owned();
    }
    format!("`{text}`")
}
