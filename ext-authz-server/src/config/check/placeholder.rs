//! Placeholders that could be taken for one another, and proofs that could be kept for somebody else.

use super::Checker;
use crate::config::{Credential, PlaceholderCredential};

// === impl Checker ===

impl Checker<'_> {
    pub(super) fn placeholders(&mut self) {
        let mut seen: Vec<(String, usize, &PlaceholderCredential)> = Vec::new();
        for (binding, configured) in self.config.bindings.iter().enumerate() {
            let proves = configured.credentials.iter().any(|own| matches!(own, Credential::GatewayProof(_)));
            if configured.probe.is_some() && proves {
                let message = "a proof of the gateway is made for each request, and cannot be kept after a probe";
                self.add(format!("bindings[{binding}].probe"), message, "move the proof into a binding without one");
            }
            for (index, credential) in configured.credentials.iter().enumerate() {
                if let Credential::Placeholder(own) = credential {
                    seen.push((format!("bindings[{binding}].credentials[{index}].placeholder"), binding, own));
                }
            }
        }
        for (position, (key, binding, own)) in seen.iter().enumerate() {
            for (_, other_binding, other) in seen.iter().take(position) {
                let (one, two) = (&own.placeholder, &other.placeholder);
                // The same one in two bindings is one secret or the other, as the binding is chosen.
                let is_same = one == two && binding != other_binding;
                if !is_same && (one.contains(two.as_str()) || two.contains(one.as_str())) {
                    let message = format!("`{one}` cannot be told from the placeholder `{two}`");
                    self.add(key.clone(), message, "choose placeholders of which none is a part of another");
                }
            }
        }
    }
}
