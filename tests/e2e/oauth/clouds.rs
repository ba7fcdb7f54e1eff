//! Token services of clouds and of GitHub on the real path, each played after its published description. Their details
//! stand in the server's own tests.

use std::net::SocketAddr;

use http::Method;
use keyward_tests::client::Request;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

use super::{POLICY, keys};
use crate::scripted;

const TOKEN: &str = "cloud-token-AbCdEfGhIjKlMnOpQrStUvWxYz-0123456789";

/// Plays a token service: answers `path` with `answer` if each of these texts is in the request, else with 400.
async fn service(
    path: &'static str,
    needed: &'static [&'static str],
    status: &'static str,
    answer: Value,
) -> SocketAddr {
    scripted::start(move |request| {
        let is_right = request.contains(path) && needed.iter().all(|text| request.contains(text));
        let headers = "content-type: application/json\r\nmetadata-flavor: Google\r\n";
        if is_right {
            return scripted::response(status, headers, answer.to_string().as_bytes());
        }
        scripted::response("400 Bad Request", headers, br#"{"error":"invalid_request"}"#)
    })
    .await
}

/// An upstream that gives back the header that it got.
async fn upstream() -> SocketAddr {
    scripted::start(|request| {
        let got = scripted::header(request, "authorization").to_owned();
        scripted::response("200 OK", "content-type: application/json\r\n", json!({"got": got}).to_string().as_bytes())
    })
    .await
}

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
    assert!(!stack.everything_written().await.unwrap().contains(TOKEN), "the token was written somewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_google_service_account_is_served() {
    let answer = json!({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"});
    let needed: &[&str] = &["grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer", "assertion=eyJ"];
    let google = service("POST /token", needed, "200 OK", answer).await;
    let (pem, _) = keys::pair("RS256");
    let key = json!({
        "type": "service_account", "private_key_id": "k", "private_key": pem,
        "client_email": "robot@project.iam.gserviceaccount.com", "token_uri": format!("http://{google}/token"),
    });
    let credential = json!({
        "type": "oauth", "grant": "google_service_account", "scopes": ["https://www.googleapis.com/auth/drive"],
        "service_account": {"key": {"ref": "file://secrets/google.json"}},
    });
    carries("oauth-google", credential, &[("secrets/google.json", key.to_string())]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_the_machine_is_served() {
    let answer = json!({"access_token": TOKEN, "expires_in": "3599", "token_type": "Bearer"});
    let path = "GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net ";
    let azure = service(path, &["metadata: true"], "200 OK", answer).await;
    let credential = json!({
        "type": "oauth", "grant": "azure_managed_identity", "resource": "https://vault.azure.net",
        "managed_identity": {"url": format!("http://{azure}")},
    });
    carries("oauth-azure", credential, &[]).await;
    let answer = json!({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"});
    let path = "GET /computeMetadata/v1/instance/service-accounts/default/token?scopes=a ";
    let google = service(path, &["metadata-flavor: Google"], "200 OK", answer).await;
    let credential = json!({
        "type": "oauth", "grant": "google_metadata", "scopes": ["a"],
        "google_metadata": {"url": format!("http://{google}")},
    });
    carries("oauth-google-metadata", credential, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_of_a_github_app_is_served() {
    let answer = json!({"token": TOKEN, "expires_at": "2099-01-01T00:00:00Z"});
    let needed: &[&str] = &["authorization: Bearer eyJ", "x-github-api-version: 2022-11-28", r#"{"contents":"read"}"#];
    let github = service("POST /app/installations/42/access_tokens", needed, "201 Created", answer).await;
    let (pem, _) = keys::pair("RS256");
    let credential = json!({
        "type": "oauth", "grant": "github_app",
        "app": {
            "id": "Iv1.0123456789abcdef", "installation": 42, "key": {"ref": "file://secrets/app.pem"},
            "api": format!("http://{github}"), "permissions": {"contents": "read"},
        },
    });
    carries("oauth-github", credential, &[("secrets/app.pem", pem)]).await;
}
