//! IAM's limits, each at its edge.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::identity::Principal;

fn caller(subject: &str) -> Caller {
    let principal = Principal {
        subject: subject.into(),
        tenant: "acme".into(),
        agent: Some("cli-1".into()),
        ..Principal::nobody()
    };
    Caller { principal: Arc::new(principal), decision_id: "d".repeat(32), ..Caller::none("test") }
}

fn session(configured: serde_json::Value, subject: &str) -> Result<Session, SessionError> {
    let configured: AwsSession = serde_json::from_value(configured).unwrap();
    SessionTemplate::new(&configured)?.of(&caller(subject))
}

#[test]
fn who_acts_is_in_the_session() {
    let session = session(
        json!({
            "name": "{user}+{agent}",
            "source_identity": "{user}",
            "tags": {"tenant": "{tenant}", "agent": "{agent}", "fixed": "a b:c/d=e+f-g@h_i.j"},
            "transitive_tags": ["tenant"],
            "policy": {"Version": "2012-10-17", "Statement": [
                {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/{user}/${aws:username}/*"}]},
            "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"],
            "duration_secs": 900,
        }),
        "alice*",
    )
    .unwrap();
    assert_eq!(session.name, "alice=2A+cli-1");
    assert_eq!(session.source_identity.as_deref(), Some("alice=2A"));
    assert!(session.tags.contains(&("agent".into(), "cli-1".into())), "{session:?}");
    assert_eq!((session.duration_secs, session.transitive.as_slice()), (900, ["tenant".to_owned()].as_slice()));
    let policy: serde_json::Value = serde_json::from_str(&session.policy.unwrap()).unwrap();
    assert_eq!(policy["Statement"][0]["Resource"], "arn:aws:s3:::b/alice%2A/${aws:username}/*");
}

#[test]
fn the_default_names_user_and_agent() {
    let session = session(json!({}), "alice").unwrap();
    assert_eq!((session.name.as_str(), session.duration_secs), ("alice+cli-1", 3600));
    assert!(session.tags.is_empty() && session.policy.is_none() && session.source_identity.is_none());
}

#[test]
fn the_default_tells_people_and_agents_apart() {
    let name = |kind: PrincipalKind, subject: &str, agent: Option<&str>| {
        let agent = agent.map(str::to_owned);
        let principal = Principal { kind, subject: subject.into(), agent, ..Principal::nobody() };
        let caller = Caller { principal: Arc::new(principal), ..Caller::none("test") };
        let configured: AwsSession = serde_json::from_value(json!({})).unwrap();
        SessionTemplate::new(&configured).unwrap().of(&caller).map(|session| session.name)
    };
    let (user, agent) = (PrincipalKind::User, PrincipalKind::Agent);
    assert_eq!(name(user, "ada@example.com", Some("bot")).unwrap(), "ada@example.com+bot");
    assert_eq!(name(user, "ada@example.com", None).unwrap(), "ada@example.com");
    assert_eq!(name(agent, "bot", Some("bot")).unwrap(), "+bot");
    assert_eq!(name(user, "bot", None).unwrap(), "bot");
    // Not the person `a+b` for the person `a` with the agent `b`.
    assert_eq!(name(user, "a+b", None).unwrap(), "a=2Bb");
    assert_eq!(name(user, "a", Some("b")).unwrap(), "a+b");
    // Nothing is cut off.
    let long = "x".repeat(62);
    assert_eq!(name(user, &long, Some("b")).unwrap().len(), 64);
    assert!(matches!(name(user, &long, Some("bb")), Err(SessionError::Length { length: 65, .. })));
    assert!(matches!(name(user, "", None), Err(SessionError::Template { .. })));
}

#[test]
fn a_limit_is_kept_to_the_character_and_beyond_it_denies() {
    let long = |count: usize| "x".repeat(count);
    let user = || json!({"name": "{user}"});
    assert!(session(user(), &long(64)).is_ok());
    assert!(matches!(session(user(), &long(65)), Err(SessionError::Length { length: 65, .. })));
    assert!(matches!(session(user(), "x"), Err(SessionError::Length { length: 1, .. })));
    // An escape counts as the characters that it is sent as.
    assert!(matches!(session(user(), &"é".repeat(11)), Err(SessionError::Length { length: 66, .. })));
    assert!(matches!(session(user(), ""), Err(SessionError::Template { .. })));

    let tag = |value: &str| json!({"name": "fixed", "tags": {"k": value}});
    assert!(session(tag("{user}"), &long(256)).is_ok());
    assert!(matches!(session(tag("{user}"), &long(257)), Err(SessionError::Length { length: 257, .. })));
    for bad in ["a*b", "a|b", "a\nb", "a\u{0}b", "a\"b"] {
        assert!(matches!(session(tag("{user}"), bad), Err(SessionError::Characters { .. })), "{bad:?}");
    }
    assert!(session(tag("{user}"), "Zoë Müller_.:/=+-@").is_ok());

    let tags = |count: usize| {
        let tags: serde_json::Map<String, serde_json::Value> =
            (0..count).map(|number| (format!("tag-{number}"), json!("{user}"))).collect();
        json!({"tags": tags})
    };
    assert_eq!(session(tags(50), "alice").unwrap().tags.len(), 50);
    assert_eq!(session(tags(51), "alice"), Err(SessionError::Count { what: "session tags", count: 51, limit: 50 }));

    let policy = |length: usize| json!({"name": "fixed", "policy": {"a": long(length - r#"{"a":""}"#.len())}});
    assert_eq!(session(policy(2048), "alice").unwrap().policy.unwrap().len(), 2048);
    assert!(matches!(session(policy(2049), "alice"), Err(SessionError::Length { length: 2049, .. })));
}

#[test]
fn what_can_never_work_is_found_without_a_caller() {
    let refused = |configured: serde_json::Value| session(configured, "alice").unwrap_err();
    assert!(matches!(refused(json!({"tags": {"aws:x": "y"}})), SessionError::Reserved { .. }));
    assert!(matches!(refused(json!({"tags": {"Team": "x", "team": "y"}})), SessionError::Twice(_)));
    assert!(matches!(refused(json!({"tags": {"k*": "y"}})), SessionError::Characters { .. }));
    assert!(matches!(refused(json!({"tags": {"k".repeat(129): "y"}})), SessionError::Length { .. }));
    assert!(matches!(refused(json!({"transitive_tags": ["none"]})), SessionError::NoTag(_)));
    assert!(matches!(refused(json!({"name": "{who}"})), SessionError::Template { .. }));
    assert!(matches!(refused(json!({"policy": {"a": ["{who}"]}})), SessionError::Template { .. }));
    for touching in [
        json!({"name": "{user}@{agent}"}),
        json!({"source_identity": "{user}-{agent}"}),
        json!({"tags": {"who": "{user}/{agent}"}}),
        json!({"policy": {"Resource": ["arn:aws:s3:::b/{tenant}-{user}/*"]}}),
    ] {
        let error = refused(touching);
        assert!(matches!(error, SessionError::Template { cause: TemplateError::Touching(_), .. }), "{error}");
    }
    for seconds in [0, 899, 43201] {
        assert_eq!(refused(json!({"duration_secs": seconds})), SessionError::Duration(seconds));
    }
    let arns: Vec<String> = (0..11).map(|number| format!("arn:aws:iam::aws:policy/p{number}")).collect();
    assert!(matches!(refused(json!({"policy_arns": arns})), SessionError::Count { count: 11, .. }));
}
