//! What makes two callers share keys, and what signing does to a request.

use serde_json::json;

use super::*;
use crate::identity::Principal;

fn caller(tenant: &str, subject: &str) -> Caller {
    let principal =
        Principal { subject: subject.into(), tenant: tenant.into(), key: subject.into(), ..Principal::nobody() };
    Caller { principal: Arc::new(principal), ..Caller::none("test") }
}

fn aws(change: impl FnOnce(&mut serde_json::Value)) -> Aws {
    let mut configured = json!({
        "regions": ["eu-central-1"],
        "services": ["s3"],
        "source": {
            "type": "role",
            "role_arn": "arn:aws:iam::111122223333:role/agents",
            "external_id": {"type": "none"},
            "session": {"name": "fixed"},
        },
    });
    change(&mut configured);
    Aws::new(serde_json::from_value(configured).unwrap())
}

#[test]
fn keys_are_shared_by_those_alone_who_have_the_same_session_of_the_same_tenant() {
    let shared = aws(|_| {});
    let key = |aws: &Aws, tenant: &str, subject: &str| aws.key(&caller(tenant, subject)).unwrap().digest();
    assert_eq!(key(&shared, "acme", "alice"), key(&shared, "acme", "bob"));
    assert_ne!(key(&shared, "acme", "alice"), key(&shared, "big", "alice"));
    let changes: [fn(&mut serde_json::Value); 6] = [
        |config| config["source"]["session"]["name"] = json!("{subject}"),
        |config| config["source"]["session"]["source_identity"] = json!("{subject}"),
        |config| config["source"]["session"]["tags"] = json!({"user": "{subject}"}),
        |config| config["source"]["session"]["policy"] = json!({"Resource": "{subject}"}),
        |config| config["source"]["role_arn"] = json!("arn:aws:iam::111122223333:role/agents-{subject}"),
        |config| config["source"]["external_id"] = json!({"type": "derived", "key": {"ref": "file://{user}"}}),
    ];
    for change in changes {
        let own = aws(change);
        assert_ne!(key(&own, "acme", "alice"), key(&own, "acme", "bob"));
        assert_ne!(key(&own, "acme", "alice"), key(&shared, "acme", "alice"));
    }
    let elsewhere = aws(|config| config["source"]["sts"] = json!({"region": "eu-west-1"}));
    assert_ne!(key(&elsewhere, "acme", "alice"), key(&shared, "acme", "alice"));
}

fn keys() -> Material {
    Material::new()
        .plain(ACCESS_KEY_ID, "AKIDEXAMPLE")
        .secret(SECRET_ACCESS_KEY, b"an-example-secret-key".to_vec())
        .secret(SESSION_TOKEN, b"an-example/session+token==".to_vec())
}

#[test]
fn what_leaves_has_the_spelling_that_is_signed() {
    let s3 = aws(|_| {});
    let mut outgoing = Outgoing::plain("PUT", "https", "b.s3.amazonaws.com", "/a b(1)?x=a+b&uploads", b"body");
    s3.apply(&keys(), &mut outgoing).unwrap();
    assert_eq!(outgoing.target(), "/a%20b%281%29?x=a%20b&uploads");
    assert!(outgoing.header("authorization").unwrap().contains("AKIDEXAMPLE/"));
    assert_eq!(outgoing.header("x-amz-security-token"), Some("an-example/session+token=="));
    let digest = "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5";
    assert_eq!(outgoing.header("x-amz-content-sha256"), Some(digest));
}

#[test]
fn a_path_that_is_encoded_once_more_leaves_as_it_came() {
    let api = aws(|config| config["services"] = json!(["execute-api"]));
    let authority = "abc123.execute-api.eu-central-1.amazonaws.com";
    let mut outgoing = Outgoing::plain("POST", "https", authority, "/a%20b(1)?x=a+b", b"body");
    api.apply(&keys(), &mut outgoing).unwrap();
    assert_eq!(outgoing.target(), "/a%20b(1)?x=a%20b");
    assert_eq!(outgoing.header("x-amz-content-sha256"), None);
}

