//! Whether a request target has one reading only; a target with two is refused, never normalised.
//!
//! What is decided must be what the upstream serves. Dot segments, encoded separators, encoded letters, empty segments
//! and path parameters are read differently by different servers (RFC 3986, 3.3 and 6.2.2), so none of them passes.

/// The longest target that is read, in bytes.
const MAX_TARGET_BYTES: usize = 8192;

/// A target split into its canonical path and its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path, beginning with `/`.
    pub path: &'a str,
    /// What stands behind the first `?`.
    pub query: Option<&'a str>,
}

/// Why a target was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Longer than [`MAX_TARGET_BYTES`].
    #[error("the request target is longer than {MAX_TARGET_BYTES} bytes")]
    TooLong,
    /// Does not begin with `/`: `*`, an absolute URL or nothing.
    #[error("the request target does not begin with `/`")]
    NotAPath,
    /// A control character, a space, a byte outside ASCII or a `#`.
    #[error("the request target holds a character that must be encoded")]
    RawCharacter,
    /// A backslash or a `;`.
    #[error("the path holds a backslash or a `;`")]
    Separator,
    /// `//`, `/./` or `/../`.
    #[error("the path holds an empty or a dot segment")]
    Segment,
    /// A `%` without two hexadecimal digits.
    #[error("the path holds a `%` without two hexadecimal digits")]
    BrokenEncoding,
    /// An encoded separator, an encoded control character or an encoded character that needs no encoding.
    #[error("the path holds an encoded character that has a second reading")]
    AmbiguousEncoding,
    /// An encoding of an encoding.
    #[error("the path is encoded twice")]
    DoubleEncoding,
    /// Encoded bytes that are not UTF-8.
    #[error("the path is not UTF-8 once decoded")]
    NotUtf8,
}

/// Splits a request target and checks that its path has one reading.
///
/// # Errors
/// Names what gave the path a second reading.
pub fn read(target: &str) -> Result<Target<'_>, TargetError> {
    if target.len() > MAX_TARGET_BYTES {
        return Err(TargetError::TooLong);
    }
    if !target.starts_with('/') {
        return Err(TargetError::NotAPath);
    }
    if target.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(TargetError::RawCharacter);
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    check_path(path)?;
    Ok(Target { path, query })
}

/// Checks a path prefix from configuration by the same rules.
///
/// # Errors
/// As [`read`]; a query is refused as well.
pub fn check_prefix(prefix: &str) -> Result<(), TargetError> {
    match read(prefix)?.query {
        Some(_) => Err(TargetError::NotAPath),
        None => Ok(()),
    }
}

/// Whether `path` is `prefix` or lies below it.
#[must_use]
pub fn is_below(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

fn check_path(path: &str) -> Result<(), TargetError> {
    if path.contains(['\\', ';']) {
        return Err(TargetError::Separator);
    }
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if segment == "." || segment == ".." || (segment.is_empty() && !last) {
            return Err(TargetError::Segment);
        }
    }
    if !path.contains('%') {
        return Ok(());
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex)) else {
            return Err(TargetError::BrokenEncoding);
        };
        let byte = high << 4 | low;
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if unreserved || byte.is_ascii_control() || b"/\\;".contains(&byte) {
            return Err(TargetError::AmbiguousEncoding);
        }
        decoded.push(byte);
    }
    let decoded = std::str::from_utf8(&decoded).map_err(|_| TargetError::NotUtf8)?;
    let twice = decoded.as_bytes().windows(3).any(|window| match window {
        [b'%', high, low] => high.is_ascii_hexdigit() && low.is_ascii_hexdigit(),
        _ => false,
    });
    if twice { Err(TargetError::DoubleEncoding) } else { Ok(()) }
}

/// The value of one hexadecimal digit.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_second_reading_is_refused() {
        use TargetError::*;
        let cases = [
            ("", NotAPath),
            ("*", NotAPath),
            ("http://evil.example/", NotAPath),
            ("/a b", RawCharacter),
            ("/a\u{7f}", RawCharacter),
            ("/a\r\nx: y", RawCharacter),
            ("/bücher", RawCharacter),
            ("/a#b", RawCharacter),
            ("/a\\b", Separator),
            ("/a;v=1", Separator),
            ("/a/../b", Segment),
            ("/a/./b", Segment),
            ("/..", Segment),
            ("//evil.example/", Segment),
            ("/a//b", Segment),
            ("/a%", BrokenEncoding),
            ("/a%2", BrokenEncoding),
            ("/a%zz", BrokenEncoding),
            ("/%2e%2e/b", AmbiguousEncoding),
            ("/a/%2E/b", AmbiguousEncoding),
            ("/a%2fb", AmbiguousEncoding),
            ("/a%5Cb", AmbiguousEncoding),
            ("/a%3bb", AmbiguousEncoding),
            ("/a%00", AmbiguousEncoding),
            ("/a%0d%0a", AmbiguousEncoding),
            ("/%61dmin", AmbiguousEncoding),
            ("/a%252fb", DoubleEncoding),
            ("/a%25%32", AmbiguousEncoding),
            ("/a%ff", NotUtf8),
            ("/a%c0%af", NotUtf8),
            ("/a%ed%a0%80", NotUtf8),
        ];
        for (target, expected) in cases {
            assert_eq!(read(target), Err(expected), "{target}");
        }
        assert_eq!(read(&format!("/{}", "a".repeat(MAX_TARGET_BYTES))), Err(TooLong));
    }

    #[test]
    fn a_path_with_one_reading_passes_unchanged() {
        let cases = [
            ("/", "/", None),
            ("/mcp", "/mcp", None),
            ("/mcp/", "/mcp/", None),
            ("/a/b.c/..d/...", "/a/b.c/..d/...", None),
            ("/mcp?a=../b&c=%2e;//", "/mcp", Some("a=../b&c=%2e;//")),
            ("/caf%C3%A9", "/caf%C3%A9", None),
            ("/100%25", "/100%25", None),
            ("/a%20b", "/a%20b", None),
        ];
        for (target, path, query) in cases {
            assert_eq!(read(target), Ok(Target { path, query }), "{target}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let cases = [
            ("/mcp", "/mcp", true),
            ("/mcp/x", "/mcp", true),
            ("/mcpx", "/mcp", false),
            ("/x/mcp", "/mcp", false),
            ("/anything", "/", true),
            ("/mcp", "/mcp/", false),
            ("/mcp/x", "/mcp/", true),
        ];
        for (path, prefix, expected) in cases {
            assert_eq!(is_below(path, prefix), expected, "{path} {prefix}");
        }
    }
}
