//! The token services of clouds and of GitHub, each answered by a server that follows the published description and
//! refuses what the real one refuses.

use super::*;

const IN_AN_HOUR: &str = "2099-01-01T00:00:00Z";

fn later() -> u64 {
    SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3600
}

async fn minted(configured: Value, scratch: &Scratch) -> Result<String, MintError> {
    let material = mint(&oauth(configured), &caller("alice@example.com", "x"), &sources(scratch)).await?;
    assert!(material.expires().is_some_and(|end| end > SystemTime::now()));
    Ok(material.text(ACCESS_TOKEN).unwrap().to_owned())
}

/// A service account's file for this token endpoint.
fn account_file(scratch: &Scratch, url: &str) -> jsonwebtoken::DecodingKey {
    let (pem, public) = rsa_key();
    let file = json!({
        "type": "service_account", "project_id": "p", "private_key_id": "key-1", "private_key": pem,
        "client_email": "robot@p.iam.gserviceaccount.com", "token_uri": format!("{url}/token"),
    });
    scratch.write("account.json", &file.to_string());
    public
}

#[tokio::test]
async fn a_google_service_account_gets_an_access_token_or_an_id_token() {
    let id = jwt(&json!({"aud": "https://run.example", "exp": later()}));
    let answered = id.clone();
    let server = Server::start(move |asked| {
        let claims = asked.field("assertion").unwrap();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims.split('.').nth(1).unwrap()).unwrap()).unwrap();
        match claims.get("target_audience") {
            Some(_) => (200, json!({"id_token": answered})),
            None => (200, json!({"access_token": "ya29.c.access-token", "expires_in": 3599, "token_type": "Bearer"})),
        }
    })
    .await;
    let scratch = Scratch::new();
    let public = account_file(&scratch, &server.url);
    let base = json!({"grant": "google_service_account", "service_account": {"key": {"ref": "file://account.json"}}});
    let mut access = base.clone();
    access["scopes"] = json!(["https://www.googleapis.com/auth/devstorage.read_only"]);
    access["service_account"]["subject"] = json!("{user}");
    assert_eq!(minted(access, &scratch).await.unwrap(), "ya29.c.access-token");
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.field("grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
    let assertion = asked.field("assertion").unwrap();
    let header = jsonwebtoken::decode_header(&assertion).unwrap();
    assert_eq!((header.alg, header.kid.as_deref()), (jsonwebtoken::Algorithm::RS256, Some("key-1")));
    let claims = verified(&assertion, &public, &format!("{}/token", server.url));
    assert_eq!(
        (&claims["iss"], &claims["sub"]),
        (&json!("robot@p.iam.gserviceaccount.com"), &json!("alice@example.com"))
    );
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/devstorage.read_only");
    assert!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap() <= 3600);
    let mut identity = base;
    identity["audience"] = json!("https://run.example");
    assert_eq!(minted(identity, &scratch).await.unwrap(), id);
}

