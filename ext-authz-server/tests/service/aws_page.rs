//! Every policy in `docs/aws.md` is one that IAM takes and that gives no more than it says; its configuration loads.

use std::path::Path;

use keyward_contract::json::{Limits, parse as parse_json};
use serde_json::{Value, json};

/// Every action that a policy on the page may name.
const ACTIONS: [&str; 11] = [
    "kms:Decrypt",
    "kms:Encrypt",
    "s3:GetObject",
    "s3:ListBucket",
    "s3:PutObject",
    "secretsmanager:GetSecretValue",
    "ssm:GetParameter",
    "sts:AssumeRole",
    "sts:AssumeRoleWithWebIdentity",
    "sts:SetSourceIdentity",
    "sts:TagSession",
];
const KEYS: [&str; 6] = ["Sid", "Effect", "Principal", "Action", "Resource", "Condition"];
const OPERATORS: [&str; 2] = ["StringEquals", "StringLike"];

fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/aws.md")).unwrap()
}

/// Each fenced block whose first line begins with `language`: what follows there, and the content.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    for (position, part) in page.split("```").enumerate() {
        if position % 2 == 1
            && let Some((head, content)) = part.split_once('\n')
            && let Some(rest) = head.strip_prefix(language)
        {
            found.push((rest.trim(), content));
        }
    }
    found
}

/// What is wrong with a policy of this kind.
fn faults(kind: &str, text: &str) -> Vec<String> {
    // The strict reader refuses repeated keys, of which IAM would take one.
    if parse_json(text.as_bytes(), &Limits::default()).is_err() {
        return vec!["it is not JSON, or a key is repeated".into()];
    }
    let policy: Value = serde_json::from_str(text).unwrap();
    let mut faults = Vec::new();
    let fields: Vec<&String> = policy.as_object().unwrap().keys().collect();
    if fields.len() != 2 || policy["Version"] != "2012-10-17" {
        faults.push("it has not `Version` 2012-10-17 and `Statement` alone".into());
    }
    let statements = policy["Statement"].as_array().cloned().unwrap_or_default();
    if statements.is_empty() {
        faults.push("it has no statements".into());
    }
    for statement in &statements {
        let mut add = |text: String| faults.push(format!("{text}: {statement}"));
        for key in statement.as_object().unwrap().keys().filter(|key| !KEYS.contains(&key.as_str())) {
            add(format!("`{key}` is no part of a statement here"));
        }
        if statement["Effect"] != "Allow" {
            add("it does not allow".into());
        }
        let actions = texts(&statement["Action"]);
        for action in actions.iter().filter(|action| !ACTIONS.contains(&action.as_str())) {
            add(format!("`{action}` is no action that is wanted here"));
        }
        if actions.is_empty() {
            add("it has no action".into());
        }
        for operator in statement["Condition"].as_object().into_iter().flat_map(|condition| condition.keys()) {
            if !OPERATORS.contains(&operator.as_str()) {
                add(format!("`{operator}` is no operator that is wanted here"));
            }
        }
        let own = match kind {
            "permission" => permission(statement),
            "trust" => trust(statement),
            "trust-web-identity" => trust_web_identity(statement),
            "trust-service" => trust_service(statement),
            other => vec![format!("`{other}` is no kind of policy")],
        };
        own.into_iter().for_each(add);
    }
    faults
}

fn permission(statement: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if !statement["Principal"].is_null() {
        faults.push("a permission has no principal".into());
    }
    let resources = texts(&statement["Resource"]);
    if resources.is_empty() {
        faults.push("it has no resource".into());
    }
    for resource in resources {
        let arn: Vec<&str> = resource.splitn(6, ':').collect();
        let whole = arn.len() == 6 && arn[0] == "arn" && arn[1] == "aws";
        // A star stands at the end alone, behind a slash: for what is below a name, never for all of a service.
        let star = resource.find('*');
        if !whole
            || star.is_some_and(|at| at + 1 != resource.len() || !resource.ends_with("/*"))
            || resource.contains('?')
        {
            faults.push(format!("`{resource}` is no ARN, or a star stands where none is wanted"));
        }
    }
    faults
}

fn trust(statement: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let principal = statement["Principal"]["AWS"].as_str().unwrap_or_default();
    if principal != "arn:aws:iam::111122223333:role/keyward" {
        faults.push(format!("`{principal}` is not Keyward's role"));
    }
    if !statement["Resource"].is_null() {
        faults.push("a trust policy has no resource".into());
    }
    let external_id = statement["Condition"]["StringEquals"]["sts:ExternalId"].as_str().unwrap_or_default();
    if external_id.len() < 16 || external_id.contains(['*', '?']) {
        faults.push("it does not demand an external id".into());
    }
    faults
}

