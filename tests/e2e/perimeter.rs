//! Nobody is led to an address that is not meant for agents: literals in every spelling, names that resolve inside, and
//! names that change their mind.

mod outbound;
mod resolver;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use keyward_contract::reason::Reason;
use keyward_tests::client::{Answer, Request};
use keyward_tests::envoy::{Egress, Route};
use keyward_tests::stack::{Builder, Stack};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::expect;
use resolver::Resolver;

/// Allows everything, so that only the perimeter refuses.
const POLICY: &str = r#"package keyward

decision := {"allow": true, "rule": "all", "explanation": "a test"}
"#;

/// Spellings of addresses inside, among them the metadata endpoint: what must not be taken for another host.
const SPELLINGS: [&str; 26] = [
    "127.0.0.1.",
    "127.1",
    "2130706433",
    "017700000001",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.0.0.01",
    "0",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "2852039166",
    "0xA9FEA9FE",
    "169.254.43518",
    "100.100.100.200",
    "[::1]",
    "[::]",
    "[::ffff:169.254.169.254]",
    "[::ffff:7f00:1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:a9fe:a9fe::1]",
    "[fd00:ec2::254]",
    "%31%32%37.0.0.1",
    "metadata.google.internal",
    "localhost.localdomain",
];

/// An upstream that counts its requests, on this address of the machine.
async fn counting(address: Ipv4Addr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let (bound, count) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut request = vec![0; 16 * 1024];
                while stream.read(&mut request).await.is_ok_and(|count| count > 0) {
                    counter.fetch_add(1, Ordering::AcqRel);
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nreached";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (bound, count)
}

/// A listener on this port of this address that counts its connections and answers none; port 0 is a free one.
async fn trap(address: Ipv4Addr, port: u16) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind((address, port)).await.unwrap();
    let (bound, count) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            counter.fetch_add(1, Ordering::AcqRel);
        }
    });
    (bound, count)
}

/// A stack whose Envoy resolves names by itself; Keyward admits every host below `test`, and every name at all that a
/// wildcard can name below `internal`.
fn egress(name: &str, egress: Egress) -> Builder {
    Stack::builder(name)
        .policy(POLICY)
        .envoy(|envoy| {
            envoy.egress = Some(egress);
            envoy.route_metadata = vec![("server".to_owned(), json!("vendor")), ("mode".to_owned(), json!("http"))];
        })
        .config(|config| {
            config["servers"]["vendor"] = json!({
                "mode": "http", "destinations": [{"host": "*.test"}, {"host": "*.internal"}], "cluster": "egress",
            });
            config["bindings"][0]["servers"] = json!(["demo", "vendor"]);
            config["bindings"][0]["hosts"] = json!(["*.test", "*.internal"]);
        })
}

fn get(authority: &str) -> Request {
    Request::new(Method::GET, "/").authority(authority)
}

