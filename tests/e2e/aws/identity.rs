//! Keyward's own identity: the official chain, roles on the way to roles, tokens of another issuer; and what is said where
//! it does not work.

use keyward_tests::files;
use keyward_tests::moto::{ACCOUNT, Moto};
use serde_json::json;

use super::scene::{self, BINDING, TENANT, allow, derived, who_am_i};

#[tokio::test(flavor = "multi_thread")]
async fn a_chained_role_lasts_an_hour_at_most() {
    let (moto, gateway) = scene::prepared("aws-chained").await;
    let hop = moto.role("hop", &scene::trust("the-id-of-the-hop-role"), &allow(&["sts:AssumeRole"])).await.unwrap();
    // The target trusts the session of the hop, under the tenant's external id.
    let through = format!("arn:aws:sts::{ACCOUNT}:assumed-role/hop/keyward");
    let trust = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow", "Principal": {"AWS": through}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": derived(TENANT)}},
    }]});
    let target = moto.role("target", &trust, &allow(&["s3:*"])).await.unwrap();
    let mut source = scene::role_source(&moto);
    source["role_arn"] = json!(target);
    source["via"] = json!([{"role_arn": hop, "external_id": {"ref": "file://secrets/hop"}}]);
    let builder = scene::builder("aws-chained", &moto, &gateway, &source);
    let stack = builder.file("secrets/hop", "the-id-of-the-hop-role").start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    let answer = scene.send(who_am_i()).await;
    assert!(answer.text().contains(":assumed-role/target/alice<"), "{}", answer.text());
    let asked = scene.moto.asked("AssumeRole").await.unwrap();
    let roles: Vec<_> = asked.iter().map(|form| form["RoleArn"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
    assert_eq!(roles, ["hop", "target"]);
    assert_eq!(asked[1]["DurationSeconds"], "3600");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_keyward_s_own_makes_every_role_a_chained_one() {
    // As on EKS or EC2: the chain finds keys with a session token. Unenforced, since moto knows no such user.
    let (moto, gateway) = scene::prepared("aws-temporary").await;
    let mut source = scene::role_source(&moto);
    source["session"] = json!({"duration_secs": 43200});
    let builder = scene::builder("aws-temporary", &moto, &gateway, &source).variable("AWS_SESSION_TOKEN", "a-token");
    let stack = builder.start().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    assert_eq!(scene.send(who_am_i()).await.status, 200);
    assert_eq!(scene.moto.asked("AssumeRole").await.unwrap()[0]["DurationSeconds"], "3600");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_issuer_gets_a_role() {
    // moto cannot enforce signatures where this call is made, so STS is a second one.
    let folder = files::run_folder("aws-web-identity-sts").unwrap();
    let sts = Moto::start("sts", &folder).unwrap();
    let (moto, gateway) = scene::prepared("aws-web-identity").await;
    let source = json!({
        "type": "web_identity",
        "role_arn": format!("arn:aws:iam::{ACCOUNT}:role/agents-{{tenant}}"),
        "token": {"ref": "file://secrets/token"},
        "session": {"name": "{user}-{agent}", "duration_secs": 7200},
        "sts": {"endpoint": format!("http://{}", sts.address)},
    });
    // Both roles of the chain are taken by the same upstream, which does not enforce here either.
    let builder = scene::builder("aws-web-identity", &moto, &gateway, &source).file("secrets/token", "projected-token-1\n");
    let stack = builder.start().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    assert_eq!(scene.send(who_am_i()).await.status, 200);
    let asked = sts.asked("AssumeRoleWithWebIdentity").await.unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["WebIdentityToken"], "projected-token-1");
    assert_eq!(asked[0]["RoleSessionName"], "alice-demo-agent");
    assert_eq!(asked[0]["DurationSeconds"], "7200");
    assert!(asked[0].get("ExternalId").is_none());
    // The call proves itself by the token alone.
    let received = sts.received().await.unwrap();
    assert!(received[0]["headers"].get("authorization").is_none(), "{}", received[0]);
    // A token is read anew for each session.
    scene.stack.change_file("secrets/token", "projected-token-2").unwrap();
    assert_eq!(scene.send_as(who_am_i(), "bob", TENANT).await.status, 200);
    assert_eq!(sts.asked("AssumeRoleWithWebIdentity").await.unwrap()[1]["WebIdentityToken"], "projected-token-2");
}

#[tokio::test(flavor = "multi_thread")]
async fn irsa_is_found_by_the_official_chain() {
    // What EKS puts into a pod: a token file and a role. Static keys would come first, so there are none.
    let (moto, gateway) = scene::prepared("aws-irsa").await;
    let token = files::run_folder("aws-irsa-token").unwrap().join("token");
    std::fs::write(&token, "irsa-token").unwrap();
    let endpoint = format!("http://{}", moto.address);
    let builder = scene::builder("aws-irsa", &moto, &gateway, &scene::role_source(&moto))
        .variable("AWS_ACCESS_KEY_ID", "")
        .variable("AWS_SECRET_ACCESS_KEY", "")
        .variable("AWS_WEB_IDENTITY_TOKEN_FILE", &token.display().to_string())
        .variable("AWS_ROLE_ARN", &format!("arn:aws:iam::{ACCOUNT}:role/keyward"))
        .variable("AWS_ROLE_SESSION_NAME", "keyward-pod")
        .variable("AWS_ENDPOINT_URL_STS", &endpoint);
    let stack = builder.start().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    assert_eq!(scene.send(who_am_i()).await.status, 200);
    let own = scene.moto.asked("AssumeRoleWithWebIdentity").await.unwrap();
    assert!(!own.is_empty() && own.iter().all(|form| form["WebIdentityToken"] == "irsa-token"), "{own:?}");
    let asked = scene.moto.asked("AssumeRole").await.unwrap();
    assert_eq!(asked[0]["DurationSeconds"], "3600", "behind IRSA a role is a chained one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trust_policy_that_refuses_is_a_denial_with_the_remedy() {
    let (moto, gateway) = scene::prepared("aws-trust").await;
    moto.role("agents-strict", &scene::trust("somebody-else-s-external-id"), &allow(&["s3:*"])).await.unwrap();
    let stack = scene::builder("aws-trust", &moto, &gateway, &scene::role_source(&moto)).start().await.unwrap();
    moto.enforce().await.unwrap();
    moto.forget().await.unwrap();
    let mut scene = scene::Scene { moto, stack, gateway };
    let answer = scene.send_as(who_am_i(), "alice", "strict").await;
    let cause = scene.denied(&answer).await;
    assert!(cause.contains("trust policy") && cause.contains("agents-strict"), "{cause}");

    let good = scene.keyward(&["aws", "check", "--binding", BINDING, "--tenant", TENANT]);
    let said = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(good.status.success(), "{good:?}");
    assert!(said.contains("pass  identity: arn:aws:iam::") && said.contains("pass  keys: keys for 3"), "{said}");
    let bad = scene.keyward(&["aws", "check", "--binding", BINDING, "--tenant", "strict"]);
    let said = String::from_utf8_lossy(&bad.stdout).into_owned();
    assert_eq!(bad.status.code(), Some(1), "{bad:?}");
    assert!(said.contains("fail  keys: AssumeRole of") && said.contains("sts:ExternalId"), "{said}");
    for secret in [&scene.gateway.secret, &derived(TENANT)] {
        assert!(!said.contains(secret.as_str()), "{said}");
    }

    // Without STS there are no keys, and no call.
    scene.moto.forget().await.unwrap();
    scene.moto.process.stop(std::time::Duration::from_secs(5));
    let answer = scene.send_as(who_am_i(), "carol", TENANT).await;
    assert_eq!(answer.json().unwrap()["error"]["reason"], "credential_unavailable", "{}", answer.text());
}
