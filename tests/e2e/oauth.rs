//! Tokens that need no browser: each grant against a certified authorization server, or against a server that follows a
//! published interface, with an upstream that accepts a token only if it is meant for it.

mod clients;
mod clouds;
mod exchange;
mod keys;
mod misuse;
mod possession;
mod refresh;

use std::sync::Arc;

use http::Method;
use keyward_contract::reason::Reason;
use keyward_tests::authorization_server::AuthorizationServer;
use keyward_tests::client::{Answer, Request};
use keyward_tests::envoy::{Route, UpstreamCluster};
use keyward_tests::files;
use keyward_tests::issuer::Issuer;
use keyward_tests::stack::{Builder, Stack};
use serde_json::{Value, json};

use crate::search::Search;

/// Whoever has the role may read.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "resources", "explanation": "a test"} if {
    input.operation.kind == "http"
    "demo-user" in input.principal.roles
}
"#;

/// The authority of each resource, as its upstream reads it.
fn authority(resource: &str) -> String {
    format!("{resource}.internal:9100")
}

/// What the resource `name` is called in tokens.
fn audience(resource: &str) -> String {
    format!("https://api.example/{resource}")
}

/// Resources of these names, as the authorization server's options have them.
fn resources(names: &[&str]) -> Value {
    let one = |name: &&str| ((*name).to_owned(), json!({"audience": audience(name), "scope": "read write"}));
    Value::Object(names.iter().map(one).collect())
}

/// Metadata of a client with a secret.
fn client(id: &str, secret: &str, grants: &[&str]) -> Value {
    json!({
        "client_id": id, "client_secret": secret, "grant_types": grants,
        "token_endpoint_auth_method": "client_secret_basic", "response_types": [], "redirect_uris": [],
    })
}

/// An authorization server and the stack in front of its resources.
struct World {
    server: AuthorizationServer,
    stack: Stack,
}

impl World {
    /// Starts both. `credentials` says, given the server, which credential each resource gets.
    async fn start(
        name: &str,
        options: impl FnOnce(&Issuer) -> Value,
        credentials: impl FnOnce(&AuthorizationServer) -> Vec<(&'static str, Value)>,
        change: impl FnOnce(Builder) -> Builder,
    ) -> World {
        let issuer = Arc::new(Issuer::new().unwrap());
        let folder = files::run_folder(&format!("{name}-server")).unwrap();
        let server = AuthorizationServer::start("authorization-server", &options(&issuer), &folder).unwrap();
        let mut builder = Stack::builder(name).policy(POLICY).issuer(issuer);
        let credentials = credentials(&server);
        builder = builder.envoy(|envoy| envoy.clusters.push(UpstreamCluster::tcp("resource", server.resource)));
        for (resource, credential) in &credentials {
            builder = route(builder, resource, credential);
        }
        let stack = change(builder).start().await.unwrap();
        World { server, stack }
    }

    /// Reads from a resource with the default token; the resource gives away what it got.
    async fn get(&self, resource: &str) -> Answer {
        self.get_as(resource, &self.stack.token).await
    }

    /// Reads from a resource with another one.
    async fn get_as(&self, resource: &str, token: &str) -> Answer {
        let request = Request::new(Method::GET, &format!("/{resource}/items?page=1&echo=1"));
        self.stack.send_bare(request.bearer(token)).await.unwrap()
    }

    /// Reads from these resources with the default token, all at once.
    async fn at_once(&self, resources: impl Iterator<Item = &str>) -> Vec<Answer> {
        let mut calls = tokio::task::JoinSet::new();
        for resource in resources {
            let request = Request::new(Method::GET, &format!("/{resource}/items")).bearer(&self.stack.token);
            calls.spawn(request.send(self.stack.agents));
        }
        calls.join_all().await.into_iter().map(Result::unwrap).collect()
    }

    /// The resource took the token that it got, and the agent sees nothing of it. Returns the token's claims.
    async fn taken(&self, resource: &str, answer: &Answer) -> Value {
        let last = self.server.received().await.unwrap().pop().unwrap_or_default();
        assert_eq!(answer.status, 200, "{resource}: {} {last}\n{}", answer.text(), self.stack.server.process.log());
        assert!(!last.to_string().contains(&self.stack.token), "the agent's token reached the upstream: {last}");
        let in_header = last["headers"]["authorization"].as_str().and_then(|sent| sent.split_once(' '));
        let in_query = last["url"].as_str().and_then(|url| url.split_once("access_token="));
        let (_, token) = in_header.or(in_query).unwrap();
        // The signature: what stands before it are claims, which the answer tells on purpose.
        let telling = token.rsplit('.').next().unwrap_or_default();
        assert_eq!(Search::new(telling).find_in_answer(answer), None, "{}", answer.text());
        assert!(!self.stack.everything_written().await.unwrap().contains(telling), "the token was written somewhere");
        last["claims"].clone()
    }

    /// The call was denied for want of a credential, and the resource received nothing. Returns the operator's cause.
    async fn denied(&self, answer: &Answer) -> String {
        assert_eq!(self.server.received().await.unwrap(), Vec::<Value>::new(), "{}", answer.text());
        let body = answer.json().unwrap();
        let reason = Reason::CredentialUnavailable;
        assert_eq!(answer.status.as_u16(), reason.plain_status(), "{body}");
        assert_eq!(body["error"]["reason"], reason.code(), "{body}");
        let decision = body["error"]["decision_id"].as_str().unwrap_or_default();
        let record = self.stack.server.decision(decision).await.unwrap();
        record.to_string()
    }

    /// How many requests the token endpoint answered, by grant.
    async fn calls(&self, grant: &str) -> usize {
        self.server.token_calls().await.unwrap().iter().filter(|call| call["grant"] == grant).count()
    }
}

/// Adds a resource: a route, a server entry and a binding of its own.
fn route(builder: Builder, resource: &str, credential: &Value) -> Builder {
    let metadata = json!({"server": resource, "mode": "http"});
    let route = Route { prefix: format!("/{resource}"), cluster: "resource".to_owned(), metadata };
    builder.envoy(|envoy| envoy.routes.push(route)).config(|config| {
        config["servers"][resource] = json!({
            "mode": "http", "destinations": [{"host": "127.0.0.1", "path": format!("/{resource}")}],
            "upstream_authority": authority(resource), "cluster": "resource",
        });
        let binding = json!({
            "id": resource, "mode": "service_account", "owner": "platform-team", "environment": "development",
            "servers": [resource], "hosts": [authority(resource)], "credentials": [credential],
        });
        if let Some(bindings) = config["bindings"].as_array_mut() {
            bindings.push(binding);
        }
    })
}
