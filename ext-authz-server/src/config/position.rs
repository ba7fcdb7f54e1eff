//! Where each key of a YAML document stands.
//!
//! The typed configuration carries no positions. A second, untyped reading of the same text does; a problem found by key
//! is looked up here, and a position that a reader reports is looked up the other way round.

use std::collections::BTreeMap;

use serde_saphyr::{Location, Spanned};

use super::node::Node;

/// The positions of all keys, by path: `bindings[0].hosts`.
#[derive(Debug, Default)]
pub(super) struct Positions(BTreeMap<String, (u64, u64)>);

// === impl Positions ===

impl Positions {
    /// Reads positions; text that is not YAML has none.
    pub(super) fn read(text: &str) -> Positions {
        let mut positions = Positions::default();
        if let Ok(Spanned { value, .. }) = Node::read(text) {
            positions.add("", &value);
        }
        positions
    }

    /// Line and column of a key, or of the closest key above it that is there.
    pub(super) fn of(&self, key: &str) -> (u64, u64) {
        let mut key = key;
        loop {
            if let Some(position) = self.0.get(key) {
                return *position;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = key.get(..end).unwrap_or_default(),
                None => return (1, 1),
            }
        }
    }

    /// The key that begins last at or before a position; empty if there is none.
    pub(super) fn key_at(&self, line: u64, column: u64) -> String {
        self.0
            .iter()
            .filter(|(_, position)| **position <= (line, column))
            .max_by_key(|(key, position)| (**position, key.len()))
            .map(|(key, _)| key.clone())
            .unwrap_or_default()
    }

    fn add(&mut self, path: &str, node: &Node) {
        match node {
            Node::Nothing | Node::Scalar(..) => {}
            Node::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.0.insert(path.clone(), line_and_column(item.referenced));
                    self.add(&path, &item.value);
                }
            }
            Node::Mapping(members) => {
                for (key, value) in members {
                    let path = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    self.0.insert(path.clone(), line_and_column(key.referenced));
                    self.add(&path, &value.value);
                }
            }
        }
    }
}

fn line_and_column(location: Location) -> (u64, u64) {
    (location.line(), location.column())
}
