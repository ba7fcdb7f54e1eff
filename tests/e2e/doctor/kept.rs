//! What is kept, and where people connect: the database with its keys, the providers, the grants.

use keyward_tests::authorization_server::AuthorizationServer;
use keyward_tests::files;
use keyward_tests::server::Server;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const CLIENT_SECRET: &str = "canary-client-secret-of-doctor";

/// Runs `keyward doctor` with these variables instead of the stack's.
fn doctor(stack: &Stack, changed: &[(&str, &str)]) -> (Option<i32>, String) {
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let mut variables = stack.variables().to_vec();
    variables.extend(changed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let output = Server::run(&["doctor", "--config", &config], &variables).unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    for secret in [KEY, OTHER_KEY, CLIENT_SECRET, &stack.secret] {
        assert!(!text.contains(secret), "{text}");
    }
    (output.status.code(), text)
}

/// The line of a check holds all of this.
fn says(text: &str, check: &str, parts: &[&str]) {
    let line = text.lines().find(|line| line.starts_with(check));
    assert!(line.is_some_and(|line| parts.iter().all(|part| line.contains(part))), "{check} {parts:?}\n{text}");
}

async fn stack(name: &str, provider: Option<&AuthorizationServer>) -> Stack {
    let issuer = provider.map(|provider| provider.issuer.clone());
    let builder = Stack::builder(name).variable("ENCRYPTION_KEY", KEY).variable("CLIENT_SECRET", CLIENT_SECRET).config(
        |config| {
            config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
            config["lifecycle"] = json!({"approvals": 0});
            let Some(issuer) = issuer else { return };
            config["providers"] = json!({"calendar": {
                "type": "oauth", "issuer": issuer, "client_id": "keyward-calendar",
                "client_secret": {"ref": "env://CLIENT_SECRET"}, "scopes": ["read"],
            }});
        },
    );
    builder.start().await.unwrap()
}

/// Steps in the history of the binding, so that something is sealed.
fn step(stack: &Stack, action: &str) {
    let config = stack.folder.join("keyward.yaml").display().to_string();
    let output = Server::run(&["bindings", action, "demo-api-key", "--config", &config], stack.variables()).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_opened_as_it_is_and_each_way_in_which_it_fails_has_its_remedy() {
    let mut stack = stack("doctor-database", None).await;
    step(&stack, "disable");
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(0), "{text}");
    says(&text, "pass  database:", &["tables of version", "all 1 data keys can be opened"]);
    says(&text, "pass  lifecycle of bindings:", &["1 bindings have a history"]);
    says(&text, "WARN  binding `demo-api-key`, lifecycle:", &["disabled", "`keyward bindings activate demo-api-key`"]);

    let (code, text) = doctor(&stack, &[("ENCRYPTION_KEY", OTHER_KEY)]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, "FAIL  database:", &["which is not configured", "add the key-encryption key that was in use before"]);
    let (_, text) = doctor(&stack, &[("ENCRYPTION_KEY", "too short")]);
    says(&text, "FAIL  database:", &["encryption_keys[0]", "set it where `keyward serve` runs"]);

    stack.change_database("UPDATE binding_history SET id = 'moved'").unwrap();
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, "FAIL  lifecycle of bindings:", &["`moved`", "restore the table `binding_history`"]);
    says(&text, "skip  binding `demo-api-key`, lifecycle:", &["where it stands is not known"]);
    stack.change_database("UPDATE binding_history SET id = 'demo-api-key'").unwrap();

    stack.change_database("UPDATE _sqlx_migrations SET version = version + 100").unwrap();
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, "FAIL  database:", &["its tables are of version 10", "run the newest `keyward`"]);
    stack.change_database("UPDATE _sqlx_migrations SET version = version - 100").unwrap();
    stack.change_database("DELETE FROM _sqlx_migrations WHERE version > 1").unwrap();
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(0), "{text}");
    says(&text, "pass  database:", &["its tables are of version 1;", "when it starts"]);

    // A file that is not there is not made.
    stack.change_config(|config| config["database"]["url"] = json!("sqlite://none.db")).unwrap();
    let (_, text) = doctor(&stack, &[]);
    says(&text, "pass  database:", &["there is none yet"]);
    says(&text, "pass  binding `demo-api-key`, lifecycle:", &["active, version 0"]);
    assert!(!stack.folder.join("none.db").exists());
    stack.change_config(|config| config["database"]["url"] = json!("sqlite://policies")).unwrap();
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, "FAIL  database:", &["connect", "check the address"]);
}

fn client(secret: &str) -> Value {
    json!({"clients": [{
        "client_id": "keyward-calendar", "client_secret": secret, "redirect_uris": ["http://127.0.0.1:9/callback"],
        "response_types": ["code"], "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "client_secret_basic",
    }]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_reached_and_knows_the_client_and_its_grants_are_counted() {
    let folder = files::run_folder("doctor-provider-server").unwrap();
    let provider = AuthorizationServer::start("provider", &client(CLIENT_SECRET), &folder).unwrap();
    let mut stack = stack("doctor-provider", Some(&provider)).await;
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(0), "{text}");
    says(&text, "pass  provider `calendar`:", &["its metadata can be used", "client `keyward-calendar` is known at"]);
    says(&text, "pass  grants of `calendar`:", &["0 in use, 0 ended, 0 need consent again"]);

    let into =
        "INSERT INTO grants (tenant, principal, provider, version, key_id, sealed, changed_ms, expires_ms) VALUES";
    stack.change_database(&format!("{into} ('t', 'ended', 'calendar', 1, 'none', 'none', 0, 1)")).unwrap();
    let (_, text) = doctor(&stack, &[]);
    says(&text, "pass  grants of `calendar`:", &["0 in use, 1 ended"]);
    stack.change_database(&format!("{into} ('t', 'broken', 'calendar', 1, 'none', 'none', 0, NULL)")).unwrap();
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, "FAIL  grants of `calendar`:", &["cannot be opened", "check `database.encryption_keys`"]);
    stack.change_database("DELETE FROM grants").unwrap();

    let (code, text) = doctor(&stack, &[("CLIENT_SECRET", "canary-of-somebody-else")]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, "FAIL  provider `calendar`:", &["does not know client `keyward-calendar`", "compare `client_id`"]);
    assert!(!text.contains("canary-of-somebody-else"));

    let issuer = format!("{}/", provider.issuer);
    stack.change_config(|config| config["providers"]["calendar"]["issuer"] = json!(issuer)).unwrap();
    let (_, text) = doctor(&stack, &[]);
    says(&text, "FAIL  provider `calendar`:", &["is another issuer's", "to the last slash"]);
    let issuer = provider.issuer.clone();
    drop(provider);
    stack.change_config(|config| config["providers"]["calendar"]["issuer"] = json!(issuer)).unwrap();
    let (code, text) = doctor(&stack, &[]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, "FAIL  provider `calendar`:", &["check `issuer`, the network from here"]);
}
