//! A stand-in for the proxy: the host calls the filter makes, answered from a table and written down.
#![expect(unsafe_code, reason = "the proxy's ABI is a set of C functions")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use keyward_contract::check::CheckRequest;
use keyward_contract::decisions::Question;
use prost::Message;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, MapType};

use crate::configuration::Configuration;
use crate::exchange::Exchange;
use crate::gateway::Shared;
use crate::headers::serialize;
use crate::line::Line;
use crate::revocations::Revocations;
use crate::statistics::Statistics;
use crate::watch::Watch;

/// An answer the filter gave by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u32,
    pub(super) body: String,
}

/// What the proxy would hold and has been told.
#[derive(Default)]
pub(super) struct Proxy {
    pub(super) headers: BTreeMap<u32, Vec<(String, Vec<u8>)>>,
    pub(super) buffers: BTreeMap<u32, Vec<u8>>,
    pub(super) properties: BTreeMap<String, Vec<u8>>,
    pub(super) calls: Vec<(String, Vec<u8>)>,
    pub(super) questions: Vec<Question>,
    pub(super) answers: Vec<Answer>,
    pub(super) resumed: usize,
    pub(super) reset: usize,
    pub(super) cluster_missing: bool,
}

thread_local! {
    pub(super) static PROXY: RefCell<Proxy> = RefCell::default();
    /// The SDK keeps its table of tokens for the life of the thread, so tokens are never given twice.
    static LAST_TOKEN: Cell<u32> = const { Cell::new(0) };
}

/// One request context and the proxy around it.
pub(super) struct Bench {
    pub(super) exchange: Exchange,
    pub(super) shared: Rc<Shared>,
}

pub(super) const TOOL_CALL: &str =
    r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"message":"hi"}}}"#;

/// The headers of a tool call of revision 2025-11-25.
pub(super) const HEADERS: [(&str, &str); 7] = [
    (":method", "POST"),
    (":path", "/mcp"),
    (":authority", "mcp.example"),
    ("content-type", "application/json"),
    ("accept", "application/json, text/event-stream"),
    ("mcp-protocol-version", "2025-11-25"),
    ("authorization", "Bearer token"),
];

// === impl Bench ===

impl Bench {
    pub(super) fn new(configuration: &str) -> Bench {
        PROXY.with_borrow_mut(|proxy| *proxy = Proxy::default());
        let shared = Rc::new(Shared {
            revocations: Revocations::new(std::time::Duration::from_secs(600)),
            configuration: Configuration::parse(configuration.as_bytes()).unwrap(),
            statistics: Statistics::define(),
            watch: Watch::default(),
            line: Line::new(1),
            body_seen: false.into(),
            reports_left: 32.into(),
        });
        Bench { exchange: Exchange::new(2, Some(Rc::clone(&shared))), shared }
    }

    /// Sends the headers; extra ones after the usual.
    pub(super) fn headers(&mut self, extra: &[(&str, &str)], end: bool) -> Action {
        let all = HEADERS.iter().filter(|(name, _)| !extra.iter().any(|(other, _)| other == name)).chain(extra);
        set_headers(MapType::HttpRequestHeaders, &all.copied().collect::<Vec<_>>());
        self.exchange.on_http_request_headers(0, end)
    }

    /// Sends the whole body at once.
    pub(super) fn body(&mut self, body: &str) -> Action {
        PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(BufferType::HttpRequestBody as u32, body.into()));
        self.exchange.on_http_request_body(body.len(), true)
    }

    /// The server answers the call under way.
    pub(super) fn decide(&mut self, answer: &[u8]) {
        PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(BufferType::GrpcReceiveBuffer as u32, answer.into()));
        self.exchange.on_grpc_call_response(last_token(), 0, answer.len());
    }
}

/// The Checks that were sent.
pub(super) fn checks() -> Vec<CheckRequest> {
    PROXY.with_borrow(|proxy| {
        let checks = proxy.calls.iter().filter(|(method, _)| method == "Check");
        checks.map(|(_, message)| CheckRequest::decode(message.as_slice()).unwrap()).collect()
    })
}

/// The token of the latest call.
pub(super) fn last_token() -> u32 {
    LAST_TOKEN.get()
}

pub(super) fn set_headers(kind: MapType, headers: &[(&str, &str)]) {
    let owned = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    PROXY.with_borrow_mut(|proxy| proxy.headers.insert(kind as u32, owned));
}

/// All values of a header as it stands now.
pub(super) fn header(kind: MapType, name: &str) -> Vec<String> {
    PROXY.with_borrow(|proxy| {
        let all = proxy.headers.get(&(kind as u32)).cloned().unwrap_or_default();
        let values = all.into_iter().filter(|(other, _)| other == name);
        values.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect()
    })
}

pub(super) fn read<T>(look: impl FnOnce(&Proxy) -> T) -> T {
    PROXY.with_borrow(|proxy| look(proxy))
}

unsafe fn slice<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if data.is_null() {
        return &[];
    }
    // SAFETY: the filter passes a pointer and the length of what it points to.
    unsafe { std::slice::from_raw_parts(data, size) }
}

unsafe fn text(data: *const u8, size: usize) -> String {
    // SAFETY: as above.
    String::from_utf8_lossy(unsafe { slice(data, size) }).into_owned()
}

