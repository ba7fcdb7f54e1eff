//! What must not work: somebody else's link, another browser, a second use, a changed state. Nothing is ever stored.

use keyward_tests::browser::{Browser, Page};
use keyward_tests::client::Request;
use serde_json::json;

use super::{World, visited};

/// Nothing was stored: the agent is asked again, and the upstream has received nothing.
async fn nothing_is_stored(world: &World, token: &str) {
    let answer = world.call(token, json!({})).await;
    assert_eq!(answer.json().unwrap()["result"]["resultType"], "input_required", "{}", answer.text());
    assert_eq!(world.count().await, 0);
}

fn refused(page: &Page, title: &str, status: u16) {
    assert_eq!((page.title().as_str(), page.status), (title, status), "{}", page.body);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.headers["cache-control"], "no-store");
    assert_eq!(page.headers["referrer-policy"], "no-referrer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_link_is_of_no_use_to_another_person() {
    let world = World::plain("connect-swap").await;
    let token = world.token("alice").await;
    let url = world.invited(&token).await;
    // Mallory opens Alice's link to have her agent use Mallory's account, or to be asked for hers.
    let mut mallory = Browser::new();
    let page = world.log_in(&mut mallory, &url, "mallory").await;
    refused(&page, "You are signed in as somebody else", 403);
    let record = world.recorded("connect_refused", "not the one for whom the agent asked").await;
    assert_eq!(record["grant"]["provider"], "calendar", "{record}");
    nothing_is_stored(&world, &token).await;
    // Alice herself is not kept from it.
    let page = world.connect(&mut Browser::new(), &url, "alice").await;
    assert_eq!(page.title(), "Connected", "{}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_can_say_no_on_our_page_and_at_the_provider() {
    let world = World::plain("connect-decline").await;
    let token = world.token("alice").await;
    let url = world.invited(&token).await;
    let mut browser = Browser::new();
    let question = world.log_in(&mut browser, &url, "alice").await;
    let page = browser.submit(&question, &[("decision", "decline")], None).await.unwrap();
    refused(&page, "Not connected", 200);
    world.recorded("connect_declined", "declined on our page").await;
    // The link is used up by the decision.
    refused(&browser.open(&url, None).await.unwrap(), "This link was used already", 410);
    nothing_is_stored(&world, &token).await;

    let url = world.invited(&token).await;
    let question = browser.open(&url, None).await.unwrap();
    let form = browser.submit(&question, &[("decision", "connect")], None).await.unwrap();
    let page = browser.submit(&form, &[("decline", "yes")], None).await.unwrap();
    refused(&page, "Not connected", 200);
    world.recorded("connect_declined", "declined at the provider: access_denied").await;
    nothing_is_stored(&world, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_works_once_and_in_one_browser() {
    let world = World::plain("connect-steps").await;
    let token = world.token("alice").await;
    let url = world.invited(&token).await;
    let (login, provider) = (format!("{}/callback/login", world.pages), format!("{}/callback/provider", world.pages));

    // The login's answer, caught before it is delivered: another browser has no use for it, ours has one.
    let mut browser = Browser::new();
    let form = browser.open(&url, None).await.unwrap();
    let caught = browser.submit(&form, &[("account", "alice")], Some(&login)).await.unwrap();
    let mut other = Browser::new();
    refused(&other.open(&caught.url, None).await.unwrap(), "This step began in another browser", 403);
    let question = browser.open(&caught.url, None).await.unwrap();
    assert_eq!(question.title(), "Connect Example Calendar?", "{}", question.body);
    refused(&browser.open(&caught.url, None).await.unwrap(), "This step is over", 400);

    // The question belongs to one browser, and a form from another site is none.
    refused(&other.open(&question.url, None).await.unwrap(), "This step began in another browser", 403);
    let foreign = Request::post_bytes(question.url.strip_prefix(&world.pages).unwrap(), "decision=connect")
        .without_header("content-type")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "cross-site")
        .header("cookie", browser.cookies(world.pages.strip_prefix("http://").unwrap()));
    let answer = foreign.send(world.pages.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap();
    assert_eq!(answer.status.as_u16(), 403, "{}", answer.text());

    // The provider's answer: caught, tried in another browser, changed, delivered, delivered again.
    let form = browser.submit(&question, &[("decision", "connect")], None).await.unwrap();
    refused(&browser.submit(&question, &[("decision", "connect")], None).await.unwrap(), "This step is over", 400);
    let caught = browser.submit(&form, &[("account", "alice")], Some(&provider)).await.unwrap();
    refused(&other.open(&caught.url, None).await.unwrap(), "This step began in another browser", 403);
    let state = visited(&caught, &provider, "state");
    let tampered = caught.url.replace(&state, &format!("{}x", &state[..state.len() - 1]));
    refused(&browser.open(&tampered, None).await.unwrap(), "This step is over", 400);
    let at_login = caught.url.replace(&provider, &login);
    refused(&browser.open(&at_login, None).await.unwrap(), "This step is over", 400);
    nothing_is_stored(&world, &token).await;
    let page = browser.open(&caught.url, None).await.unwrap();
    assert_eq!(page.title(), "Connected", "{}", page.body);
    refused(&browser.open(&caught.url, None).await.unwrap(), "This step is over", 400);
    refused(&browser.open(&url, None).await.unwrap(), "This link was used already", 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_another_server_and_a_made_up_link_are_refused() {
    let world = World::plain("connect-made-up").await;
    let token = world.token("alice").await;
    let url = world.invited(&token).await;
    let provider = format!("{}/callback/provider", world.pages);
    let mut browser = Browser::new();
    let question = world.log_in(&mut browser, &url, "alice").await;
    let form = browser.submit(&question, &[("decision", "connect")], None).await.unwrap();
    let caught = browser.submit(&form, &[("account", "alice")], Some(&provider)).await.unwrap();
    // The certified server says who it is; an answer without that, or with another name, mixes two servers up.
    let iss = visited(&caught, &provider, "iss");
    assert_eq!(iss, world.provider.issuer);
    let without: String = caught.url.split('&').filter(|pair| !pair.starts_with("iss=")).collect::<Vec<_>>().join("&");
    assert_ne!(without, caught.url);
    refused(&browser.open(&without, None).await.unwrap(), "This answer came from somewhere else", 400);
    nothing_is_stored(&world, &token).await;

    let ticket = url.rsplit('/').next().unwrap();
    let changed = format!("{}{}", &ticket[..ticket.len() - 1], if ticket.ends_with('A') { "B" } else { "A" });
    for bad in [changed.as_str(), "x", "a.b", &ticket[1..]] {
        let page = browser.open(&format!("{}/connect/{bad}", world.pages), None).await.unwrap();
        refused(&page, "This link is not valid", 400);
    }
    for path in ["/", "/connect", "/callback", "/consent"] {
        let page = browser.open(&format!("{}{path}", world.pages), None).await.unwrap();
        assert_eq!(page.status, 404, "{path}: {}", page.body);
    }
    for path in ["/callback/login", "/callback/provider?state=x&code=y", "/callback/provider?state=a&state=b"] {
        refused(&browser.open(&format!("{}{path}", world.pages), None).await.unwrap(), "This step is over", 400);
    }
    let written = world.stack.everything_written().await.unwrap();
    assert!(!written.contains(ticket), "the ticket was written somewhere");
}
