//! Secrets stay in: after a whole cycle of successes and failures, none stands in a log, an admin page or a file.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use keyward_tests::agent;
use keyward_tests::client::{self, Protocol, Request};
use keyward_tests::envoy::AccessLog;
use keyward_tests::issuer::{Algorithm, Token};
use keyward_tests::stack::{Builder, ROLE, SUBJECT, Stack};
use keyward_tests::upstream::Slot;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api::{token, with_api};
use crate::leak;
use crate::search::Search;

/// Marks an argument of a call; no log holds arguments.
const ARGUMENT: &str = "marked-argument-5d1f7a";

/// Everything that was secret in a cycle.
struct Secrets {
    credentials: Vec<String>,
    tokens: Vec<String>,
}

/// Whatever Envoy can print about a request whose credential is in a header that is not named here.
fn access_log() -> Value {
    let operators = [
        "REQ(:PATH)",
        "REQ(X-ENVOY-ORIGINAL-PATH)",
        "PATH(WQ)",
        "PATH(NQ)",
        "QUERY_PARAM(apiKey)",
        "REQ(:AUTHORITY)",
        "REQ(:METHOD)",
        "REQ(X-KEYWARD-SCRUB)",
        "REQ(MCP-NAME)",
        "REQ(X-REQUEST-ID)",
        "RESP(X-UPSTREAM-DEBUG)",
        "RESP(SET-COOKIE)",
        "RESP(LOCATION)",
        "RESP(ETAG)",
        "TRAILER(X-UPSTREAM-TRAILER)",
        "RESPONSE_CODE",
        "RESPONSE_CODE_DETAILS",
        "RESPONSE_FLAGS",
        "LOCAL_REPLY_BODY",
        "UPSTREAM_HOST",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        "CONNECTION_TERMINATION_DETAILS",
        "METADATA(ROUTE:keyward)",
        "METADATA(CLUSTER:keyward)",
        "DYNAMIC_METADATA(keyward)",
        "DYNAMIC_METADATA(envoy.filters.http.wasm)",
        "FILTER_STATE(keyward)",
        "FILTER_STATE(wasm.keyward)",
        "STREAM_ID",
        "DURATION",
        "BYTES_RECEIVED",
        "BYTES_SENT",
    ];
    let format: serde_json::Map<String, Value> =
        operators.into_iter().map(|operator| (operator.to_lowercase(), json!(format!("%{operator}%")))).collect();
    json!([{"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "access.log",
        "log_format": {"json_format": format},
    }}])
}

fn builder(name: &str) -> Builder {
    Stack::builder(name).variable("KEYWARD_LOG", "trace")
}

