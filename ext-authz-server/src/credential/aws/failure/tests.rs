//! What STS refuses, in AWS's own words: whether it is asked again, and what the operator reads.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::caller::Caller;
use crate::credential::aws::Aws;
use crate::credential::aws::scripted::{Answer, Sts, keys, refusal};
use crate::credential::{Credential, Material};
use crate::freshness::MintErrorKind::{Rejected, Transient};
use crate::scratch::Scratch;
use crate::secret::Secrets;
use crate::sources::Sources;

const ROLE: &str = "arn:aws:iam::111122223333:role/agents";

/// A credential whose keys come from a scripted STS.
struct Scene {
    sts: Sts,
    credential: Arc<dyn Credential>,
    sources: Arc<Sources>,
    _dir: Scratch,
}

impl Scene {
    /// A role that is assumed with keys of Keyward's own.
    async fn role(answers: Vec<Answer>) -> Scene {
        let own = json!({
            "type": "role", "role_arn": ROLE, "external_id": {"type": "none"}, "session": {"name": "fixed"},
            "identity": {
                "type": "static", "access_key_id": {"ref": "file://id"}, "secret_access_key": {"ref": "file://key"},
            },
        });
        Scene::start(answers, own).await
    }

    /// A role that a token assumes.
    async fn web_identity(answers: Vec<Answer>) -> Scene {
        let own = json!({
            "type": "web_identity", "role_arn": ROLE, "token": {"ref": "file://token"}, "session": {"name": "fixed"},
        });
        Scene::start(answers, own).await
    }

    async fn start(answers: Vec<Answer>, mut source: Value) -> Scene {
        let sts = Sts::start(answers).await;
        source["sts"] = json!({"endpoint": sts.url});
        let configured = json!({"regions": ["eu-central-1"], "services": ["s3"], "source": source});
        let dir = Scratch::new();
        for (file, content) in [("id", "AKIDEXAMPLE"), ("key", "an-example-secret-key"), ("token", "projected-token")] {
            dir.write(file, content);
        }
        Scene {
            sts,
            credential: Arc::new(Aws::new(serde_json::from_value(configured).unwrap())),
            sources: Arc::new(Sources::new(Arc::new(Secrets::standard(dir.path())))),
            _dir: dir,
        }
    }

    /// Has keys, past whatever is kept.
    async fn mint(&self) -> Result<Material, MintError> {
        Arc::clone(&self.credential).mint(Arc::new(Caller::none("test")), Arc::clone(&self.sources)).await
    }
}

#[tokio::test]
async fn what_only_an_operator_can_change_is_refused_with_the_remedy_and_not_asked_again() {
    let exceeds = "The requested DurationSeconds exceeds";
    let cases = [
        (
            400,
            "ValidationError",
            format!("{exceeds} the MaxSessionDuration set for this role."),
            "; lower `duration_secs`, or raise the role's MaxSessionDuration (`aws iam update-role --max-session-duration`)",
        ),
        (
            400,
            "ValidationError",
            format!("{exceeds} the 1 hour session limit for roles assumed by role chaining."),
            "; lower `duration_secs` to 3600: a session behind another role lasts an hour at most",
        ),
        (
            400,
            "PackedPolicyTooLarge",
            "Packed policy consumes 112% of allotted space, please use smaller policy.".to_owned(),
            "; use fewer or shorter session tags, or a shorter session policy",
        ),
        (400, "MalformedPolicyDocument", "Syntax errors in policy.".to_owned(), "; correct `session.policy`"),
        (403, "AccessDenied", "Not authorized to perform: sts:AssumeRole".to_owned(), ASSUME_ROLE),
        (
            403,
            "RegionDisabledException",
            "STS is not activated in this region".to_owned(),
            "name another one under `sts.region`",
        ),
        (
            403,
            "InvalidClientTokenId",
            "The security token is invalid.".to_owned(),
            "the keys of Keyward's identity are not valid",
        ),
        // What nobody foresaw is said as AWS says it.
        (400, "ValidationError", "1 validation error detected.".to_owned(), "1 validation error detected."),
    ];
    for (status, code, message, remedy) in cases {
        let scene = Scene::role(vec![refusal(status, code, &message)]).await;
        let error = scene.mint().await.err().unwrap();
        assert_eq!(error.kind, Rejected, "{error}");
        let said = format!("AssumeRole of `{ROLE}`: AWS says {code} ({status}): {message}");
        assert!(error.cause.starts_with(&said), "{error}");
        assert!(error.cause.contains(remedy), "{error}");
        assert_eq!(scene.sts.asked().len(), 1, "{code}: it was asked again");
    }
}

#[tokio::test]
async fn a_throttle_is_tried_again_and_then_left_alone_for_a_while() {
    let throttled = || refusal(400, "Throttling", "Rate exceeded");
    let scene = Scene::role(vec![throttled(), throttled(), keys()]).await;
    assert!(scene.mint().await.is_ok(), "{:?}", scene.sts.asked());
    assert_eq!(scene.sts.asked().len(), 3);

    let scene = Scene::role(vec![throttled(), throttled(), throttled(), keys()]).await;
    let caller = Arc::new(Caller::none("test"));
    // However many ask meanwhile, STS is not asked again: the failure is remembered.
    for _ in 0..5 {
        let error = scene.sources.material(&scene.credential, &caller).await.err().unwrap();
        assert_eq!(error.kind, Transient, "{error}");
        assert_eq!(error.cause, format!("AssumeRole of `{ROLE}`: AWS says Throttling (400): Rate exceeded"));
        assert_eq!(scene.sts.asked().len(), 3);
    }
    // It is remembered for a second at most the first time.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(scene.sources.material(&scene.credential, &caller).await.is_ok());
    assert_eq!(scene.sts.asked().len(), 4);
}

#[tokio::test]
async fn a_token_that_is_refused_names_what_the_trust_policy_has_to_allow() {
    for (code, kind) in [
        ("AccessDenied", Rejected),
        ("InvalidIdentityToken", Rejected),
        ("IDPRejectedClaim", Rejected),
        // Another token, or the issuer once it answers AWS, may help.
        ("ExpiredTokenException", Transient),
        ("IDPCommunicationError", Transient),
    ] {
        let scene = Scene::web_identity(vec![refusal(400, code, "a reason")]).await;
        let error = scene.mint().await.err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
        let said = format!("AssumeRoleWithWebIdentity of `{ROLE}`: AWS says {code} (400): a reason");
        assert!(error.cause.starts_with(&said), "{error}");
        assert_eq!(error.cause.ends_with(ASSUME_WITH_TOKEN), kind == Rejected, "{error}");
        assert!(!error.cause.contains("projected-token"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_by_aws_is_not_repeated_and_what_is_stays_one_short_line() {
    for (status, code, kind) in [(403, "AccessDenied", Rejected), (503, "ServiceUnavailable", Transient)] {
        let scene = Scene::role(vec![(status, "<html>marked by a proxy</html>".to_owned())]).await;
        let error = scene.mint().await.err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.cause.contains(code) && !error.cause.contains("marked"), "{error}");
    }
    let long = format!("first line\nsecond line {}", "x".repeat(1000));
    let error = Scene::role(vec![refusal(400, "MalformedPolicyDocument", &long)]).await.mint().await.err().unwrap();
    assert!(
        error.cause.contains("first line second line xxx") && error.cause.ends_with("correct `session.policy`"),
        "{error}"
    );
    assert!(error.cause.chars().count() < MAX_MESSAGE + 200, "{error}");
}
