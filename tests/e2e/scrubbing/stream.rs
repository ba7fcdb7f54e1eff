//! Answers that come in pieces: cut anywhere, and on time.

use std::time::Duration;

use base64::Engine as _;
use keyward_tests::agent;
use keyward_tests::client::{Answer, Request};
use keyward_tests::envoy::{Authorizer, Endpoint, Envoy, Options};
use keyward_tests::files;
use keyward_tests::stack::Stack;
use serde_json::json;
use tokio::task::JoinSet;

use crate::leak;
use crate::scripted;
use crate::search::Search;

/// How much later an event may come through the filter than without it, in the median.
const MAX_DELAY: Duration = Duration::from_millis(25);

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_cut_at_any_place_is_found() {
    let stack = Stack::builder("scrubbing-split").policy(leak::POLICY).start().await.unwrap();
    let search = Search::new(&stack.secret);
    let raw = stack.secret.len();
    let forms = [("raw", raw), ("base64", raw.div_ceil(3) * 4), ("hex", raw * 2), ("percent_all", raw * 3)];
    let mut running = JoinSet::new();
    let mut count = 0;
    for (form, length) in forms {
        for carrier in ["tcp_split", "sse_split"] {
            for split_at in 0..=length {
                let arguments = json!({"carrier": carrier, "form": form, "split_at": split_at, "pause_ms": 3});
                let (call, search) = (leak::call(7, arguments).bearer(&stack.token), search.clone());
                let agents = stack.agents;
                running.spawn(async move {
                    let answer = call.send(agents).await.unwrap();
                    let found = search.find_in_answer(&answer);
                    assert_eq!(found, None, "{carrier} {form} cut at {split_at}");
                    assert_eq!(answer.response().unwrap()["id"], 7, "{}", answer.text());
                });
                count += 1;
                if running.len() >= 8 {
                    running.join_next().await.unwrap().unwrap();
                }
            }
        }
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    println!("{count} cuts");
    let redactions = stack.envoy.stat("wasmcustom.keyward.redactions").await.unwrap();
    assert_eq!(redactions, count, "one redaction in each answer");
}

/// How much of the body is here before the upstream writes the rest, which follows this text of the agent's choice.
async fn seen_before_the_rest(stack: &Stack, content_type: &str, text: &str) -> usize {
    let mut call = agent::tool_call(1, "echo", json!({"message": "hello"})).header("x-content-type", content_type);
    scripted::PATH.clone_into(&mut call.path);
    let mut answer = call.header("x-text", text).bearer(&stack.token).open(stack.agents).await.unwrap();
    assert_eq!(answer.status, 200);
    let mut seen = 0;
    let reading = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            seen += chunk.bytes.len();
        }
    };
    assert!(tokio::time::timeout(scripted::PAUSE / 2, reading).await.is_err(), "the rest came at once");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_output_stops_tells_nothing_about_the_secret() {
    let upstream = scripted::start_in_pieces(|request| {
        let header = |name: &str| scripted::header(request, name).to_owned();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\nconnection: close\r\n\r\n", header("x-content-type"));
        let text = header("x-text").replace('~', "\n");
        vec![format!("{head}: start\n\ndata: {{\"echo\":\"{text}").into_bytes(), b"\"}\n\n".to_vec()]
    })
    .await;
    let builder = Stack::builder("scrubbing-oracle").policy(leak::POLICY);
    let stack = scripted::route(builder, upstream, "mcp").start().await.unwrap();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&stack.secret);
    let mut cases = 0;
    for content_type in ["text/event-stream", "application/json", "text/plain"] {
        for form in [&stack.secret, &base64] {
            for (length, end) in
                [(1, ""), (6, ""), (form.len() - 1, ""), (6, "~"), (6, "=~"), (form.len() - 1, "~data: ")]
            {
                let right = &form[..length];
                let last = if right.ends_with('q') { 'v' } else { 'q' };
                let wrong = format!("{}{last}", &right[..length - 1]);
                let (right, wrong) = (format!("{right}{end}"), format!("{wrong}{end}"));
                let (of_right, of_wrong) = tokio::join!(
                    seen_before_the_rest(&stack, content_type, &right),
                    seen_before_the_rest(&stack, content_type, &wrong)
                );
                assert_eq!(of_right, of_wrong, "{content_type}: `{right}` and `{wrong}`");
                cases += 1;
            }
        }
    }
    println!("{cases} pairs of a right and a wrong guess");
}

/// A call that brings ten events, 10 ms apart, the form in each.
fn streaming(form: Option<&str>) -> Request {
    let mut arguments = json!({"events": 10, "interval_ms": 10});
    if let Some(form) = form {
        arguments["form"] = json!(form);
    }
    let meta = json!({"progressToken": "progress-1"});
    agent::request(1, "tools/call", json!({"name": "stream", "arguments": arguments, "_meta": meta}))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// When the first and the last notification were there.
fn ends(answer: &Answer) -> (Duration, Duration) {
    let events = answer.events();
    assert!(events.len() >= 11, "{}", answer.text());
    (events[0].at, events[9].at)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_as_early_as_without_the_filter() {
    let stack = Stack::builder("scrubbing-timing").policy(leak::POLICY).start().await.unwrap();
    let mut options = Options { authorizer: Authorizer::Nobody, ..Options::default() };
    options.upstream.endpoint = Endpoint::Tcp(stack.upstream.address);
    let router = Envoy::start(options, &files::run_folder("scrubbing-router-only").unwrap()).await.unwrap();
    let router_address = router.agents().unwrap();
    let search = Search::new(&stack.secret);
    for form in [None, Some("raw"), Some("base64_mime")] {
        let mut times: [Vec<Duration>; 4] = Default::default();
        for _ in 0..20 {
            let bare = streaming(form).header("x-api-key", &stack.secret).send(router_address).await.unwrap();
            let guarded = stack.send(streaming(form)).await.unwrap();
            assert_eq!(search.find_in_answer(&guarded), None);
            let ((bare_first, bare_last), (first, last)) = (ends(&bare), ends(&guarded));
            for (list, time) in times.iter_mut().zip([bare_first, first, bare_last, last]) {
                list.push(time);
            }
            // The events flow one by one: the tenth came 9 intervals of 10 ms after the first.
            assert!(last > first + Duration::from_millis(60), "buffered: first {first:?}, tenth {last:?}");
        }
        let [bare_first, first, bare_last, last] = times.map(median);
        println!("{form:?}: first event {first:?} (bare {bare_first:?}), tenth {last:?} (bare {bare_last:?})");
        assert!(first < bare_first + MAX_DELAY, "first event {first:?} instead of {bare_first:?}");
        assert!(last < bare_last + MAX_DELAY, "tenth event {last:?} instead of {bare_last:?}");
    }
}
