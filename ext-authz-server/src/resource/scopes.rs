//! Which scopes an operation needs.

use std::collections::BTreeMap;

use crate::binding::{MAX_TOOL_BYTES, Tools};
use crate::config;
use crate::operation::Operation;

/// The scopes of one resource, ready to be looked up.
#[derive(Clone, Debug, Default)]
pub struct Scopes {
    /// Those for everything.
    pub required: Vec<String>,
    methods: BTreeMap<String, Vec<String>>,
    tools: Vec<(Tools, Vec<String>)>,
}

// === impl Scopes ===

impl Scopes {
    /// The scopes of this section.
    #[must_use]
    pub fn new(config: &config::Scopes) -> Scopes {
        let tools = config.tools.iter().map(|(pattern, scopes)| (Tools::new(vec![pattern.clone()]), scopes.clone()));
        Scopes { required: config.required.clone(), methods: config.methods.clone(), tools: tools.collect() }
    }

    /// Every scope that this operation needs, without repetition.
    #[must_use]
    pub fn needed(&self, operation: &Operation<'_>) -> Vec<String> {
        let mut needed = self.required.clone();
        let mut add = |scopes: &[String]| {
            for scope in scopes {
                if !needed.contains(scope) {
                    needed.push(scope.clone());
                }
            }
        };
        if let Some(scopes) = self.methods.get(operation.method) {
            add(scopes);
        }
        if operation.method == "tools/call" {
            let tool = operation.target.unwrap_or_default();
            for (tools, scopes) in &self.tools {
                // A name that is longer than any pattern is read is no way around them.
                if tool.len() > MAX_TOOL_BYTES || tools.hold(tool) {
                    add(scopes);
                }
            }
        }
        needed
    }
}
