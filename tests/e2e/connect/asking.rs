//! How a client is asked in each revision, and what becomes of its next attempt.

use keyward_contract::reason::Reason;
use keyward_tests::agent;
use keyward_tests::browser::Browser;
use serde_json::{Value, json};

use super::{World, address};
use crate::expect;

#[tokio::test(flavor = "multi_thread")]
async fn each_revision_is_asked_in_its_own_way() {
    let world = World::plain("connect-asking").await;
    let token = world.token("alice").await;
    let message = json!({
        "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "echo", "arguments": {"message": "x"}},
    });
    for revision in ["2025-03-26", "2025-06-18"] {
        let answer = world.stack.send_bare(agent::earlier_request(revision, &message).bearer(&token)).await.unwrap();
        expect::denied(&world.stack, &answer, Reason::ConsentRequired, 7).await;
        let body = answer.json().unwrap();
        let url = address(&body);
        assert!(body["error"]["message"].as_str().unwrap().contains(&url), "{body}");
    }
    let answer = world.stack.send_bare(agent::earlier_request("2025-11-25", &message).bearer(&token)).await.unwrap();
    let body = answer.json().unwrap();
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(7), &json!(-32042)), "{body}");
    let elicitation = &body["error"]["data"]["elicitations"][0];
    assert_eq!(elicitation["mode"], "url", "{body}");
    assert!(elicitation["elicitationId"].as_str().is_some_and(|id| id.len() > 20), "{body}");
    assert_eq!(body["error"]["data"]["reason"], "consent_required", "{body}");

    let answer = world.call(&token, json!({})).await;
    let body = answer.json().unwrap();
    assert_eq!((answer.status.as_u16(), &body["result"]["resultType"]), (200, &json!("input_required")), "{body}");
    let request = &body["result"]["inputRequests"]["keyward_connect"];
    assert_eq!((&request["method"], &request["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    assert!(request["params"]["message"].as_str().unwrap().contains("Example Calendar"), "{body}");
    assert!(body["result"]["requestState"].as_str().unwrap().starts_with("keyward1."), "{body}");

    // A client that cannot open addresses, and what cannot ask for input.
    let unable = agent::tool_call(1, "echo", json!({"message": "x"})).bearer(&token);
    let list = agent::request(1, "tools/list", json!({})).bearer(&token);
    for request in [unable, list] {
        let answer = world.stack.send_bare(request).await.unwrap();
        expect::denied(&world.stack, &answer, Reason::ConsentRequired, 1).await;
        assert!(address(&answer.json().unwrap()).starts_with(&world.pages));
    }
    // What is not a request is an HTTP error with the address.
    let notification = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}});
    let answer =
        world.stack.send_bare(agent::earlier_request("2025-06-18", &notification).bearer(&token)).await.unwrap();
    expect::plainly_denied(&world.stack, &answer, Reason::ConsentRequired).await;
    assert!(address(&answer.json().unwrap()).starts_with(&world.pages));
}

fn state(body: &Value) -> String {
    body["result"]["requestState"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstreams_own_state_survives_inside_ours() {
    let world = World::plain("connect-state").await;
    let token = world.token("alice").await;
    // The client is in the middle of a conversation with the upstream.
    let own =
        json!({"requestState": "upstream\"s", "inputResponses": {"form": {"action": "accept", "content": {"n": 1}}}});
    let body = world.call(&token, own).await.json().unwrap();
    let (ours, url) = (state(&body), address(&body));

    // Not connected yet: the client is asked again, and what is the upstream's is still carried.
    let accepted = json!({"keyward_connect": {"action": "accept"}});
    let body = world.call(&token, json!({"requestState": ours, "inputResponses": accepted})).await.json().unwrap();
    let again = state(&body);
    assert_ne!(ours, again);

    let mut browser = Browser::new();
    let page = world.connect(&mut browser, &url, "alice").await;
    assert_eq!(page.title(), "Connected", "{}", page.body);
    let retry = json!({"requestState": again, "inputResponses": accepted});

    // Somebody else's, another request's, and a changed state are refused before the right one is taken.
    let bob = world.token("bob").await;
    let mut other = retry.clone();
    other["arguments"] = json!({"message": "another"});
    let mut changed = retry.clone();
    let middle = again.len() / 2;
    let flipped = if again.as_bytes()[middle] == b'A' { "B" } else { "A" };
    changed["requestState"] = json!(format!("{}{flipped}{}", &again[..middle], &again[middle + 1..]));
    for (token, params) in [(&bob, &retry), (&token, &other), (&token, &changed)] {
        let answer = world.call(token, params.clone()).await;
        expect::denied(&world.stack, &answer, Reason::InvalidRequest, 1).await;
    }

    let answer = world.call(&token, retry.clone()).await;
    assert_eq!(world.count().await, 1, "{}", answer.text());
    let last = world.stack.upstream.last().await.unwrap();
    let received: Value = serde_json::from_str(last["body"].as_str().unwrap()).unwrap();
    assert_eq!(received["params"]["requestState"], "upstream\"s", "{received}");
    assert_eq!(received["params"]["inputResponses"]["form"]["content"]["n"], 1, "{received}");
    assert!(!received.to_string().contains("keyward"), "{received}");

    // It has let one request through and lets no other one.
    world.stack.upstream.reset().await.unwrap();
    let answer = world.call(&token, retry).await;
    expect::denied(&world.stack, &answer, Reason::InvalidRequest, 1).await;

    // A state that is not ours passes as it is.
    world.call(&token, json!({"requestState": "upstream's"})).await;
    let last = world.stack.upstream.last().await.unwrap();
    assert!(last["body"].as_str().unwrap().contains(r#""requestState":"upstream's""#), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_declined_is_not_asked_again_at_once() {
    let world = World::plain("connect-decline-agent").await;
    let token = world.token("alice").await;
    let body = world.call(&token, json!({})).await.json().unwrap();
    let declined = json!({"requestState": state(&body), "inputResponses": {"keyward_connect": {"action": "decline"}}});
    let answer = world.call(&token, declined).await;
    expect::denied(&world.stack, &answer, Reason::ConsentRequired, 1).await;
    assert!(answer.json().unwrap()["error"]["data"].get("connect_url").is_none(), "{}", answer.text());
}
