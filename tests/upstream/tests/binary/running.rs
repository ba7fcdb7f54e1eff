//! A running upstream, and a client that shows each byte and each read of an answer.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The key of every upstream here.
pub(crate) const KEY: &str = r#"Kw7/+="\&9zQ??>-Tail"#;
const WITHIN: Duration = Duration::from_secs(60);

/// A started upstream; it is killed when dropped.
pub(crate) struct Upstream {
    pub(crate) child: Child,
    pub(crate) mcp: String,
    pub(crate) report: String,
}

/// One answer as it came.
pub(crate) struct Answer {
    pub(crate) status_line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// When each read came, and what it brought.
    pub(crate) reads: Vec<(Instant, Vec<u8>)>,
}

/// A request to send.
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

// === impl Upstream ===

impl Upstream {
    pub(crate) async fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_keyward-demo-upstream"))
            .args(["--api-key-env", "UPSTREAM_KEY", "--exit-with-stdin"])
            .args(arguments)
            .env("UPSTREAM_KEY", KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        let addresses: Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().to_owned();
        Self { child, mcp: address("mcp"), report: address("report") }
    }

    pub(crate) async fn send(&self, call: Call) -> Answer {
        exchange(&self.mcp, call).await
    }

    /// Calls a tool in the revision 2026-07-28.
    pub(crate) async fn tool(&self, name: &str, arguments: Value) -> Answer {
        self.send(Call::tool(name, arguments)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Call::new("GET", path).with("x-api-key", KEY)).await
    }

    pub(crate) async fn report(&self, path: &str) -> Value {
        exchange(&self.report, Call::new("GET", path)).await.json()
    }
}

// === impl Call ===

impl Call {
    pub(crate) fn new(method: &'static str, path: &str) -> Self {
        Self { method, path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A POST to the MCP endpoint.
    pub(crate) fn post(body: &Value) -> Self {
        let mut call = Self::new("POST", "/mcp")
            .with("content-type", "application/json")
            .with("accept", "application/json, text/event-stream")
            .with("x-api-key", KEY);
        call.body = body.to_string();
        call
    }

    /// A call of a tool in the revision 2026-07-28.
    pub(crate) fn tool(name: &str, arguments: Value) -> Self {
        let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {
            "name": name, "arguments": arguments, "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            },
        }});
        Self::post(&body)
            .with("mcp-protocol-version", "2026-07-28")
            .with("mcp-method", "tools/call")
            .with("mcp-name", name)
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.status_line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The JSON-RPC messages of the answer, packed either way.
    pub(crate) fn messages(&self) -> Vec<Value> {
        if self.header("content-type") != Some("text/event-stream") {
            return vec![self.json()];
        }
        let text = self.text();
        let data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
        data.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// The last message.
    pub(crate) fn message(&self) -> Value {
        self.messages().pop().unwrap()
    }
}

/// Sends a request over HTTP/1.1 on a connection of its own and reads to its end.
pub(crate) async fn exchange(address: &str, call: Call) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", call.method, call.path);
    if !call.headers.iter().any(|(name, _)| name == "host") {
        head.push_str(&format!("host: {address}\r\n"));
    }
    for (name, value) in &call.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n{}", call.body.len(), call.body));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut reads = Vec::new();
    loop {
        let mut piece = vec![0; 65_536];
        let bytes = tokio::time::timeout(WITHIN, stream.read(&mut piece)).await.unwrap().unwrap();
        if bytes == 0 {
            break;
        }
        piece.truncate(bytes);
        reads.push((Instant::now(), piece));
    }
    parsed(reads)
}

fn parsed(reads: Vec<(Instant, Vec<u8>)>) -> Answer {
    let all: Vec<u8> = reads.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let (status_line, headers) = head.split_once("\r\n").unwrap();
    let headers = listed(headers);
    let rest = &all[end + 4..];
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let (body, trailers) = if chunked { dechunked(rest) } else { (rest.to_vec(), Vec::new()) };
    Answer { status_line: status_line.to_owned(), headers, body, trailers, reads }
}

fn dechunked(mut rest: &[u8]) -> (Vec<u8>, Vec<(String, String)>) {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        rest = &rest[line + 2..];
        if length == 0 {
            return (body, listed(&String::from_utf8_lossy(rest)));
        }
        body.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
}

fn listed(lines: &str) -> Vec<(String, String)> {
    let pairs = lines.split("\r\n").filter_map(|line| line.split_once(": "));
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}
