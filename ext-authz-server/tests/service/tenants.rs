//! What one person gave in the name of one tenant serves in the name of no other. The configuration and the policy of `docs/tenants.md` load as they stand there, and so do the rules of `docs/throttles.md`; what
//! must not stand in those sections is refused.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use keyward_server::config::{ThrottleScope, parse};
use keyward_server::grants::{Grant, GrantKey};
use keyward_server::policy::Value;
use keyward_server::secret::SecretBytes;
use keyward_server::snapshot::Snapshots;
use keyward_server::state::State;
use serde_json::json;

use super::fixture::Fixture;
use super::running::keyward;

/// The first block of this language on a page that begins with these words.
fn block(page: &str, language: &str, beginning: &str) -> String {
    let file = format!("{}/../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).unwrap();
    let start = format!("```{language}\n");
    let mut blocks = text.split(&start).skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    blocks.find(|block| block.starts_with(beginning)).unwrap()
}

#[test]
fn the_saas_server_on_the_page_can_be_copied() {
    let fixture = Fixture::new("tenants-page");
    let keys = std::fs::read_to_string(fixture.directory.join("jwks.json")).unwrap();
    fixture.write("platform.json", &keys);
    fixture.write("zeta.json", &keys);
    std::fs::create_dir_all(fixture.directory.join("tenants/zeta")).unwrap();
    fixture.write("tenants/zeta/policy.rego", &block("tenants.md", "rego", "package keyward"));
    fixture.write("keyward.yaml", &block("tenants.md", "yaml", "version: 1"));
    let snapshot = Snapshots::load(&fixture.configuration()).unwrap().current();
    let own = &snapshot.tenant_policies["zeta"];
    for (roles, allow) in [(r#"["staff"]"#, true), (r#"["other"]"#, false), ("[]", false)] {
        let input = format!(r#"{{"principal": {{"roles": {roles}}}}}"#);
        assert_eq!(own.decide_value(Value::from_json_str(&input).unwrap()).allow, allow, "{roles}");
    }
    assert_eq!(snapshot.config.throttles.as_ref().unwrap().rules.len(), 3);
}

/// The configuration on the page with a part replaced, or the problems that it has.
fn changed(from: &str, to: &str) -> String {
    let page = block("tenants.md", "yaml", "version: 1");
    assert!(page.contains(from), "{from}");
    parse(Path::new("k.yaml"), &page.replacen(from, to, 1)).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn what_must_not_stand_among_tenants_is_refused() {
    let cases = [
        ("    issuers: [platform]\n", "", "`tenants.acme.issuers`: there are several issuers"),
        ("issuers: [platform]\n", "issuers: [nobody]\n", "`tenants.acme.issuers[0]`: there is no issuer `nobody`"),
        ("servers: [crm]\n    max", "servers: [none]\n    max", "`tenants.acme.servers[0]`: there is no server `none`"),
        ("servers: [crm]\n    max", "servers: []\n    max", "`tenants.acme.servers`: the list is empty"),
        ("max_concurrent: 100", "max_concurrent: 0", "`tenants.acme.max_concurrent`: `0` is not from 1 to 65536"),
        (
            "max_concurrent: 100",
            "scopes: { tickets: [a] }",
            "`tenants.acme.scopes.tickets`: `tickets` is not one of its",
        ),
        ("max_concurrent: 100", "scopes: { crm: [\"a b\"] }", "`a b` is not a scope"),
        ("hosts: [zeta.mcp.example]", "hosts: [\"*.mcp.example\"]", "is named for tenant `acme` already"),
        ("hosts: [zeta.mcp.example]", "hosts: [\"*\"]", "`tenants.zeta.hosts[0]`: `*` is not a host"),
        ("  acme:\n", "  \"*\":\n", "`*` is not the name of a tenant"),
        ("    tenants: [\"*\"]\n", "", "`bindings[0].tenants`: nobody has said whose binding it is"),
        ("    tenants: [\"*\"]\n", "    tenants:\n", "`bindings[0].tenants`"),
        ("tenants: [\"*\"]", "tenants: [\"*\", zeta]", "`bindings[0].tenants[0]`: `*` is every tenant"),
        ("tenants: [zeta]", "tenants: [beta]", "`bindings[1].tenants[0]`: there is no tenant `beta`"),
    ];
    assert_eq!(changed("100", "101"), "");
    for (from, to, expected) in cases {
        let told = changed(from, to);
        assert!(told.contains(expected), "{to}\n  expected {expected}\n  got      {told}");
    }
    // A section without a value is none that can be left out.
    let page = block("tenants.md", "yaml", "version: 1");
    let (start, end) = (page.find("tenants:\n").unwrap(), page.find("throttles:\n").unwrap());
    for (section, expected) in
        [("tenants:\n", "`tenants`"), ("tenants: {}\n", "`tenants`"), ("", "`tenants` with their")]
    {
        let text = format!("{}{section}{}", &page[..start], &page[end..]);
        let told = parse(Path::new("k.yaml"), &text).unwrap_err().to_string();
        assert!(told.contains(expected), "{section:?}: {told}");
    }
    let (start, end) = (page.find("throttles:\n").unwrap(), page.find("servers:\n  crm").unwrap());
    let text = format!("{}throttles:\n{}", &page[..start], &page[end..]);
    assert!(parse(Path::new("k.yaml"), &text).unwrap_err().to_string().contains("`throttles"), "an empty section");
}

#[test]
fn the_rules_on_the_page_load_and_others_are_refused() {
    let database = "database: { encryption_keys: [{ ref: \"env://KEY\" }] }\n";
    let page = block("tenants.md", "yaml", "version: 1");
    let (start, end) = (page.find("throttles:\n").unwrap(), page.find("servers:\n  crm").unwrap());
    let with = |rules: &str, database: &str| {
        let text = format!("{}{rules}{database}{}", &page[..start], &page[end..]);
        parse(Path::new("k.yaml"), &text)
    };
    let rules = block("throttles.md", "yaml", "throttles:");
    let loaded = with(&rules, database).unwrap().throttles.unwrap();
    assert_eq!((loaded.rules.len(), loaded.rules[1].scope), (3, ThrottleScope::Shared));
    let cases = [
        ("name: per-tenant", "name: per-caller", database, "rule `per-caller` occurs twice"),
        ("per: [principal]", "per: []", database, "`throttles.rules[0].per`: the list is empty"),
        ("per: [principal]", "per: [person]", database, "`throttles.rules[0].per[0]`"),
        ("limit: 600\n", "limit: 0\n", database, "`throttles.rules[0].limit`: `0` is not from 1 to 1000000"),
        ("burst: 100", "burst: 601", database, "`throttles.rules[0].burst`: `601` is not from 1 to 600"),
        ("window_secs: 3600", "window_secs: 86401", database, "`86401` is not from 1 to 86400"),
        ("servers: [crm]", "servers: [none]", database, "there is no server `none`"),
        ("      tools: [delete_contact, \"purge_*\"]\n", "", database, "names that clients make up"),
        ("max_counters: 65536", "max_counters: 1", database, "`1` is not from 16 to 1000000"),
        ("limit: 600\n", "limit: 600\n", "", "`throttles.rules[1].scope`: there is nowhere to count together"),
    ];
    for (from, to, database, expected) in cases {
        assert!(rules.contains(from), "{from}");
        let told = with(&rules.replacen(from, to, 1), database).unwrap_err().to_string();
        assert!(told.contains(expected), "{to}\n  expected {expected}\n  got      {told}");
    }
}

/// What `keyward explain` says of a call of `echo` by alice, for this tenant.
fn explained(fixture: &Fixture, tenant: &str) -> (i32, String) {
    fixture.write("token", &fixture.token(&json!({"org": tenant})));
    let path = |name: &str| fixture.directory.join(name).display().to_string();
    let arguments = format!("explain --server demo --token-file {} --request {}", path("token"), path("call.json"));
    keyward(fixture, &arguments, "")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_one_name_in_one_tenant_is_no_grant_of_that_name_in_another() {
    let fixture = Fixture::new("tenants-grants");
    fixture.write("kek", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    fixture.write("kek-of-acme", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"message":"m"}}}"#;
    fixture.write("call.json", body);
    let config = std::fs::read_to_string(fixture.configuration()).unwrap();
    let config = config
        .replace("jwks: { file: jwks.json }", "jwks: { file: jwks.json }\n      tenant_claim: org")
        .replace("mode: service_account", "mode: user\n    tenants: [\"*\"]")
        .replace("file://api.key", "grant://calendar");
    let more = "tenants: { acme: { servers: [demo] }, zeta: { servers: [demo] } }\n\
                providers: { calendar: { type: api_key, title: Calendar, max_ttl_days: 30 } }\n\
                database:\n  encryption_keys: [{ ref: \"file://kek\" }]\n  \
                tenant_encryption_keys: { acme: [{ ref: \"file://kek-of-acme\" }] }\n";
    fixture.write("keyward.yaml", &(config + more));
    let snapshots = Snapshots::load(&fixture.configuration()).unwrap_or_else(|error| panic!("{error}"));
    let snapshot = snapshots.current();
    let state = State::open(snapshot.config.database.as_ref().unwrap(), &snapshot.sources.secrets).await.unwrap();
    let bearer = format!("Bearer {}", fixture.token(&json!({"org": "acme"})));
    let alice = snapshot.identity.verify(Some(&bearer)).await.unwrap();
    let grant = Grant {
        secret: Arc::new(SecretBytes::new(b"what alice of acme gave".to_vec())),
        scopes: Vec::new(),
        account: None,
        given: SystemTime::now(),
        expires: None,
    };
    let key = GrantKey::new(&alice.tenant, &alice.key, "calendar");
    state.grants.replace(&key, None, &grant).await.unwrap();

    let (code, text) = explained(&fixture, "acme");
    assert!(code == 0 && text.contains("tenant: acme"), "{text}");
    let (code, text) = explained(&fixture, "zeta");
    assert!(code == 1 && text.contains("denied: consent_required"), "{text}");
    // Sealed under the tenant's own key: without it, nothing of acme opens, whatever else does.
    let without = std::fs::read_to_string(fixture.configuration()).unwrap();
    let own = "  tenant_encryption_keys: { acme: [{ ref: \"file://kek-of-acme\" }] }\n";
    assert!(without.contains(own));
    fixture.write("keyward.yaml", &without.replace(own, ""));
    let (code, text) = explained(&fixture, "acme");
    assert!(code == 1 && !text.contains("allowed"), "{text}");
}