/// Successes and failures of every kind, with the filter at its most talkative.
async fn cycle(stack: &mut Stack) -> Secrets {
    let level = Request::new(http::Method::POST, "/logging?wasm=trace").send(stack.envoy.admin).await.unwrap();
    assert!(level.status.is_success(), "{}", level.text());
    let mut secrets = Secrets { credentials: vec![stack.secret.clone()], tokens: vec![stack.token.clone()] };

    // Allowed, denied, leaked, failed.
    let echo = || agent::tool_call(1, "echo", json!({"message": ARGUMENT}));
    let answer = stack.send(echo()).await.unwrap();
    assert_eq!(answer.result().unwrap()["content"][0]["text"], ARGUMENT, "{}", stack.server.process.log());
    stack.call_tool("delete_everything", json!({"message": ARGUMENT})).await.unwrap();
    for (carrier, form) in
        [("text", "raw"), ("header", "base64"), ("trailer", "hex"), ("error_message", "raw"), ("gzip", "raw")]
    {
        stack.send(leak::of(1, carrier, form).protocol(Protocol::Http2)).await.unwrap();
    }
    stack.send(echo().header("x-api-key", "of-the-client").header("x-keyward-scrub", "x")).await.unwrap();
    stack.send(Request::post_bytes("/mcp", format!("{{\"{ARGUMENT}\""))).await.unwrap();
    stack.send(echo().without_header("mcp-name").header("mcp-name", "another")).await.unwrap();

    // Tokens that are refused are no less secret.
    let honest = Token::new(SUBJECT, &[ROLE]);
    let another = stack.issuer.sign(&Token::new("mallory", &["marked-role-77"])).unwrap();
    let bad = [
        honest.clone().broken_signature(),
        honest.clone().claim("aud", "https://other.example"),
        honest.clone().algorithm(Algorithm::Hs256WithPublicKey),
        honest.lifetime(-1000, -500),
    ];
    let tokens = bad.iter().map(|token| stack.issuer.sign(token).unwrap()).chain([another]);
    for token in tokens {
        stack.send_bare(echo().bearer(&token)).await.unwrap();
        secrets.tokens.push(token);
    }

    // A secret that changes, one that cannot be used, one that is missing.
    let rotated = format!("rotated+{}", stack.secret);
    for content in [rotated.clone(), format!("{rotated}\r\nx-evil: 1"), "tiny".to_owned()] {
        stack.change_file("secrets/demo", &content).unwrap();
        stack.send(echo()).await.unwrap();
    }
    fs::remove_file(stack.folder.join("secrets/demo")).unwrap();
    stack.send(echo()).await.unwrap();
    stack.change_file("secrets/demo", &stack.secret).unwrap();
    secrets.credentials.push(rotated);

    // Reloads: a good one, and a bad one with a secret in the wrong place.
    let good = fs::read_to_string(stack.folder.join("keyward.yaml")).unwrap();
    stack.change_file("policies/more.rego", "package keyward_more\n\nx := 1\n").unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    let misplaced = good.replace("file://secrets/demo", &format!("\"{}\"", stack.secret));
    assert_ne!(misplaced, good);
    stack.change_file("keyward.yaml", misplaced).unwrap();
    stack.server.audit_record(|record| record["event"] == "config_refused").await.unwrap();
    stack.change_file("keyward.yaml", good).unwrap();
    stack.change_file("policies/keyward.rego", "package keyward\n\ndecision := {").unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;

    // Parts that are gone.
    stack.upstream.process.kill();
    stack.send(echo()).await.unwrap();
    stack.server.freeze(true).unwrap();
    stack.send(echo()).await.unwrap();
    stack.server.freeze(false).unwrap();
    // The access log is flushed every 50 ms.
    tokio::time::sleep(Duration::from_millis(300)).await;
    secrets
}

/// Everything that was written, with its name: admin pages and each file in the stack's folder but the secrets' own.
async fn written(stack: &Stack) -> Vec<(String, String)> {
    let mut all = vec![("Envoy's admin pages".to_owned(), stack.envoy.everything().await.unwrap())];
    for page in ["/metrics", "/readyz", "/healthz"] {
        let answer = Request::new(http::Method::GET, page).send(stack.server.admin).await.unwrap();
        all.push((page.to_owned(), answer.text()));
    }
    if let Some(api) = stack.server.api {
        let request = Request::new(http::Method::GET, "/v1/bindings").bearer(&token(stack, "ada", &["auditors"]));
        all.push(("/v1/bindings".to_owned(), request.send(api).await.unwrap().text()));
    }
    files(&stack.folder, &mut all);
    all
}

fn files(folder: &Path, all: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "secrets" {
                files(&path, all);
            }
        } else if !name.starts_with("upstream.") {
            all.push((name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()));
        }
    }
}

fn assert_none(written: &[(String, String)], secrets: &Secrets) {
    let searches: Vec<Search> = secrets.credentials.iter().map(|secret| Search::new(secret)).collect();
    for (name, text) in written {
        for search in &searches {
            assert_eq!(search.find(text.as_bytes()), None, "in {name}");
        }
        for token in &secrets.tokens {
            let (signed, signature) = token.rsplit_once('.').unwrap();
            let (_, claims) = signed.split_once('.').unwrap();
            assert!(!text.contains(claims), "the claims of a token in {name}");
            assert!(!text.contains(signature), "the signature of a token in {name}");
        }
        // The upstream's echo and the refused body are the client's; nothing of them is kept.
        assert!(!text.contains(ARGUMENT), "an argument in {name}");
    }
}

