//! Which upstreams a configuration may name: inside the perimeter, outside it by explicit choice, and never.

use std::path::Path;
use std::sync::atomic::Ordering;

use keyward_server::config::parse;

use super::scene::{Scene, call};

/// A configuration whose one server entry has these keys, below these keys of `perimeter`.
fn told(perimeter: &str, server: &str, host: &str, binding_host: &str) -> String {
    let text = format!(
        r#"version: 1
environment: test
identity:
  issuers:
    - {{ name: demo, issuer: "https://issuer.example", audiences: [a], algorithms: [ES256], jwks: {{ file: jwks.json }} }}
policy: {{ directory: policies }}
audit: {{ file: "-", hmac_key: {{ ref: "env://KEYWARD_AUDIT_KEY" }} }}
perimeter: {{ {perimeter} }}
servers:
  demo: {{ {server}, destinations: [{{ host: "{host}" }}] }}
bindings:
  - id: key
    mode: service_account
    owner: team
    environment: test
    servers: [demo]
    hosts: ["{binding_host}"]
    credentials:
      - {{ type: header, name: x-api-key, secret: {{ ref: "env://DEMO_KEY" }} }}
"#
    );
    parse(Path::new("k.yaml"), &text).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn an_mcp_server_is_inside_or_chosen_explicitly() {
    let public = r#"public_hosts: ["mcp.example.com", "*.vendor.com:443"]"#;
    let inside = r#"enterprise_hosts: ["*.corp.example.com", "203.0.113.0/24"]"#;
    let good = [
        ("", "mode: mcp, upstream_authority: jira.internal:443"),
        ("", "mode: mcp, upstream_authority: jira:443"),
        ("", "mode: mcp, upstream_authority: 10.1.2.3:443"),
        ("", "mode: mcp, upstream_authority: 127.0.0.1:443"),
        ("", "mode: mcp, upstream_authority: \"[fd12::1]:443\""),
        ("", "mode: mcp"),
        (inside, "mode: mcp, upstream_authority: jira.corp.example.com:443"),
        (inside, "mode: mcp, upstream_authority: 203.0.113.7:443"),
        (inside, "mode: mcp, perimeter: enterprise, upstream_authority: jira.corp.example.com"),
        (public, "mode: mcp, perimeter: public, upstream_authority: mcp.example.com:443"),
        (public, "mode: mcp, perimeter: public, upstream_authority: a.vendor.com:443"),
        (public, "mode: http, perimeter: public, upstream_authority: a.vendor.com:443"),
        ("", "mode: http, upstream_authority: api.example.com:443"),
        ("", "mode: http, upstream_authority: api.internal:443"),
    ];
    for (perimeter, server) in good {
        assert_eq!(told(perimeter, server, "mcp.internal", "upstream.internal"), "", "{perimeter} {server}");
    }
    let bad = [
        ("", "mode: mcp, upstream_authority: mcp.example.com:443", "is not known to lie inside the perimeter"),
        ("", "mode: mcp, upstream_authority: 8.8.8.8:443", "is not known to lie inside the perimeter"),
        (public, "mode: mcp, upstream_authority: mcp.example.com:443", "is not known to lie inside the perimeter"),
        (
            "",
            "mode: mcp, perimeter: public, upstream_authority: mcp.example.com:443",
            "is not one of `perimeter.public",
        ),
        (public, "mode: mcp, perimeter: public, upstream_authority: a.vendor.com:8443", "is not one of"),
        (public, "mode: mcp, perimeter: public, upstream_authority: other.com:443", "is not one of"),
        (
            public,
            "mode: http, perimeter: enterprise, upstream_authority: a.vendor.com:443",
            "is not known to lie inside",
        ),
        (public, "mode: mcp, perimeter: public, upstream_authority: 127.0.0.1:443", "lies inside the perimeter"),
        (public, "mode: mcp, perimeter: public, upstream_authority: vault.internal", "lies inside the perimeter"),
        (public, "mode: mcp, perimeter: public", "lies inside the perimeter"),
        (r#"public_hosts: ["10.0.0.1"]"#, "mode: mcp", "`perimeter.public_hosts[0]`: `10.0.0.1` is private"),
        (r#"enterprise_hosts: ["169.254.0.0/16"]"#, "mode: mcp", "`perimeter.enterprise_hosts[0]`: it is link-local"),
        (r#"enterprise_hosts: ["0.0.0.0/0"]"#, "mode: mcp", "`perimeter.enterprise_hosts[0]`: not a network"),
    ];
    for (perimeter, server, expected) in bad {
        let told = told(perimeter, server, "mcp.internal", "upstream.internal");
        assert!(told.contains(expected), "{perimeter} {server}: {told}");
    }
}

#[test]
fn nothing_leads_to_a_metadata_endpoint_in_any_spelling() {
    let literals =
        ["169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "100.100.100.200", "169.254.1.1", "[fe80::1]"];
    let embedded = ["[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]"];
    for host in literals.into_iter().chain(embedded).chain(["metadata.google.internal", "METADATA"]) {
        for mode in ["mcp", "http", "mcp, perimeter: enterprise"] {
            let expected = "nothing allows this one";
            let told_upstream =
                told("", &format!("mode: {mode}, upstream_authority: \"{host}:80\""), "mcp.internal", "up.internal");
            assert!(told_upstream.contains(expected), "{host}: {told_upstream}");
            let told_destination = told("", &format!("mode: {mode}"), host, "up.internal");
            assert!(told_destination.contains(expected), "{host}: {told_destination}");
        }
        let told_binding = told("", "mode: mcp", "mcp.internal", host);
        assert!(told_binding.contains("`bindings[0].hosts[0]`"), "{host}: {told_binding}");
    }
    for host in ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.254.169.0xfe"] {
        let told = told("", &format!("mode: http, upstream_authority: \"{host}\""), "mcp.internal", "up.internal");
        assert!(told.contains("is not an authority"), "{host}: {told}");
    }
}

#[tokio::test]
async fn a_destination_is_denied_before_any_secret_is_looked_up() {
    let scene = Scene::start().await;
    for host in
        ["evil.example", "169.254.169.254", "metadata.google.internal", "[::1]", "127.0.0.1", "0x7f.1", "a@mcp.example"]
    {
        let mut ask = call("echo");
        ask.host = host;
        let (_, _, body) = scene.check(&ask).await.denied();
        assert_eq!(body["error"]["data"]["reason"], "destination_denied", "{host}: {body}");
    }
    assert_eq!(scene.doors.lookups.load(Ordering::Acquire), 0);
    assert_eq!(scene.check(&call("echo")).await.code(), 0);
    assert!(scene.doors.lookups.load(Ordering::Acquire) > 0, "the store counts nothing");
}