#[tokio::test]
async fn googles_metadata_server_is_asked_with_its_header_and_has_to_answer_with_it() {
    let id = jwt(&json!({"aud": "https://run.example", "exp": later()}));
    let answered = id.clone();
    let server = Server::start_raw(move |asked| {
        if asked.header("metadata-flavor") != "Google" || asked.method != "GET" {
            return axum::http::StatusCode::FORBIDDEN.into_response();
        }
        let base = "/computeMetadata/v1/instance/service-accounts/default/";
        let flavor = ("metadata-flavor", "Google");
        match asked.target.strip_prefix(base) {
            Some("identity?audience=https%3A%2F%2Frun.example&format=full") => {
                ([flavor, ("content-type", "text/html")], answered.clone()).into_response()
            }
            Some("token?scopes=a%2Cb") => {
                let answer = json!({"access_token": "ya29.metadata-token", "expires_in": 3000, "token_type": "Bearer"});
                ([flavor, ("content-type", "application/json")], answer.to_string()).into_response()
            }
            // Somebody else on that address.
            Some("token?scopes=other") => ([("content-type", "application/json")], "{}").into_response(),
            _ => axum::http::StatusCode::NOT_FOUND.into_response(),
        }
    })
    .await;
    let scratch = Scratch::new();
    let with = |more: Value| {
        let mut all = json!({"grant": "google_metadata", "google_metadata": {"url": server.url}});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    assert_eq!(minted(with(json!({"audience": "https://run.example"})), &scratch).await.unwrap(), id);
    assert_eq!(minted(with(json!({"scopes": ["a", "b"]})), &scratch).await.unwrap(), "ya29.metadata-token");
    let error = minted(with(json!({"scopes": ["other"]})), &scratch).await.err().unwrap();
    assert!(error.cause.contains("metadata server"), "{error}");
}

#[tokio::test]
async fn a_workload_of_another_issuer_acts_as_a_service_account() {
    let server = Server::start(|asked| match asked.target.as_str() {
        "/v1/token" => {
            let needed = [
                ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                ("audience", "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k"),
                ("requested_token_type", response::ACCESS_TOKEN),
                ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                ("subject_token", "the-projected-service-account-token"),
                ("scope", "https://www.googleapis.com/auth/cloud-platform"),
            ];
            if needed.iter().any(|(name, value)| asked.field(name).as_deref() != Some(*value)) {
                return (400, json!({"error": "invalid_request", "error_description": asked.body}));
            }
            let mut answer = token("the-federated-token");
            answer["issued_token_type"] = json!(response::ACCESS_TOKEN);
            (200, answer)
        }
        "/v1/projects/-/serviceAccounts/robot%40p.iam.gserviceaccount.com:generateAccessToken"
            if asked.header("authorization") == "Bearer the-federated-token"
                && asked.json() == json!({"scope": ["read"], "lifetime": "3600s"}) =>
        {
            (200, json!({"accessToken": "ya29.impersonated-token", "expireTime": IN_AN_HOUR}))
        }
        _ => (404, json!({"error": {"code": 404}})),
    })
    .await;
    let scratch = Scratch::new();
    scratch.write("projected", "the-projected-service-account-token");
    let configured = json!({
        "grant": "token_exchange", "token_endpoint": format!("{}/v1/token", server.url), "scopes": ["read"],
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k",
        "subject": {"from": "secret", "secret": {"ref": "file://projected"}},
        "impersonate": {"account": "robot@p.iam.gserviceaccount.com", "api": server.url},
    });
    let material = mint(&oauth(configured), &caller("alice", "x"), &sources(&scratch)).await.unwrap();
    assert_eq!(material.text(ACCESS_TOKEN), Some("ya29.impersonated-token"));
    assert!(fields(&material).contains(&"sent_first_token"), "{:?}", fields(&material));
}

#[tokio::test]
async fn azures_metadata_service_is_asked_as_it_wants_to_be() {
    let server = Server::start(|asked| {
        let target = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net\
                      &client_id=0000-1111";
        if asked.header("metadata") != "true" || asked.target != target {
            return (400, json!({"error": "invalid_request", "error_description": "Required metadata header not specified"}));
        }
        (200, json!({
            "access_token": "eyJ0eXAi.the-managed.token", "client_id": "0000-1111", "expires_in": "3599",
            "expires_on": "1506484173", "not_before": "1506480273", "resource": "https://vault.azure.net", "token_type": "Bearer",
        }))
    })
    .await;
    let scratch = Scratch::new();
    let mut configured = json!({
        "grant": "azure_managed_identity", "resource": "https://vault.azure.net",
        "managed_identity": {"url": server.url, "client_id": "0000-1111"},
    });
    assert_eq!(minted(configured.clone(), &scratch).await.unwrap(), "eyJ0eXAi.the-managed.token");
    configured["resource"] = json!("https://other.example");
    assert!(minted(configured, &scratch).await.err().unwrap().cause.contains("invalid_request"));
}

#[tokio::test]
async fn an_azure_application_is_proved_by_the_identity_of_the_machine() {
    let server = Server::start(|asked| match asked.target.split('?').next() {
        Some("/metadata/identity/oauth2/token")
            if asked.target.contains("resource=api%3A%2F%2FAzureADTokenExchange") =>
        {
            (200, token("the-token-of-the-machine"))
        }
        Some("/tenant/oauth2/v2.0/token")
            if asked.field("client_assertion").as_deref() == Some("the-token-of-the-machine") =>
        {
            (200, token("the-token-of-the-application"))
        }
        _ => (400, json!({"error": "invalid_client"})),
    })
    .await;
    let scratch = Scratch::new();
    let source = json!({"from": "azure_managed_identity", "audience": "api://AzureADTokenExchange"});
    let configured = json!({
        "grant": "client_credentials", "token_endpoint": format!("{}/tenant/oauth2/v2.0/token", server.url),
        "scopes": ["https://graph.microsoft.com/.default"], "managed_identity": {"url": server.url},
        "client": {"id": "app", "authentication": "federated_token", "token": source},
    });
    assert_eq!(minted(configured, &scratch).await.unwrap(), "the-token-of-the-application");
}

#[tokio::test]
async fn a_github_app_gets_a_token_of_its_installation_and_no_more_than_it_asks_for() {
    let (pem, public) = rsa_key();
    let server = Server::start(move |asked| {
        let assertion = asked.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
        let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
        validation.set_issuer(&["Iv1.0123456789abcdef"]);
        validation.validate_aud = false;
        let Ok(claims) = jsonwebtoken::decode::<Value>(assertion, &public, &validation) else {
            return (401, json!({"message": "A JSON web token could not be decoded"}));
        };
        let (iat, exp) = (claims.claims["iat"].as_u64().unwrap(), claims.claims["exp"].as_u64().unwrap());
        if exp - iat > 600 || iat >= later() - 3600 {
            return (401, json!({"message": "'Expiration time' claim ('exp') is too far in the future"}));
        }
        let is_right = asked.target == "/app/installations/42/access_tokens"
            && asked.header("x-github-api-version") == "2022-11-28"
            && asked.header("accept") == "application/vnd.github+json"
            && asked.header("user-agent") == "keyward"
            && asked.json() == json!({"repositories": ["docs"], "permissions": {"contents": "read"}});
        match is_right {
            true => (201, json!({"token": "ghs_16C7e42F292c6912E7710c83", "expires_at": IN_AN_HOUR, "permissions": {"contents": "read"}})),
            false => (422, json!({"message": asked.body})),
        }
    })
    .await;
    let scratch = Scratch::new();
    scratch.write("app.pem", &pem);
    let configured = json!({
        "grant": "github_app",
        "app": {
            "id": "Iv1.0123456789abcdef", "installation": 42, "key": {"ref": "file://app.pem"}, "api": server.url,
            "repositories": ["docs"], "permissions": {"contents": "read"},
        },
    });
    assert_eq!(minted(configured, &scratch).await.unwrap(), "ghs_16C7e42F292c6912E7710c83");
}

#[tokio::test]
async fn an_identity_assertion_goes_from_one_server_to_the_other() {
    let server = Server::start(|asked| {
        let is = |name: &str, value: &str| asked.field(name).as_deref() == Some(value);
        match asked.target.as_str() {
            "/provider/token"
                if is("requested_token_type", response::ID_JAG)
                    && is("audience", "https://resource-as.example")
                    && is("resource", "https://api.example")
                    && is("scope", "chat.read chat.history")
                    && is("subject_token_type", "urn:ietf:params:oauth:token-type:id_token")
                    && is("client_id", "at-the-provider") =>
            {
                (
                    200,
                    json!({"issued_token_type": response::ID_JAG, "access_token": "the.identity.assertion",
                    "token_type": "N_A", "scope": "chat.read chat.history", "expires_in": 300}),
                )
            }
            "/resource/token"
                if is("assertion", "the.identity.assertion")
                    && is("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
                    && is("scope", "chat.read")
                    && is("client_id", "at-the-resource") =>
            {
                (200, token("the-access-token-1"))
            }
            _ => (400, json!({"error": "invalid_request"})),
        }
    })
    .await;
    let scratch = Scratch::new();
    let configured = json!({
        "grant": "id_jag", "token_endpoint": format!("{}/provider/token", server.url),
        "client": {"id": "at-the-provider", "authentication": "none"},
        "scopes": ["chat.read", "chat.history"], "resource": "https://api.example",
        "subject": {"from": "caller", "type": "id_token"},
        "resource_server": {
            "issuer": "https://resource-as.example", "token_endpoint": format!("{}/resource/token", server.url),
            "client": {"id": "at-the-resource", "authentication": "none"}, "scopes": ["chat.read"],
        },
    });
    assert_eq!(minted(configured, &scratch).await.unwrap(), "the-access-token-1");
    assert_eq!(server.asked().len(), 2);
}
