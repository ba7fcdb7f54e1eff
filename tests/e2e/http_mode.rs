//! An upstream that is no MCP server: destination, method class and canonical path decide.

use http::Method;
use keyward_contract::reason::Reason;
use keyward_tests::client::{Answer, Protocol, Request, RequestBody};
use keyward_tests::envoy::Route;
use keyward_tests::stack::{ROLE, Stack, UPSTREAM_AUTHORITY};
use serde_json::{Value, json};

use crate::search::Search;
use crate::{expect, scripted};

/// Allows the role to read and write below `/plain`, and nothing else.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "plain_http", "explanation": "a test"} if {
    input.operation.kind == "http"
    input.server.name == "api"
    input.http.class in {"read", "write", "delete"}
    "demo-user" in input.principal.roles
    not startswith(input.http.path, "/plain/forbidden")
}
"#;

async fn start(name: &str) -> Stack {
    let metadata = json!({"server": "api", "mode": "http"});
    let route = Route { prefix: "/plain".to_owned(), cluster: "demo_upstream".to_owned(), metadata };
    Stack::builder(name)
        .policy(POLICY)
        .envoy(|envoy| envoy.routes.push(route))
        .config(|config| {
            config["servers"]["api"] = json!({
                "mode": "http",
                "destinations": [{"host": "api.example", "path": "/plain", "methods": ["read", "write"]}],
                "upstream_authority": UPSTREAM_AUTHORITY,
                "cluster": "demo_upstream",
            });
            config["bindings"][0]["servers"] = json!(["demo", "api"]);
        })
        .start()
        .await
        .unwrap()
}

fn request(method: Method, path: &str) -> Request {
    Request::new(method, path).authority("api.example")
}

async fn send(stack: &Stack, request: Request) -> Answer {
    stack.upstream.reset().await.unwrap();
    stack.send(request).await.unwrap()
}

