//! The configurations of docs/resource-server.md.

use std::path::Path;

use keyward_server::config::{json_schema, parse};
use serde_json::Value;

#[test]
fn every_example_loads() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/resource-server.md")).unwrap();
    let examples: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let [whole, introspection] = examples[..] else { panic!("{} examples", examples.len()) };
    let further = whole.replace("policy: {", &format!("{introspection}policy: {{"));
    assert_ne!(whole, further);
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    for example in [whole.to_owned(), further] {
        let config = parse(Path::new("k.yaml"), &example).unwrap_or_else(|error| panic!("{error}\n{example}"));
        assert!(config.servers["tickets"].resource.is_some());
        let value: Value = serde_saphyr::from_str(&example).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{example}");
    }
}