unsafe fn give(content: &[u8], data: *mut *mut u8, size: *mut usize) {
    let leaked = Box::leak(content.to_vec().into_boxed_slice());
    // SAFETY: both are out-pointers of the filter, valid for the call.
    unsafe {
        *size = leaked.len();
        *data = leaked.as_mut_ptr();
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_log(_level: u32, _message: *const u8, _size: usize) -> u32 {
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_log_level(level: *mut u32) -> u32 {
    // SAFETY: an out-pointer of the filter's.
    unsafe { *level = 2 };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_buffer_bytes(
    kind: u32,
    start: usize,
    max: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    PROXY.with_borrow(|proxy| match proxy.buffers.get(&kind) {
        Some(buffer) => {
            let from = start.min(buffer.len());
            let to = start.saturating_add(max).min(buffer.len());
            // SAFETY: out-pointers of the filter.
            unsafe { give(&buffer[from..to], data, size) };
            0
        }
        None => 1,
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_buffer_bytes(
    kind: u32,
    _start: usize,
    _size: usize,
    data: *const u8,
    len: usize,
) -> u32 {
    // SAFETY: a slice of the filter's.
    let content = unsafe { slice(data, len) }.to_vec();
    PROXY.with_borrow_mut(|proxy| proxy.buffers.insert(kind, content));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_header_map_pairs(kind: u32, data: *mut *mut u8, size: *mut usize) -> u32 {
    PROXY.with_borrow(|proxy| {
        let headers = proxy.headers.get(&kind).cloned().unwrap_or_default();
        let pairs: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        // SAFETY: out-pointers of the filter.
        unsafe { give(&serialize(&pairs), data, size) };
    });
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_replace_header_map_value(
    kind: u32,
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    // SAFETY: slices of the filter's.
    unsafe {
        proxy_remove_header_map_value(kind, key, key_size);
        proxy_add_header_map_value(kind, key, key_size, value, value_size)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_add_header_map_value(
    kind: u32,
    key: *const u8,
    key_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    // SAFETY: slices of the filter's.
    let (name, value) = unsafe { (text(key, key_size), slice(value, value_size).to_vec()) };
    PROXY.with_borrow_mut(|proxy| proxy.headers.entry(kind).or_default().push((name, value)));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_remove_header_map_value(kind: u32, key: *const u8, key_size: usize) -> u32 {
    // SAFETY: a slice of the filter's.
    let name = unsafe { text(key, key_size) };
    PROXY.with_borrow_mut(|proxy| proxy.headers.entry(kind).or_default().retain(|(other, _)| *other != name));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    // SAFETY: a slice of the filter's.
    let path = unsafe { text(path, path_size) };
    PROXY.with_borrow(|proxy| match proxy.properties.get(&path) {
        Some(value) => {
            // SAFETY: out-pointers of the filter.
            unsafe { give(value, data, size) };
            0
        }
        None => 1,
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_continue_stream(_stream: u32) -> u32 {
    PROXY.with_borrow_mut(|proxy| proxy.resumed += 1);
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_close_stream(_stream: u32) -> u32 {
    PROXY.with_borrow_mut(|proxy| proxy.reset += 1);
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_send_local_response(
    status: u32,
    _details: *const u8,
    _details_size: usize,
    body: *const u8,
    body_size: usize,
    _headers: *const u8,
    _headers_size: usize,
    _grpc_status: i32,
) -> u32 {
    // SAFETY: a slice of the filter's.
    let body = unsafe { text(body, body_size) };
    PROXY.with_borrow_mut(|proxy| proxy.answers.push(Answer { status, body }));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_grpc_call(
    _upstream: *const u8,
    _upstream_size: usize,
    _service: *const u8,
    _service_size: usize,
    method: *const u8,
    method_size: usize,
    _metadata: *const u8,
    _metadata_size: usize,
    message: *const u8,
    message_size: usize,
    _timeout_ms: u32,
    token: *mut u32,
) -> u32 {
    PROXY.with_borrow_mut(|proxy| {
        if proxy.cluster_missing {
            return 10;
        }
        // SAFETY: slices and an out-pointer of the filter's.
        unsafe {
            proxy.calls.push((text(method, method_size), slice(message, message_size).to_vec()));
            LAST_TOKEN.set(last_token() + 1);
            *token = last_token();
        }
        0
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_grpc_stream(
    _upstream: *const u8,
    _upstream_size: usize,
    _service: *const u8,
    _service_size: usize,
    _method: *const u8,
    _method_size: usize,
    _metadata: *const u8,
    _metadata_size: usize,
    token: *mut u32,
) -> u32 {
    LAST_TOKEN.set(last_token() + 1);
    // SAFETY: an out-pointer of the filter's.
    unsafe { *token = last_token() };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_grpc_send(_token: u32, message: *const u8, size: usize, _end: u32) -> u32 {
    // SAFETY: a slice of the filter's.
    let message = unsafe { slice(message, size) }.to_vec();
    PROXY.with_borrow_mut(|proxy| proxy.questions.push(Question::decode(message.as_slice()).unwrap()));
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_effective_context(_context: u32) -> u32 {
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_tick_period_milliseconds(_period: u32) -> u32 {
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_define_metric(kind: u32, _name: *const u8, _size: usize, id: *mut u32) -> u32 {
    // SAFETY: an out-pointer of the filter's.
    unsafe { *id = kind };
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_increment_metric(_id: u32, _offset: i64) -> u32 {
    0
}
