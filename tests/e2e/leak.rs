//! Calls that make the demo upstream give its credential away.

use keyward_tests::agent;
use keyward_tests::client::Request;
use serde_json::{Value, json};

/// Allows every principal everything: these tests are about what comes after.
pub(crate) const POLICY: &str =
    "package keyward\n\ndecision := {\"allow\": true, \"rule\": \"everything\", \"explanation\": \"a test\"}\n";

/// Every form in which the upstream can write its credential.
pub(crate) const FORMS: [&str; 26] = [
    "raw",
    "upper",
    "lower",
    "reversed",
    "base64",
    "base64_nopad",
    "base64url",
    "base64url_nopad",
    "base64_shift1",
    "base64_shift2",
    "base64_mime",
    "hex",
    "hex_upper",
    "percent",
    "percent_lower",
    "percent_all",
    "percent_double",
    "json_unicode",
    "json_unicode_partial",
    "json_in_json",
    "html_decimal",
    "html_hex",
    "quoted_printable",
    "quoted_printable_all",
    "quoted_printable_folded",
    "basic",
];

/// Every place of an answer in which the upstream can put it, but for the compressed ones.
pub(crate) const CARRIERS: [&str; 21] = [
    "text",
    "tool_error",
    "structured_content",
    "embedded_resource",
    "blob",
    "meta",
    "error_message",
    "error_data",
    "notification",
    "header",
    "set_cookie",
    "location",
    "www_authenticate",
    "etag",
    "reason_phrase",
    "trailer",
    "sse_split",
    "tcp_split",
    "sse_comment",
    "large",
    "not_json",
];

/// Carriers whose answer is compressed.
pub(crate) const COMPRESSED: [&str; 3] = ["gzip", "br", "deflate"];

/// A call of `leak` in the newest revision, with a progress token.
pub(crate) fn call(id: impl Into<Value>, arguments: Value) -> Request {
    agent::request(
        id,
        "tools/call",
        json!({"name": "leak", "arguments": arguments, "_meta": {"progressToken": "progress-1"}}),
    )
}

/// A call of `leak` with this carrier and form.
pub(crate) fn of(id: impl Into<Value>, carrier: &str, form: &str) -> Request {
    let mut arguments = json!({"carrier": carrier, "form": form});
    if carrier == "large" {
        arguments["size_bytes"] = json!(100_000);
    }
    if carrier.ends_with("_split") {
        arguments["pause_ms"] = json!(1);
    }
    // Trailers come to whoever says that it takes them.
    call(id, arguments).header("te", "trailers")
}
