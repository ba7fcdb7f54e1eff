//! What the containers promise: the demo's own steps, nothing published but Envoy, and processes that may do nothing else.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Containers, SERVICES};
use crate::agent::tool_call;
use crate::client::{Answer, Request};

const SOON: Duration = Duration::from_secs(2);

pub(super) async fn run(containers: &Containers, mut say: impl FnMut(&str)) -> Result<()> {
    denied_without_token(containers).await.context("without a token")?;
    say("without a token: 401, and the upstream saw nothing");
    allowed_with_token(containers).await.context("with a token")?;
    say("with a token: the tool answered, and the upstream got the key");
    denied_outside_the_policy(containers).await.context("a tool outside the policy")?;
    say("a tool outside the policy: denied, and the upstream saw nothing");
    no_trace_for_the_agent(containers).await.context("a tool that leaks the key")?;
    say("a tool that leaks the key: the agent got no trace of it");
    only_envoy_is_published(containers).await.context("ports")?;
    say("only Envoy is published, on loopback; the server and the upstream cannot be reached");
    for service in SERVICES {
        confined(containers, service).with_context(|| format!("the container of `{service}`"))?;
    }
    say("every process: no root, no capabilities, read-only files, no core dumps, bounded memory");
    kept_secret(containers).context("what the containers wrote")?;
    say("no log, audit record or container setting holds the key");
    Ok(())
}

// === the demo's steps ===

async fn denied_without_token(containers: &Containers) -> Result<()> {
    let before = containers.count()?;
    let answer = containers.send(tool_call(1, "echo", json!({"message": "hello"}))).await?;
    ensure!(answer.status == 401, "{} instead of 401: `{}`", answer.status, answer.text());
    let challenge = answer.header("www-authenticate");
    ensure!(challenge.starts_with("Bearer"), "the challenge is `{challenge}`");
    unseen(containers, before)
}

async fn allowed_with_token(containers: &Containers) -> Result<()> {
    let answer = call(containers, 2, "echo", json!({"message": "hello from a container"})).await?;
    let result = answer.result()?.to_string();
    ensure!(result.contains("hello from a container"), "the tool answered `{result}`");
    let last = containers.last()?.to_string();
    ensure!(last.contains(&containers.secret), "the upstream did not get the key");
    ensure!(!last.contains(&containers.token), "the upstream got the agent's token");
    without_trace(containers, &answer)
}

async fn denied_outside_the_policy(containers: &Containers) -> Result<()> {
    let before = containers.count()?;
    let answer = call(containers, 3, "delete_everything", json!({})).await?;
    let response = answer.response()?;
    ensure!(answer.status == 200, "{} instead of 200", answer.status);
    ensure!(response["id"] == 3 && response["error"]["data"]["reason"] == "not_allowed", "the answer is `{response}`");
    unseen(containers, before)
}

async fn no_trace_for_the_agent(containers: &Containers) -> Result<()> {
    let before = containers.count()?;
    for (id, form) in [(4, "raw"), (5, "base64")] {
        let answer = call(containers, id, "leak", json!({"carrier": "text", "form": form})).await?;
        answer.result()?;
        without_trace(containers, &answer)?;
    }
    ensure!(containers.count()? > before, "the tool was not called");
    Ok(())
}

async fn call(containers: &Containers, id: u32, tool: &str, arguments: Value) -> Result<Answer> {
    containers.send(tool_call(id, tool, arguments).bearer(&containers.token)).await
}

fn without_trace(containers: &Containers, answer: &Answer) -> Result<()> {
    let all = String::from_utf8_lossy(&answer.everything()).into_owned();
    for form in forms(&containers.secret) {
        ensure!(!all.contains(&form), "the agent received the key");
    }
    Ok(())
}

/// The forms that nothing here may show; the end-to-end tests of scrubbing know all.
fn forms(secret: &str) -> [String; 3] {
    let hex = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    // Without the last characters, which depend on what follows.
    let base64 = STANDARD.encode(secret).trim_end_matches('=').chars().collect::<String>();
    [secret.to_owned(), hex, base64.get(..base64.len().saturating_sub(2)).unwrap_or_default().to_owned()]
}

fn unseen(containers: &Containers, before: u64) -> Result<()> {
    let now = containers.count()?;
    ensure!(now == before, "the upstream received {} requests", now.saturating_sub(before));
    Ok(())
}

// === the network ===

