//! Protected-resource metadata (RFC 9728): public, at the address of each resource, and nobody's upstream sees it.

use http::Method;
use keyward_tests::client::Request;
use keyward_tests::envoy::Authorizer;
use serde_json::json;

use super::World;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

fn get(path: &str) -> Request {
    Request::new(Method::GET, path)
}

async fn check(world: &World) {
    for (path, resource) in [("/mcp", &world.mcp), ("/scripted", &world.scripted)] {
        let answer = world.send(get(&format!("{WELL_KNOWN}{path}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let document = answer.json().unwrap();
        assert_eq!(document["resource"], **resource);
        assert_eq!(document["authorization_servers"], json!([keyward_tests::issuer::ISSUER]));
        assert_eq!(document["bearer_methods_supported"], json!(["header"]));
    }
    let own = world.send(get(&format!("{WELL_KNOWN}/mcp"))).await.json().unwrap();
    assert_eq!(own["scopes_supported"], json!(["use", "admin"]));
    // A client of the newest revision says which one it speaks; it is no MCP request for that.
    let said = get(&format!("{WELL_KNOWN}/mcp")).header("mcp-protocol-version", "2026-07-28");
    assert_eq!(world.send(said).await.json().unwrap(), own);

    for path in ["", "/", "/other", "/mcp/", "/mcp/below", "/MCP", "/scripted/mcp"] {
        let answer = world.send(get(&format!("{WELL_KNOWN}{path}"))).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (404, ""), "{path}");
    }
    for (method, status) in [(Method::HEAD, 200), (Method::POST, 405), (Method::DELETE, 405), (Method::OPTIONS, 204)] {
        let answer = world.send(Request::new(method.clone(), &format!("{WELL_KNOWN}/mcp"))).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (status, ""), "{method}");
    }
    world.untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_host_have_each_their_own_and_need_no_token() {
    let section = json!({"scopes": {"required": ["use"], "tools": {"delete_*": ["admin"]}}});
    let world = World::start("resource-metadata", section, |builder| builder).await;
    check(&world).await;
    let metrics = world.stack.server.metrics().await.unwrap();
    assert!(metrics.contains("keyward_resource_metadata_requests_total{result=\"found\"} 6"), "{metrics}");
    // What only looks like it is a call like every other.
    for path in ["/.well-known/oauth-protected-resourceful", "/.well-known/oauth-authorization-server"] {
        let answer = world.send(get(path)).await;
        assert!([401, 404].contains(&answer.status.as_u16()), "{path}: {}", answer.status);
    }
    // At another name for the same address there is no resource, and so no metadata.
    let answer = world.send(get(&format!("{WELL_KNOWN}/mcp")).authority("localhost")).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    world.untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_own_ext_authz_hands_it_out_as_well() {
    let section = json!({"scopes": {"required": ["use"], "tools": {"delete_*": ["admin"]}}});
    let native = |envoy: &mut keyward_tests::envoy::Options| envoy.authorizer = Authorizer::NativeExtAuthz;
    let world = World::start("resource-metadata-native", section, |builder| builder.envoy(native)).await;
    check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_hands_it_out_where_no_route_leads() {
    let section = json!({"scopes": {"required": ["use"], "tools": {"delete_*": ["admin"]}}});
    let route = json!({
        "match": {"path_separated_prefix": "/mcp"}, "route": {"cluster": "demo_upstream"},
        "metadata": {"filter_metadata": {"keyward": {"server": "demo", "mode": "mcp"}}},
    });
    let hosts = json!([{"name": "agents", "domains": ["*"], "routes": [route]}]);
    let world = World::start("resource-metadata-unrouted", section, |builder| {
        builder.envoy(|envoy| envoy.connection_manager = json!({"route_config": {"virtual_hosts": hosts}}))
    })
    .await;
    check(&world).await;
}
