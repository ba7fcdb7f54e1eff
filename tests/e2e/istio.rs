//! The Istio manifest is what Envoy takes, on the newest and on the oldest version.

use std::fs;
use std::process::Command;

use keyward_tests::{files, tools};
use serde_json::{Value, json};

const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// The value of the manifest's only patch of this kind.
fn patch(manifest: &Value, applies_to: &str, operation: &str) -> Value {
    let patches = manifest["spec"]["configPatches"].as_array().unwrap();
    let mut found = patches.iter().filter(|patch| patch["applyTo"] == applies_to);
    let patch = found.next().unwrap_or_else(|| unreachable!("no patch of {applies_to}"));
    assert!(found.next().is_none(), "more than one patch of {applies_to}");
    assert_eq!(patch["patch"]["operation"], operation, "{applies_to}");
    patch["patch"]["value"].clone()
}

/// As Istio merges: objects member by member, everything else replaced.
fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            over.iter().for_each(|(key, value)| merge(base.entry(key.clone()).or_insert(Value::Null), value));
        }
        (base, over) => *base = over.clone(),
    }
}

/// A gateway's bootstrap with the patches applied, as Istio would.
fn patched(manifest: &Value) -> Value {
    let mut filter = patch(manifest, "HTTP_FILTER", "INSERT_BEFORE");
    filter["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"] = json!(files::filter_module().unwrap());
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    });
    let mut manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": MANAGER,
            "stat_prefix": "gateway",
            "route_config": {"virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "keyward"}}],
            }]},
            "http_filters": [filter, router],
        },
    });
    merge(&mut manager, &patch(manifest, "NETWORK_FILTER", "MERGE"));
    let port = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    json!({
        "admin": {"address": port},
        "static_resources": {
            "listeners": [{"name": "gateway", "address": port, "filter_chains": [{"filters": [manager]}]}],
            "clusters": [patch(manifest, "CLUSTER", "ADD")],
        },
    })
}

/// Whether this Envoy takes the bootstrap, and what it says.
fn validate(version: &str, bootstrap: &Value) -> (bool, String) {
    let folder = files::run_folder("istio").unwrap();
    let config = folder.join("gateway.yaml");
    fs::write(&config, serde_saphyr::to_string(bootstrap).unwrap()).unwrap();
    let mut envoy = Command::new(tools::envoy_version(version).unwrap());
    envoy.args(["--mode", "validate", "--log-level", "warning", "--config-path"]).arg(&config);
    let output = envoy.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn every_patch_is_valid_on_the_newest_and_the_oldest_envoy() {
    let text = fs::read_to_string(files::workspace().join("envoy/istio/keyward.yaml")).unwrap();
    let manifest: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(
        manifest["spec"]["configPatches"].as_array().map(Vec::len),
        Some(3),
        "a patch that this test does not know"
    );
    let bootstrap = patched(&manifest);
    let config = &bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(config["http_filters"][0]["typed_config"]["config"]["allow_on_headers_stop_iteration"], true);
    assert_eq!(config["http_filters"][0]["typed_config"]["config"]["failure_policy"], "FAIL_RELOAD");
    for version in [tools::ENVOY_VERSION, tools::ENVOY_OLDEST_VERSION] {
        let (valid, said) = validate(version, &bootstrap);
        assert!(valid, "{version}: {said}");
        assert!(!said.to_lowercase().contains("deprecated"), "{version}: {said}");
        // A misspelt field would not have passed.
        let mut misspelt = bootstrap.clone();
        let filter =
            "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config";
        misspelt.pointer_mut(filter).unwrap()["no_such_field"] = json!(true);
        assert!(!validate(version, &misspelt).0, "{version} takes anything");
    }
}