async fn only_envoy_is_published(containers: &Containers) -> Result<()> {
    ensure!(containers.agents.ip().is_loopback(), "Envoy is published at {}", containers.agents);
    let before = containers.count()?;
    for service in SERVICES {
        let facts = containers.inspect(service)?;
        let published = published_ports(&facts);
        match service {
            "envoy" => ensure!(
                matches!(published.as_slice(), [address] if address.starts_with("127.")),
                "envoy: {published:?}"
            ),
            _ => ensure!(published.is_empty(), "`{service}` is published at {published:?}"),
        }
        for address in addresses(&facts) {
            unreachable(service, address).await?;
        }
    }
    let keyward = containers.inspect("keyward")?;
    ensure!(keyward["HostConfig"]["NetworkMode"] == "none", "the server has a network");
    unseen(containers, before).context("from the host")
}

/// Makes sure that nothing but Envoy's listener answers at a container's own address. A machine may route unknown
/// addresses to a gateway that accepts any connection, so a connection alone proves nothing: the answer does.
async fn unreachable(service: &str, address: IpAddr) -> Result<()> {
    for (port, path) in [(9000, "/mcp"), (9001, "/count"), (9191, "/"), (9192, "/readyz"), (9901, "/ready")] {
        let address = SocketAddr::new(address, port);
        if TcpStream::connect_timeout(&address, SOON).is_err() {
            continue;
        }
        let mut request = Request::new(http::Method::GET, path);
        request.limit = SOON;
        let Ok(answer) = request.send(address).await else { continue };
        let text = answer.text();
        let ours = ["LIVE", "\"ready\"", "\"received\"", "jsonrpc"].iter().any(|word| text.contains(word));
        ensure!(!ours, "`{service}` answers the host at {address}");
    }
    Ok(())
}

fn published_ports(facts: &Value) -> Vec<String> {
    let ports = facts["NetworkSettings"]["Ports"].as_object();
    let bindings = ports.into_iter().flatten().filter_map(|(_, bindings)| bindings.as_array()).flatten();
    bindings.map(|binding| binding["HostIp"].as_str().unwrap_or_default().to_owned()).collect()
}

fn addresses(facts: &Value) -> Vec<IpAddr> {
    let networks = facts["NetworkSettings"]["Networks"].as_object();
    let texts = networks.into_iter().flatten().filter_map(|(_, network)| network["IPAddress"].as_str());
    texts.filter_map(|text| text.parse().ok()).collect()
}

// === the processes ===

/// Looks at the process itself, not at what was asked for.
fn confined(containers: &Containers, service: &str) -> Result<()> {
    let status = containers.project.compose(&["exec", "-T", service, "cat", "/proc/1/status", "/proc/1/limits"])?;
    let line = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name));
        found.map(str::trim).with_context(|| format!("`{name}` is missing"))
    };
    for ids in ["Uid:", "Gid:"] {
        ensure!(line(ids)?.split_whitespace().all(|id| id != "0"), "it runs as root: {ids} {}", line(ids)?);
    }
    for capabilities in ["CapPrm:", "CapEff:", "CapBnd:"] {
        ensure!(line(capabilities)?.bytes().all(|digit| digit == b'0'), "{capabilities} {}", line(capabilities)?);
    }
    ensure!(line("NoNewPrivs:")? == "1", "it may gain privileges");
    ensure!(line("Max core file size")?.starts_with("0 "), "it may dump core");

    let facts = containers.inspect(service)?;
    let host = &facts["HostConfig"];
    ensure!(host["ReadonlyRootfs"] == true, "its files can be written");
    ensure!(host["Privileged"] == false, "it is privileged");
    for limit in ["Memory", "NanoCpus", "PidsLimit"] {
        ensure!(host[limit].as_i64().is_some_and(|limit| limit > 0), "it has no limit on {limit}");
    }
    Ok(())
}

fn kept_secret(containers: &Containers) -> Result<()> {
    let audit = containers.audit()?;
    ensure!(audit.lines().count() >= 4, "the audit file has {} records", audit.lines().count());
    let mut places = vec![("the audit file", audit), ("the logs", containers.logs()?)];
    places.push(("Envoy's configuration", containers.page("envoy", 9901, "/config_dump")?));
    for service in SERVICES {
        places.push((service, containers.inspect(service)?.to_string()));
    }
    for (place, text) in places {
        for form in forms(&containers.secret) {
            ensure!(!text.contains(&form), "{place} shows the key");
        }
        ensure!(!text.contains(&containers.token), "{place} shows the agent's token");
    }
    Ok(())
}
