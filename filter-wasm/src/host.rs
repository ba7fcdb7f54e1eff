//! The only place that talks to the proxy: the Proxy-Wasm 0.2.1 host calls in use, without a panic in any of them.
//!
//! The SDK's own wrappers panic on a status they do not expect, and a panic ends the whole VM. These return an error
//! instead. Only [`grpc_call`] and [`open_stream`] still go through the SDK, because its dispatcher has to learn the token.
#![expect(unsafe_code, reason = "the proxy's ABI is a set of C functions")]

use std::time::Duration;

use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, StreamType};

use crate::headers::{HeaderList, serialize};

/// A host call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host call {call} returned status {status}")]
pub(crate) struct HostError {
    call: &'static str,
    status: u32,
}

/// Result of a host call.
pub(crate) type Result<T> = std::result::Result<T, HostError>;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;

mod abi {
    use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, StreamType};

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_log(level: LogLevel, message: *const u8, size: usize) -> u32;
        pub(super) fn proxy_get_log_level(level: *mut u32) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: BufferType,
            start: usize,
            max_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_set_buffer_bytes(
            buffer: BufferType,
            start: usize,
            size: usize,
            data: *const u8,
            data_size: usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(map: MapType, data: *mut *mut u8, size: *mut usize) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: MapType,
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_add_header_map_value(
            map: MapType,
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(map: MapType, key: *const u8, key_size: usize) -> u32;
        pub(super) fn proxy_get_property(path: *const u8, size: usize, data: *mut *mut u8, len: *mut usize) -> u32;
        pub(super) fn proxy_continue_stream(stream: StreamType) -> u32;
        pub(super) fn proxy_close_stream(stream: StreamType) -> u32;
        pub(super) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub(super) fn proxy_grpc_call(
            upstream: *const u8,
            upstream_size: usize,
            service: *const u8,
            service_size: usize,
            method: *const u8,
            method_size: usize,
            metadata: *const u8,
            metadata_size: usize,
            message: *const u8,
            message_size: usize,
            timeout_ms: u32,
            token: *mut u32,
        ) -> u32;
        pub(super) fn proxy_grpc_send(token: u32, message: *const u8, size: usize, end_stream: u32) -> u32;
        pub(super) fn proxy_set_effective_context(context: u32) -> u32;
        pub(super) fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub(super) fn proxy_define_metric(kind: MetricType, name: *const u8, size: usize, id: *mut u32) -> u32;
        pub(super) fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    }
}

/// Writes one line to Envoy's log. Callers pass fixed text and codes, never a header, a body or a secret.
pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: pointer and length describe `message`, which outlives the call.
    unsafe { abi::proxy_log(level, message.as_ptr(), message.len()) };
}

/// Whether the proxy logs at debug or trace level, and then prints the headers of each request.
pub(crate) fn logs_headers() -> bool {
    let mut level = LogLevel::Critical as u32;
    // SAFETY: the host writes through the pointer, which is valid for the call.
    let status = unsafe { abi::proxy_get_log_level(&raw mut level) };
    status == OK && level <= LogLevel::Debug as u32
}

/// The bytes of a buffer from `start`, at most `max_size` of them; `None` where there is no such buffer now.
pub(crate) fn buffer(kind: BufferType, start: usize, max_size: usize) -> Result<Option<Vec<u8>>> {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the host writes through both pointers, which are valid for the call.
    let status = unsafe { abi::proxy_get_buffer_bytes(kind, start, max_size, &raw mut data, &raw mut size) };
    match status {
        OK => Ok(adopt(data, size)),
        NOT_FOUND => Ok(None),
        status => Err(HostError { call: "get_buffer_bytes", status }),
    }
}

/// Replaces the whole content of a buffer.
pub(crate) fn replace_buffer(kind: BufferType, content: &[u8]) -> Result<()> {
    // SAFETY: pointer and length describe `content`.
    let status = unsafe { abi::proxy_set_buffer_bytes(kind, 0, usize::MAX, content.as_ptr(), content.len()) };
    checked("set_buffer_bytes", status)
}

/// All headers of a map, in one call.
pub(crate) fn headers(kind: MapType) -> Result<HeaderList> {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the host writes through both pointers, which are valid for the call.
    let status = unsafe { abi::proxy_get_header_map_pairs(kind, &raw mut data, &raw mut size) };
    checked("get_header_map_pairs", status)?;
    Ok(HeaderList::new(adopt(data, size).unwrap_or_default()))
}

