//! The stock-price example of the guide does what the guide says.

use keyward_contract::reason::Reason;
use keyward_tests::example::{CLIENT, Example};
use keyward_tests::files;
use keyward_tests::issuer::Token;

use crate::expect;

#[tokio::test(flavor = "multi_thread")]
async fn the_mcp_server_gets_prices_without_ever_holding_the_key() {
    let folder = files::run_folder("guide-prices").unwrap();
    let example = Example::start(&folder, |builder| builder).await.unwrap();
    let answer = example.ask("ACME").await.unwrap();
    let text = answer.text();
    assert!(answer.result().is_ok() && text.contains("41.5"), "{text}");
    // The API repeats the key in its answer; neither the MCP server nor the agent sees it.
    assert!(text.contains("next_url") && !text.contains(&example.key), "{text}");
    assert_eq!(example.received().await.unwrap(), 1);
    let used = |record: &serde_json::Value| record["bindings"][0]["references"][0] == "keys://{agent}";
    let record = example.stack.server.audit_record(used).await.unwrap();
    assert_eq!(record["principal"]["agent"], CLIENT);
    expect::nothing_written(&example.stack, &[&example.key]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_gets_past_the_mcp_server() {
    let folder = files::run_folder("guide-others").unwrap();
    let example = Example::start(&folder, |builder| builder).await.unwrap();
    // An analyst's own token at the API; another client, which has no key; one whose id would lead to another's file.
    let analyst = example.stack.token_for("alice", &["analyst"]).unwrap();
    let client = |id: &str| {
        let token = Token::new(id, &["price-client"]).claim("client_id", id);
        example.stack.issuer.sign(&token).unwrap()
    };
    let traversal = format!("other/../{CLIENT}");
    let cases = [
        (analyst, Reason::NotAllowed),
        (client("other-server"), Reason::CredentialUnavailable),
        (client(&traversal), Reason::CredentialUnavailable),
    ];
    for (token, reason) in cases {
        let answer = example.ask_api(&token).await.unwrap();
        assert_eq!(answer.json().unwrap()["error"]["reason"], reason.code(), "{}", answer.text());
    }
    assert_eq!(example.received().await.unwrap(), 0, "a denied call reached the API");
}