fn text_of<'w>(written: &'w [(String, String)], name: &str) -> &'w str {
    let found = written.iter().find(|(found, _)| found == name);
    found.map(|(_, text)| text.as_str()).unwrap_or_else(|| unreachable!("nothing wrote {name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_credential_is_written_nowhere() {
    let mut stack = with_api(builder("secrecy-header"), 0)
        .envoy(|envoy| {
            envoy.access_log = AccessLog::Full;
            envoy.connection_manager = json!({"access_log": access_log()});
        })
        .start()
        .await
        .unwrap();
    let secrets = cycle(&mut stack).await;
    let written = written(&stack).await;
    assert_none(&written, &secrets);

    // The cycle left its traces: otherwise nothing was searched.
    assert!(text_of(&written, "access.log").lines().count() > 15);
    assert!(text_of(&written, "access.log").contains("/mcp"));
    assert!(text_of(&written, "audit.jsonl").contains("secret_echoed"));
    assert!(text_of(&written, "audit.jsonl").contains("credential_unavailable"));
    assert!(text_of(&written, "keyward.err").lines().count() > 5);
    assert!(text_of(&written, "envoy.err").contains("[trace][wasm]"), "the filter did not log at trace level");
    assert!(text_of(&written, "/v1/bindings").contains("file://secrets/demo"));
    assert!(text_of(&written, "/metrics").contains("keyward_decisions_total"));
    assert!(text_of(&written, "Envoy's admin pages").contains("wasmcustom.keyward.redactions"));

    // And the search would have found it, in any log and in any form.
    for form in [stack.secret.clone(), stack.secret.bytes().map(|byte| format!("{byte:02x}")).collect()] {
        for (name, text) in &written {
            let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
            let (before, after) = text.split_at(middle);
            let found = Search::new(&stack.secret).find(format!("{before} {form} {after}").as_bytes());
            assert!(found.is_some(), "blind in {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_a_query_credential_with_envoys_own_log_format() {
    let mut stack = builder("secrecy-query")
        .slot(Slot::Query("apiKey".to_owned()))
        .envoy(|envoy| envoy.access_log = AccessLog::Default)
        .start()
        .await
        .unwrap();
    let secrets = cycle(&mut stack).await;
    let written = written(&stack).await;
    assert_none(&written, &secrets);
    assert!(text_of(&written, "access.log").contains("POST /mcp HTTP"), "{}", text_of(&written, "access.log"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_a_basic_password() {
    let mut stack = builder("secrecy-basic")
        .slot(Slot::Basic("svc".to_owned()))
        .envoy(|envoy| envoy.access_log = AccessLog::Full)
        .start()
        .await
        .unwrap();
    let secrets = cycle(&mut stack).await;
    assert_none(&written(&stack).await, &secrets);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_no_core_and_start_up_errors_no_secret() {
    let mut stack = builder("secrecy-core").start().await.unwrap();
    stack.call_tool("echo", json!({"message": "hello"})).await.unwrap().result().unwrap();
    let limits = fs::read_to_string(format!("/proc/{}/limits", stack.server.process.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    let allowed: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(allowed, ["0", "0"], "{core}");
    // Its environment, which may hold secrets, is closed to other processes of the same user.
    assert!(client::get(stack.server.admin, "/healthz").await.is_ok());
    stack.server.process.signal(Signal::ABORT).unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = stack.server.process.exit_status() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
    assert!(!status.core_dumped(), "{status}");

    // A server that cannot start says why, and no more.
    let good = fs::read_to_string(stack.folder.join("keyward.yaml")).unwrap();
    let misplaced = good.replace("file://secrets/demo", &format!("\"{}\"", stack.secret));
    stack.change_file("keyward.yaml", misplaced).unwrap();
    let config = stack.folder.join("keyward.yaml");
    for command in ["check-config", "serve", "bindings"] {
        let mut arguments = vec![command];
        if command == "bindings" {
            arguments.push("export");
        }
        arguments.extend(["--config", config.to_str().unwrap()]);
        let output = keyward_tests::server::Server::run(&arguments, &[]).unwrap();
        assert!(!output.status.success(), "{command}");
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.is_empty(), "{command}");
        assert_eq!(Search::new(&stack.secret).find(&said), None, "{command}: {}", String::from_utf8_lossy(&said));
    }
}
