//! The client certificates that Envoy asks for over its Secret Discovery Service: what Envoy names, Keyward has to
//! have, and the other way round.

use std::collections::BTreeSet;

use serde_json::Value;

use super::all;
use crate::config::{Config, Credential};
use crate::doctor::{Findings, Seen, Wrong};

/// Adds a finding for each direction in which there is something to compare. `clusters` are those that filters ask.
pub(super) fn examine(document: &Value, clusters: &BTreeSet<String>, config: &Config, findings: &mut Findings) {
    let mut places = Vec::new();
    all(document, &|value| value.get("sds_config").is_some(), &mut places);
    let (mut asked, mut asked_of_keyward) = (BTreeSet::new(), BTreeSet::new());
    for place in places {
        let Some(name) = place.get("name").and_then(Value::as_str) else { continue };
        asked.insert(name);
        if is_asked(place, clusters) {
            asked_of_keyward.insert(name);
        }
    }
    let given = given(config);
    if !asked_of_keyward.is_empty() {
        findings.note("Envoy: secrets that Keyward is asked for", answered(&asked_of_keyward, &given));
    }
    if !given.is_empty() {
        let is_whole = document.pointer("/dynamic_resources/cds_config").is_none();
        findings.note("Envoy: client certificates of Keyward", presented(&given, &asked, &asked_of_keyward, is_whole));
    }
}

/// The names under which this environment's bindings give a client certificate.
fn given(config: &Config) -> BTreeSet<&str> {
    let own = config.bindings.iter().filter(|binding| binding.environment == config.environment);
    let credentials = own.flat_map(|binding| &binding.credentials);
    let names = credentials.filter_map(|credential| match credential {
        Credential::ClientCertificate(own) => Some(own.name.as_str()),
        _ => None,
    });
    names.collect()
}

/// Whether a secret is asked of one of these clusters.
fn is_asked(place: &Value, clusters: &BTreeSet<String>) -> bool {
    let mut services = Vec::new();
    all(place, &|value| value.get("cluster_name").is_some(), &mut services);
    services.iter().any(|service| {
        let name = service.get("cluster_name").and_then(Value::as_str);
        name.is_some_and(|name| clusters.contains(name))
    })
}

/// Whether Keyward has what it is asked for. It does not answer to any other name.
fn answered(asked: &BTreeSet<&str>, given: &BTreeSet<&str>) -> Seen {
    let unknown: Vec<&str> = asked.difference(given).copied().collect();
    if unknown.is_empty() {
        return Ok(format!("a credential has each of `{}`", listed(asked)));
    }
    let unknown = unknown.join("`, `");
    let seen = format!("no binding of this environment has a client certificate `{unknown}`: Envoy waits in vain");
    let remedy = "give a credential of type `client_certificate` that `name`, or correct the name beside `sds_config`";
    Err(Wrong::failed(seen, remedy))
}

/// Whether some cluster of this file presents what Keyward gives. This is one Envoy, and there may be another one.
fn presented(given: &BTreeSet<&str>, asked: &BTreeSet<&str>, of_keyward: &BTreeSet<&str>, is_whole: bool) -> Seen {
    let unused: Vec<&str> = given.difference(asked).copied().collect();
    if unused.is_empty() {
        let elsewhere: BTreeSet<&str> = given.difference(of_keyward).copied().collect();
        if elsewhere.is_empty() {
            return Ok(format!("each of `{}` is asked for", listed(given)));
        }
        let seen = format!("`{}` is asked of a cluster that no filter of this file asks", listed(&elsewhere));
        return Err(Wrong::warned(seen, "see that this cluster leads to Keyward's `listen.grpc`"));
    }
    let seen = format!("nothing in this file asks for `{}`", unused.join("`, `"));
    if !is_whole {
        return Err(Wrong::Unknown(format!("{seen}, and clusters also come from elsewhere (`cds_config`)")));
    }
    let remedy = "name it in `tls_certificate_sds_secret_configs` of the upstream's cluster";
    Err(Wrong::warned(format!("{seen}, so that no upstream is shown it"), remedy))
}