/// Sets a header to one value; further values under the same name go.
pub(crate) fn set_header(kind: MapType, name: &str, value: &[u8]) -> Result<()> {
    // SAFETY: both pointers and lengths describe slices that outlive the call.
    let status =
        unsafe { abi::proxy_replace_header_map_value(kind, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    checked("replace_header_map_value", status)
}

/// Adds a value to a header.
pub(crate) fn add_header(kind: MapType, name: &str, value: &[u8]) -> Result<()> {
    // SAFETY: both pointers and lengths describe slices that outlive the call.
    let status =
        unsafe { abi::proxy_add_header_map_value(kind, name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    checked("add_header_map_value", status)
}

/// Removes a header with all its values.
pub(crate) fn remove_header(kind: MapType, name: &str) -> Result<()> {
    // SAFETY: pointer and length describe `name`.
    let status = unsafe { abi::proxy_remove_header_map_value(kind, name.as_ptr(), name.len()) };
    checked("remove_header_map_value", status)
}

/// A property by its path, the parts joined with NUL; `None` where it is not set.
pub(crate) fn property(path: &str) -> Option<Vec<u8>> {
    let mut data = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: the path is valid for the call, and the host writes through both pointers.
    let status = unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), &raw mut data, &raw mut size) };
    if status == OK { adopt(data, size) } else { None }
}

/// Lets the paused request go on.
pub(crate) fn resume_request() -> Result<()> {
    // SAFETY: takes no pointer.
    checked("continue_stream", unsafe { abi::proxy_continue_stream(StreamType::HttpRequest) })
}

/// Ends the response at once, without an orderly end.
pub(crate) fn reset_response() -> Result<()> {
    // SAFETY: takes no pointer.
    checked("close_stream", unsafe { abi::proxy_close_stream(StreamType::HttpResponse) })
}

/// Answers the request from here. `details` stands in Envoy's access log as the response code details.
pub(crate) fn answer(status: u32, details: &str, headers: &[(&str, &[u8])], body: &[u8]) -> Result<()> {
    let headers = serialize(headers);
    // SAFETY: each pointer and length describes a slice that outlives the call.
    let status = unsafe {
        abi::proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    };
    checked("send_local_response", status)
}

/// Calls a unary gRPC method on a cluster; the answer comes to the effective context under the returned token.
pub(crate) fn grpc_call(cluster: &str, service: &str, method: &str, message: &[u8], timeout: Duration) -> Result<u32> {
    proxy_wasm::hostcalls::dispatch_grpc_call(cluster, service, method, Vec::new(), Some(message), timeout)
        .map_err(|status| HostError { call: "grpc_call", status: status as u32 })
}

/// Calls a unary gRPC method past the SDK, which then drops the answer.
pub(crate) fn grpc_send(cluster: &str, service: &str, method: &str, message: &[u8], timeout: Duration) -> Result<()> {
    let metadata = serialize(&[]);
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    let mut token = 0;
    // SAFETY: each pointer and length describes a slice that outlives the call; the host writes through `token`.
    let status = unsafe {
        abi::proxy_grpc_call(
            cluster.as_ptr(),
            cluster.len(),
            service.as_ptr(),
            service.len(),
            method.as_ptr(),
            method.len(),
            metadata.as_ptr(),
            metadata.len(),
            message.as_ptr(),
            message.len(),
            timeout_ms,
            &raw mut token,
        )
    };
    checked("grpc_call", status)
}

/// Opens a gRPC stream for the effective context, which must be the one the proxy is calling.
pub(crate) fn open_stream(cluster: &str, service: &str, method: &str) -> Result<u32> {
    proxy_wasm::hostcalls::open_grpc_stream(cluster, service, method, Vec::new())
        .map_err(|status| HostError { call: "grpc_stream", status: status as u32 })
}

/// Sends a message on a stream of the effective context; `is_last` says that none follows.
pub(crate) fn send_on_stream(token: u32, message: &[u8], is_last: bool) -> Result<()> {
    // SAFETY: pointer and length describe `message`.
    let status = unsafe { abi::proxy_grpc_send(token, message.as_ptr(), message.len(), u32::from(is_last)) };
    checked("grpc_send", status)
}

/// Makes the following host calls act for another context.
pub(crate) fn act_as(context: u32) -> Result<()> {
    // SAFETY: takes no pointer.
    checked("set_effective_context", unsafe { abi::proxy_set_effective_context(context) })
}

/// Asks for a tick in the root context every `period`.
pub(crate) fn set_tick_period(period: Duration) -> Result<()> {
    let millis = u32::try_from(period.as_millis()).unwrap_or(u32::MAX);
    // SAFETY: takes no pointer.
    checked("set_tick_period_milliseconds", unsafe { abi::proxy_set_tick_period_milliseconds(millis) })
}

/// Defines a counter and returns its id.
pub(crate) fn define_counter(name: &str) -> Result<u32> {
    let mut id = 0;
    // SAFETY: the name is valid for the call, and the host writes through `id`.
    let status = unsafe { abi::proxy_define_metric(MetricType::Counter, name.as_ptr(), name.len(), &raw mut id) };
    checked("define_metric", status).map(|()| id)
}

/// Adds to a counter.
pub(crate) fn increment(counter: u32, by: u64) {
    if by > 0 {
        // SAFETY: takes no pointer.
        unsafe { abi::proxy_increment_metric(counter, i64::try_from(by).unwrap_or(i64::MAX)) };
    }
}

fn checked(call: &'static str, status: u32) -> Result<()> {
    if status == OK { Ok(()) } else { Err(HostError { call, status }) }
}

/// Takes over memory that the host had allocated in this VM.
fn adopt(data: *mut u8, size: usize) -> Option<Vec<u8>> {
    if data.is_null() {
        return None;
    }
    // SAFETY: the host got this block from `proxy_on_memory_allocate(size)`, which leaks a boxed slice of that size.
    Some(unsafe { Vec::from_raw_parts(data, size, size) })
}