/// Refused by Envoy's address check, in its own words.
fn assert_refused_by_address(answer: &Answer) {
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert!(answer.text().contains("RBAC"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_an_address_inside_is_a_destination() {
    let stack = Stack::builder("perimeter-spellings")
        .policy(POLICY)
        .envoy(|envoy| {
            let metadata = json!({"server": "api", "mode": "http"});
            envoy.routes.push(Route { prefix: "/plain".to_owned(), cluster: "demo_upstream".to_owned(), metadata });
        })
        .config(|config| {
            // Wildcards as wide as they can be, and no fixed authority: what the agent names is where it goes.
            config["servers"]["api"] = json!({
                "mode": "http", "cluster": "demo_upstream",
                "destinations": [{"host": "*.internal"}, {"host": "*.example"}],
            });
            config["bindings"][0]["servers"] = json!(["demo", "api"]);
            config["bindings"][0]["hosts"] = json!(["*.internal", "*.example"]);
            // A secret that is not there: a denial that read it would say so.
            config["bindings"][0]["credentials"][0]["secret"]["ref"] = json!("file://secrets/absent");
        })
        .start()
        .await
        .unwrap();
    let mut plain = Request::new(Method::GET, "/plain");
    for spelling in SPELLINGS {
        for authority in [spelling.to_owned(), format!("{spelling}:80")] {
            plain.authority = Some(authority.clone());
            let answer = match stack.send(plain.clone()).await {
                Ok(answer) => answer,
                Err(error) => panic!("{authority}: {error:#}"),
            };
            assert_eq!(stack.upstream.count().await.unwrap(), 0, "{authority}");
            // Envoy itself refuses what is no authority at all.
            if answer.status != 400 {
                expect::plainly_denied(&stack, &answer, Reason::DestinationDenied).await;
            }
        }
    }
    // The same request to a host that is registered gets as far as its secret: the order of the two is that way round.
    let answer = stack.send(plain.authority("vault.internal")).await.unwrap();
    expect::plainly_denied(&stack, &answer, Reason::CredentialUnavailable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_inside_is_refused_by_envoy() {
    let (inside, reached) = trap(Ipv4Addr::LOCALHOST, 0).await;
    let (allowed, allowed_count) = counting(Ipv4Addr::new(127, 0, 0, 3)).await;
    let resolver = Resolver::start().await;
    resolver.answer("inside.test", &[&["127.0.0.1"]]);
    resolver.answer("metadata.test", &[&["169.254.169.254"]]);
    resolver.answer("private.test", &[&["10.0.0.1"]]);
    resolver.answer("allowed.test", &[&["127.0.0.3"]]);
    let mut change = Egress::new(resolver.address);
    change.inside = vec![IpAddr::from([127, 0, 0, 3])];
    let stack = egress("perimeter-egress", change).start().await.unwrap();
    for name in ["inside.test", "metadata.test", "private.test"] {
        let answer = stack.send(get(&format!("{name}:{}", inside.port()))).await.unwrap();
        assert_refused_by_address(&answer);
    }
    let answer = stack.send(get(&format!("allowed.test:{}", allowed.port()))).await.unwrap();
    assert_eq!(answer.text(), "reached");
    assert_eq!(reached.load(Ordering::Acquire), 0);
    assert_eq!(allowed_count.load(Ordering::Acquire), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_addresses_none_inside_is_ever_tried() {
    // One port on all of them; nobody listens on the address that may be reached, so that Envoy looks for another.
    let (inside, reached) = trap(Ipv4Addr::LOCALHOST, 0).await;
    let (alive, alive_count) = counting(Ipv4Addr::new(127, 0, 0, 6)).await;
    let resolver = Resolver::start().await;
    resolver.answer("dead-first.test", &[&["127.0.0.5", "127.0.0.1"]]);
    resolver.answer("inside-first.test", &[&["127.0.0.1", "127.0.0.5"]]);
    resolver.answer("between.test", &[&["127.0.0.5", "127.0.0.1", "10.0.0.1"]]);
    resolver.answer("allowed.test", &[&["127.0.0.5", "127.0.0.6"]]);
    let mut change = Egress::new(resolver.address);
    change.inside = vec![IpAddr::from([127, 0, 0, 5]), IpAddr::from([127, 0, 0, 6])];
    let stack = egress("perimeter-several", change).start().await.unwrap();
    for name in ["dead-first.test", "inside-first.test", "between.test"] {
        let mut refused = 0;
        for _ in 0..12 {
            let answer = stack.send(get(&format!("{name}:{}", inside.port()))).await.unwrap();
            assert!([403, 503].contains(&answer.status.as_u16()), "{name}: {} {}", answer.status, answer.text());
            refused += u32::from(answer.status == 403);
            assert_eq!(reached.load(Ordering::Acquire), 0, "{name}: a connection went inside");
        }
        // The address inside was met, and not only the dead one.
        assert!(refused > 0, "{name}");
    }
    // An address that is dead costs nothing where another one may be reached.
    for _ in 0..4 {
        let answer = stack.send(get(&format!("allowed.test:{}", alive.port()))).await.unwrap();
        assert_eq!(answer.text(), "reached");
    }
    assert_eq!(alive_count.load(Ordering::Acquire), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_its_address_is_refused_from_then_on() {
    // One port on both addresses, so that only the address differs.
    let (allowed, allowed_count) = counting(Ipv4Addr::new(127, 0, 0, 4)).await;
    let (_, trapped) = trap(Ipv4Addr::LOCALHOST, allowed.port()).await;
    let resolver = Resolver::start().await;
    resolver.answer("rebind.test", &[&["127.0.0.4"], &["127.0.0.1"]]);
    let mut change = Egress::new(resolver.address);
    change.inside = vec![IpAddr::from([127, 0, 0, 4])];
    let stack = egress("perimeter-rebinding", change).start().await.unwrap();
    let authority = format!("rebind.test:{}", allowed.port());
    let started = std::time::Instant::now();
    let mut refused = 0;
    // The answer changes under load; each request goes to the first address or nowhere.
    while refused < 20 {
        let answer: Answer = stack.send(get(&authority)).await.unwrap();
        if answer.status == 200 {
            assert_eq!(answer.text(), "reached");
            assert_eq!(refused, 0, "an address that was refused came back");
        } else {
            assert_refused_by_address(&answer);
            refused += 1;
        }
        assert_eq!(trapped.load(Ordering::Acquire), 0, "a request went to the second address");
        assert!(started.elapsed().as_secs() < 60, "the resolver was never asked again");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(allowed_count.load(Ordering::Acquire) > 0);
}

/// A change of a configuration.
type Change = fn(&mut Value);

#[tokio::test(flavor = "multi_thread")]
async fn a_public_server_is_an_explicit_choice() {
    const PUBLIC: &str = "mcp.example.com:9000";
    let mut stack = Stack::builder("perimeter-public")
        .upstream(|upstream| PUBLIC.clone_into(&mut upstream.authority))
        .config(|config| {
            config["servers"]["demo"]["upstream_authority"] = json!(PUBLIC);
            config["servers"]["demo"]["perimeter"] = json!("public");
            config["perimeter"] = json!({"public_hosts": [PUBLIC]});
            config["bindings"][0]["hosts"] = json!([PUBLIC]);
        })
        .start()
        .await
        .unwrap();
    let answer = stack.call_tool("echo", json!({"message": "hello"})).await.unwrap();
    assert_eq!(expect::allowed(&stack, &answer).await, "hello");
    // Without the choice the configuration is refused, and the one before it stays in force.
    let takes: [(Change, &str); 2] = [
        (
            |config| config["servers"]["demo"]["perimeter"] = json!("enterprise"),
            "is not known to lie inside the perimeter",
        ),
        (
            |config| config["perimeter"]["public_hosts"] = json!(["other.example.com"]),
            "is not one of `perimeter.public_hosts`",
        ),
    ];
    for (take, expected) in takes {
        let before = stack.config().clone();
        stack.change_config(take).unwrap();
        let refused = |record: &Value| record["event"] == "config_refused" && record.to_string().contains(expected);
        stack.server.audit_record(refused).await.unwrap();
        stack.change_config(|config| *config = before).unwrap();
    }
}
