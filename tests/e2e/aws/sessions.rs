//! Who acts is in the session, within IAM's limits, and the session can do no more than its policy.

use serde_json::json;

use super::scene::{self, TENANT, who_am_i};

#[tokio::test(flavor = "multi_thread")]
async fn person_agent_and_tenant_are_in_the_session() {
    let scene = scene::start("aws-session", |source| {
        source["session"] = json!({
            "name": "{user}+{agent}",
            "source_identity": "{user}",
            "tags": {"Tenant": "{tenant}", "Agent": "{agent}", "Environment": "{environment}", "Request": "{request}"},
            "transitive_tags": ["Tenant"],
            "policy": {"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::documents/{tenant}/{user}/*"}]},
            "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
            "duration_secs": 1800,
        });
    })
    .await;
    let answer = scene.send_as(who_am_i(), "al*ce", TENANT).await;
    assert!(answer.text().contains(":assumed-role/agents-acme/al=2Ace+demo-agent<"), "{}", answer.text());
    let record = scene.stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    let asked = scene.moto.asked("AssumeRole").await.unwrap().pop().unwrap();
    assert_eq!(asked["RoleSessionName"], "al=2Ace+demo-agent");
    assert_eq!(asked["SourceIdentity"], "al=2Ace");
    assert_eq!(asked["DurationSeconds"], "1800");
    assert_eq!(asked["TransitiveTagKeys.member.1"], "Tenant");
    assert_eq!(asked["PolicyArns.member.1.arn"], "arn:aws:iam::aws:policy/ReadOnlyAccess");
    let tags: Vec<(&str, &str)> = (1..=4)
        .map(|number| {
            let part = |name: &str| asked[format!("Tags.member.{number}.{name}")].as_str().unwrap_or_default();
            (part("Key"), part("Value"))
        })
        .collect();
    let decision = record["decision_id"].as_str().unwrap();
    let expected = [("Agent", "demo-agent"), ("Environment", "development"), ("Request", decision), ("Tenant", TENANT)];
    assert_eq!(tags, expected);
    let policy: serde_json::Value = serde_json::from_str(asked["Policy"].as_str().unwrap()).unwrap();
    assert_eq!(policy["Statement"][0]["Resource"], "arn:aws:s3:::documents/acme/al%2Ace/*");

    // With the request in it, each call has a session of its own.
    assert_eq!(scene.send(who_am_i()).await.status, 200);
    assert_eq!(scene.moto.asked("AssumeRole").await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_a_limit_is_denied_and_sts_is_not_asked() {
    let scene = scene::start("aws-limits", |source| {
        source["session"] = json!({"name": "{user}", "tags": {"user": "{user}"}});
    })
    .await;
    let long = "x".repeat(65);
    for (subject, problem) in [(long.as_str(), "65 characters"), ("x", "1 characters"), ("pipe|", "characters")] {
        let answer = scene.send_as(who_am_i(), subject, TENANT).await;
        let cause = scene.denied(&answer).await;
        assert!(cause.contains(problem), "{subject}: {cause}");
        assert!(scene.moto.received().await.unwrap().is_empty(), "{subject}");
    }
    assert_eq!(scene.send_as(who_am_i(), &"x".repeat(64), TENANT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_never_share_keys_and_one_person_shares_them_with_himself() {
    let scene = scene::start("aws-shared", |_| {}).await;
    for subject in ["alice", "bob", "alice", "bob"] {
        let answer = scene.send_as(who_am_i(), subject, TENANT).await;
        assert!(answer.text().contains(&format!("/agents-acme/{subject}+demo-agent<")), "{}", answer.text());
    }
    let asked = scene.moto.asked("AssumeRole").await.unwrap();
    let names: Vec<_> = asked.iter().map(|form| form["RoleSessionName"].as_str().unwrap()).collect();
    assert_eq!(names, ["alice+demo-agent", "bob+demo-agent"], "the default names person and agent");
    let mut keys: Vec<String> = scene.received("sts").await.iter().map(scope).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2, "{keys:?}");
}

fn scope(request: &serde_json::Value) -> String {
    let signed = request["headers"]["authorization"].as_str().unwrap();
    signed.split("Credential=").nth(1).unwrap().split('/').next().unwrap().to_owned()
}
