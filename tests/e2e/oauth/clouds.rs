//! Token services of clouds and of GitHub on the real path, each played after its published description. Their details
//! stand in the server's own tests.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use keyward_tests::client::Request;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

use super::{POLICY, keys};
use crate::scripted;

/// What the upstream is to get.
const TOKEN: &str = "cloud-token-AbCdEfGhIjKlMnOpQrStUvWxYz-0123456789";
/// Another token, on the way to that one.
const FIRST_TOKEN: &str = "first-token-AbCdEfGhIjKlMnOpQrStUvWxYz-0123456789";
/// What another issuer made for this workload.
const PROJECTED: &str = "projected-token-of-this-workload-0123456789";

/// Plays a token service: answers with what `answer` has for a request, a status and a document, else with 400.
async fn service(answer: impl Fn(&str) -> Option<(&'static str, Value)> + Send + Sync + 'static) -> SocketAddr {
    scripted::start(move |request| {
        let refused = || ("400 Bad Request", json!({"error": "invalid_request"}));
        let (status, document) = answer(request).unwrap_or_else(refused);
        let headers = "content-type: application/json\r\nmetadata-flavor: Google\r\n";
        scripted::response(status, headers, document.to_string().as_bytes())
    })
    .await
}

/// The answer with this document, where the request begins with `line` and holds each of these texts.
fn asked(request: &str, line: &str, needed: &[&str], document: Value) -> Option<(&'static str, Value)> {
    let is_right = request.starts_with(line) && needed.iter().all(|text| request.contains(text));
    is_right.then_some(("200 OK", document))
}

/// The claims of a JWT, where the key `jwk` signed it with RS256 and it is good now, for no longer than `longest_secs`.
fn claims(jwk: &Value, token: &str, key_id: Option<&str>, longest_secs: u64) -> Option<Value> {
    let (header, claims) = keys::verified(jwk, token)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let at = |name: &str| claims[name].as_u64();
    let (from, until) = (at("iat")?, at("exp")?);
    let is_good = from <= now && now < until && until - from <= longest_secs;
    (is_good && header["alg"] == "RS256" && header["kid"].as_str() == key_id).then_some(claims)
}

/// An upstream that gives back the header that it got.
async fn upstream() -> SocketAddr {
    scripted::start(|request| {
        let got = scripted::header(request, "authorization").to_owned();
        scripted::response("200 OK", "content-type: application/json\r\n", json!({"got": got}).to_string().as_bytes())
    })
    .await
}

/// The upstream gets [`TOKEN`] from this credential, and nobody else gets anything.
async fn carries(name: &str, credential: Value, files: &[(&str, String)]) {
    let mut builder = scripted::route(Stack::builder(name).policy(POLICY), upstream().await, "http");
    builder = builder.config(|config| {
        config["bindings"][0]["credentials"][0] = credential;
        // A service account's file names the token endpoint, not the configuration.
        config["outbound"] = json!({"allow": ["127.0.0.0/8"]});
    });
    for (path, content) in files {
        builder = builder.file(path, content);
    }
    let stack = builder.start().await.unwrap();
    let answer = stack.send(Request::new(Method::GET, scripted::PATH)).await.unwrap();
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), stack.server.process.log());
    // What came back is the header, with the token taken out of it.
    let got = answer.json().unwrap()["got"].as_str().unwrap_or_default().to_owned();
    assert!(got.starts_with("Bearer ") && got.len() > "Bearer ".len(), "{got}");
    assert!(!answer.text().contains(TOKEN) && !got.contains("eyJ"), "{got}");
    let written = stack.everything_written().await.unwrap();
    for token in [TOKEN, FIRST_TOKEN, PROJECTED, "eyJ"] {
        assert!(!written.contains(token), "`{token}` was written somewhere");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_google_service_account_is_served() {
    const ROBOT: &str = "robot@project.iam.gserviceaccount.com";
    const SCOPE: &str = "https://www.googleapis.com/auth/drive";
    let (pem, public) = keys::pair("RS256");
    let google = service(move |request| {
        let (_, assertion) = request.split_once("assertion=")?;
        let claims = claims(&public, assertion.split('&').next()?, Some("k"), 3600)?;
        let token_uri = format!("http://{}/token", scripted::header(request, "host"));
        let is_right = claims["iss"] == ROBOT
            && claims["sub"] == ROBOT
            && claims["aud"] == token_uri.as_str()
            && claims["scope"] == SCOPE
            && claims.get("target_audience").is_none();
        let needed = ["grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&"];
        let answer = json!({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"});
        asked(request, "POST /token ", &needed, answer).filter(|_| is_right)
    })
    .await;
    let key = json!({
        "type": "service_account", "private_key_id": "k", "private_key": pem,
        "client_email": ROBOT, "token_uri": format!("http://{google}/token"),
    });
    let credential = json!({
        "type": "oauth", "grant": "google_service_account", "scopes": [SCOPE],
        "service_account": {"key": {"ref": "file://secrets/google.json"}},
    });
    carries("oauth-google", credential, &[("secrets/google.json", key.to_string())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_the_machine_is_served() {
    let azure = service(|request| {
        let line = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net ";
        let answer = json!({"access_token": TOKEN, "expires_in": "3599", "token_type": "Bearer"});
        asked(request, line, &["metadata: true"], answer)
    })
    .await;
    let credential = json!({
        "type": "oauth", "grant": "azure_managed_identity", "resource": "https://vault.azure.net",
        "managed_identity": {"url": format!("http://{azure}")},
    });
    carries("oauth-azure", credential, &[]).await;
    let google = service(|request| {
        let line = "GET /computeMetadata/v1/instance/service-accounts/default/token?scopes=a ";
        let answer = json!({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"});
        asked(request, line, &["metadata-flavor: Google"], answer)
    })
    .await;
    let credential = json!({
        "type": "oauth", "grant": "google_metadata", "scopes": ["a"],
        "google_metadata": {"url": format!("http://{google}")},
    });
    carries("oauth-google-metadata", credential, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_of_another_issuer_is_served_as_a_google_service_account() {
    let google = service(|request| {
        let (subject, bearer) =
            (format!("subject_token={PROJECTED}"), format!("authorization: Bearer {FIRST_TOKEN}\r\n"));
        let exchange = [
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&",
            "audience=%2F%2Fiam.googleapis.com%2Fprojects%2F1%2Flocations%2Fglobal%2FworkloadIdentityPools%2Fp%2Fproviders%2Fk",
            "scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform",
            "subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt",
            subject.as_str(),
        ];
        let first = json!({
            "access_token": FIRST_TOKEN, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer", "expires_in": 3600,
        });
        let act_as = [
            bearer.as_str(),
            r#""scope":["https://www.googleapis.com/auth/drive"]"#,
            r#""lifetime":"3600s""#,
        ];
        let line = "POST /v1/projects/-/serviceAccounts/robot%40project.iam.gserviceaccount.com:generateAccessToken ";
        let answer = json!({"accessToken": TOKEN, "expireTime": "2099-01-01T00:00:00Z"});
        asked(request, "POST /v1/token ", &exchange, first).or_else(|| asked(request, line, &act_as, answer))
    })
    .await;
    let credential = json!({
        "type": "oauth", "grant": "token_exchange", "token_endpoint": format!("http://{google}/v1/token"),
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
        "scopes": ["https://www.googleapis.com/auth/drive"],
        "subject": {"from": "secret", "secret": {"ref": "file://secrets/projected"}},
        "impersonate": {"account": "robot@project.iam.gserviceaccount.com", "api": format!("http://{google}")},
    });
    carries("oauth-google-workload", credential, &[("secrets/projected", PROJECTED.to_owned())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_of_another_issuer_is_served_as_an_azure_application() {
    let entra = service(|request| {
        let assertion = format!("client_assertion={PROJECTED}");
        let needed = [
            "grant_type=client_credentials&",
            "scope=https%3A%2F%2Fgraph.microsoft.com%2F.default",
            "client_id=the-application",
            "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer",
            assertion.as_str(),
        ];
        let answer = json!({"access_token": TOKEN, "expires_in": 3599, "ext_expires_in": 3599, "token_type": "Bearer"});
        let has_key = request.contains("client_secret") || !scripted::header(request, "authorization").is_empty();
        asked(request, "POST /tenant/oauth2/v2.0/token ", &needed, answer).filter(|_| !has_key)
    })
    .await;
    let projected = json!({"from": "secret", "secret": {"ref": "file://secrets/projected"}});
    let credential = json!({
        "type": "oauth", "grant": "client_credentials",
        "token_endpoint": format!("http://{entra}/tenant/oauth2/v2.0/token"),
        "scopes": ["https://graph.microsoft.com/.default"],
        "client": {"id": "the-application", "authentication": "federated_token", "token": projected},
    });
    carries("oauth-azure-workload", credential, &[("secrets/projected", PROJECTED.to_owned())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_of_a_github_app_is_served() {
    const APP: &str = "Iv1.0123456789abcdef";
    let (pem, public) = keys::pair("RS256");
    let github = service(move |request| {
        let assertion = scripted::header(request, "authorization").strip_prefix("Bearer ")?;
        let claims = claims(&public, assertion, None, 600)?;
        let needed = ["x-github-api-version: 2022-11-28", r#"{"contents":"read"}"#];
        let answer = json!({"token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"});
        let (_, answer) = asked(request, "POST /app/installations/42/access_tokens ", &needed, answer)?;
        (claims["iss"] == APP).then_some(("201 Created", answer))
    })
    .await;
    let credential = json!({
        "type": "oauth", "grant": "github_app",
        "app": {
            "id": APP, "installation": 42, "key": {"ref": "file://secrets/app.pem"},
            "api": format!("http://{github}"), "permissions": {"contents": "read"},
        },
    });
    carries("oauth-github", credential, &[("secrets/app.pem", pem)]).await;
}
