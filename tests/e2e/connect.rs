//! A person connects an account: the agent is told where, the person proves who they are, agrees, and the agent's next call
//! goes through. Identity issuer and provider are two instances of a certified authorization server.

#![expect(clippy::panic, reason = "a failed expectation ends the test")]

mod asking;
mod keys;
mod misuse;
mod replicas;
mod way;

use std::net::TcpListener;
use std::path::PathBuf;

use keyward_tests::agent;
use keyward_tests::authorization_server::AuthorizationServer;
use keyward_tests::browser::{Browser, Page, encoded, parameter};
use keyward_tests::client::{Answer, Request, RequestBody};
use keyward_tests::files;
use keyward_tests::issuer::AUDIENCE;
use keyward_tests::stack::Stack;
use serde_json::{Value, json};

/// Where an agent's own login ends; nobody listens there.
const AGENT_CALLBACK: &str = "http://127.0.0.1:9/agent";
/// A PKCE verifier and its challenge (RFC 7636, appendix B), for the agent's own login.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const CLIENT_SECRET: &str = "marked-client-secret";
/// Allows everything: who may do what is not the subject here.
const POLICY: &str = "package keyward\n\ndecision := {\"allow\": true, \"rule\": \"all\", \"explanation\": \"test\"}\n";

/// Everybody who takes part.
struct World {
    stack: Stack,
    /// Whom Keyward believes who people are.
    identity: AuthorizationServer,
    /// Where people have the account that is connected.
    provider: AuthorizationServer,
    /// Where the pages are.
    pages: String,
}

fn client(id: &str, callback: &str) -> Value {
    json!({
        "client_id": id, "client_secret": CLIENT_SECRET, "redirect_uris": [callback], "response_types": ["code"],
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "client_secret_basic",
    })
}

