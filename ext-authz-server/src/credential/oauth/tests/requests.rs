//! What is asked of a token endpoint, and what comes of its answers.

use super::*;
use crate::freshness::MintErrorKind;

const SECRET: &str = "client-secret-0123456789";

fn credential(server: &Server, more: Value) -> Value {
    let mut configured = json!({
        "grant": "client_credentials", "token_endpoint": format!("{}/token", server.url),
        "client": {"id": "keyward", "secret": {"ref": "file://client"}},
    });
    configured.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    configured
}

fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("client", SECRET);
    scratch
}

#[tokio::test]
async fn everything_that_was_sent_and_issued_is_scrubbed() {
    let server = Server::start(|_| {
        let mut answer = token("the-access-token-1");
        answer["refresh_token"] = json!("the-refresh-token-1");
        answer["id_token"] = json!("the-id-token-1");
        (200, answer)
    })
    .await;
    let (scratch, own) = (
        scratch(),
        credential(&server, json!({"scopes": ["a", "b"], "audience": "aud", "resource": "https://r.example"})),
    );
    let began = SystemTime::now();
    let material = mint(&oauth(own), &caller("alice", "x"), &sources(&scratch)).await.unwrap();
    let asked = server.asked().remove(0);
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token"));
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(asked.header("authorization"), format!("Basic {}", STANDARD.encode(format!("keyward:{SECRET}"))));
    for (name, value) in
        [("grant_type", "client_credentials"), ("scope", "a b"), ("audience", "aud"), ("resource", "https://r.example")]
    {
        assert_eq!(asked.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(asked.field("client_secret"), None);
    assert_eq!(
        fields(&material),
        ["access_token", "refresh_token", "id_token", "sent_client_secret", "sent_client_authorization"]
    );
    let left = material.expires().unwrap().duration_since(began).unwrap().as_secs();
    assert!((599..=601).contains(&left), "{left}");
}

#[tokio::test]
async fn an_assertion_is_short_lived_new_each_time_and_for_this_server() {
    let server = Server::start(|_| (200, token("the-access-token-1"))).await;
    let scratch = scratch();
    let (pem, public) = rsa_key();
    scratch.write("key", &pem);
    let client =
        json!({"id": "keyward", "authentication": "private_key_jwt", "key": {"ref": "file://key"}, "key_id": "k1"});
    let own = oauth(credential(&server, json!({"client": client})));
    let sources = sources(&scratch);
    let mut ids = Vec::new();
    for _ in 0..2 {
        mint(&own, &caller("alice", "x"), &sources).await.unwrap();
        let asked = server.asked().pop().unwrap();
        let expected = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(asked.field("client_assertion_type").as_deref(), Some(expected));
        let claims = verified(&asked.field("client_assertion").unwrap(), &public, &format!("{}/token", server.url));
        assert_eq!((&claims["iss"], &claims["sub"]), (&json!("keyward"), &json!("keyward")));
        assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 65, "{claims}");
        ids.push(claims["jti"].clone());
        assert!(!asked.body.contains("PRIVATE"));
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_federated_token_is_read_anew_for_each_mint() {
    let server = Server::start(|_| (200, token("the-access-token-1"))).await;
    let scratch = scratch();
    let source = json!({"from": "secret", "secret": {"ref": "file://projected", "trim_newline": true}});
    let client = json!({"id": "app", "authentication": "federated_token", "token": source});
    let own = oauth(credential(&server, json!({"client": client, "scopes": ["https://graph.example/.default"]})));
    for projected in ["projected-token-one", "projected-token-two"] {
        scratch.write("projected", &format!("{projected}\n"));
        mint(&own, &caller("alice", "x"), &sources(&scratch)).await.unwrap();
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.field("client_assertion").as_deref(), Some(projected));
        assert_eq!(asked.field("client_id").as_deref(), Some("app"));
    }
}

#[tokio::test]
async fn a_refused_exchange_is_the_end() {
    let server =
        Server::start(|_| (400, json!({"error": "invalid_target", "error_description": "no such resource"}))).await;
    let scratch = scratch();
    let own = credential(&server, json!({"grant": "token_exchange", "resource": "https://r.example"}));
    let error = mint(&oauth(own), &caller("alice", "x"), &sources(&scratch)).await.err().unwrap();
    assert_eq!(error.kind, MintErrorKind::Rejected);
    assert!(error.cause.contains("invalid_target"), "{error}");
    let asked = server.asked();
    assert_eq!(asked.len(), 1, "nothing else is tried");
    assert_eq!(asked[0].field("subject_token").as_deref(), Some("the-callers-own-token-of-alice"));
    assert_eq!(asked[0].field("subject_token_type").as_deref(), Some(response::ACCESS_TOKEN));
}

#[tokio::test]
async fn another_kind_of_token_than_was_asked_for_is_refused() {
    for (issued, token_type) in [
        (Some("urn:ietf:params:oauth:token-type:id_token"), "Bearer"),
        (None, "Bearer"),
        (Some(response::ACCESS_TOKEN), "N_A"),
        (Some(response::ACCESS_TOKEN), "DPoP"),
    ] {
        let server = Server::start(move |_| {
            (200, json!({"access_token": "the-access-token-1", "token_type": token_type, "issued_token_type": issued}))
        })
        .await;
        let scratch = scratch();
        let own = credential(&server, json!({"grant": "token_exchange", "resource": "https://r.example"}));
        let error = mint(&oauth(own), &caller("alice", "x"), &sources(&scratch)).await.err().unwrap();
        assert_eq!(error.kind, MintErrorKind::Rejected, "{issued:?} {token_type}: {error}");
    }
}

#[tokio::test]
async fn an_exchange_lasts_no_longer_than_what_it_was_made_of() {
    let server = Server::start(|_| {
        let mut answer = token("the-access-token-1");
        answer["issued_token_type"] = json!(response::ACCESS_TOKEN);
        (200, answer)
    })
    .await;
    let scratch = scratch();
    let own = oauth(credential(&server, json!({"grant": "token_exchange", "resource": "https://r.example"})));
    let now = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let alice = caller("alice", "x");
    let principal = Principal { expires_unix_secs: now + 100, ..(*alice.principal).clone() };
    let soon = Arc::new(Caller { principal: Arc::new(principal), ..(*alice).clone() });
    let material = mint(&own, &soon, &sources(&scratch)).await.unwrap();
    let left = material.expires().unwrap().duration_since(SystemTime::now()).unwrap().as_secs();
    assert!(left <= 100, "{left}");
    let nobody = Arc::new(Caller::none("test"));
    let error = mint(&own, &nobody, &sources(&scratch)).await.err().unwrap();
    assert_eq!(error.kind, MintErrorKind::NeedsCaller);
}

#[tokio::test]
async fn on_behalf_of_sends_only_a_token_that_was_meant_for_the_client() {
    let server = Server::start(|_| (200, token("the-access-token-1"))).await;
    let scratch = scratch();
    let own =
        oauth(credential(&server, json!({"grant": "on_behalf_of", "scopes": ["https://graph.example/User.Read"]})));
    let error = mint(&own, &caller("alice", "https://keyward.example"), &sources(&scratch)).await.err().unwrap();
    assert!(error.cause.contains("audience"), "{error}");
    assert!(server.asked().is_empty(), "the token left");
    for audience in ["keyward", "api://keyward"] {
        mint(&own, &caller("alice", audience), &sources(&scratch)).await.unwrap();
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.field("grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
        assert_eq!(asked.field("requested_token_use").as_deref(), Some("on_behalf_of"));
        assert_eq!(asked.field("assertion").as_deref(), Some("the-callers-own-token-of-alice"));
        assert_eq!(asked.field("scope").as_deref(), Some("https://graph.example/User.Read"));
    }
}

#[tokio::test]
async fn what_a_person_has_to_do_is_told_apart_from_what_an_operator_has_to() {
    for (status, code, kind) in [
        (400, "interaction_required", MintErrorKind::Consent),
        (400, "invalid_grant", MintErrorKind::Rejected),
        (401, "invalid_client", MintErrorKind::Rejected),
        (503, "temporarily_unavailable", MintErrorKind::Transient),
    ] {
        let server = Server::start(move |_| (status, json!({"error": code}))).await;
        let scratch = scratch();
        let own = credential(&server, json!({"grant": "on_behalf_of", "scopes": ["https://graph.example/User.Read"]}));
        let error = mint(&oauth(own), &caller("alice", "keyward"), &sources(&scratch)).await.err().unwrap();
        assert_eq!(error.kind, kind, "{error}");
        assert!(!error.cause.contains("token-of-alice") && !error.cause.contains(SECRET), "{error}");
    }
}

#[tokio::test]
async fn a_nonce_is_given_back_once_and_then_it_is_the_servers_word() {
    let server = Server::start_raw(|asked| {
        let claims = asked.header("dpop").split('.').nth(1).unwrap_or_default().to_owned();
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let json = ("content-type", "application/json".to_owned());
        if claims["nonce"] == "nonce-1" && asked.target == "/token" {
            let answer = json!({"access_token": "the-access-token-1", "token_type": "DPoP", "expires_in": 60});
            return ([json], answer.to_string()).into_response();
        }
        let answer = json!({"error": "use_dpop_nonce"}).to_string();
        (axum::http::StatusCode::BAD_REQUEST, [json, ("dpop-nonce", "nonce-1".to_owned())], answer).into_response()
    })
    .await;
    let scratch = scratch();
    let own = credential(&server, json!({"dpop": true}));
    let material = mint(&oauth(own), &caller("alice", "x"), &sources(&scratch)).await.unwrap();
    assert!(material.get(DPOP_KEY).is_some());
    assert_eq!(server.asked().len(), 2);
    let never = credential(&server, json!({"dpop": true, "token_endpoint": format!("{}/never", server.url)}));
    let error = mint(&oauth(never), &caller("alice", "x"), &sources(&scratch)).await.err().unwrap();
    assert!(error.cause.contains("use_dpop_nonce"), "{error}");
    assert_eq!(server.asked().len(), 4);
}
