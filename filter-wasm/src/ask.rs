//! What is asked of the server about a request, and the unary `Authorization/Check` that asks it.

use keyward_contract::check::{CONTRACT_VERSION, METHOD, SERVICE, extension};

use crate::configuration::{Configuration, Mode};
use crate::headers::HeaderList;
use crate::host;
use crate::wire::Message;

/// What the filter knows about a request besides its headers and its body.
#[derive(Default)]
pub(crate) struct Facts {
    /// 32 lower-case hex digits, unique per request.
    pub(crate) decision_id: String,
    /// The server entry of the route; empty where none is named.
    pub(crate) server: Vec<u8>,
    /// The Envoy cluster of the route.
    pub(crate) cluster: Vec<u8>,
    /// The peer's address, `IP:port`.
    pub(crate) source: Vec<u8>,
    /// The SHA-256 of the peer's certificate and its first URI name; empty where it has none.
    pub(crate) peer: (Vec<u8>, Vec<u8>),
}

// === impl Facts ===

impl Facts {
    /// Learns what the proxy knows, and the mode that the route names. False where the request cannot be decided on.
    pub(crate) fn learn(&mut self, configuration: &Configuration, mode: &mut Mode) -> bool {
        let Some(decision_id) = decision_id() else { return false };
        self.decision_id = decision_id;
        self.cluster = host::property("xds\0cluster_name").unwrap_or_default();
        self.source = host::property("source\0address").unwrap_or_default();
        if host::property("connection\0mtls").is_some_and(|mtls| mtls == [1]) {
            let certificate = |name: &str| host::property(&format!("connection\0{name}")).unwrap_or_default();
            self.peer = (certificate("sha256_peer_certificate_digest"), certificate("uri_san_peer_certificate"));
        }
        if let Some(server) = &configuration.server {
            self.server = server.clone().into_bytes();
            return true;
        }
        let of_route = |key: &str| host::property(&format!("xds\0route_metadata\0filter_metadata\0keyward\0{key}"));
        self.server = of_route("server").unwrap_or_default();
        if let Some(named) = of_route("mode") {
            // An unknown mode is read as MCP, the stricter one; the server knows the entry's true mode.
            *mode = if named == b"http" { Mode::Http } else { Mode::Mcp };
        }
        true
    }
}

/// A random decision id; `None` where the proxy has no randomness to give.
fn decision_id() -> Option<String> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).ok()?;
    let digit = |nibble: u8| HEX.get(usize::from(nibble)).map_or('0', |digit| char::from(*digit));
    Some(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}

/// The `CheckRequest` for a request.
pub(crate) fn check_request(headers: &HeaderList, facts: &Facts, body: &[u8]) -> Message {
    let pseudo = |name: &str| headers.first(name).unwrap_or_default();
    let mut http = Message::with_capacity(body.len() + 2048);
    http.text(1, pseudo("x-request-id")).text(2, pseudo(":method"));
    for name in headers.names() {
        http.entry(3, name, headers.joined(name).unwrap_or_default().as_bytes());
    }
    http.text(4, pseudo(":path")).text(5, pseudo(":authority")).text(6, pseudo(":scheme"));
    http.integer(9, body.len() as u64).bytes(12, body);

    let mut request = Message::with_capacity(http.as_bytes().len() + 8);
    request.message(2, &http);
    let mut attributes = Message::with_capacity(request.as_bytes().len() + 512);
    if let Some(source) = source(&facts.source) {
        attributes.message(1, &source);
    }
    attributes.message(4, &request);
    attributes.entry(10, extension::CONTRACT, CONTRACT_VERSION.as_bytes());
    attributes.entry(10, extension::DECISION_ID, facts.decision_id.as_bytes());
    attributes.entry(10, extension::CLUSTER, &facts.cluster);
    let (certificate, uri_san) = &facts.peer;
    for (key, value) in [
        (extension::SERVER, &facts.server),
        (extension::PEER_CERTIFICATE, certificate),
        (extension::PEER_URI_SAN, uri_san),
    ] {
        if !value.is_empty() {
            attributes.entry(10, key, value);
        }
    }
    let mut check = Message::with_capacity(attributes.as_bytes().len() + 8);
    check.message(1, &attributes);
    check
}

/// `AttributeContext.Peer` from `IP:port`.
fn source(address: &[u8]) -> Option<Message> {
    let text = std::str::from_utf8(address).ok()?;
    let (ip, port) = text.rsplit_once(':')?;
    let mut socket = Message::default();
    socket.text(2, ip.trim_matches(['[', ']']).as_bytes()).integer(3, port.parse().ok()?);
    let mut address = Message::default();
    address.message(1, &socket);
    let mut peer = Message::default();
    peer.message(1, &address);
    Some(peer)
}

/// Sends a unary Check; the answer comes to the effective context under the returned token.
///
/// The call is never cancelled, because the SDK would keep its token for ever: one that nobody waits for any more ends by
/// its timeout.
pub(crate) fn dispatch(configuration: &Configuration, check_request: &[u8]) -> host::Result<u32> {
    host::grpc_call(&configuration.cluster, SERVICE, METHOD, check_request, configuration.timeout())
}
