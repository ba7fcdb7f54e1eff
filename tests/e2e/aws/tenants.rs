//! The confused deputy: no tenant's role is ever assumed for another one, whatever an agent sends.

use serde_json::{Value, json};

use super::scene::{self, BINDING, allow, derived, trust, who_am_i};

/// `acme` and `big`, each with a role that demands its own external id; and `mallory`, whose role demands `acme`'s: someone
/// who learned it and hopes that Keyward brings it.
async fn start(name: &str) -> scene::Scene {
    let (moto, gateway) = scene::prepared(name).await;
    let own = allow(&["s3:*"]);
    moto.role("agents-big", &trust(&derived("big")), &own).await.unwrap();
    moto.role("agents-mallory", &trust(&derived("acme")), &own).await.unwrap();
    let stack = scene::builder(name, &moto, &gateway, &scene::role_source(&moto)).start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    scene::Scene { moto, stack, gateway }
}

fn role_of(form: &Value) -> (&str, &str) {
    (form["RoleArn"].as_str().unwrap().rsplit('/').next().unwrap(), form["ExternalId"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_tenant_is_served_by_its_own_role_under_its_own_external_id() {
    let scene = start("aws-tenants").await;
    for tenant in ["acme", "big", "acme"] {
        let answer = scene.send_as(who_am_i(), "alice", tenant).await;
        assert!(
            answer.text().contains(&format!(":assumed-role/agents-{tenant}/alice+demo-agent<")),
            "{}",
            answer.text()
        );
    }
    let asked = scene.moto.asked("AssumeRole").await.unwrap();
    let roles: Vec<_> = asked.iter().map(role_of).collect();
    assert_eq!(roles, [("agents-acme", derived("acme").as_str()), ("agents-big", derived("big").as_str())]);
    assert_ne!(derived("acme"), derived("big"));

    // The command that an operator uses for the trust policy says the same.
    let output = scene.keyward(&["aws", "external-id", "--binding", BINDING, "--tenant", "big"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), derived("big"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_supplies_an_external_id() {
    let scene = start("aws-deputy").await;
    let stolen = derived("acme");
    // In the token, in headers, in the query, in the form: everywhere an agent or its issuer could put it.
    let mut token =
        keyward_tests::issuer::Token::new("mallory", &[keyward_tests::stack::ROLE]).claim("tenant", "mallory");
    for claim in ["external_id", "sts:ExternalId", "aws"] {
        token = token.claim(claim, stolen.as_str());
    }
    let token = scene.stack.issuer.sign(&token).unwrap();
    let mut request = who_am_i().bearer(&token);
    for header in ["x-amz-external-id", "external-id", "x-external-id", "x-keyward-tenant", "x-tenant"] {
        request = request.header(header, if header.ends_with("tenant") { "acme" } else { &stolen });
    }
    let answer = scene.stack.send_bare(request).await.unwrap();
    let cause = scene.denied(&answer).await;
    assert!(cause.contains("AccessDenied") && cause.contains("sts:ExternalId"), "{cause}");
    assert!(!answer.text().contains("AccessDenied"), "{}", answer.text());
    let asked = scene.moto.asked("AssumeRole").await.unwrap();
    assert!(!asked.is_empty());
    for form in &asked {
        assert_eq!(role_of(form), ("agents-mallory", derived("mallory").as_str()));
    }
    // The rightful tenant is not disturbed by it.
    assert_eq!(scene.send(who_am_i()).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_cannot_be_a_role_s_name_is_denied_before_sts_is_asked() {
    let scene = start("aws-tenant-names").await;
    for tenant in ["../acme", "acme/../big", "a:b", "*", "ac me", "agents-{tenant}"] {
        let answer = scene.send_as(who_am_i(), "alice", tenant).await;
        assert!(answer.status.is_client_error() || answer.status.is_server_error(), "{tenant:?}: {}", answer.status);
        assert!(scene.moto.received().await.unwrap().is_empty(), "{tenant:?}");
    }
    // Without a tenant there is no token at all.
    let token = scene.stack.token_for("alice", &[keyward_tests::stack::ROLE]).unwrap();
    let answer = scene.stack.send_bare(who_am_i().bearer(&token)).await.unwrap();
    assert_eq!(answer.status, 401, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_external_ids_are_the_tenant_s_alone() {
    let (moto, gateway) = scene::prepared("aws-listed").await;
    let own = allow(&["s3:*"]);
    moto.role("agents-big", &trust("the-id-that-big-brought"), &own).await.unwrap();
    let arn = |tenant: &str| format!("arn:aws:iam::{}:role/agents-{tenant}", keyward_tests::moto::ACCOUNT);
    let mut source = scene::role_source(&moto);
    source["external_id"] = json!({"type": "listed"});
    source.as_object_mut().unwrap().remove("role_arn");
    source["tenants"] = json!({
        "big": {"role_arn": arn("big"), "external_id": {"ref": "file://secrets/big"}},
        // A mistake of the operator: `small` has `big`'s role, but not its id.
        "small": {"role_arn": arn("big"), "external_id": {"ref": "file://secrets/small"}},
    });
    let builder = scene::builder("aws-listed", &moto, &gateway, &source);
    let builder =
        builder.file("secrets/big", "the-id-that-big-brought").file("secrets/small", "the-id-that-small-brought");
    let stack = builder.start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    let answer = scene.send_as(who_am_i(), "bob", "small").await;
    let cause = scene.denied(&answer).await;
    assert!(cause.contains("AccessDenied"), "{cause}");
    let answer = scene.send_as(who_am_i(), "bob", "nobody").await;
    assert!(scene.denied(&answer).await.contains("has no role"));
    let answer = scene.send_as(who_am_i(), "bob", "big").await;
    assert!(answer.text().contains(":assumed-role/agents-big/bob+demo-agent<"), "{}", answer.text());
}
