//! Nothing of one tenant or environment serves another: claim, issuer, host, server, policy, binding, secret, cache and digest.

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::client::{Answer, Request};
use keyward_tests::envoy::Route;
use keyward_tests::issuer::{Issuer, Token};
use keyward_tests::server::Server;
use keyward_tests::stack::{Builder, ROLE, Stack};
use serde_json::{Value, json};

use crate::expect;
use crate::stores::received;

const PARTNER: &str = "https://partner.example";
const ACME_HOST: &str = "acme.example";
const ZETA_HOST: &str = "zeta.example";

/// Two tenants at hosts of their own. The demo's issuer may name both, the partner's `zeta` only. Each tenant's own secret
/// goes out in `x-tenant`, besides the key that the upstream demands.
fn two_tenants(test: &str, partner: &Issuer) -> Builder {
    let builder = Stack::builder(test).file("partner.json", partner.jwks().to_string());
    let builder =
        builder.file("secrets/acme/alice", "secret-of-acme-4d1a").file("secrets/zeta/alice", "secret-of-zeta-93be");
    builder.config(|config| {
        let mut issuers = config["identity"]["issuers"].clone();
        let mut other = issuers[0].clone();
        for (key, value) in
            [("name", json!("partner")), ("issuer", json!(PARTNER)), ("jwks", json!({"file": "partner.json"}))]
        {
            other[key] = value;
        }
        issuers.as_array_mut().unwrap().push(other);
        for issuer in issuers.as_array_mut().unwrap() {
            issuer["tenant_claim"] = json!("org");
        }
        config["identity"]["issuers"] = issuers;
        config["tenants"] = json!({
            "acme": {"hosts": [ACME_HOST], "issuers": ["demo"], "servers": ["demo"]},
            "zeta": {"hosts": [ZETA_HOST], "issuers": ["demo", "partner"], "servers": ["demo"]},
        });
        let hosts = [ACME_HOST, ZETA_HOST, "shared.example"];
        config["servers"]["demo"]["destinations"] =
            hosts.iter().map(|host| json!({"host": host, "path": "/mcp"})).collect();
        let binding = &mut config["bindings"][0];
        binding["tenants"] = json!(["*"]);
        let secret = json!({"ref": "file://secrets/{tenant}/{user}"});
        let own = json!({"type": "header", "name": "x-tenant", "template": "{secret}", "secret": secret});
        binding["credentials"].as_array_mut().unwrap().push(own);
    })
}

/// A route to the upstream for the server entry of this name, at the path of that name.
fn route(server: &str) -> Route {
    let metadata = json!({"server": server, "mode": "mcp"});
    Route { prefix: format!("/{server}"), cluster: "demo_upstream".to_owned(), metadata }
}

fn echo_at(host: &str) -> Request {
    agent::tool_call(1, "echo", json!({"message": "hello"})).authority(host)
}

fn token_of(tenant: &str) -> Token {
    Token::new("alice", &[ROLE]).claim("org", tenant)
}

async fn send(stack: &Stack, host: &str, token: &str) -> Answer {
    stack.upstream.reset().await.unwrap();
    echo_at(host).bearer(token).send(stack.agents).await.unwrap()
}

async fn metric(stack: &Stack, name: &str) -> u64 {
    let text = stack.server.metrics().await.unwrap();
    let found = text.lines().find_map(|own| own.strip_prefix(name)?.rsplit(' ').next()?.parse().ok());
    found.unwrap_or_default()
}

/// The event that stands beside the decision, and its explanation.
async fn event(stack: &Stack, name: &str, decision: &str) -> String {
    let is_it = |record: &Value| record["event"] == name && record["decision_id"] == decision;
    let record = stack.server.audit_record(is_it).await.unwrap();
    record["explanation"].as_str().unwrap_or_default().to_owned()
}

