//! One snapshot after another, and bad ones in between.

use super::*;
use crate::identity::tests::JWKS;
use crate::scratch::Scratch;

const CONFIG: &str = r#"
version: 1
environment: test
identity:
  issuers:
    - name: demo
      issuer: https://issuer.example
      audiences: [https://mcp.example/mcp]
      algorithms: [ES256]
      jwks: { file: jwks.json }
policy: { directory: policies }
audit:
  file: "-"
  hmac_key: { ref: "env://KEYWARD_AUDIT_KEY" }
servers:
  demo:
    mode: mcp
    destinations: [{ host: mcp.example }]
"#;

fn fixture() -> (Scratch, PathBuf) {
    let dir = Scratch::new();
    dir.write("jwks.json", JWKS);
    dir.write("policies/p.rego", "package keyward\n\ndecision := {\"allow\": true}\n");
    let file = dir.write("keyward.yaml", CONFIG);
    (dir, file)
}

#[test]
fn the_same_files_have_the_same_revision_and_no_others() {
    let (dir, file) = fixture();
    let snapshots = Snapshots::load(&file).unwrap();
    let first = snapshots.current().revision.clone();
    assert!(first.len() == 12 && first.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(snapshots.reload().unwrap(), Reloaded::Unchanged);
    dir.write("policies/data.json", "{}");
    snapshots.reload().unwrap();
    let second = snapshots.current().revision.clone();
    assert_ne!(first, second);
    std::fs::remove_file(dir.path().join("policies/data.json")).unwrap();
    snapshots.reload().unwrap();
    assert_eq!(snapshots.current().revision, first);
}

#[test]
fn a_bad_one_is_refused_whole_and_named() {
    let (dir, file) = fixture();
    let snapshots = Snapshots::load(&file).unwrap();
    let good = snapshots.current();
    let cases = [
        ("keyward.yaml", "version: 1\nnonsense: 2\n", "keyward.yaml:2:1: `nonsense`: unknown key"),
        ("policies/p.rego", "package keyward\n\ndecision := {", "policies/p.rego:3:"),
        ("policies/data.json", "[]", "policies/data.json: it is not a JSON object"),
        ("jwks.json", "{}", "jwks.json"),
    ];
    for (name, content, expected) in cases {
        let before = std::fs::read_to_string(dir.path().join(name)).ok();
        dir.write(name, content);
        let error = snapshots.reload().unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{name}: {text}");
        assert!(Arc::ptr_eq(&snapshots.current(), &good), "{name}");
        match before {
            Some(before) => drop(dir.write(name, &before)),
            None => std::fs::remove_file(dir.path().join(name)).unwrap(),
        }
        assert_eq!(snapshots.reload().unwrap(), Reloaded::Unchanged);
    }
}

#[test]
fn a_lifecycle_is_not_taken_up_where_no_database_is_open() {
    let (dir, file) = fixture();
    let snapshots = Snapshots::load(&file).unwrap();
    let more = "database: { encryption_keys: [{ ref: \"env://KEK\" }] }\nlifecycle: { approvals: 1 }\n";
    dir.write("keyward.yaml", &format!("{CONFIG}\n{more}"));
    let error = snapshots.reload().unwrap_err().to_string();
    assert!(error.contains("`lifecycle`: the running server has no open database"), "{error}");
    assert!(snapshots.current().config.lifecycle.is_none());
}

#[test]
fn listen_addresses_take_effect_at_the_next_start() {
    let (dir, file) = fixture();
    let snapshots = Snapshots::load(&file).unwrap();
    dir.write("keyward.yaml", &format!("{CONFIG}\nlisten: {{ grpc: \"127.0.0.1:9999\" }}\n"));
    let Reloaded::Changed { needs_restart, .. } = snapshots.reload().unwrap() else { panic!("unchanged") };
    assert_eq!(needs_restart, ["listen.grpc"]);
}

#[tokio::test]
async fn a_change_is_noticed_and_a_bad_one_told_once() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (dir, file) = fixture();
    let snapshots = Snapshots::load(&file).unwrap();
    let first = snapshots.current().revision.clone();
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = refused.clone();
    let watching = tokio::spawn(watch(snapshots.clone(), move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let until = async |done: &dyn Fn() -> bool| {
        for _ in 0..500 {
            if done() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("not within 10 s");
    };
    dir.write("policies/p.rego", "package keyward\n\ndecision := {\"allow\": false}\n");
    until(&|| snapshots.current().revision != first).await;
    dir.write("policies/p.rego", "package keyward\n\ndecision :=");
    until(&|| refused.load(Ordering::SeqCst) == 1).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(refused.load(Ordering::SeqCst), 1);
    // As editors and `kubectl` do it.
    dir.write("policies/new", "package keyward\n\ndecision := {\"allow\": true}\n");
    std::fs::rename(dir.path().join("policies/new"), dir.path().join("policies/p.rego")).unwrap();
    until(&|| snapshots.current().revision == first).await;
    watching.abort();
}

#[test]
fn the_policy_of_a_tenant_is_part_of_the_snapshot_and_watched() {
    let (dir, file) = fixture();
    let tenants = "tenants:\n  demo: { servers: [demo], policy_directory: own }\n";
    dir.write("own/p.rego", "package keyward\n\ndecision := {\"allow\": false, \"rule\": \"one\"}\n");
    let before = Snapshots::load(&file).unwrap().current().revision.clone();
    dir.write("keyward.yaml", &format!("{CONFIG}{tenants}"));
    let snapshots = Snapshots::load(&file).unwrap();
    let first = snapshots.current();
    assert_ne!(first.revision, before);
    let verdict = first.tenant_policies["demo"].decide_value(crate::policy::Value::new_object());
    assert_eq!((verdict.allow, verdict.rule.as_deref()), (false, Some("one")));

    dir.write("own/p.rego", "package keyward\n\ndecision := {");
    let refused = snapshots.reload().unwrap_err().to_string();
    assert!(refused.contains("own/p.rego:3:"), "{refused}");
    assert!(Arc::ptr_eq(&snapshots.current(), &first));
    dir.write("own/p.rego", "package keyward\n\ndecision := {\"allow\": true}\n");
    assert!(matches!(snapshots.reload().unwrap(), Reloaded::Changed { .. }));
    assert_ne!(snapshots.current().revision, first.revision);
    std::fs::remove_file(dir.path().join("own/p.rego")).unwrap();
    let refused = snapshots.reload().unwrap_err().to_string();
    assert!(refused.contains("`tenants.demo.policy_directory`"), "{refused}");
}