#[test]
fn an_unsigned_body_is_called_that_in_a_signed_header() {
    let s3 = aws(|config| config["payload"] = json!("unsigned"));
    for body in ["", "a body that nobody reads"] {
        let mut outgoing = Outgoing::plain("PUT", "https", "b.s3.amazonaws.com", "/a", body.as_bytes());
        s3.apply(&keys(), &mut outgoing).unwrap();
        assert_eq!(outgoing.header("x-amz-content-sha256"), Some("UNSIGNED-PAYLOAD"), "{body}");
        let signed = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,";
        assert!(outgoing.header("authorization").unwrap().contains(signed), "{body}");
    }
}

#[test]
fn another_service_or_region_is_not_signed_for() {
    let several = aws(|config| {
        config["services"] = json!(["s3", "sts"]);
        config["regions"] = json!(["eu-central-1", "us-east-1"]);
    });
    for host in ["sqs.eu-central-1.amazonaws.com", "b.s3.eu-west-1.amazonaws.com", "minio.internal:9000"] {
        let mut outgoing = Outgoing::plain("GET", "https", host, "/a", b"");
        assert!(matches!(several.apply(&keys(), &mut outgoing), Err(CredentialError::Unfit(_))), "{host}");
        assert_eq!(outgoing.headers().count(), 0, "{host}: something was put on the request");
    }
    let mut outgoing = Outgoing::plain("GET", "https", "b.s3.eu-central-1.amazonaws.com", "/a", b"");
    several.apply(&keys(), &mut outgoing).unwrap();
    assert!(outgoing.header("authorization").unwrap().contains("/eu-central-1/s3/aws4_request"));
}

#[test]
fn a_presigned_target_carries_everything_in_its_query() {
    let s3 = aws(|config| {
        config["signature"] = json!("query");
        config["payload"] = json!("unsigned");
    });
    let mut outgoing = Outgoing::plain("GET", "https", "b.s3.amazonaws.com", "/a?x=1", b"");
    s3.apply(&keys(), &mut outgoing).unwrap();
    let target = outgoing.target().to_owned();
    assert!(target.starts_with("/a?x=1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F"), "{target}");
    assert!(target.contains("&X-Amz-Expires=60&X-Amz-Security-Token=an-example%2Fsession%2Btoken%3D%3D&"), "{target}");
    assert_eq!(outgoing.headers().count(), 0);
}

#[test]
fn keys_with_a_line_feed_and_targets_with_a_trick_are_refused() {
    let s3 = aws(|_| {});
    let broken = Material::new().plain(ACCESS_KEY_ID, "AKID").secret(SECRET_ACCESS_KEY, b"with-a-line-feed\n".to_vec());
    let mut outgoing = Outgoing::plain("GET", "https", "b.s3.amazonaws.com", "/a", b"");
    assert_eq!(s3.apply(&broken, &mut outgoing), Err(CredentialError::Control));
    for target in ["/a%2Fb", "/a?x=%ff", "/a?x=%"] {
        let mut outgoing = Outgoing::plain("GET", "https", "b.s3.amazonaws.com", target, b"");
        assert!(matches!(s3.apply(&keys(), &mut outgoing), Err(CredentialError::Unfit(_))), "{target}");
    }
}

#[tokio::test]
async fn without_a_caller_the_caller_is_what_is_missing() {
    let dir = crate::scratch::Scratch::new();
    let sources = Arc::new(Sources::new(Arc::new(crate::secret::Secrets::standard(dir.path()))));
    let personal = Arc::new(aws(|config| config["source"]["session"]["name"] = json!("{subject}")));
    let error = personal.mint(Arc::new(Caller::none("test")), sources).await.err().unwrap();
    assert_eq!(error.kind, crate::freshness::MintErrorKind::NeedsCaller);
}
