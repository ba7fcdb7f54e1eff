//! What a policy decided, read strictly: whatever is not understood denies.

use regorus::Value;

use crate::config::check::resource::is_scope;

/// The most bindings that one decision may name.
const MAX_BINDINGS: usize = 32;
/// The most scopes that one decision may ask for.
const MAX_SCOPES: usize = 32;

/// What the policy decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the operation is allowed. Always false when there is a `failure`.
    pub allow: bool,
    /// The name of the rule that decided.
    pub rule: Option<String>,
    /// Why, for the operator.
    pub explanation: Option<String>,
    /// The bindings to use, in order; empty leaves the choice to the catalogue.
    pub bindings: Vec<String>,
    /// The scopes that the caller's token must hold, whatever `allow` says.
    pub required_scopes: Vec<String>,
    /// Why there is no decision.
    pub failure: Option<Failure>,
}

/// Why an evaluation gave no decision; the operation is denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// `data.keyward.decision` is undefined for this input.
    #[error("`data.keyward.decision` is undefined")]
    Undefined,
    /// The decision does not have the documented shape.
    #[error("the decision has a wrong shape: {0}")]
    Shape(String),
    /// The decision asks for something that this server does not know.
    #[error("unknown obligation `{0}`")]
    UnknownObligation(String),
    /// The evaluation took too long.
    #[error("the evaluation went over its bound: {0}")]
    OverBound(String),
    /// The evaluation failed.
    #[error("the evaluation failed: {0}")]
    Evaluation(String),
}

// === impl Verdict ===

impl Verdict {
    pub(super) fn failed(failure: Failure) -> Verdict {
        Verdict { failure: Some(failure), ..Verdict::default() }
    }

    /// Reads `{"allow", "rule", "explanation", "bindings", "obligations", "required_scopes"}`.
    pub(super) fn read(decision: &Value) -> Verdict {
        let mut verdict = Verdict::default();
        match verdict.fill(decision) {
            Ok(()) => verdict,
            // Rule and explanation, where they were read, still help the operator.
            Err(failure) => Verdict {
                allow: false,
                bindings: Vec::new(),
                required_scopes: Vec::new(),
                failure: Some(failure),
                ..verdict
            },
        }
    }

    fn fill(&mut self, decision: &Value) -> Result<(), Failure> {
        let shape = |what: &str| Failure::Shape(what.to_owned());
        let members = match decision {
            Value::Undefined => return Err(Failure::Undefined),
            Value::Object(members) => members,
            _ => return Err(shape("it is not an object")),
        };
        let mut allow = None;
        for (name, value) in members.iter() {
            let name = name.as_string().map_or("", |name| name);
            match (name, value) {
                ("allow", Value::Bool(truth)) => allow = Some(*truth),
                ("rule", Value::String(text)) => self.rule = Some(bounded(text)),
                ("explanation", Value::String(text)) => self.explanation = Some(bounded(text)),
                ("bindings", Value::Array(ids)) => {
                    for id in ids.iter() {
                        self.bind(id)?;
                    }
                }
                ("obligations", Value::Array(obligations)) => {
                    for obligation in obligations.iter() {
                        self.oblige(obligation)?;
                    }
                }
                ("required_scopes", Value::Array(scopes)) => {
                    for scope in scopes.iter() {
                        self.require(scope)?;
                    }
                }
                ("allow" | "rule" | "explanation" | "bindings" | "obligations" | "required_scopes", _) => {
                    return Err(Failure::Shape(format!("`{name}` has a wrong type")));
                }
                _ => return Err(Failure::Shape(format!("`{}` is not a known member", bounded(name)))),
            }
        }
        self.allow = allow.ok_or_else(|| shape("`allow` is missing"))?;
        Ok(())
    }

    fn oblige(&mut self, obligation: &Value) -> Result<(), Failure> {
        let Value::Object(members) = obligation else {
            return Err(Failure::Shape("an obligation is not an object".to_owned()));
        };
        match members.get(&Value::from("type")) {
            Some(Value::String(kind)) if kind.as_ref() == "inject" => {}
            Some(Value::String(kind)) => return Err(Failure::UnknownObligation(bounded(kind))),
            _ => return Err(Failure::Shape("an obligation has no `type`".to_owned())),
        }
        match members.get(&Value::from("binding")) {
            Some(id) if members.len() == 2 => self.bind(id),
            _ => Err(Failure::Shape("obligation `inject` has exactly `type` and `binding`".to_owned())),
        }
    }

    fn require(&mut self, scope: &Value) -> Result<(), Failure> {
        let Value::String(scope) = scope else {
            return Err(Failure::Shape("a scope is not a string".to_owned()));
        };
        if !is_scope(scope) {
            return Err(Failure::Shape("a scope is not one (RFC 6749, 3.3)".to_owned()));
        }
        if self.required_scopes.len() >= MAX_SCOPES {
            return Err(Failure::Shape(format!("more than {MAX_SCOPES} scopes")));
        }
        if !self.required_scopes.iter().any(|known| known == scope.as_ref()) {
            self.required_scopes.push(scope.as_ref().to_owned());
        }
        Ok(())
    }

    fn bind(&mut self, id: &Value) -> Result<(), Failure> {
        let Value::String(id) = id else {
            return Err(Failure::Shape("a binding is not named by a string".to_owned()));
        };
        if self.bindings.len() >= MAX_BINDINGS {
            return Err(Failure::Shape(format!("more than {MAX_BINDINGS} bindings")));
        }
        if !self.bindings.iter().any(|known| known == id.as_ref()) {
            self.bindings.push(bounded(id));
        }
        Ok(())
    }
}

/// At most 1024 bytes of a text.
fn bounded(text: &str) -> String {
    let mut end = text.len().min(1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
