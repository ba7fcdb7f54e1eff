//! The places where the upstream can put its credential, and the arguments of the `leak` tool.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::form::Form;

/// The largest answer that `leak` makes, in bytes: 1.1 GiB.
pub(crate) const MAX_ANSWER_BYTES: u64 = 1_181_116_006;
/// The size of a large answer when the call names none, in bytes.
pub(crate) const DEFAULT_ANSWER_BYTES: u64 = 1_048_576;
/// The longest pause between two pieces of an answer, in milliseconds.
pub(crate) const MAX_PAUSE_MS: u64 = 1_000;

/// One place in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Carrier {
    /// Text content of the result.
    Text,
    /// Text content of a result marked as an error.
    ToolError,
    /// Structured content of the result.
    StructuredContent,
    /// Text of an embedded resource.
    EmbeddedResource,
    /// Base64 blob of an embedded resource, the credential among other bytes at the asked alignment.
    Blob,
    /// `_meta` of the result.
    Meta,
    /// Message of a JSON-RPC error.
    ErrorMessage,
    /// Data of a JSON-RPC error.
    ErrorData,
    /// A notification on the answer's event stream before the result.
    Notification,
    /// A log message wherever the SDK sends it: with a session that is the GET stream.
    Log,
    /// The response header `x-upstream-debug`.
    Header,
    /// A cookie.
    SetCookie,
    /// The `Location` header.
    Location,
    /// The `WWW-Authenticate` header.
    WwwAuthenticate,
    /// The `ETag` header.
    Etag,
    /// The HTTP/1.1 reason phrase.
    ReasonPhrase,
    /// The HTTP trailer `x-upstream-trailer`. HTTP/1.1 needs `TE: trailers`.
    Trailer,
    /// An event whose bytes are cut inside the credential over several writes.
    SseSplit,
    /// A JSON body whose bytes are cut inside the credential over several writes.
    TcpSplit,
    /// A comment line of the event stream.
    SseComment,
    /// A body compressed with gzip, asked for or not.
    Gzip,
    /// A body compressed with brotli, asked for or not.
    Br,
    /// A body compressed with deflate (zlib), asked for or not.
    Deflate,
    /// A body of `size_bytes` with the credential across every border of 16 KiB.
    Large,
    /// A body that is plain text and no JSON.
    NotJson,
}

/// How the answer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Packing {
    /// One JSON body.
    Json,
    /// An event stream.
    Sse,
}

/// Arguments of the `leak` tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leak {
    /// Where the credential goes.
    pub(crate) carrier: Carrier,
    /// How the credential is written, `raw` by default.
    #[serde(default)]
    pub(crate) form: Form,
    /// Size of the filler of a `large` answer in bytes, 1 MiB by default, at most 1.1 GiB.
    #[serde(default)]
    pub(crate) size_bytes: Option<u64>,
    /// Position of the credential in a `blob` modulo three: 0, 1 or 2.
    #[serde(default)]
    pub(crate) alignment: Option<u8>,
    /// Where `sse_split` and `tcp_split` cut the written credential; absent: before every byte of it.
    #[serde(default)]
    pub(crate) split_at: Option<u32>,
    /// Pause between two pieces in milliseconds, 2 by default, at most 1000.
    #[serde(default)]
    pub(crate) pause_ms: Option<u64>,
    /// How the answer is packed; absent: as the carrier needs, else as the SDK does.
    #[serde(default)]
    pub(crate) packing: Option<Packing>,
}

// === impl Carrier ===

impl Carrier {
    /// The response header that carries the credential.
    pub(crate) fn header_name(self) -> Option<&'static str> {
        match self {
            Self::Header => Some("x-upstream-debug"),
            Self::SetCookie => Some("set-cookie"),
            Self::Location => Some("location"),
            Self::WwwAuthenticate => Some("www-authenticate"),
            Self::Etag => Some("etag"),
            _ => None,
        }
    }

    /// The value of that header.
    pub(crate) fn header_value(self, written: &str) -> String {
        match self {
            Self::SetCookie => format!("session={written}; Path=/; HttpOnly"),
            Self::Location => format!("https://login.example/continue?key={written}&step=2"),
            Self::WwwAuthenticate => format!("ApiKey realm=\"upstream\", received=\"{written}\""),
            Self::Etag => format!("\"v1-{written}\""),
            _ => format!("received {written} from you"),
        }
    }

    /// How this carrier must be packed, if the SDK's own answer does not do.
    pub(crate) fn packing(self) -> Option<Packing> {
        match self {
            Self::SseSplit | Self::SseComment | Self::Notification => Some(Packing::Sse),
            Self::Trailer | Self::TcpSplit | Self::Gzip | Self::Br | Self::Deflate | Self::Large | Self::NotJson => {
                Some(Packing::Json)
            }
            _ => None,
        }
    }
}

// === impl Leak ===

impl Leak {
    /// Reads and checks the arguments of a call.
    pub(crate) fn read(arguments: serde_json::Value) -> Result<Self, String> {
        let leak: Self = serde_json::from_value(arguments).map_err(|error| format!("arguments of `leak`: {error}"))?;
        if leak.size_bytes.is_some_and(|bytes| bytes > MAX_ANSWER_BYTES) {
            return Err(format!("`size_bytes` is over {MAX_ANSWER_BYTES}"));
        }
        if leak.alignment.is_some_and(|alignment| alignment > 2) {
            return Err("`alignment` is over 2".to_owned());
        }
        if leak.pause_ms.is_some_and(|pause| pause > MAX_PAUSE_MS) {
            return Err(format!("`pause_ms` is over {MAX_PAUSE_MS}"));
        }
        Ok(leak)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_names_carrier_and_form() {
        let leak = Leak::read(json!({"carrier": "sse_split", "form": "base64_shift1"})).unwrap();
        assert_eq!((leak.carrier, leak.form), (Carrier::SseSplit, Form::Base64Shift1));
        assert_eq!(Leak::read(json!({"carrier": "text"})).unwrap().form, Form::Raw);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for arguments in [
            json!({}),
            json!({"carrier": "smoke"}),
            json!({"carrier": "text", "form": "rot13"}),
            json!({"carrier": "text", "size": 1}),
            json!({"carrier": "blob", "alignment": 3}),
            json!({"carrier": "large", "size_bytes": 1_181_116_007_u64}),
            json!({"carrier": "tcp_split", "pause_ms": 1001}),
        ] {
            assert!(Leak::read(arguments.clone()).is_err(), "{arguments}");
        }
    }
}
