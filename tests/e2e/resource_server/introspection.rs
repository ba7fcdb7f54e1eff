//! Opaque tokens, looked up at the certified authorization server that made them (RFC 7662).

use std::time::{Duration, Instant};

use keyward_contract::reason::Reason;
use keyward_tests::authorization_server::AuthorizationServer;
use keyward_tests::client::{Request, RequestBody};
use keyward_tests::files;
use keyward_tests::prover::Prover;
use serde_json::{Value, json};

use super::{World, call};
use crate::expect;

const SECRET: &str = "the-secret-of-the-gateway";
const AGENT_SECRET: &str = "the-secret-of-the-agent";

fn client(id: &str, secret: &str, grants: &[&str]) -> Value {
    json!({
        "client_id": id, "client_secret": secret, "grant_types": grants,
        "token_endpoint_auth_method": "client_secret_post", "response_types": [], "redirect_uris": [],
    })
}

/// A token of the agent for this resource, with a proof where the prover is given.
pub(super) async fn token(server: &AuthorizationServer, resource: &str, prover: Option<&Prover>) -> Value {
    let url = format!("{}/token", server.issuer);
    let mut request = Request::new(http::Method::POST, "/token");
    request = request.header("content-type", "application/x-www-form-urlencoded");
    if let Some(prover) = prover {
        request = request.header("dpop", prover.sign(&prover.proof("POST", &url, None)).unwrap());
    }
    let resource = resource.replace(':', "%3A").replace('/', "%2F");
    let form = format!(
        "grant_type=client_credentials&client_id=agent&client_secret={AGENT_SECRET}&scope=use&resource={resource}"
    );
    request.body = RequestBody::Whole(form.into());
    let address = server.issuer.trim_start_matches("http://").parse().unwrap();
    request.send(address).await.unwrap().json().unwrap()
}

/// The authorization server, of which the resource is to be known before it runs.
struct Open {
    server: AuthorizationServer,
    world: World,
}

async fn start(name: &str, cache_secs: u64) -> Open {
    let folder = files::run_folder(&format!("{name}-server")).unwrap();
    // The resource's address is chosen by the world: the server learns it as the audience `urn:keyward:demo`.
    let options = json!({
        "clients": [
            client("gateway", SECRET, &["client_credentials"]),
            client("agent", AGENT_SECRET, &["client_credentials", "refresh_token"]),
        ],
        "resources": {"demo": {"audience": "urn:keyward:demo", "scope": "use", "format": "opaque"}},
    });
    let server = AuthorizationServer::start("authorization-server", &options, &folder).unwrap();
    let issuer = json!({
        "name": "open", "issuer": server.issuer, "audiences": ["urn:keyward:nothing"], "algorithms": ["RS256"],
        "jwks": {"url": format!("{}/jwks", server.issuer)},
        "introspection": {
            "endpoint": format!("{}/token/introspection", server.issuer), "client_id": "gateway",
            "client_secret": {"ref": "env://GATEWAY_SECRET"}, "authentication": "client_secret_post",
            "cache_secs": cache_secs,
        },
    });
    let section = json!({"audiences": ["urn:keyward:demo"], "scopes": {"required": ["use"]}, "dpop": {}});
    let world = World::start(name, section, |builder| {
        builder.variable("GATEWAY_SECRET", SECRET).config(|config| {
            config["identity"]["issuers"].as_array_mut().unwrap().push(issuer);
        })
    })
    .await;
    Open { server, world }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_serves_until_it_is_revoked() {
    let Open { server, world } = start("resource-opaque", 1).await;
    let given = token(&server, "urn:keyward:demo", None).await;
    let opaque = given["access_token"].as_str().unwrap_or_else(|| panic!("{given}"));
    assert!(!opaque.contains('.'), "the token is not opaque");
    expect::allowed(&world.stack, &world.call(opaque).await).await;
    let record = world.stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!((&record["principal"]["subject"], &record["principal"]["kind"]), (&json!("agent"), &json!("agent")));

    server.revoke(opaque).await.unwrap();
    // What was looked up is believed for one second.
    let until = Instant::now() + Duration::from_secs(15);
    loop {
        world.stack.upstream.reset().await.unwrap();
        let answer = world.call(opaque).await;
        if answer.status == 401 {
            expect::unauthenticated(&world.stack, &answer, Reason::InvalidToken, 1).await;
            break;
        }
        assert!(Instant::now() < until, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // A second resource does not take it, nor a token that nobody made, nor a refresh token, which is active, too.
    let given = token(&server, "urn:keyward:demo", None).await;
    let opaque = given["access_token"].as_str().unwrap();
    assert_eq!(world.call_scripted(opaque).await.status, 401);
    let refresh = server.seed_refresh_token("agent", "alice", "use", "urn:keyward:demo").await.unwrap();
    for bad in ["made-up", "a.b", "a.b.c.d.e.f", refresh.as_str()] {
        let answer = world.call(bad).await;
        expect::unauthenticated(&world.stack, &answer, Reason::InvalidToken, 1).await;
    }
    expect::nothing_written(&world.stack, &[opaque, refresh.as_str(), SECRET]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opaque_token_that_is_bound_takes_a_proof() {
    let Open { server, world } = start("resource-opaque-dpop", 30).await;
    let prover = Prover::new().unwrap();
    let given = token(&server, "urn:keyward:demo", Some(&prover)).await;
    assert_eq!(given["token_type"], "DPoP", "{given}");
    let opaque = given["access_token"].as_str().unwrap();
    let answer = world.call(opaque).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    world.untouched().await;
    let proof = prover.sign(&prover.proof("POST", &world.mcp, Some(opaque))).unwrap();
    let request = call().header("authorization", format!("DPoP {opaque}")).header("dpop", proof);
    expect::allowed(&world.stack, &world.send(request).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_looked_up_is_not_accepted() {
    let Open { mut server, world } = start("resource-opaque-down", 0).await;
    let given = token(&server, "urn:keyward:demo", None).await;
    let opaque = given["access_token"].as_str().unwrap();
    expect::allowed(&world.stack, &world.call(opaque).await).await;
    world.stack.upstream.reset().await.unwrap();
    server.process.stop(Duration::from_secs(5));
    let answer = world.call(opaque).await;
    expect::denied(&world.stack, &answer, Reason::DecisionUnavailable, 1).await;
    let record = world.stack.server.audit_record(|record| record["reason"] == "decision_unavailable").await.unwrap();
    assert!(record["explanation"].as_str().unwrap().contains("introspection endpoint of issuer `open`"), "{record}");
}
