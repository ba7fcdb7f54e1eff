//! The method and member names that Keyward itself has to know.

use crate::json;

/// The key under `_meta` that names the revision.
pub(super) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The key under `_meta` that lists what the client can do.
pub(super) const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";

/// What of `params` a method acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// The member that names it, always a string.
    pub(super) member: &'static str,
    /// Whether 2026-07-28 mirrors it in `Mcp-Name`.
    pub(super) mirrored: bool,
}

/// The member of `params` that names what the method acts on.
pub(super) fn target(method: &str) -> Option<Target> {
    let (member, mirrored) = match method {
        "tools/call" | "prompts/get" => ("name", true),
        "resources/read" => ("uri", true),
        "resources/subscribe" | "resources/unsubscribe" => ("uri", false),
        "tasks/get" | "tasks/update" | "tasks/cancel" => ("taskId", true),
        "tasks/result" => ("taskId", false),
        _ => return None,
    };
    Some(Target { member, mirrored })
}

/// Whether the method, if it is known, expects an answer. A method that is known to be a request cannot be sent as a
/// notification, since servers exist that would still run it.
pub(super) fn is_request(method: &str) -> bool {
    target(method).is_some()
        || matches!(
            method,
            "initialize"
                | "ping"
                | "server/discover"
                | "subscriptions/listen"
                | "tools/list"
                | "prompts/list"
                | "resources/list"
                | "resources/templates/list"
                | "completion/complete"
                | "logging/setLevel"
                | "tasks/list"
        )
}

/// Whether the method opens a session; 2026-07-28 has none.
pub(super) fn is_handshake(method: &str) -> bool {
    matches!(method, "initialize" | "notifications/initialized")
}

/// Whether the revisions without sessions lack the method, although it acts on something elsewhere. Nothing is required of
/// its form there: the upstream answers that it does not exist.
pub(super) fn is_gone(method: &str) -> bool {
    matches!(method, "resources/subscribe" | "resources/unsubscribe" | "tasks/result")
}

/// Whether the method can only be a notification.
pub(super) fn is_notification(method: &str) -> bool {
    method.starts_with("notifications/")
}

/// Members of `params` and of `params.ref` that the specification gives a meaning.
const PARAMS_MEMBERS: [&str; 25] = [
    "_meta",
    "argument",
    "arguments",
    "capabilities",
    "clientInfo",
    "context",
    "cursor",
    "inputResponses",
    "level",
    "message",
    "name",
    "notifications",
    "progress",
    "progressToken",
    "protocolVersion",
    "reason",
    "ref",
    "requestId",
    "requestState",
    "task",
    "taskId",
    "total",
    "type",
    "uri",
    "uris",
];

/// Whether the name would be taken for a known member of `params` by a reader that matches names without regard to case,
/// and only by such a reader.
pub(super) fn is_disguised(name: &str) -> bool {
    if name.is_ascii() {
        return PARAMS_MEMBERS.iter().any(|known| name != *known && known.eq_ignore_ascii_case(name));
    }
    PARAMS_MEMBERS.iter().any(|known| json::same_key(known, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disguised_member_is_one_in_another_case() {
        for name in ["Name", "ARGUMENTS", "taskid", "uri\u{17f}"] {
            assert!(is_disguised(name), "{name}");
        }
        for name in ["name", "arguments", "taskId", "nam", "other", ""] {
            assert!(!is_disguised(name), "{name}");
        }
    }
}
