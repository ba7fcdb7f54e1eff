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
    assert!(answer.text().contains(":assumed-role/target/alice+demo-agent<"), "{}", answer.text());
    let asked = scene.moto.asked("AssumeRole").await.unwrap();
    let roles: Vec<_> =
        asked.iter().map(|form| form["RoleArn"].as_str().unwrap().rsplit('/').next().unwrap()).collect();
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
        "session": {"name": "{user}+{agent}", "duration_secs": 7200},
        "sts": {"endpoint": format!("http://{}", sts.address)},
    });
    // Both roles of the chain are taken by the same upstream, which does not enforce here either.
    let builder =
        scene::builder("aws-web-identity", &moto, &gateway, &source).file("secrets/token", "projected-token-1\n");
    let stack = builder.start().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    assert_eq!(scene.send(who_am_i()).await.status, 200);
    let asked = sts.asked("AssumeRoleWithWebIdentity").await.unwrap();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0]["WebIdentityToken"], "projected-token-1");
    assert_eq!(asked[0]["RoleSessionName"], "alice+demo-agent");
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

    // The doctor sees what can be seen without a tenant, and fails where that does.
    let look = |text: &[u8]| {
        let text = String::from_utf8_lossy(text).into_owned();
        text.lines().find(|line| line.contains(&format!("binding `{BINDING}`"))).unwrap_or(&text).to_owned()
    };
    let line = look(&scene.keyward(&["doctor"]).stdout);
    assert!(line.starts_with("skip  ") && line.contains("identity: arn:aws:iam::"), "{line}");
    assert!(line.contains("try `keyward aws check --tenant TENANT`"), "{line}");

    // Without STS there are no keys, and no call.
    scene.moto.forget().await.unwrap();
    scene.moto.process.stop(std::time::Duration::from_secs(5));
    let line = look(&scene.keyward(&["doctor"]).stdout);
    assert!(line.starts_with("FAIL  "), "{line}");
    let answer = scene.send_as(who_am_i(), "carol", TENANT).await;
    assert_eq!(answer.json().unwrap()["error"]["reason"], "credential_unavailable", "{}", answer.text());
}

/// Keys as both endpoints on the machine hand them out.
fn handed_out(id: &str) -> Vec<u8> {
    let keys = json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": id,
        "SecretAccessKey": "a-secret-key-handed-out", "Token": "a-token-handed-out", "Expiration": "2099-01-01T00:00:00Z",
    });
    crate::scripted::response("200 OK", "content-type: application/json\r\n", keys.to_string().as_bytes())
}

/// One call with these variables instead of static keys: Keyward assumes the role with the key `id`, as a chained one.
async fn assumes_with(name: &str, id: &str, variables: &[(&str, String)]) {
    let (moto, gateway) = scene::prepared(name).await;
    let mut builder = scene::builder(name, &moto, &gateway, &scene::role_source(&moto))
        .variable("AWS_ACCESS_KEY_ID", "")
        .variable("AWS_SECRET_ACCESS_KEY", "");
    for (variable, value) in variables {
        builder = builder.variable(variable, value);
    }
    let stack = builder.start().await.unwrap();
    moto.forget().await.unwrap();
    let scene = scene::Scene { moto, stack, gateway };
    let answer = scene.send(who_am_i()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let received = scene.moto.received().await.unwrap();
    let asked = received.iter().find(|request| request["form"]["Action"] == "AssumeRole").unwrap();
    assert!(asked["headers"]["authorization"].as_str().unwrap().contains(id), "{asked}");
    assert_eq!(asked["headers"]["x-amz-security-token"], "a-token-handed-out");
    assert_eq!(asked["form"]["DurationSeconds"], "3600");
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_identity_is_found_by_the_official_chain() {
    let agent = crate::scripted::start(|request| match crate::scripted::header(request, "authorization") {
        "pod-identity-token" => handed_out("ASIAPODIDENTITY"),
        _ => crate::scripted::response("401 Unauthorized", "", b""),
    })
    .await;
    let token = files::run_folder("aws-pod-identity-token").unwrap().join("token");
    std::fs::write(&token, "pod-identity-token").unwrap();
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{agent}/v1/credentials")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token.display().to_string()),
    ];
    assumes_with("aws-pod-identity", "ASIAPODIDENTITY", &variables).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_metadata_is_asked_in_its_second_version_only() {
    let metadata = crate::scripted::start(|request| {
        let line = request.lines().next().unwrap_or_default();
        let text = |text: &str| {
            crate::scripted::response("200 OK", "x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n", text.as_bytes())
        };
        match line.split(' ').take(2).collect::<Vec<_>>().as_slice() {
            ["PUT", "/latest/api/token"] => text("a-session-of-imds"),
            // Without the session of version 2 there is nothing.
            _ if crate::scripted::header(request, "x-aws-ec2-metadata-token") != "a-session-of-imds" => {
                crate::scripted::response("401 Unauthorized", "", b"")
            }
            ["GET", path] if path.ends_with("/keyward-instance") => handed_out("ASIAINSTANCE"),
            ["GET", path] if path.contains("/iam/security-credentials") => text("keyward-instance"),
            _ => crate::scripted::response("404 Not Found", "", b""),
        }
    })
    .await;
    let variables = [
        ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{metadata}")),
    ];
    assumes_with("aws-instance", "ASIAINSTANCE", &variables).await;
}
