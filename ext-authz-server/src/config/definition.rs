//! What a binding's definition is, so that an approval can be of exactly that: a digest over the entry as it is written. Layout,
//! comments, the order of keys and quotes around a text do not count; everything else does, a default that is spelled out too.
//!
//! Where the server wants a text and the file has what YAML takes for a number, the server gets it as it is written: `007` and
//! `7` are two users. So such a value counts with its source, and with its type.

use serde_saphyr::{Location, Spanned};
use sha2::{Digest as _, Sha256};

use super::Config;
use super::node::Node;
use crate::hex::hex;

/// A digest that is being made of parts of one source.
struct Sum<'a> {
    digest: Sha256,
    source: &'a str,
}

/// Notes the digest of each binding of a configuration that was read from `text`.
pub(super) fn note(config: &mut Config, text: &str) {
    // A mark at the beginning is not part of what positions count.
    let text = text.trim_start_matches('\u{feff}');
    let Ok(document) = Node::read(text) else { return };
    let entries = match member(&document.value, "bindings") {
        Some(Node::Sequence(entries)) => entries.as_slice(),
        _ => &[],
    };
    // An entry without a digest is approved by no digest.
    for (binding, entry) in config.bindings.iter_mut().zip(entries) {
        let mut sum = Sum { digest: Sha256::new(), source: text };
        sum.digest.update(b"keyward binding 1");
        if sum.add(entry).is_some() {
            binding.definition = hex(&sum.digest.finalize());
        }
    }
}

fn member<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Node::Mapping(members) = node else { return None };
    members.iter().find(|(key, _)| key.value == name).map(|(_, value)| &value.value)
}

// === impl Sum ===

impl Sum<'_> {
    /// Adds a value: its kind, its length and its parts, so that no other value gives the same bytes. `None` where its source
    /// is not to be found.
    fn add(&mut self, node: &Spanned<Node>) -> Option<()> {
        match &node.value {
            Node::Nothing => self.frame(b'0', 0),
            Node::Scalar(text, None) => self.text(b's', text),
            Node::Scalar(text, Some(kind)) => {
                let source = self.source_of(node.defined)?;
                self.text(b't', &format!("{kind} {text}"));
                self.text(b'w', source);
            }
            Node::Sequence(items) => {
                self.frame(b'l', items.len());
                for item in items {
                    self.add(item)?;
                }
            }
            Node::Mapping(members) => {
                self.frame(b'm', members.len());
                let mut members: Vec<_> = members.iter().collect();
                members.sort_by(|(one, _), (other, _)| one.value.cmp(&other.value));
                for (key, value) in members {
                    self.text(b'k', &key.value);
                    self.add(value)?;
                }
            }
        }
        Some(())
    }

    fn frame(&mut self, kind: u8, length: usize) {
        self.digest.update([kind]);
        self.digest.update((length as u64).to_be_bytes());
    }

    fn text(&mut self, kind: u8, text: &str) {
        self.frame(kind, text.len());
        self.digest.update(text.as_bytes());
    }
}

impl<'a> Sum<'a> {
    /// A single value as the file has it, where it is defined.
    fn source_of(&self, location: Location) -> Option<&'a str> {
        let span = location.span();
        let begin = usize::try_from(span.byte_offset()?).ok()?;
        let end = begin.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
        self.source.get(begin..end).map(str::trim).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    fn definition(bindings: &str) -> String {
        definition_of(&document(bindings))
    }

    fn document(bindings: &str) -> String {
        format!(
            "version: 1\nenvironment: test\nidentity: {{issuers: [{{name: a, issuer: \"https://a.example\", audiences: [b], \
             algorithms: [ES256], jwks: {{file: a}}}}]}}\npolicy: {{directory: p}}\naudit: {{file: a, hmac_key: {{ref: \
             \"env://KEY\"}}}}\nservers: {{demo: {{mode: mcp, destinations: [{{host: a.example}}]}}}}\nbindings:\n{bindings}"
        )
    }

    fn definition_of(text: &str) -> String {
        let config = parse(Path::new("keyward.yaml"), text).unwrap_or_else(|error| panic!("{error}"));
        config.bindings.last().unwrap().definition.clone()
    }

    const PLAIN: &str = "  - {id: a, mode: none, owner: me, environment: test, servers: [demo]}\n";

    #[test]
    fn layout_comments_quotes_and_order_do_not_count() {
        let first = definition(PLAIN);
        assert_eq!(first.len(), 64);
        for same in [
            "  # said\n  - {id: \"a\", owner: 'me', mode: none, servers: [demo], environment: test}\n",
            "  - id: a\n    mode: none   # said\n    owner: me\n    environment: test\n    servers:\n      - demo\n",
        ] {
            assert_eq!(definition(same), first, "{same}");
        }
        let later = format!("  - {{id: b, mode: none, owner: me, environment: test, servers: [demo]}}\n{PLAIN}");
        assert_eq!(definition(&later), first, "its place in the list");
    }

    #[test]
    fn digests_stay_what_approvals_were_given_of() {
        let entry = "  - {id: a, mode: service_account, owner: 007, environment: test, servers: [demo], hosts: [a.example], \
                     credentials: [{type: header, name: x-key, secret: {ref: \"file:///k\", trim_newline: true}}]}\n";
        assert_eq!(definition(entry), "d5ba2a6b72254e637f5046c71000c047670fb532c31a59610bd870bffa34382f");
    }

    #[test]
    fn everything_else_does() {
        let first = definition(PLAIN);
        for other in [
            "  - {id: a, mode: none, owner: them, environment: test, servers: [demo]}\n",
            "  - {id: a, mode: none, owner: me, environment: test, servers: [demo], hosts: []}\n",
            "  - {id: a, mode: none, owner: me, environment: test, servers: [demo], principals: {users: [me]}}\n",
            "  - {id: a, mode: none, owner: me, environment: test, servers: [demo], principals: {roles: [me]}}\n",
        ] {
            assert_ne!(definition(other), first, "{other}");
        }
    }

    #[test]
    fn what_the_server_reads_as_two_texts_is_two_definitions() {
        let with = |user: &str| {
            let entry =
                "{id: a, mode: none, owner: me, environment: test, servers: [demo], principals: {users: [USER]}}";
            definition(&format!("  # ünïcode before it\n  - {}\n", entry.replace("USER", user)))
        };
        let users = [
            "7",
            "007",
            "0x7",
            "7.0",
            "7e0",
            "+7",
            "0o7",
            "123456789012345678901",
            "123456789012345678902",
            "true",
            "True",
            "1_0",
            "10",
        ];
        let seen: std::collections::BTreeSet<String> = users.iter().map(|user| with(user)).collect();
        assert_eq!(seen.len(), users.len());
        assert!(seen.iter().all(|digest| digest.len() == 64), "each has one");
        // Spaces around a value are layout.
        for user in users {
            assert_eq!(with(&format!("  {user}  ")), with(user));
        }
    }

    #[test]
    fn what_an_alias_stands_for_is_part_of_it() {
        let with = |owner: &str| {
            format!(
                "  - {{id: b, mode: none, owner: &owner {owner}, environment: test, servers: [demo]}}\n  \
                 - {{id: a, mode: none, owner: *owner, environment: test, servers: [demo]}}\n"
            )
        };
        assert_eq!(definition(&with("me")), definition(PLAIN));
        assert_ne!(definition(&with("them")), definition(PLAIN));
        assert_ne!(definition(&with("7")), definition(&with("07")));
    }
}
