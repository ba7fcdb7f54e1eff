//! Every key of `keyward.yaml` as tables, out of the published schema: `docs/reference.md` is this text.

use std::collections::VecDeque;
use std::fmt::Write as _;

use serde_json::Value;

/// The head of the page.
const HEAD: &str = "# Every key of keyward.yaml\n\n\
    Made by `keyward schema --markdown` from the types that read the file; [configuration.md](configuration.md) says how to use\n\
    them. Unknown keys are refused.\n";

/// The reference as Markdown.
#[must_use]
pub fn reference(schema: &Value) -> String {
    let mut text = HEAD.to_owned();
    let mut sections: VecDeque<(String, &Value)> = VecDeque::from([("Top level".to_owned(), schema)]);
    let mut done: Vec<(String, *const Value)> = Vec::new();
    while let Some((title, section)) = sections.pop_front() {
        if done.iter().any(|(_, known)| std::ptr::eq(*known, section)) {
            continue;
        }
        done.push((title.clone(), section));
        let _ = write!(text, "\n## {title}\n\n| key | type | meaning | default |\n|---|---|---|---|\n");
        let required = strings(section.get("required"));
        for (key, property) in properties(section) {
            let default = match property.get("default") {
                _ if required.contains(&key.as_str()) => "required".to_owned(),
                Some(Value::Object(_) | Value::Null) | None => "absent".to_owned(),
                Some(default) => format!("`{default}`"),
            };
            let kind = kind(schema, property);
            let meaning = meaning(schema, property);
            let _ = writeln!(text, "| `{key}` | {kind} | {meaning} | {default} |");
        }
        // Right behind the section that names them.
        let mut inner = Vec::new();
        for (key, property) in properties(section) {
            let item = element(schema, property);
            if item.get("properties").is_some() {
                inner.push((format!("`{key}`"), item));
            }
            for variant in variants(item) {
                let name = variant.pointer("/properties/type/const").and_then(Value::as_str).unwrap_or_default();
                inner.push((format!("`{key}`, `type: {name}`"), variant));
            }
        }
        inner.into_iter().rev().for_each(|section| sections.push_front(section));
    }
    text
}

fn properties(section: &Value) -> impl Iterator<Item = (&String, &Value)> {
    section.get("properties").and_then(Value::as_object).into_iter().flatten()
}

fn strings(list: Option<&Value>) -> Vec<&str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The variants of a mapping whose `type` decides.
fn variants(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    all.filter(|variant| variant.pointer("/properties/type/const").is_some())
}

/// The schema behind references.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").or_else(|| schema.pointer("/anyOf/0/$ref")).and_then(Value::as_str);
    let target = reference.and_then(|reference| root.pointer(reference.trim_start_matches('#')));
    target.map_or(schema, |target| resolved(root, target))
}

/// What a property holds once, or holds many of.
fn element<'a>(root: &'a Value, property: &'a Value) -> &'a Value {
    let own = resolved(root, property);
    match own.get("items").or_else(|| own.get("additionalProperties").filter(|schema| schema.is_object())) {
        Some(item) => resolved(root, item),
        None => own,
    }
}

fn kind(root: &Value, property: &Value) -> String {
    let own = resolved(root, property);
    let many = |what: &str| format!("{what} of {}", kind(root, element(root, property)));
    if own.get("items").is_some() {
        return many("list");
    }
    if own.get("additionalProperties").is_some_and(Value::is_object) {
        return many("map by name");
    }
    let choices: Vec<&str> = own
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|choice| choice.get("const")?.as_str())
        .chain(strings(own.get("enum")))
        .collect();
    if !choices.is_empty() {
        return format!("`{}`", choices.join("`, `"));
    }
    match own.get("type").and_then(Value::as_str) {
        Some("string") => {
            own.get("const").and_then(Value::as_str).map_or("text".to_owned(), |only| format!("`{only}`"))
        }
        Some(kind) => kind.to_owned(),
        None => "object".to_owned(),
    }
}

fn meaning(root: &Value, property: &Value) -> String {
    let own = property.get("description").or_else(|| resolved(root, property).get("description"));
    let text = own.and_then(Value::as_str).unwrap_or_default();
    text.replace('\n', " ").replace('|', "\\|")
}