/// Which of the answer's decisions it was.
fn decision_of(answer: &Answer) -> String {
    answer.json().unwrap()["error"]["data"]["decision_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn claim_issuer_and_host_have_to_agree_and_each_try_to_cross_is_told_apart() {
    let partner = Issuer::new().unwrap();
    let stack = two_tenants("tenants-agree", &partner).start().await.unwrap();
    let at_partner = |tenant: &str| partner.sign(&token_of(tenant).claim("iss", PARTNER)).unwrap();
    let acme = stack.issuer.sign(&token_of("acme")).unwrap();
    let zeta = stack.issuer.sign(&token_of("zeta")).unwrap();
    for (host, token, secret) in [
        (ACME_HOST, acme.clone(), "secret-of-acme-4d1a"),
        (ZETA_HOST, zeta.clone(), "secret-of-zeta-93be"),
        (ZETA_HOST, at_partner("zeta"), "secret-of-zeta-93be"),
    ] {
        let answer = send(&stack, host, &token).await;
        expect::allowed(&stack, &answer).await;
        assert_eq!(received(&stack, "x-tenant").await, [secret]);
    }

    let unlisted = stack.issuer.sign(&token_of("other")).unwrap();
    let nameless = stack.issuer.sign(&Token::new("alice", &[ROLE])).unwrap();
    let cases = [
        (ZETA_HOST, acme.clone(), Some("a token of tenant `acme` at `zeta.example:80` of tenant `zeta`")),
        (ACME_HOST, zeta.clone(), Some("a token of tenant `zeta` at `acme.example:80` of tenant `acme`")),
        ("shared.example", acme.clone(), Some("`shared.example:80` is no host of tenant `acme`")),
        (ACME_HOST, at_partner("acme"), Some("issuer `partner` may not name tenant `acme`")),
        (ACME_HOST, unlisted, Some("tenant `other` is not listed")),
        (ACME_HOST, nameless, None),
    ];
    let mut crossings = 0;
    for (host, token, cause) in cases {
        let answer = send(&stack, host, &token).await;
        expect::unauthenticated(&stack, &answer, Reason::InvalidToken, 1).await;
        let Some(cause) = cause else { continue };
        let told = event(&stack, "cross_tenant", &decision_of(&answer)).await;
        assert_eq!(told, format!("cross_tenant: {cause}"));
        let record = stack.server.decision(&decision_of(&answer)).await.unwrap();
        assert_eq!(
            (&record["stage"], &record["principal"]["subject"]),
            (&json!("identity"), &json!("alice")),
            "{record}"
        );
        crossings += 1;
        assert_eq!(metric(&stack, "keyward_cross_tenant_attempts_total{").await, crossings);
        assert!(!answer.text().contains("zeta") && !answer.text().contains("acme"), "{}", answer.text());
    }
    // A header of the client's own says nothing.
    stack.upstream.reset().await.unwrap();
    let request = echo_at(ZETA_HOST).header("x-tenant-id", "zeta").header("x-forwarded-host", ACME_HOST);
    let answer = request.bearer(&acme).send(stack.agents).await.unwrap();
    expect::unauthenticated(&stack, &answer, Reason::InvalidToken, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_servers_bindings_a_policy_and_digests_of_its_own() {
    const NARROW: &str = r#"package keyward

default decision := {"allow": false, "rule": "acme_only", "explanation": "acme allows nothing else"}

decision := {"allow": true} if input.operation.target == "echo"

decision := {"allow": true, "bindings": ["zeta-key"]} if input.operation.target == "leak"
"#;
    let partner = Issuer::new().unwrap();
    let builder = two_tenants("tenants-own", &partner).file("own/acme/acme.rego", NARROW);
    let builder = builder.config(|config| {
        config["tenants"]["acme"]["policy_directory"] = json!("own/acme");
        config["servers"]["tickets"] = config["servers"]["demo"].clone();
        config["servers"]["tickets"]["destinations"] = json!([{"host": ZETA_HOST, "path": "/tickets"}]);
        let mut theirs = config["bindings"][0].clone();
        theirs["id"] = json!("zeta-key");
        theirs["tenants"] = json!(["zeta"]);
        theirs["principals"] = json!({"users": ["nobody"], "roles": [ROLE]});
        config["bindings"].as_array_mut().unwrap().push(theirs);
    });
    let stack = builder.envoy(|options| options.routes.push(route("tickets"))).start().await.unwrap();
    let acme = stack.issuer.sign(&token_of("acme")).unwrap();
    let zeta = stack.issuer.sign(&token_of("zeta")).unwrap();

    // The policy for all allows these to both.
    let list = || agent::request(1, "tools/list", json!({}));
    for (host, token, allowed) in [(ZETA_HOST, &zeta, true), (ACME_HOST, &acme, false)] {
        stack.upstream.reset().await.unwrap();
        let answer = list().authority(host).bearer(token).send(stack.agents).await.unwrap();
        assert_eq!(answer.result().is_ok(), allowed, "{}", answer.text());
        if !allowed {
            let decision = expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;
            let record = stack.server.decision(&decision).await.unwrap();
            assert_eq!(record["rule"], "acme_only");
            assert_eq!(record["explanation"], "policy of tenant `acme`: acme allows nothing else");
        }
    }
    // It does not widen: what the policy for all denies stays denied.
    stack.upstream.reset().await.unwrap();
    let outsider = stack.issuer.sign(&Token::new("alice", &[]).claim("org", "acme")).unwrap();
    let answer = echo_at(ACME_HOST).bearer(&outsider).send(stack.agents).await.unwrap();
    expect::denied(&stack, &answer, Reason::NotAllowed, 1).await;

    // It names a binding of another tenant: denied, and told apart.
    stack.upstream.reset().await.unwrap();
    let leak = agent::tool_call(1, "leak", json!({"carrier": "text"})).authority(ACME_HOST);
    let answer = leak.bearer(&acme).send(stack.agents).await.unwrap();
    let decision = expect::denied(&stack, &answer, Reason::CredentialUnavailable, 1).await;
    let told = event(&stack, "cross_tenant", &decision).await;
    assert_eq!(told, "the policy names binding `zeta-key`, which is another tenant's");

    // A server that is none of theirs.
    stack.upstream.reset().await.unwrap();
    let mut tickets = echo_at(ZETA_HOST);
    tickets.path = "/tickets".to_owned();
    let answer = tickets.bearer(&zeta).send(stack.agents).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    expect::json_rpc_error(&answer, Reason::DestinationDenied, &json!(1));
    let told = event(&stack, "cross_tenant", &decision_of(&answer)).await;
    assert_eq!(told, "cross_tenant: server `tickets` is none of tenant `zeta`");

    // The same arguments of the same person do not look the same in the records of two tenants.
    let mut digests = Vec::new();
    for (host, token) in [(ACME_HOST, &acme), (ACME_HOST, &acme), (ZETA_HOST, &zeta)] {
        let answer = send(&stack, host, token).await;
        expect::allowed(&stack, &answer).await;
        digests.push(allowed_record(&stack, digests.len()).await);
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[1].1, digests[2].1);
    assert_eq!((&digests[0].0, &digests[2].0), (&json!("acme"), &json!("zeta")));
}

/// Tenant and digest of the call of `echo` that was allowed after `before` others.
async fn allowed_record(stack: &Stack, before: usize) -> (Value, Value) {
    let began = Instant::now();
    loop {
        let records = stack.server.audit().unwrap();
        let mut calls = records
            .iter()
            .filter(|record| record["decision"] == "allow" && record["operations"][0]["target"] == "echo");
        if let Some(record) = calls.nth(before) {
            return (record["principal"]["tenant"].clone(), record["operations"][0]["arguments_digest"].clone());
        }
        assert!(began.elapsed() < Duration::from_secs(5), "no record");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_another_environment_never_serves_and_each_try_is_told_apart() {
    let mut stack = Stack::builder("tenants-environments")
        .config(|config| {
            config["servers"]["trial"] = config["servers"]["demo"].clone();
            config["servers"]["trial"]["destinations"] = json!([{"host": "127.0.0.1", "path": "/trial"}]);
            config["servers"]["trial"]["environment"] = json!("development");
            config["servers"]["demo"]["environment"] = json!("development");
            config["bindings"][0]["servers"] = json!(["demo", "trial"]);
        })
        .envoy(|options| options.routes.push(route("trial")))
        .start()
        .await
        .unwrap();
    let echo = || agent::tool_call(1, "echo", json!({"message": "hello"}));
    let answer = stack.send(echo()).await.unwrap();
    expect::allowed(&stack, &answer).await;

    // The same file in production, but for its servers: the binding is still of development.
    let reloaded = async |stack: &Stack, reason: Reason| {
        let began = Instant::now();
        loop {
            stack.upstream.reset().await.unwrap();
            let answer = stack.send(echo()).await.unwrap();
            if answer.text().contains(reason.code()) {
                return expect::denied(stack, &answer, reason, 1).await;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "{}", answer.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    stack
        .change_config(|config| {
            config["environment"] = json!("production");
            config["servers"]["demo"].as_object_mut().unwrap().remove("environment");
        })
        .unwrap();
    let decision = reloaded(&stack, Reason::CredentialUnavailable).await;
    let told = event(&stack, "cross_environment", &decision).await;
    assert!(told.ends_with("; `demo-api-key` is of environment `development`"), "{told}");
    let before = metric(&stack, "keyward_cross_environment_attempts_total{").await;
    assert!(before >= 1);

    // Nor does a server of development.
    stack.upstream.reset().await.unwrap();
    let mut trial = echo();
    trial.path = "/trial".to_owned();
    let answer = stack.send(trial).await.unwrap();
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    expect::json_rpc_error(&answer, Reason::DestinationDenied, &json!(1));
    let told = event(&stack, "cross_environment", &decision_of(&answer)).await;
    assert_eq!(told, "cross_environment: server `trial` is of environment `development`, this is `production`");
    assert_eq!(metric(&stack, r#"keyward_cross_environment_attempts_total{server="trial"}"#).await, 1);

    // A policy that names it does not help.
    let policy = "package keyward\n\ndecision := {\"allow\": true, \"bindings\": [\"demo-api-key\"]}\n";
    stack.change_file("policies/keyward.rego", policy).unwrap();
    let named = "the policy names binding `demo-api-key`, which does not belong to this server and environment";
    let began = Instant::now();
    loop {
        let decision = reloaded(&stack, Reason::CredentialUnavailable).await;
        if event(&stack, "cross_environment", &decision).await == named {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the policy was not picked up");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_in_two_tenants_is_two_people_to_what_is_kept() {
    let partner = Issuer::new().unwrap();
    let builder = two_tenants("tenants-names", &partner);
    let builder = builder.variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    let builder = builder.config(|config| {
        config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
        // The built-in store keeps what it was asked for.
        config["bindings"][0]["credentials"][1]["secret"] = json!({"ref": "keyward://{tenant}/{user}"});
    });
    let stack = builder.start().await.unwrap();
    let file = stack.folder.join("keyward.yaml").display().to_string();
    let put = |path: &str, value: &str| {
        let output =
            Server::run_with_input(&["secrets", "put", path, "--config", &file], stack.variables(), value).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    put("acme/alice", "kept-of-acme-1f20");
    let acme = stack.issuer.sign(&token_of("acme")).unwrap();
    let zeta = stack.issuer.sign(&token_of("zeta")).unwrap();
    let answer = send(&stack, ACME_HOST, &acme).await;
    expect::allowed(&stack, &answer).await;
    assert_eq!(received(&stack, "x-tenant").await, ["kept-of-acme-1f20"]);
    // What is kept for alice of acme is nothing for alice of zeta.
    let answer = send(&stack, ZETA_HOST, &zeta).await;
    expect::denied(&stack, &answer, Reason::CredentialUnavailable, 1).await;
    put("zeta/alice", "kept-of-zeta-7c55");
    for (host, token, secret) in
        [(ZETA_HOST, &zeta, "kept-of-zeta-7c55"), (ACME_HOST, &acme, "kept-of-acme-1f20")].repeat(3)
    {
        let began = Instant::now();
        let answer = loop {
            let answer = send(&stack, host, token).await;
            if answer.result().is_ok() || began.elapsed() > Duration::from_secs(5) {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        expect::allowed(&stack, &answer).await;
        assert_eq!(received(&stack, "x-tenant").await, [secret]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_whose_calls_hang_takes_no_more_places_than_its_own() {
    let partner = Issuer::new().unwrap();
    // Whoever connects waits for ever: nobody accepts.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", silent.local_addr().unwrap());
    let builder = two_tenants("tenants-hang", &partner).variable("VAULT_TOKEN", "a-token-of-nobody-31c8");
    let builder = builder.config(|config| {
        let auth = json!({"type": "token", "token": {"ref": "env://VAULT_TOKEN"}});
        config["stores"] = json!({"vault": {"type": "vault", "address": address, "auth": auth}});
        config["tenants"]["acme"]["max_concurrent"] = json!(1);
        let mut hanging = config["bindings"][0].clone();
        config["bindings"][0]["tenants"] = json!(["zeta"]);
        hanging["id"] = json!("acme-key");
        hanging["tenants"] = json!(["acme"]);
        hanging["credentials"][1]["secret"] = json!({"ref": "vault://kv/jira", "json_key": "key"});
        config["bindings"].as_array_mut().unwrap().push(hanging);
    });
    let stack = builder.start().await.unwrap();
    let acme = stack.issuer.sign(&token_of("acme")).unwrap();
    let zeta = stack.issuer.sign(&token_of("zeta")).unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..4 {
        calls.spawn(echo_at(ACME_HOST).bearer(&acme).send(stack.agents));
    }
    for _ in 0..3 {
        let answer = calls.join_next().await.unwrap().unwrap().unwrap();
        expect::denied(&stack, &answer, Reason::Overloaded, 1).await;
    }
    let answer = send(&stack, ZETA_HOST, &zeta).await;
    expect::allowed(&stack, &answer).await;
    assert_eq!(calls.len(), 1);
    assert!(calls.try_join_next().is_none(), "the first one still hangs while another tenant is served");
    stack.upstream.reset().await.unwrap();
    let answer = calls.join_next().await.unwrap().unwrap().unwrap();
    assert!(answer.result().is_err(), "{}", answer.text());
    assert_eq!(stack.upstream.count().await.unwrap(), 0);
    let line = r#"keyward_throttled_total{rule="tenants.max_concurrent",because="limit"}"#;
    assert_eq!(metric(&stack, line).await, 3);
}
