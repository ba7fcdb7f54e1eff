//! The `stores` section: what docs/stores.md shows is accepted, what cannot work is told.

use std::path::Path;

use keyward_server::config::parse;

const BASE: &str = r#"version: 1
environment: production
identity:
  issuers:
    - name: demo
      issuer: https://issuer.example
      audiences: [https://mcp.example/mcp]
      algorithms: [ES256]
      jwks: { file: jwks.json }
policy: { directory: policies }
audit: { file: "-", hmac_key: { ref: "env://KEYWARD_AUDIT_KEY" } }
servers:
  jira: { mode: mcp, destinations: [{ host: jira.example }] }
  reports: { mode: mcp, destinations: [{ host: reports.example }] }
"#;

#[test]
fn every_configuration_of_the_documentation_is_accepted() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/stores.md");
    let page = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let ours: Vec<&&str> =
        blocks.iter().filter(|block| block.starts_with("stores:") || block.starts_with("bindings:")).collect();
    assert_eq!((blocks.len(), ours.len()), (11, 10));
    for block in ours {
        if let Err(error) = parse(Path::new("keyward.yaml"), &format!("{BASE}{block}")) {
            panic!("{block}\n{error}");
        }
    }
}

fn told(store: &str) -> String {
    let text = format!("{BASE}stores:\n  vault: {store}\n");
    parse(Path::new("keyward.yaml"), &text).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_cannot_work_is_told_at_its_place() {
    let vault = |auth: &str| format!("{{ type: vault, address: \"https://vault.example\", auth: {{ {auth} }} }}");
    let cases = [
        ("{ type: vault, address: \"http://vault.example\", auth: { type: token, token: { ref: \"env://T\" } } }".into(), "stores.vault.address"),
        (vault("type: token, token: { ref: \"other://T\" }"), "stores.vault.auth.token"),
        (vault("type: approle, role_id: \"\", secret_id: { ref: \"env://S\" }"), "stores.vault.auth.role_id"),
        (vault("type: jwt, role: r"), "`jwt` is missing"),
        (vault("type: ldap, role: r"), "stores.vault.auth.type"),
        ("{ type: gcp, auth: { type: metadata, address: \"http://metadata.example\" } }".into(), "stores.vault.auth.address"),
        ("{ type: azure, address: \"https://v.vault.azure.net\", auth: { type: client_secret, tenant_id: a/b, client_id: c, client_secret: { ref: \"env://S\" } } }".into(), "stores.vault.auth.tenant_id"),
        ("{ type: onepassword, address: \"https://c.example\", token: { ref: \"env://T\" }, caching: { refresh_secs: 0 } }".into(), "stores.vault.caching.refresh_secs"),
        ("{ type: onepassword, address: \"https://c.example\", tokn: { ref: \"env://T\" } }".into(), "tokn"),
    ];
    for (store, key) in cases {
        let error = told(&store);
        assert!(error.contains(key), "{store}: {error}");
    }
    assert_eq!(told(&vault("type: kubernetes, role: keyward")), "");
}

#[test]
fn a_reference_of_the_wrong_form_is_told_without_repeating_it() {
    for rest in ["kv/canary/../other", "canary", "kv/canary?version=x", "kv/{who}/canary"] {
        let binding = format!(
            "bindings:\n  - {{ id: b, mode: service_account, owner: o, environment: production, servers: [jira], hosts: [h.example], \
             credentials: [{{ type: header, name: x-key, secret: {{ ref: \"vault://{rest}\" }} }}] }}\n"
        );
        let store =
            "stores:\n  vault: { type: vault, address: \"https://v.example\", auth: { type: kubernetes, role: r } }\n";
        let error = parse(Path::new("keyward.yaml"), &format!("{BASE}{store}{binding}")).unwrap_err().to_string();
        assert!(error.contains("bindings[0].credentials[0].secret") && !error.contains("canary"), "{rest}: {error}");
    }
}
