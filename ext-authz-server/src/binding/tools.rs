//! What a binding serves that is for some tools only: calls of them, and what a client needs around a call.
//!
//! That is to open, keep and close a session, and to see which tools there are. What else could be had with its
//! credential (prompts, resources, tasks, completions, plain HTTP) takes a binding without such a list.

use crate::operation::Operation;

/// The longest name of a tool, and the longest pattern, in bytes. A longer name fits no pattern.
pub const MAX_TOOL_BYTES: usize = 256;

/// Requests that call no tool and read nothing but what the upstream says of itself and its tools.
const AROUND_CALLS: [&str; 4] = ["initialize", "ping", "server/discover", "tools/list"];

/// The tools that a binding is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools(Vec<String>);

// === impl Tools ===

impl Tools {
    /// The tools with these names; in each, `*` stands for any text, none too.
    #[must_use]
    pub fn new(patterns: Vec<String>) -> Tools {
        Tools(patterns)
    }

    /// The names, as configured.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.0
    }

    /// Whether a binding that is for these tools serves this operation.
    #[must_use]
    pub fn serve(&self, operation: &Operation<'_>) -> bool {
        match operation.kind {
            "request" if calls_tool(operation) => operation.target.is_some_and(|tool| self.hold(tool)),
            "request" => AROUND_CALLS.contains(&operation.method),
            "notification" => operation.method.starts_with("notifications/"),
            // Answers to what the upstream asked during a call, its event stream, and the end of the session.
            "response" | "stream_open" | "session_end" => true,
            _ => false,
        }
    }

    /// Whether an operation calls one of these tools. A name that is too long for any pattern counts as one of them.
    #[must_use]
    pub fn are_called_by(&self, operation: &Operation<'_>) -> bool {
        let called = |tool: &str| tool.len() > MAX_TOOL_BYTES || self.hold(tool);
        calls_tool(operation) && operation.target.is_some_and(called)
    }

    /// Whether a tool of this name is among them.
    pub(crate) fn hold(&self, tool: &str) -> bool {
        tool.len() <= MAX_TOOL_BYTES && self.0.iter().any(|pattern| fits(pattern, tool))
    }
}

/// Whether an operation calls a tool.
pub(super) fn calls_tool(operation: &Operation<'_>) -> bool {
    operation.kind == "request" && operation.method == "tools/call"
}

/// Whether a text is the pattern with each `*` replaced by some text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    // The first place of each part leaves the most for the next.
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(kind: &'static str, method: &'static str, target: Option<&'static str>) -> Operation<'static> {
        Operation { kind, method, target, arguments: None, params: None }
    }

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_does() {
        for (pattern, yes, no) in [
            ("echo", &["echo"][..], &["", "Echo", "echo ", "echoes", "an echo"][..]),
            ("get_*", &["get_", "get_a", "get_*"], &["get", "forget_a", "Get_a"]),
            ("*_read", &["_read", "file_read", "_read_read"], &["file_reader", "read"]),
            ("*", &["", "anything"], &[]),
            ("**", &["", "anything"], &[]),
            ("a*a", &["aa", "aba", "aaa"], &["a", "ab", "ba"]),
            ("a*b*c", &["abc", "a-b-c", "abbcc", "abcbc"], &["acb", "ab", "ac", "abcd"]),
            ("a*bc*c", &["abcc", "abcbc"], &["abc", "acbc"]),
            ("a?[b]", &["a?[b]"], &["axb", "axbb"]),
            ("größe*", &["größe", "größen"], &["gr", "grösse"]),
        ] {
            yes.iter().for_each(|text| assert!(fits(pattern, text), "{pattern} {text}"));
            no.iter().for_each(|text| assert!(!fits(pattern, text), "{pattern} {text}"));
        }
        let everything = Tools::new(vec!["*".to_owned()]);
        assert!(everything.hold(&"x".repeat(MAX_TOOL_BYTES)) && !everything.hold(&"x".repeat(MAX_TOOL_BYTES + 1)));
    }

    #[test]
    fn calls_of_the_tools_are_served_and_what_calls_nothing() {
        let tools = Tools::new(vec!["echo".to_owned(), "get_*".to_owned()]);
        for (kind, method, target) in [
            ("request", "tools/call", Some("echo")),
            ("request", "tools/call", Some("get_weather")),
            ("request", "initialize", None),
            ("request", "ping", None),
            ("request", "server/discover", None),
            ("request", "tools/list", None),
            ("notification", "notifications/initialized", None),
            ("notification", "notifications/cancelled", None),
            ("response", "", None),
            ("stream_open", "", None),
            ("session_end", "", None),
        ] {
            assert!(tools.serve(&operation(kind, method, target)), "{kind} {method} {target:?}");
        }
        for (kind, method, target) in [
            ("request", "tools/call", Some("delete_everything")),
            ("request", "tools/call", Some("")),
            ("request", "tools/call", None),
            ("request", "tools/Call", Some("echo")),
            ("request", "prompts/get", Some("echo")),
            ("request", "resources/read", Some("get_weather")),
            ("request", "tasks/result", Some("echo")),
            ("request", "completion/complete", Some("echo")),
            ("request", "subscriptions/listen", None),
            ("request", "notifications/initialized", None),
            ("notification", "tools/call", Some("echo")),
            ("http", "ping", Some("echo")),
            ("http", "tools/call", Some("echo")),
            ("nonsense", "tools/call", Some("echo")),
        ] {
            assert!(!tools.serve(&operation(kind, method, target)), "{kind} {method} {target:?}");
        }
    }
}