fn trust_web_identity(statement: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let provider = statement["Principal"]["Federated"].as_str().unwrap_or_default();
    let Some((_, issuer)) = provider.split_once(":oidc-provider/") else {
        return vec!["its principal is no OIDC provider".into()];
    };
    for claim in ["aud", "sub"] {
        let value = statement["Condition"]["StringEquals"][format!("{issuer}:{claim}")].as_str().unwrap_or_default();
        if value.is_empty() || value.contains(['*', '?']) {
            faults.push(format!("it does not pin `{claim}` of `{issuer}`"));
        }
    }
    if texts(&statement["Action"]) != ["sts:AssumeRoleWithWebIdentity"] {
        faults.push("a token assumes by `sts:AssumeRoleWithWebIdentity` alone".into());
    }
    faults
}

fn trust_service(statement: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    if statement["Principal"] != json!({"Service": "pods.eks.amazonaws.com"}) {
        faults.push("its principal is not the service".into());
    }
    for tag in ["kubernetes-namespace", "kubernetes-service-account"] {
        let value = &statement["Condition"]["StringEquals"][format!("aws:RequestTag/{tag}")];
        if value.as_str().is_none_or(|value| value.contains(['*', '?'])) {
            faults.push(format!("it does not pin `{tag}`"));
        }
    }
    faults
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_policy_is_right() {
    let page = page();
    let policies = blocks(&page, "json policy=");
    assert_eq!(policies.len(), page.matches("```json").count(), "a policy without its kind");
    let kinds: Vec<&str> = policies.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(
        kinds,
        ["permission", "permission", "trust-web-identity", "trust-service", "trust", "permission", "permission"]
    );
    for (kind, text) in &policies {
        assert_eq!(faults(kind, text), Vec::<String>::new(), "{kind}");
    }
}

#[test]
fn a_policy_that_says_too_much_is_found() {
    let page = page();
    let policies = blocks(&page, "json policy=");
    let broken = |kind: &str, from: &str, to: &str| {
        let changed: Vec<(&str, String)> = policies
            .iter()
            .filter(|(own, text)| *own == kind && text.contains(from))
            .map(|(own, text)| (*own, text.replacen(from, to, 1)))
            .collect();
        assert!(!changed.is_empty(), "no {kind} holds `{from}`");
        for (kind, text) in changed {
            assert!(!faults(kind, &text).is_empty(), "{kind} with `{to}` in place of `{from}` passes");
        }
    };
    broken("trust", "sts:ExternalId", "sts:ExternalID");
    broken("trust", "keyward-REPLACE-WITH-THE-EXTERNAL-ID-OF-THIS-TENANT", "*");
    broken("trust", "\"StringEquals\"", "\"StringEqualsIfExists\"");
    broken("trust", "arn:aws:iam::111122223333:role/keyward", "*");
    broken("trust", "sts:AssumeRole", "sts:*");
    broken("trust-web-identity", "system:serviceaccount:keyward:keyward", "system:serviceaccount:*:keyward");
    broken("trust-web-identity", ":aud", ":azp");
    broken("trust-service", "aws:RequestTag/kubernetes-namespace", "aws:RequestTag/namespace");
    broken("permission", "arn:aws:s3:::acme-documents\"", "*\"");
    broken("permission", "s3:GetObject", "s3:Get*");
    broken("permission", "secret:keyward/*", "secret:*");
    broken("permission", "444455556666:role", "*:role");
    broken("permission", "2012-10-17", "2008-10-17");
    broken("permission", "\"Effect\": \"Allow\"", "\"Effect\": \"Allow\", \"Effect\": \"Deny\"");
}

#[test]
fn what_the_page_names_in_stores_its_policy_lets_keyward_read() {
    let page = page();
    let policies: Vec<Value> =
        blocks(&page, "json policy=").iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
    let statements: Vec<&Value> = policies.iter().flat_map(|policy| policy["Statement"].as_array().unwrap()).collect();
    // AWS ends the ARN of a secret with a hyphen and six characters of its own; a parameter's name begins with a slash.
    let stores = [
        ("`sm://", "secretsmanager:GetSecretValue", "secretsmanager:eu-central-1:111122223333:secret:", "-a1B2c3"),
        ("`ssm:///", "ssm:GetParameter", "ssm:eu-central-1:111122223333:parameter/", ""),
    ];
    for (scheme, action, before, after) in stores {
        let reading = statements.iter().filter(|statement| texts(&statement["Action"]).contains(&action.to_owned()));
        let readable: Vec<String> = reading.flat_map(|statement| texts(&statement["Resource"])).collect();
        let names: Vec<&str> = page.split(scheme).skip(1).filter_map(|rest| rest.split(['`', '?']).next()).collect();
        assert!(!names.is_empty() && !readable.is_empty(), "{scheme}");
        for name in names {
            let arn = format!("arn:aws:{before}{name}{after}");
            let covers = |resource: &String| match resource.strip_suffix('*') {
                Some(prefix) => arn.starts_with(prefix),
                None => arn == *resource,
            };
            assert!(readable.iter().any(covers), "`{arn}` is none of {readable:?}");
        }
    }
}

#[test]
fn the_configurations_on_the_page_load() {
    let page = page();
    let blocks = blocks(&page, "yaml");
    let (_, bindings) = blocks.iter().find(|(_, text)| text.starts_with("servers:")).unwrap();
    let (_, stores) = blocks.iter().find(|(_, text)| text.starts_with("stores:")).unwrap();
    let (_, session) = blocks.iter().find(|(_, text)| text.starts_with("session:")).unwrap();
    let head = "version: 1\nenvironment: production\nidentity:\n  issuers:\n    - name: corporate\n      issuer: https://login.example\n      \
                audiences: [https://mcp.example/mcp]\n      algorithms: [ES256]\n      jwks: { url: https://login.example/jwks.json }\n      \
                tenant_claim: tenant\npolicy:\n  directory: policies\naudit:\n  file: audit.jsonl\n  hmac_key: { ref: \"env://KEYWARD_AUDIT_KEY\" }\n";
    let whole = format!("{head}{bindings}{stores}");
    keyward_server::config::parse(Path::new("k.yaml"), &whole).unwrap();
    let policy = session.split_once('\n').unwrap().1;
    let indented: String = policy.lines().map(|line| format!("          {line}\n")).collect();
    let with_policy =
        whole.replace("            duration_secs: 3600\n", &format!("            duration_secs: 3600\n{indented}"));
    assert_ne!(whole, with_policy);
    keyward_server::config::parse(Path::new("k.yaml"), &with_policy).unwrap();
}

#[test]
fn what_must_not_stand_in_an_aws_credential_is_refused_with_its_place() {
    let page = page();
    let (_, good) = blocks(&page, "yaml").into_iter().find(|(_, text)| text.starts_with("servers:")).unwrap();
    let head = "version: 1\nenvironment: production\nidentity:\n  issuers:\n    - name: corporate\n      issuer: https://login.example\n      \
                audiences: [https://mcp.example/mcp]\n      algorithms: [ES256]\n      jwks: { url: https://login.example/jwks.json }\n\
                policy:\n  directory: policies\naudit:\n  file: audit.jsonl\n  hmac_key: { ref: \"env://KEYWARD_AUDIT_KEY\" }\n";
    let cases = [
        ("regions: [eu-central-1]", "regions: []", "regions"),
        ("services: [s3, sts]", "services: [\"*\"]", "services[0]"),
        ("services: [s3, sts]", "services: [s3, sts]\n        payload: unsigned", "payload"),
        ("services: [s3, sts]", "services: [s3, sts]\n        signature: query", "payload"),
        ("services: [s3, sts]", "services: [s3, sts]\n        presigned_secs: 604801", "presigned_secs"),
        ("444455556666:role/keyward-agents", "*:role/keyward-agents", "source.tenants.acme.role_arn"),
        (
            "external_id: { type: derived, key: { ref: \"file:///etc/keyward/external-id.key\" } }",
            "external_id: { type: listed }",
            "external_id",
        ),
        (
            "          external_id: { type: derived, key: { ref: \"file:///etc/keyward/external-id.key\" } }\n",
            "",
            "external_id",
        ),
        ("duration_secs: 3600", "duration_secs: 899", "source.session"),
        ("duration_secs: 3600", "duration_secs: 43201", "source.session"),
        ("source_identity: \"{user}\"", "source_identity: \"{who}\"", "source.session"),
        ("{user}+{agent}", "{user}@{agent}", "; separate them with `+` or `,`"),
        ("tenant: \"{tenant}\"", "tenant: \"{tenant}/{agent}\"", "; give each a tag of its own"),
        (
            "tenants:\n",
            "role_arn: \"arn:aws:iam::111122223333:role/{tenant}-{agent}\"\n          tenants:\n",
            "source.role_arn`: two placeholders have nothing between them that no value can hold, so two callers could be \
             one; separate them with `/`",
        ),
        (
            "keyward-agents\" }\n          external_id: { type: derived, key: { ref: \"file:///etc/keyward/external-id.key\" } }",
            "keyward-agents\", external_id: { ref: \"file:///ids/{user}\" } }\n          external_id: { type: listed }",
            "source.tenants.acme.external_id`: it is a caller's, not the tenant's",
        ),
        ("tenants:\n", "sts: { endpoint: \"http://sts.example\" }\n          tenants:\n", "source.sts.endpoint"),
        ("tenants:\n", "role_arn: \"arn:aws:iam::{claim:account}:role/x\"\n          tenants:\n", "source.role_arn"),
        ("tenants:\n", "via: [{ role_arn: x }]\n          tenants:\n", "source.via[0].role_arn"),
    ];
    keyward_server::config::parse(Path::new("k.yaml"), &format!("{head}{good}")).unwrap();
    for (from, to, key) in cases {
        assert!(good.contains(from), "{from}");
        let text = format!("{head}{}", good.replacen(from, to, 1));
        let error = keyward_server::config::parse(Path::new("k.yaml"), &text).err().map(|error| error.to_string());
        let error = error.unwrap_or_else(|| panic!("`{to}` passes"));
        assert!(error.contains(key), "`{to}`: {error}");
    }
}
