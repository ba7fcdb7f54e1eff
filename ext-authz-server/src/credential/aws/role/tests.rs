//! Which role and which external id a caller gets, before STS is asked.

use serde_json::json;

use super::*;
use crate::scratch::Scratch;

fn caller(tenant: &str) -> Caller {
    let principal = Principal {
        subject: "alice".into(),
        tenant: tenant.into(),
        claims: json!({"external_id": "0123456789abcdef", "ExternalId": "0123456789abcdef"}),
        ..Principal::nobody()
    };
    Caller { principal: Arc::new(principal), ..Caller::none("test") }
}

fn role(configured: serde_json::Value) -> Role {
    Role::new(&serde_json::from_value(configured).unwrap(), "eu-central-1").unwrap()
}

const ARN: &str = "arn:aws:iam::111122223333:role/agents";

#[test]
fn a_tenant_has_its_own_role_or_the_one_of_all_others() {
    let role = role(json!({
        "role_arn": "arn:aws:iam::111122223333:role/agents-{tenant}",
        "tenants": {"big": {"role_arn": "arn:aws:iam::444455556666:role/keyward"}},
        "external_id": {"type": "none"},
    }));
    let arn = |tenant: &str| role.wanted(&caller(tenant)).map(|wanted| wanted.role_arn);
    assert_eq!(arn("acme").unwrap(), "arn:aws:iam::111122223333:role/agents-acme");
    assert_eq!(arn("big").unwrap(), "arn:aws:iam::444455556666:role/keyward");
    for tenant in ["a b", "a*", "a:b", "ä", "a\n", "/", "a/b", "../acme", "%61"] {
        assert_eq!(arn(tenant), Err(RoleError::NotAnArn), "{tenant:?}");
    }
}

#[test]
fn a_tenant_that_is_not_named_has_no_role() {
    let role = role(json!({"tenants": {"big": {"role_arn": ARN}}, "external_id": {"type": "none"}}));
    assert_eq!(role.wanted(&caller("acme")).err(), Some(RoleError::NoRole("acme".into())));
}

#[tokio::test]
async fn an_external_id_is_the_tenant_s_and_nothing_a_token_says() {
    let dir = Scratch::new();
    dir.write("key", "a key of more than thirty-two bytes, surely");
    dir.write("short", "too short");
    dir.write("big", "the-id-that-big-brought\n");
    dir.write("guessable", "abc");
    let secrets = Secrets::standard(dir.path());
    let derived = role(json!({"role_arn": ARN, "external_id": {"type": "derived", "key": {"ref": "file://key"}}}));
    let mut ids = Vec::new();
    for tenant in ["acme", "big", "Acme"] {
        ids.push(derived.external_id(&caller(tenant), &secrets).await.unwrap().unwrap());
    }
    assert!(ids.iter().all(|id| external_id::is_usable(id) && id != "0123456789abcdef"), "{ids:?}");
    assert!(ids[0] != ids[1] && ids[0] != ids[2]);

    let short = role(json!({"role_arn": ARN, "external_id": {"type": "derived", "key": {"ref": "file://short"}}}));
    assert!(short.external_id(&caller("acme"), &secrets).await.is_err());

    let listed = role(json!({
        "tenants": {
            "big": {"role_arn": ARN, "external_id": {"ref": "file://big"}},
            "none": {"role_arn": ARN},
            "bad": {"role_arn": ARN, "external_id": {"ref": "file://guessable"}},
        },
        "external_id": {"type": "listed"},
    }));
    let id = |tenant: &'static str| {
        let (listed, secrets) = (&listed, &secrets);
        async move { listed.external_id(&caller(tenant), secrets).await }
    };
    assert_eq!(id("big").await.unwrap().as_deref(), Some("the-id-that-big-brought"));
    for tenant in ["none", "bad", "acme"] {
        assert!(id(tenant).await.is_err(), "{tenant}");
    }
}

#[tokio::test]
async fn two_tenants_with_one_external_id_in_two_places_are_both_denied() {
    let dir = Scratch::new();
    for (tenant, id) in
        [("acme", "the-id-that-acme-brought"), ("big", "the-id-that-big-brought"), ("small", "the-id-that-small-has")]
    {
        dir.write(tenant, id);
    }
    let secrets = Secrets::standard(dir.path());
    let tenant = |name: &str| json!({"role_arn": ARN, "external_id": {"ref": format!("file://{name}")}});
    let listed = role(json!({
        "tenants": {"acme": tenant("acme"), "big": tenant("big"), "gone": tenant("gone"), "small": tenant("small")},
        "external_id": {"type": "listed"},
    }));
    let id = |tenant: &'static str| {
        let (listed, secrets) = (&listed, &secrets);
        async move { listed.external_id(&caller(tenant), secrets).await }
    };
    // A tenant without an id disturbs no other.
    for tenant in ["acme", "big", "small"] {
        assert!(id(tenant).await.unwrap().is_some(), "{tenant}");
    }
    assert!(id("gone").await.is_err());

    // A line feed at the end makes no other id of it.
    dir.write("small", "the-id-that-big-brought\n");
    for (own, other) in [("big", "small"), ("small", "big")] {
        let error = id(own).await.unwrap_err();
        let shared = RoleError::SharedExternalId(own.into(), other.into()).to_string();
        assert_eq!((error.kind, error.cause), (MintErrorKind::Rejected, shared));
    }
    assert!(id("acme").await.unwrap().is_some());
}

#[tokio::test]
async fn while_another_tenant_s_external_id_cannot_be_read_it_could_be_the_same() {
    let dir = Scratch::new();
    dir.write("big", "the-id-that-big-brought");
    let secrets = Secrets::standard(dir.path());
    // Without a database the store of this one cannot be asked.
    let listed = role(json!({
        "tenants": {
            "big": {"role_arn": ARN, "external_id": {"ref": "file://big"}},
            "small": {"role_arn": ARN, "external_id": {"ref": "keyward://small"}},
        },
        "external_id": {"type": "listed"},
    }));
    let error = listed.external_id(&caller("big"), &secrets).await.unwrap_err();
    assert_eq!(error.kind, MintErrorKind::Transient, "{}", error.cause);
    assert!(error.cause.starts_with("the external id of tenant `small` cannot be compared: "), "{}", error.cause);
}

#[test]
fn only_the_arn_of_a_role_is_one() {
    for good in [ARN, "arn:aws-us-gov:iam::111122223333:role/path/to/x+=,.@-_y", "arn:aws-cn:iam::111122223333:role/r"]
    {
        assert!(is_role_arn(good), "{good}");
    }
    for bad in [
        "",
        "agents",
        "arn:aws:iam::111122223333:user/x",
        "arn:aws:iam::11112222333:role/x",
        "arn:aws:iam::11112222333a:role/x",
        "arn:aws:iam::111122223333:role/",
        "arn:aws:iam::111122223333:role/a//b",
        "arn:aws:iam::111122223333:role/a*",
        "arn:evil:iam::111122223333:role/a",
        "arn:aws:sts::111122223333:assumed-role/a/b",
        "arn:aws:iam:eu:111122223333:role/a",
    ] {
        assert!(!is_role_arn(bad), "{bad}");
    }
}