/// The answer is a plain denial, with a decision that is audited.
async fn denied(stack: &Stack, answer: &Answer, reason: Reason) -> Value {
    expect::plainly_denied(stack, answer, reason).await;
    let body = answer.json().unwrap();
    let decision = body["error"]["decision_id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(decision.len(), 32, "{body}");
    stack.server.decision(&decision).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn destination_method_and_path_decide() {
    let stack = start("http-mode").await;
    let mut post = request(Method::POST, "/plain/items");
    post.body = RequestBody::Whole("not JSON at all \u{0} {".into());
    for allowed in [request(Method::GET, "/plain"), request(Method::GET, "/plain/items?page=2&q=a%20b"), post] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let answer = send(&stack, allowed.clone().protocol(protocol)).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(stack.upstream.count().await.unwrap(), 1);
            let echo = answer.json().unwrap();
            assert_eq!(echo["method"], allowed.method.as_str());
            assert_eq!(Search::new(&stack.secret).find_in_answer(&answer), None);
            let last = stack.upstream.last().await.unwrap();
            let headers = last["headers"].to_string();
            assert!(headers.contains(&format!(r#"["x-api-key","{}"]"#, stack.secret)), "{last}");
            assert!(headers.contains(&format!(r#"["host","{UPSTREAM_AUTHORITY}"]"#)), "{last}");
            assert!(!headers.contains("authorization"), "{last}");
        }
    }
    let record = stack.server.audit_record(|record| record["decision"] == "allow").await.unwrap();
    assert_eq!(record["mode"], "http", "{record}");
    assert_eq!(record["server"], "api", "{record}");

    // Another host, another class of methods, or a path that is another one for somebody else.
    for host in ["other.example", "api.example.evil.example", "127.0.0.1", "a.api.example"] {
        let answer = send(&stack, request(Method::GET, "/plain").authority(host)).await;
        denied(&stack, &answer, Reason::DestinationDenied).await;
    }
    for method in [Method::DELETE, Method::OPTIONS, Method::TRACE, Method::from_bytes(b"PURGE").unwrap()] {
        let answer = send(&stack, request(method.clone(), "/plain/items")).await;
        println!("{method}: {} {}", answer.status, answer.text());
        if answer.status != 400 {
            denied(&stack, &answer, Reason::DestinationDenied).await;
        }
        assert_eq!(stack.upstream.count().await.unwrap(), 0, "{method}");
    }
    let paths = [
        "/plain/%2e%2e/mcp",
        "/plain/..%2fmcp",
        "/plain/a%2Fb",
        "/plain/a%5cb",
        "/plain/..;/x",
        "/plain/a%00b",
        "/plain/%252e%252e/x",
        "/plain/a%ffb",
        "/plain/%zz",
    ];
    for path in paths {
        stack.upstream.reset().await.unwrap();
        let Ok(answer) = stack.send(request(Method::GET, path)).await else { continue };
        println!("{path}: {} {}", answer.status, answer.text());
        assert!(answer.status.is_client_error(), "{path}: {} {}", answer.status, answer.text());
        assert_eq!(stack.upstream.count().await.unwrap(), 0, "{path}");
    }

    // A backslash is a slash to Envoy, and then to everybody behind it.
    let answer = send(&stack, request(Method::GET, "/plain\\items")).await;
    assert_eq!((answer.status.as_u16(), &answer.json().unwrap()["path"]), (200, &json!("/plain/items")));

    // What the policy denies, and who has no role or no token.
    let answer = send(&stack, request(Method::GET, "/plain/forbidden/x")).await;
    assert_eq!(denied(&stack, &answer, Reason::NotAllowed).await["stage"], "policy");
    let token = stack.token_for("bob", &["another-role"]).unwrap();
    let answer = stack.send_bare(request(Method::GET, "/plain").bearer(&token)).await.unwrap();
    denied(&stack, &answer, Reason::NotAllowed).await;
    let answer = stack.send_bare(request(Method::GET, "/plain")).await.unwrap();
    denied(&stack, &answer, Reason::Unauthenticated).await;
    assert!(answer.header("www-authenticate").starts_with("Bearer "));
    assert!(stack.token_for("carol", &[ROLE]).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_scrubbed_and_parts_never_asked_for() {
    let stack = start("http-mode-scrub").await;
    let search = Search::new(&stack.secret);
    for form in ["raw", "base64", "hex", "percent_all", "reversed", "html_hex", "quoted_printable_all"] {
        let answer = send(&stack, request(Method::GET, &format!("/plain?leak={form}&leak_header={form}"))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(search.find_in_answer(&answer), None, "{form}");
        assert_eq!(answer.header("content-length"), answer.body().len().to_string(), "{form}");
        assert!(answer.header("etag").starts_with("W/\""), "{form}: {:?}", answer.headers);
        assert!(answer.text().starts_with("received "), "{}", answer.text());
    }
    // A validator that the client got is one that it can use: weak comparison is up to the upstream.
    let answer = send(&stack, request(Method::HEAD, "/plain?leak=raw")).await;
    assert_eq!((answer.status.as_u16(), answer.body().len()), (200, 0));

    // The range never arrives, so the answer is whole.
    let ranged = request(Method::GET, "/plain?leak=raw").header("range", "bytes=0-20").header("if-range", "\"x\"");
    let answer = send(&stack, ranged).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(search.find_in_answer(&answer), None);
    let last = stack.upstream.last().await.unwrap();
    assert!(!last["headers"].to_string().contains("range"), "{last}");

    // Compressed: withheld, as a plain error.
    for coding in ["gzip", "br", "deflate"] {
        let answer = send(&stack, request(Method::GET, &format!("/plain?leak=raw&encoding={coding}"))).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert_eq!(answer.json().unwrap()["error"]["reason"], "response_withheld");
        assert_eq!(search.find_in_answer(&answer), None);
    }

    // A redirect is passed on, clean, and followed by nobody here.
    for status in ["301", "302", "303", "307", "308"] {
        let path = format!("/plain?redirect=https://elsewhere.example/next&with_secret=1&leak=base64&status={status}");
        let answer = send(&stack, request(Method::GET, &path)).await;
        assert_eq!(answer.status.as_str(), status);
        assert!(answer.header("location").starts_with("https://elsewhere.example/next?key="), "{:?}", answer.headers);
        assert_eq!(search.find_in_answer(&answer), None);
        assert_eq!(stack.upstream.count().await.unwrap(), 1);
    }

    // An error of the upstream is the upstream's.
    let answer = send(&stack, request(Method::GET, "/plain?leak=raw&status=500")).await;
    assert_eq!(answer.status, 500);
    assert_eq!(search.find_in_answer(&answer), None);
    // A large answer comes whole.
    let answer = send(&stack, request(Method::GET, "/plain?leak=raw&size_bytes=3000000")).await;
    assert_eq!(answer.body().len(), 3_000_000);
    assert!(!answer.text().contains(&stack.secret));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_status_line_or_in_a_header_s_name_does_not_come_back() {
    let upstream = scripted::start(|request| {
        let key = scripted::header(request, "x-api-key");
        let name: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        let headers =
            format!("x-{name}: 1\r\nx-twice: {key}\r\nx-twice: clean\r\nx-twice: {key}\r\ncontent-md5: abcd\r\n");
        scripted::response(&format!("200 {key}"), &headers, b"clean")
    })
    .await;
    // Letters and digits only: no other secret could be a header's name.
    let builder = Stack::builder("http-mode-headers")
        .secret("marked0secret0value0in0a0name")
        .policy(&POLICY.replace("api", "scripted"));
    let stack = scripted::route(builder, upstream, "http").start().await.unwrap();
    let answer = stack.send(Request::new(Method::GET, scripted::PATH)).await.unwrap();
    assert_eq!(answer.text(), "clean");
    assert_eq!(Search::new(&stack.secret).find_in_answer(&answer), None, "{:?}", answer.headers);
    assert_eq!(answer.headers.get_all("x-twice").iter().count(), 3, "{:?}", answer.headers);
    assert!(answer.headers.get("content-md5").is_none());
}