impl World {
    /// `options` are the provider's, `change` the configuration's.
    async fn start(name: &str, options: Value, change: impl FnOnce(&mut Value)) -> World {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let pages = format!("http://127.0.0.1:{port}");
        let folder = files::run_folder(&format!("{name}-servers")).unwrap();
        let mut agent = client("demo-agent", AGENT_CALLBACK);
        agent["token_endpoint_auth_method"] = json!("none");
        agent.as_object_mut().unwrap().remove("client_secret");
        let identity = json!({
            "clients": [agent, client("keyward-login", &format!("{pages}/callback/login"))],
            "resources": {"mcp": {"audience": AUDIENCE, "scope": "mcp", "format": "jwt"}},
        });
        let mut provider = json!({
            "clients": [client("keyward-calendar", &format!("{pages}/callback/provider"))],
            "resources": {"calendar": {"audience": "https://calendar.example", "scope": "read", "format": "jwt"}},
        });
        for (key, value) in options.as_object().into_iter().flatten() {
            provider[key] = value.clone();
        }
        let identity = AuthorizationServer::start("identity", &identity, &folder).unwrap();
        let provider = AuthorizationServer::start("provider", &provider, &folder).unwrap();
        let secret = json!({"ref": "env://CLIENT_SECRET"});
        let stack = Stack::builder(name)
            .policy(POLICY)
            .variable("CLIENT_SECRET", CLIENT_SECRET)
            .variable("ENCRYPTION_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
            .config(|config| {
                config["listen"]["connect"] = json!(format!("127.0.0.1:{port}"));
                config["identity"]["issuers"][0] = json!({
                    "name": "corporate", "issuer": identity.issuer, "audiences": [AUDIENCE], "algorithms": ["RS256"],
                    "jwks": {"url": format!("{}/jwks", identity.issuer)},
                });
                config["database"] = json!({"encryption_keys": [{"ref": "env://ENCRYPTION_KEY"}]});
                config["connect"] = json!({
                    "public_url": pages,
                    "login": {"corporate": {"client_id": "keyward-login", "client_secret": secret}},
                });
                config["providers"] = json!({"calendar": {
                    "type": "oauth", "title": "Example Calendar", "issuer": provider.issuer,
                    "client_id": "keyward-calendar", "client_secret": secret,
                    "scopes": ["openid", "offline_access", "read"],
                    "authorization_parameters": {"resource": "https://calendar.example", "prompt": "consent"},
                }});
                config["bindings"][0]["credentials"] = json!([{
                    "type": "oauth", "grant": "refresh_token", "provider": "calendar", "issuer": provider.issuer,
                    "client": {"id": "keyward-calendar", "secret": secret},
                    "scopes": ["read"], "resource": "https://calendar.example",
                }]);
                change(config);
            })
            .start()
            .await
            .unwrap();
        World { stack, identity, provider, pages }
    }

    /// A world in which nothing is special.
    async fn plain(name: &str) -> World {
        World::start(name, json!({}), |_| {}).await
    }

    /// The access token that an agent gets in the name of this person.
    async fn token(&self, person: &str) -> String {
        let mut browser = Browser::new();
        let url = format!(
            "{}/auth?response_type=code&client_id=demo-agent&redirect_uri={}&scope=openid+mcp&resource={}\
             &code_challenge={CHALLENGE}&code_challenge_method=S256",
            self.identity.issuer,
            encoded(AGENT_CALLBACK),
            encoded(AUDIENCE)
        );
        let form = browser.open(&url, Some(AGENT_CALLBACK)).await.unwrap();
        let back = browser.submit(&form, &[("account", person)], Some(AGENT_CALLBACK)).await.unwrap();
        let code = back.parameter("code").unwrap_or_else(|| panic!("no code in `{}`", back.url));
        let form = format!(
            "grant_type=authorization_code&client_id=demo-agent&code={}&redirect_uri={}&code_verifier={VERIFIER}",
            encoded(&code),
            encoded(AGENT_CALLBACK)
        );
        let mut request =
            Request::new(http::Method::POST, "/token").header("content-type", "application/x-www-form-urlencoded");
        request.body = RequestBody::Whole(form.into());
        let to = self.identity.issuer.strip_prefix("http://").unwrap().parse().unwrap();
        let answer = request.send(to).await.unwrap().json().unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// A call of the tool `echo` by somebody's agent in the newest revision, whose client can open addresses.
    async fn call(&self, token: &str, params: Value) -> Answer {
        let mut all = json!({
            "name": "echo", "arguments": {"message": "hello"},
            "_meta": {"io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}},
        });
        for (key, value) in params.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        agent::request(1, "tools/call", all).bearer(token).send(self.stack.agents).await.unwrap()
    }

    /// The address that a person of this token is asked to open.
    async fn invited(&self, token: &str) -> String {
        let answer = self.call(token, json!({})).await;
        address(&answer.json().unwrap())
    }

    /// Opens an address as this person, who is not logged in yet, up to our question.
    async fn log_in(&self, browser: &mut Browser, url: &str, person: &str) -> Page {
        let form = browser.open(url, None).await.unwrap();
        assert!(form.url.starts_with(&self.identity.issuer), "{}: {}", form.url, form.body);
        browser.submit(&form, &[("account", person)], None).await.unwrap()
    }

    /// The whole way to the last page.
    async fn connect(&self, browser: &mut Browser, url: &str, person: &str) -> Page {
        let question = self.log_in(browser, url, person).await;
        assert_eq!(question.title(), "Connect Example Calendar?", "{}", question.body);
        let form = browser.submit(&question, &[("decision", "connect")], None).await.unwrap();
        assert!(form.url.starts_with(&self.provider.issuer), "{}: {}", form.url, form.body);
        browser.submit(&form, &[("account", person)], None).await.unwrap()
    }

    /// The claims of the bearer token that the upstream received last.
    async fn received(&self) -> Value {
        use base64::Engine as _;
        let last = self.stack.upstream.last().await.unwrap();
        let pairs = last["headers"].as_array().cloned().unwrap_or_default();
        let header = pairs.iter().find(|pair| pair[0] == "authorization").unwrap_or_else(|| panic!("{last}"));
        let token = header[1].as_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let payload = token.split('.').nth(1).unwrap().to_owned();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        serde_json::from_slice(&claims).unwrap()
    }

    /// How many requests the upstream received.
    async fn count(&self) -> u64 {
        self.stack.upstream.count().await.unwrap()
    }

    /// Whether an audit record of this event, with this in its detail, comes.
    async fn recorded(&self, event: &str, detail: &str) -> Value {
        let wanted =
            |record: &Value| record["event"] == event && record["detail"].as_str().unwrap_or_default().contains(detail);
        self.stack.server.audit_record(wanted).await.unwrap()
    }

    fn database(&self) -> PathBuf {
        self.stack.folder.join("keyward.db")
    }
}

/// The address in any form of the answer that asks.
fn address(body: &Value) -> String {
    let url = body["error"]["data"]["elicitations"][0]["url"]
        .as_str()
        .or_else(|| body["result"]["inputRequests"]["keyward_connect"]["params"]["url"].as_str())
        .or_else(|| body["error"]["data"]["connect_url"].as_str())
        .or_else(|| body["error"]["connect_url"].as_str());
    url.unwrap_or_else(|| panic!("no address in {body}")).to_owned()
}

/// The value of a parameter in an address that was visited.
fn visited(page: &Page, begin: &str, name: &str) -> String {
    let url = page.visited.iter().find(|url| url.starts_with(begin));
    url.and_then(|url| parameter(url, name)).unwrap_or_else(|| panic!("no `{name}` in {:?}", page.visited))
}