fn listed(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join("`, `")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use serde_json::json;

    use super::*;
    use crate::config::parse;
    use crate::doctor::{Finding, Outcome};

    /// A configuration with client certificates of these names, the last one of another environment.
    fn config(names: [&str; 2]) -> Config {
        let text = r#"
version: 1
environment: test
listen: { grpc: "unix:/run/keyward.sock" }
identity:
  issuers:
    - name: demo
      issuer: https://issuer.example
      audiences: [https://mcp.example/mcp]
      algorithms: [ES256]
      jwks: { file: jwks.json }
policy: { directory: policies }
audit: { file: "-", hmac_key: { ref: "env://KEYWARD_AUDIT_KEY" } }
servers: { bank: { mode: http, destinations: [{ host: bank.internal }] } }
bindings:
"#;
        let binding = |(name, environment): (&str, &str)| {
            let pair = "certificate: { ref: \"file:///pem\" }, key: { ref: \"file:///key\" }";
            let credential = format!("{{ type: client_certificate, name: {name}, {pair} }}");
            format!(
                "  - {{ id: {name}, mode: service_account, owner: team, environment: {environment}, servers: [bank], \
                 hosts: [bank.internal], credentials: [{credential}] }}\n"
            )
        };
        let [here, elsewhere] = names;
        let text = text.to_owned() + &binding((here, "test")) + &binding((elsewhere, "production"));
        parse(Path::new("keyward.yaml"), &text).unwrap()
    }

    /// Clusters that ask for these names of these clusters.
    fn envoy(asks: &[(&str, &str)]) -> Value {
        let cluster = |(name, of): &(&str, &str)| {
            let source = json!({"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": of}}]});
            let ask = json!({"name": name, "sds_config": {"api_config_source": source}});
            let context = json!({"common_tls_context": {"tls_certificate_sds_secret_configs": [ask]}});
            json!({"name": "upstream", "transport_socket": {"typed_config": context}})
        };
        json!({"static_resources": {"clusters": asks.iter().map(cluster).collect::<Vec<_>>()}})
    }

    fn found(document: &Value) -> Vec<Finding> {
        let mut findings = Findings { all: Vec::new(), until: Instant::now() };
        let clusters = BTreeSet::from(["keyward".to_owned()]);
        examine(document, &clusters, &config(["bank", "staging"]), &mut findings);
        findings.all
    }

    #[test]
    fn a_name_that_only_one_side_has_is_told() {
        let both = found(&envoy(&[("bank", "keyward"), ("spiffe://mesh/own", "spire")]));
        let outcomes: Vec<_> = both.iter().map(|own| own.outcome).collect();
        assert_eq!(outcomes, [Outcome::Pass, Outcome::Pass], "{both:?}");

        let [elsewhere] = &found(&envoy(&[("bank", "spire")]))[..] else { panic!() };
        assert_eq!(elsewhere.outcome, Outcome::Warn, "{elsewhere:?}");

        let [unknown, unused] = &found(&envoy(&[("bnak", "keyward"), ("staging", "keyward")]))[..] else { panic!() };
        assert_eq!((unknown.outcome, unused.outcome), (Outcome::Fail, Outcome::Warn));
        assert!(unknown.seen.contains("`bnak`, `staging`"), "{unknown:?}");
        assert!(unknown.remedy.as_ref().unwrap().contains("correct the name"), "{unknown:?}");
        assert_eq!(unused.seen, "nothing in this file asks for `bank`, so that no upstream is shown it");
        assert!(unused.remedy.as_ref().unwrap().contains("tls_certificate_sds_secret_configs"), "{unused:?}");
    }

    #[test]
    fn what_one_file_cannot_tell_is_skipped() {
        let mut document = envoy(&[]);
        document["dynamic_resources"] = json!({"cds_config": {"ads": {}}});
        let [only] = &found(&document)[..] else { panic!() };
        assert_eq!((only.outcome, only.remedy.as_ref()), (Outcome::Skip, None));
    }
}
