//! What is wrong with a `keyward.yaml`, each time with line and key; the published schema.

use std::path::Path;

use keyward_server::cli::schema_text;
use keyward_server::config::{Risk, json_schema, parse, reference};
use serde_json::{Value, json};

/// One line each, so that a case can replace one of them.
const GOOD: &str = r#"version: 1
environment: test
listen: { grpc: "127.0.0.1:9191", admin: "127.0.0.1:9192" }
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
  demo:
    mode: mcp
    destinations: [{ host: mcp.example, port: 443, path: /mcp, methods: [read, write] }]
    upstream_authority: upstream.internal:9000
bindings:
  - id: demo-key
    mode: service_account
    owner: platform-team
    environment: test
    servers: [demo]
    hosts: ["upstream.internal:9000"]
    credentials:
      - { type: header, name: x-api-key, template: "{secret}", secret: { ref: "env://DEMO_KEY" } }
"#;

/// The sections of an operator API, one line each.
const API: &str = r#"listen: { api: "unix:/run/keyward/api.sock" }
api:
  identity:
    issuers:
      - name: staff
        issuer: https://issuer.example
        audiences: [https://keyward.example/api]
        algorithms: [ES256]
        jwks: { file: jwks.json }
  assignments:
    - { role: responder, tenants: ["*"], groups: [on-call] }
"#;

/// What to replace in [`API`], by what, and the problem.
const BAD_API: &[(&str, &str, &str)] = &[
    (
        "https://keyward.example/api",
        "https://mcp.example/mcp",
        "`api.identity.issuers[0].audiences`: a token of an agent would be one of an operator",
    ),
    ("listen: { api: \"unix:/run/keyward/api.sock\" }", "listen: {}", "`api`: nobody can reach it; add `listen.api`"),
    ("      - name: staff\n", "      - name: Staff\n", "`api.identity.issuers[0].name`: `Staff` is not a name"),
    (
        "    - { role: responder, tenants: [\"*\"], groups: [on-call] }\n",
        "    []\n",
        "`api.assignments`: the list is empty",
    ),
    ("responder", "root", "`api.assignments[0].role`: `root` is not one of the choices"),
    ("[\"*\"]", "[]", "`api.assignments[0].tenants`: the list is empty"),
    (", groups: [on-call]", "", "`api.assignments[0]`: it is for nobody"),
    ("groups: [on-call]", "groups: [on-call], issuer: other", "there is no issuer `other` in `api.identity`"),
    ("  assignments:", "  hosts: [\"a b\"]\n  assignments:", "`api.hosts[0]`: `a b` is not an authority"),
];

/// What to replace, by what, and the problem: line, column, key, part of the message.
const BAD: &[(&str, &str, &str)] = &[
    ("version: 1", "version: 2", "k.yaml:1:1: `version`: `2` is not a known version; write `version: 1`"),
    ("version: 1", "version: one", "k.yaml:1:10: `version`: expected the number 1, got `one`"),
    ("environment: test\n", "", "k.yaml:1:1: `environment` is missing; add it: text"),
    ("environment: test\n", "enviroment: test\n", "k.yaml:2:1: `enviroment`: unknown key; did you mean `environment`?"),
    ("environment: test\n", "environment: Test Env\n", "k.yaml:2:1: `environment`: `Test Env` is not a name"),
    (
        "environment: test\n",
        "environment: test\nenvironment: test\n",
        "k.yaml:3:1: `environment`: the key occurs twice",
    ),
    ("grpc: \"127.0.0.1:9191\"", "grpc: \"0.0.0.0:9191\"", "k.yaml:3:11: `listen.grpc`: `0.0.0.0:9191` can be reached"),
    ("grpc: \"127.0.0.1:9191\"", "grpc: localhost", "k.yaml:3:17: `listen.grpc`: `localhost` is not an address"),
    ("grpc: \"127.0.0.1:9191\"", "grpc: unix:keyward.sock", "`listen.grpc`: `unix:keyward.sock` is not an address"),
    ("admin: \"127.0.0.1:9192\"", "admin: \"[::]:9192\"", "`listen.admin`: `[::]:9192` can be reached"),
    ("admin: \"127.0.0.1:9192\"", "admin: \"127.0.0.1:9191\"", "`listen.admin`: the same address as `listen.grpc`"),
    ("admin: \"127.0.0.1:9192\"", "api: \"0.0.0.0:9193\"", "`listen.api`: `0.0.0.0:9193` can be reached"),
    ("admin: \"127.0.0.1:9192\"", "api: \"127.0.0.1:9193\"", "`listen.api`: nobody may use it; add the section `api`"),
    ("admin: \"127.0.0.1:9192\"", "drain_secs: 301", "`listen.drain_secs`: `301` is not from 0 to 300"),
    (
        "    - name: demo\n      issuer: https://issuer.example\n      audiences: [https://mcp.example/mcp]\n      \
      algorithms: [ES256]\n      jwks: { file: jwks.json }\n",
        "    []\n",
        "k.yaml:5:3: `identity.issuers`: the list is empty; add an issuer: there is no anonymous access",
    ),
    ("[https://mcp.example/mcp]", "[]", "k.yaml:8:7: `identity.issuers[0].audiences`: the list is empty"),
    ("[ES256]", "[HS256]", "k.yaml:9:20: `identity.issuers[0].algorithms[0]`: `HS256` is not one of the choices"),
    ("[ES256]", "[none]", "k.yaml:9:20: `identity.issuers[0].algorithms[0]`: `none` is not one of the choices"),
    (
        "{ file: jwks.json }",
        "{ url: \"http://issuer.example/\" }",
        "`identity.issuers[0].jwks.url`: the address cannot be used: it is not https",
    ),
    ("{ file: jwks.json }", "{}", "k.yaml:10:7: `identity.issuers[0].jwks`: not exactly one of `file` and `url`"),
    ("{ file: jwks.json }", "{ file: a, url: \"https://b.example\" }", "not exactly one of `file` and `url`"),
    (
        "      jwks:",
        "      subject_claim: email\n      jwks:",
        "k.yaml:10:7: `identity.issuers[0].subject_claim`: `email` is a display name",
    ),
    (
        "      jwks:",
        "      clock_skew_secs: 301\n      jwks:",
        "`identity.issuers[0].clock_skew_secs`: `301` is not from 0 to 300",
    ),
    (
        "policy: { directory: policies }\n",
        "policy: {}\n",
        "k.yaml:11:9: `policy`: `directory` is missing; add it: text",
    ),
    (
        "policy: { directory: policies }\n",
        "",
        "k.yaml:1:1: `policy` is missing; add it: keys and values, with `directory`",
    ),
    (
        "env://KEYWARD_AUDIT_KEY",
        "KEYWARD_AUDIT_KEY",
        "k.yaml:12:33: `audit.hmac_key.ref`: not a secret reference (not shown, it may be a secret): there is no `://`; \
         write `env://NAME`, `file:///absolute/path` or `STORE://…` with a name of `stores`",
    ),
    (
        "mode: mcp",
        "mode: grpc",
        "k.yaml:15:11: `servers.demo.mode`: `grpc` is not one of the choices; write one of `mcp`, `http`",
    ),
    (
        "  demo:\n    mode",
        "  Demo Server:\n    mode",
        "k.yaml:14:3: `servers.Demo Server`: `Demo Server` is not a name",
    ),
    (
        "mode: mcp\n",
        "mode: mcp\n    resource: { url: \"http://mcp.example/mcp\" }\n",
        "k.yaml:16:17: `servers.demo.resource.url`: the address cannot be used: it is not https",
    ),
    (
        "mode: mcp\n",
        "mode: mcp\n    resource: { url: \"https://mcp.example/mcp?x=1\" }\n",
        "`servers.demo.resource.url`: the address cannot be used: it holds a query",
    ),
    (
        "mode: mcp\n",
        "mode: mcp\n    resource: { url: \"https://mcp.example/mcp\", issuers: [other] }\n",
        "`servers.demo.resource.issuers[0]`: there is no issuer `other`",
    ),
    (
        "mode: mcp\n",
        "mode: mcp\n    resource: { url: \"https://mcp.example/mcp\", scopes: { required: [\"a b\"] } }\n",
        "`servers.demo.resource.scopes.required[0]`: `a b` is not a scope (RFC 6749, 3.3)",
    ),
    (
        "mode: mcp\n",
        "mode: mcp\n    resource: { url: \"https://mcp.example/mcp\", dpop: { algorithms: [HS256] } }\n",
        "`servers.demo.resource.dpop.algorithms[0]`: `HS256` is not one of the choices",
    ),
    (
        "mode: mcp\n",
        "mode: mcp\n    resource: { url: \"https://mcp.example/mcp\", dpop: { required: true }, certificate_required: true }\n",
        "`servers.demo.resource.certificate_required`: a token is bound to a key or to a certificate",
    ),
    (
        "bindings:\n",
        "  other:\n    mode: mcp\n    destinations: [{ host: other.example }]\n    resource: { url: \"https://mcp.example/a\", audiences: \
         [x] }\n  third:\n    mode: mcp\n    destinations: [{ host: third.example }]\n    resource: { url: \
         \"https://mcp.example/b\", audiences: [x] }\nbindings:\n",
        "`servers.third.resource.audiences`: `x` means `other`, too",
    ),
    (
        "      jwks:",
        "      introspection: { endpoint: \"http://login.example/\", client_id: k, client_secret: { ref: \"env://S\" } }\n      \
         jwks:",
        "`identity.issuers[0].introspection.endpoint`: the address cannot be used: it is not https",
    ),
    (
        "      jwks:",
        "      max_lifetime_secs: 5\n      jwks:",
        "`identity.issuers[0].max_lifetime_secs`: `5` is not from 10 to 31536000",
    ),
    ("host: mcp.example", "host: \"*\"", "k.yaml:16:22: `servers.demo.destinations[0].host`: `*` is not a host"),
    ("host: mcp.example", "host: a@b", "`servers.demo.destinations[0].host`: `a@b` is not a host"),
    ("port: 443", "port: 0", "`servers.demo.destinations[0].port`: `0` is not a port"),
    (
        "port: 443",
        "port: 65536",
        "k.yaml:16:47: `servers.demo.destinations[0].port`: expected a whole number from 1 to 65535",
    ),
    (
        "port: 443",
        "port: abc",
        "`servers.demo.destinations[0].port`: expected a whole number from 1 to 65535, got `abc`",
    ),
    (
        "port: 443",
        "port: [1]",
        "`servers.demo.destinations[0].port`: expected a whole number from 1 to 65535, got a list",
    ),
    ("path: /mcp", "path: ~", "`servers.demo.destinations[0].path`: expected text, got nothing"),
    (
        "[read, write]",
        "read",
        "`servers.demo.destinations[0].methods`: expected a list, got a single value; write `[…]`",
    ),
    ("{ file: jwks.json }", "jwks.json", "`identity.issuers[0].jwks`: expected keys and values, of `file`, `url`, "),
    ("path: /mcp", "path: /a/../b", "`servers.demo.destinations[0].path`: `/a/../b` is not a canonical path"),
    ("path: /mcp", "path: mcp", "`servers.demo.destinations[0].path`: `mcp` is not a canonical path"),
    ("[read, write]", "[]", "`servers.demo.destinations[0].methods`: the list is empty"),
    ("[read, write]", "[read, read]", "`servers.demo.destinations[0].methods[1]`: the entry occurs twice"),
    (
        "upstream_authority: upstream.internal:9000",
        "upstream_authority: http://u",
        "k.yaml:17:5: `servers.demo.upstream_authority`: `http://u` is not an authority",
    ),
    (
        "upstream_authority: upstream.internal:9000",
        "max_body_bytes: 5000000",
        "`servers.demo.max_body_bytes`: `5000000` is not from 1024 to 3145728",
    ),
    ("servers: [demo]", "servers: [other]", "k.yaml:23:15: `bindings[0].servers[0]`: there is no server `other`"),
    ("servers: [demo]", "servers: []", "k.yaml:23:5: `bindings[0].servers`: the list is empty"),
    (
        "servers: [demo]",
        "servers: [demo]\n    principals: { users: [\"*\"] }",
        "`bindings[0].principals.users[0]`: `*` is taken literally",
    ),
    (
        "servers: [demo]",
        "servers: [demo]\n    tools: []",
        "k.yaml:24:5: `bindings[0].tools`: the list is empty; name the",
    ),
    ("servers: [demo]", "servers: [demo]\n    tools:", "k.yaml:24:5: `bindings[0].tools`: the list is empty; name the"),
    ("servers: [demo]", "servers: [demo]\n    tools: echo", "`bindings[0].tools`: expected a list, got a single value"),
    (
        "servers: [demo]",
        "servers: [demo]\n    tools: [a, \"\"]",
        "k.yaml:24:16: `bindings[0].tools[1]`: empty, longer than 256",
    ),
    ("servers: [demo]", "servers: [demo]\n    tools: [a, a]", "`bindings[0].tools[1]`: the entry occurs twice"),
    (
        "mode: service_account",
        "mode: service_account\n    risk: grave",
        "`bindings[0].risk`: `grave` is not one of the choices",
    ),
    ("    hosts: [\"upstream.internal:9000\"]\n", "", "`bindings[0].hosts`: credentials without a host"),
    ("[\"upstream.internal:9000\"]", "[\"*.*\"]", "k.yaml:24:13: `bindings[0].hosts[0]`: `*.*` is not a host"),
    ("mode: service_account", "mode: none", "k.yaml:25:5: `bindings[0].credentials`: mode `none` has no credentials"),
    ("mode: service_account", "mode: user", "`bindings[0].principals`: mode `user` without a user"),
    ("mode: service_account", "mode: passthrough", "`bindings[0].headers`: the list is empty"),
    (
        "mode: service_account",
        "mode: passthrough\n    headers: [authorization]",
        "`bindings[0].headers[0]`: `authorization` identifies the client",
    ),
    (
        "mode: service_account",
        "mode: passthrough\n    headers: [Cookie]",
        "`bindings[0].headers[0]`: `Cookie` identifies the client",
    ),
    (
        "name: x-api-key",
        "name: \"x api key\"",
        "k.yaml:26:25: `bindings[0].credentials[0].name`: `x api key`: not a header name",
    ),
    ("name: x-api-key", "name: X-Api-Key", "header names are written in lower case here"),
    ("name: x-api-key", "name: \":authority\"", "a pseudo header cannot be set"),
    ("name: x-api-key", "name: transfer-encoding", "`transfer-encoding`: the header frames or routes the message"),
    ("name: x-api-key", "name: x-keyward-scrub", "the header is internal to Keyward or Envoy"),
    ("name: x-api-key, ", "", "`bindings[0].credentials[0]`: `name` is missing"),
    ("type: header", "type: cookie", "`bindings[0].credentials[0].type`: `cookie` is not one of the choices"),
    (
        "type: header",
        "type: basic",
        "`bindings[0].credentials[0].name`: unknown key; known keys here are `type`, `username`, `username_secret`",
    ),
    (
        "type: header, ",
        "",
        "`bindings[0].credentials[0]`: `type` is missing; add it: one of `header`, `query`, `basic`",
    ),
    (
        "\"{secret}\"",
        "\"Bearer\"",
        "`bindings[0].credentials[0].template`: the template does not hold exactly one `{secret}`",
    ),
    ("\"{secret}\"", "\"{secret}{secret}\"", "does not hold exactly one `{secret}`"),
    ("{ ref: \"env://DEMO_KEY\" }", "plain-text-secret", "`bindings[0].credentials[0].secret`"),
    (
        "env://DEMO_KEY",
        "vault://a",
        "`bindings[0].credentials[0].secret.ref`: not a secret reference (not shown, it may be a secret): what stands \
         before `://` names no store",
    ),
    (
        "env://DEMO_KEY",
        "file://{tenant}-{user}",
        "`bindings[0].credentials[0].secret.ref`: not a secret reference (not shown, it may be a secret): two \
         placeholders have nothing between them that no value can hold, so two callers could be one; separate them with \
         `/` or `.`",
    ),
    (
        "{ ref: \"env://DEMO_KEY\" }",
        "{ ref: \"env://DEMO_KEY\", value: x }",
        "`bindings[0].credentials[0].secret.value`: unknown key",
    ),
    (
        "version: 1",
        "version: [",
        "did not find expected ',' or '}'; look at the indentation, quotes and brackets there",
    ),
    ("version: 1", "version: \"1", "k.yaml:2:1: invalid indentation in multiline quoted scalar; look at"),
    ("version: 1\n", "---\nversion: 1\n---\n", "k.yaml:4:1: a second document begins here; keep one in the file"),
];

#[test]
fn each_bad_file_names_line_and_key() {
    let with_api = GOOD.replace("listen: { grpc: \"127.0.0.1:9191\", admin: \"127.0.0.1:9192\" }\n", API);
    for good in [GOOD, &with_api] {
        assert!(parse(Path::new("k.yaml"), good).is_ok(), "{good}");
    }
    let mut wrong = Vec::new();
    let of_api = BAD_API.iter().map(|case| (with_api.as_str(), case));
    for (good, (from, to, expected)) in BAD.iter().map(|case| (GOOD, case)).chain(of_api) {
        assert!(good.contains(from), "{from}");
        let told = parse(Path::new("k.yaml"), &good.replacen(from, to, 1)).err().map(|error| error.to_string());
        let told = told.unwrap_or_default();
        if !told.contains(expected) || !told.lines().all(|line| line.starts_with("k.yaml:")) {
            wrong.push(format!("{to}\n  expected {expected}\n  got      {told}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join(""));
}

#[test]
fn tools_are_of_servers_that_call_them() {
    let listed =
        GOOD.replacen("servers: [demo]", "servers: [demo]\n    tools: [echo, \"get_*\", \"*\"]\n    risk: high", 1);
    let binding = parse(Path::new("k.yaml"), &listed).unwrap().bindings.remove(0);
    assert_eq!(binding.tools.unwrap(), ["echo", "get_*", "*"]);
    assert_eq!(binding.risk, Some(Risk::High));
    let binding = parse(Path::new("k.yaml"), GOOD).unwrap().bindings.remove(0);
    assert_eq!((binding.tools, binding.risk), (None, None));
    let error = parse(Path::new("k.yaml"), &listed.replacen("mode: mcp", "mode: http", 1)).unwrap_err().to_string();
    assert!(
        error.contains("k.yaml:23:15: `bindings[0].servers[0]`: `demo` speaks plain HTTP, which calls no"),
        "{error}"
    );
    let many = (0..257).map(|index| format!("t{index}")).collect::<Vec<_>>().join(", ");
    let many = GOOD.replacen("servers: [demo]", &format!("servers: [demo]\n    tools: [{many}]"), 1);
    let error = parse(Path::new("k.yaml"), &many).unwrap_err().to_string();
    assert!(error.contains("`bindings[0].tools`: more than 256 entries"), "{error}");
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let bad = GOOD
        .replace("environment: test\nlisten", "environment: T\nlisten")
        .replace("127.0.0.1:9191", "0.0.0.0:9191")
        .replace("[demo]", "[other]")
        .replace("x-api-key", "host");
    let error = parse(Path::new("k.yaml"), &bad).unwrap_err();
    let keys: Vec<&str> = error.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["environment", "listen.grpc", "bindings[0].servers[0]", "bindings[0].credentials[0].name"]);
}

#[test]
fn all_problems_of_the_shape_are_told_at_once() {
    let bad = GOOD
        .replace("version: 1", "version: one")
        .replace("environment: test\nlisten", "enviroment: test\nlisten")
        .replace("127.0.0.1:9191", "localhost")
        .replace("policy: { directory: policies }", "policy: policies")
        .replace("mode: mcp", "mode: grpc")
        .replace("port: 443", "port: abc")
        .replace("    owner: platform-team\n", "    environment: test\n")
        .replace("type: header", "type: basic");
    let error = parse(Path::new("k.yaml"), &bad).unwrap_err();
    let told: Vec<String> =
        error.problems.iter().map(|problem| format!("{} {}: {}", problem.line, problem.key, problem.message)).collect();
    let expected = [
        "1 : `environment` is missing",
        "1 version: expected the number 1, got `one`",
        "2 enviroment: unknown key",
        "3 listen.grpc: `localhost` is not an address: write `ip:port`, `[ipv6]:port` or `unix:/absolute/path`",
        "11 policy: expected keys and values, with `directory`, got a single value",
        "15 servers.demo.mode: `grpc` is not one of the choices",
        "16 servers.demo.destinations[0].port: expected a whole number from 1 to 65535, got `abc`",
        "19 bindings[0]: `owner` is missing",
        "22 bindings[0].environment: the key occurs twice",
        "26 bindings[0].credentials[0].name: unknown key",
        "26 bindings[0].credentials[0].template: unknown key",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for (from, to) in [
        ("{ ref: \"env://DEMO_KEY\" }", "canary-secret"),
        ("env://DEMO_KEY", "canary-secret"),
        ("env://DEMO_KEY", "env://canary-secret"),
        ("env://DEMO_KEY", "canary://secret"),
        ("env://DEMO_KEY", "file://canary/"),
        ("\"{secret}\"", "\"Bearer canary\""),
        ("{ ref: \"env://DEMO_KEY\" }", "[canary-secret]"),
        ("{ ref: \"env://DEMO_KEY\" }", "{ canary-secret }"),
        ("{ ref: \"env://DEMO_KEY\" }", "{ ref: { canary: x } }"),
        ("env://DEMO_KEY\"", "env://DEMO_KEY\", trim_newline: canary-secret"),
    ] {
        let error = parse(Path::new("k.yaml"), &GOOD.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
        assert!(error.contains("bindings[0].credentials[0]."), "{error}");
    }
}

#[test]
fn two_of_one_name_are_refused() {
    let binding = GOOD.split_once("bindings:\n").unwrap().1;
    let error = parse(Path::new("k.yaml"), &format!("{GOOD}{binding}")).unwrap_err();
    assert!(error.to_string().contains("`bindings[1].id`: binding `demo-key` occurs twice"), "{error}");
}

#[test]
fn the_published_schema_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/keyward.schema.json");
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(published.trim_end() == schema_text(), "run `keyward schema > docs/keyward.schema.json`");
}

#[test]
fn the_published_reference_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");
    let published = std::fs::read_to_string(path).unwrap_or_default();
    let current = reference(&json_schema());
    assert!(published.trim_end() == current.trim_end(), "run `keyward schema --markdown > docs/reference.md`");
}

#[test]
fn the_schema_accepts_what_the_server_accepts() {
    let validator = jsonschema::validator_for(&json_schema()).unwrap();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../containers/keyward.yaml");
    let example = std::fs::read_to_string(example).unwrap();
    for text in [GOOD, &example] {
        parse(Path::new("k.yaml"), text).unwrap();
        let value: Value = serde_saphyr::from_str(text).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    let value: Value = serde_saphyr::from_str(GOOD).unwrap();
    for (pointer, bad) in [
        ("/nonsense", json!(1)),
        ("/version", json!(2)),
        ("/identity/issuers/0/algorithms", json!(["HS256"])),
        ("/identity/issuers/0/jwks", json!({"file": "a", "url": "b"})),
        ("/servers/demo/mode", json!("grpc")),
        ("/bindings/0/credentials/0/type", json!("cookie")),
        ("/bindings/0/credentials/0/extra", json!(1)),
        ("/listen/grpc", json!("localhost")),
    ] {
        let mut value = value.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        value.pointer_mut(parent).unwrap()[name] = bad;
        assert!(!validator.is_valid(&value), "{pointer}");
    }
}

#[test]
fn a_query_that_is_signed_is_not_changed_by_a_later_credential() {
    let header = r#"{ type: header, name: x-api-key, template: "{secret}", secret: { ref: "env://DEMO_KEY" } }"#;
    let hmac = |message: &str, place: &str| {
        format!(r#"{{ type: hmac, message: "{message}", secret: {{ ref: "env://DEMO_KEY" }}, {place} }}"#)
    };
    let in_header = r#"headers: [{ name: x-one, template: "{signature}" }]"#;
    let in_query = r#"query: [{ name: two, template: "{signature}" }]"#;
    let aws = "{ type: aws, regions: [eu-west-1], services: [s3], source: { type: static, \
               access_key_id: { ref: \"env://ID\" }, secret_access_key: { ref: \"env://KEY\" } } }";
    let told = |first: &str, second: &str| {
        let text = GOOD.replacen(header, &format!("{first}\n      - {second}"), 1);
        parse(Path::new("k.yaml"), &text).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let body = hmac("{timestamp}.{body}", r#"headers: [{ name: x-three, template: "{signature}" }]"#);
    let query = hmac("{body}", in_query);
    for message in ["{method} {query}", "{target}"] {
        let signs = hmac(message, in_header);
        let expected = "k.yaml:27:77: `bindings[0].credentials[1].query`: it changes the query, which `credentials[0]` has \
                        signed by then; list what changes the query before what signs it";
        assert_eq!(told(&signs, &query), expected);
        // The other way about the first one's parameter is signed, and so is what is not in the query.
        assert_eq!(told(&query, &signs), "");
        assert_eq!(told(&signs, &body), "");
        let spelt = told(&signs, aws);
        assert!(
            spelt.contains("`bindings[0].credentials[1]`: it changes the query, which `credentials[0]`"),
            "{spelt}"
        );
        assert_eq!(told(aws, &signs), "");
    }
    assert_eq!(told(&body, &query), "");
    let both = hmac("{target}", r#"query: [{ name: one, template: "{signature}" }]"#);
    assert!(told(&both, &query).contains("`bindings[0].credentials[1].query`"));
}

#[test]
fn a_client_certificate_is_the_services_and_has_one_name() {
    let header = r#"{ type: header, name: x-api-key, template: "{secret}", secret: { ref: "env://DEMO_KEY" } }"#;
    let with = |certificate: &str| {
        let one = |reference: &str| {
            format!(
                "{{ type: client_certificate, name: bank, certificate: {{ ref: \"{reference}\" }}, key: {{ ref: \"file://bank.key\" }} }}"
            )
        };
        let both = format!("{}\n      - {}", one(certificate), one("file://bank.pem"));
        let text = GOOD.replacen(header, &both, 1);
        let told =
            |text: &str| parse(Path::new("k.yaml"), text).err().map(|error| error.to_string()).unwrap_or_default();
        let open = told(&text);
        assert!(open.contains("`listen.grpc`: every program on this machine could ask for the keys"), "{open}");
        let grpc = "grpc: \"127.0.0.1:9191\"";
        assert!(!told(&text.replacen(grpc, "grpc: \"unix:/run/k.sock\"", 1)).contains("listen.grpc"));
        told(&text.replacen(grpc, &format!("{grpc}, secrets_on_loopback: true"), 1))
    };
    assert_eq!(with("file://bank.pem"), "");
    for (reference, expected) in [
        ("file://other.pem", "`bindings[0].credentials[0].name`: `bank` names two different certificates"),
        (
            "file://{user}.pem",
            "`bindings[0].credentials[0].certificate.ref`: the connections of a cluster are everybody's",
        ),
        ("grant://bank", "`bindings[0].credentials[0].certificate.ref`: the connections of a cluster are everybody's"),
    ] {
        let told = with(reference);
        assert!(told.contains(expected), "{reference}: {told}");
    }
    let tls = "tls: { certificate_file: a, key_file: b, client_ca_file: c }";
    let unix = GOOD.replacen("grpc: \"127.0.0.1:9191\"", &format!("grpc: \"unix:/run/keyward.sock\", {tls}"), 1);
    let told = parse(Path::new("k.yaml"), &unix).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(told.contains("`listen.tls`: a unix socket is served without TLS"), "{told}");
}

#[test]
fn calls_that_share_connections_are_bound_to_one_certificate() {
    let pair = r#"certificate: { ref: "file://bank.pem" }, key: { ref: "file://bank.key" }"#;
    let certificate = format!("{{ type: client_certificate, name: bank, {pair} }}");
    let header = r#"{ type: header, name: x-api-key, template: "{secret}", secret: { ref: "env://DEMO_KEY" } }"#;
    let grpc = "grpc: \"127.0.0.1:9191\"";
    let first = GOOD.replacen(header, &certificate, 1).replacen(grpc, "grpc: \"unix:/run/keyward.sock\"", 1);
    // A binding beside the one that holds the certificate.
    let told = |text: &str, beside: &str| {
        let text = format!("{text}  - {{ id: beside, owner: team, {beside} }}\n");
        parse(Path::new("k.yaml"), &text).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let none = |server: &str| format!("mode: none, environment: test, servers: [{server}]");
    let with = |credentials: &str| {
        let at = "environment: test, servers: [demo], hosts: [upstream.internal]";
        format!("mode: service_account, {at}, credentials: [{credentials}]")
    };
    let seen = told(&first, &none("demo"));
    let expected = "`bindings[1].servers[0]`: calls to `demo` go over connections on which Envoy presents the client \
                    certificate `bank` of binding `demo-key`, which this binding does not hold; give both bindings the same";
    assert!(seen.contains(expected) && seen.lines().count() == 1, "{seen}");
    assert!(told(&first, &with(header)).contains(expected));
    assert_eq!(told(&first, &with(&format!("{header}, {certificate}"))), "");
    assert_eq!(told(&first, &none("demo").replacen("test", "another", 1)), "", "never used here");
    // Two certificates on one connection: each binding lacks one.
    let seen = told(&first, &with(&certificate.replacen("bank", "broker", 1)));
    assert!(seen.contains("`bindings[0].servers[0]`: calls to `demo`") && seen.contains(expected), "{seen}");

    // The cluster of the first server entry, and what another one says of its upstream.
    let own = "upstream_authority: upstream.internal:9000";
    for (cluster, another, is_shared) in [
        ("", "upstream_authority: elsewhere.internal", false),
        ("", "upstream_authority: upstream.internal:9001", false),
        ("", own, true),
        ("", "upstream_authority: upstream.internal", true),
        ("", "destinations: [{ host: upstream.internal }]", true),
        ("", "destinations: [{ host: other.internal }, { host: \"*.internal\" }]", true),
        ("", "destinations: [{ host: other.internal }]", false),
        ("bank", own, true),
        ("bank", "upstream_authority: upstream.internal:9000, cluster: public", false),
        ("bank", "upstream_authority: elsewhere.internal, cluster: bank", true),
        ("bank", "upstream_authority: elsewhere.internal", false),
    ] {
        let more = if another.contains("destinations") { "" } else { "destinations: [{ host: other.example }], " };
        let entry = format!("  other: {{ mode: http, {more}{another} }}\nbindings:\n");
        let text = first.replacen("bindings:\n", &entry, 1);
        let named = if cluster.is_empty() { own.to_owned() } else { format!("{own}\n    cluster: {cluster}") };
        let seen = told(&text.replacen(own, &named, 1), &none("other"));
        assert_eq!(seen.contains("`bindings[1].servers[0]`: calls to `other` go over"), is_shared, "{another}: {seen}");
        assert_eq!(seen.is_empty(), !is_shared, "{another}: {seen}");
    }
}
