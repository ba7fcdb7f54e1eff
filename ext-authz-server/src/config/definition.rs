//! What a binding's definition is, so that an approval can be of exactly that: a digest over the entry as it is written. Layout,
//! comments, quotes and the order of keys do not count; everything else does, a default that is spelled out too.

use sha2::{Digest as _, Sha256};

use super::Config;
use super::node::Node;

/// Notes the digest of each binding of a configuration that was read from `text`.
pub(super) fn note(config: &mut Config, text: &str) {
    let Ok(document) = Node::read(text) else { return };
    let entries = match member(&document.value, "bindings") {
        Some(Node::Sequence(entries)) => entries.as_slice(),
        _ => &[],
    };
    // An entry without a digest is approved by no digest.
    for (binding, entry) in config.bindings.iter_mut().zip(entries) {
        let mut digest = Sha256::new();
        digest.update(b"keyward binding 1");
        add(&mut digest, &entry.value);
        binding.definition = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    }
}

fn member<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Node::Mapping(members) = node else { return None };
    members.iter().find(|(key, _)| key.value == name).map(|(_, value)| &value.value)
}

/// Adds a value: its kind, its length and its parts, so that no other value gives the same bytes.
fn add(digest: &mut Sha256, node: &Node) {
    let framed = |digest: &mut Sha256, kind: u8, length: usize| {
        digest.update([kind]);
        digest.update((length as u64).to_be_bytes());
    };
    match node {
        Node::Scalar(None) => framed(digest, b'0', 0),
        Node::Scalar(Some(text)) => {
            framed(digest, b's', text.len());
            digest.update(text.as_bytes());
        }
        Node::Sequence(items) => {
            framed(digest, b'l', items.len());
            items.iter().for_each(|item| add(digest, &item.value));
        }
        Node::Mapping(members) => {
            framed(digest, b'm', members.len());
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|one, other| one.0.value.cmp(&other.0.value));
            for (key, value) in members {
                framed(digest, b'k', key.value.len());
                digest.update(key.value.as_bytes());
                add(digest, &value.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::parse;

    fn definition(bindings: &str) -> String {
        let text = format!(
            "version: 1\nenvironment: test\nidentity: {{issuers: [{{name: a, issuer: \"https://a.example\", audiences: [b], \
             algorithms: [ES256], jwks: {{file: a}}}}]}}\npolicy: {{directory: p}}\naudit: {{file: a, hmac_key: {{ref: \
             \"env://KEY\"}}}}\nservers: {{demo: {{mode: mcp, destinations: [{{host: a.example}}]}}}}\nbindings:\n{bindings}"
        );
        let config = parse(Path::new("keyward.yaml"), &text).unwrap_or_else(|error| panic!("{error}"));
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
    fn what_an_alias_stands_for_is_part_of_it() {
        let with = |owner: &str| {
            format!(
                "  - {{id: b, mode: none, owner: &owner {owner}, environment: test, servers: [demo]}}\n  \
                 - {{id: a, mode: none, owner: *owner, environment: test, servers: [demo]}}\n"
            )
        };
        assert_eq!(definition(&with("me")), definition(PLAIN));
        assert_ne!(definition(&with("them")), definition(PLAIN));
    }
}
