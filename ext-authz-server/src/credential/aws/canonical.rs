//! One spelling of a path and of a query, so that everybody who recomputes a signature reads the same bytes.
//!
//! AWS decodes what it receives and encodes it anew; other verifiers take the bytes as they came. The two agree only where
//! the request already has that spelling, so a request is put into it before it is signed and sent.

use std::borrow::Cow;

use crate::credential::query::encode;

/// Why a target cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpellingError {
    /// `%` without two hexadecimal digits.
    #[error("the request's target holds a `%` that begins no escape")]
    Escape,
    /// `%2F` or `%00` where a service reads it as the character itself.
    #[error("the request's path holds an encoded slash or zero byte")]
    Hidden,
    /// Bytes that are no text.
    #[error("the request's query is not UTF-8")]
    NotUtf8,
}

/// The path with every byte but `/` and the unreserved ones encoded, once.
///
/// # Errors
/// A broken escape, or an encoded slash, which a service would take for one that divides.
pub fn path(path: &str) -> Result<Cow<'_, str>, SpellingError> {
    let mut spelled = String::with_capacity(path.len());
    for (position, segment) in path.split('/').enumerate() {
        if position > 0 {
            spelled.push('/');
        }
        let plain = decode(segment, false)?;
        if plain.contains(&b'/') || plain.contains(&0) {
            return Err(SpellingError::Hidden);
        }
        spelled.push_str(&encode(&plain));
    }
    Ok(if spelled == path { Cow::Borrowed(path) } else { Cow::Owned(spelled) })
}

/// The query with names and values encoded once, `+` as the space that it means, empty pairs left out, in its order.
///
/// # Errors
/// A broken escape, or bytes that are no text: a signature over those would not be recomputed alike.
pub fn query(query: &str) -> Result<Cow<'_, str>, SpellingError> {
    let mut spelled = String::with_capacity(query.len());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if !spelled.is_empty() {
            spelled.push('&');
        }
        let (name, value) = pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
        spelled.push_str(&text(name)?);
        if let Some(value) = value {
            spelled.push('=');
            spelled.push_str(&text(value)?);
        }
    }
    Ok(if spelled == query { Cow::Borrowed(query) } else { Cow::Owned(spelled) })
}

fn text(raw: &str) -> Result<String, SpellingError> {
    let plain = decode(raw, true)?;
    std::str::from_utf8(&plain).map_err(|_| SpellingError::NotUtf8)?;
    Ok(encode(&plain).to_string())
}

fn decode(raw: &str, plus_is_space: bool) -> Result<Vec<u8>, SpellingError> {
    let mut plain = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'%' => {
                let [high, low, after @ ..] = tail else { return Err(SpellingError::Escape) };
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(SpellingError::Escape) };
                plain.push(high << 4 | low);
                rest = after;
            }
            b'+' if plus_is_space => plain.push(b' '),
            byte => plain.push(byte),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_gets_one_spelling() {
        let cases = [
            ("/", "/"),
            ("/a/b-._~0", "/a/b-._~0"),
            ("/a b(1)+é", "/a%20b%281%29%2B%C3%A9"),
            ("/%41%2d%7e%c3%a9", "/A-~%C3%A9"),
            ("//a//b/", "//a//b/"),
            ("/a/%2E%2E/b", "/a/../b"),
            ("/a%25b", "/a%25b"),
        ];
        for (raw, expected) in cases {
            assert_eq!(path(raw).as_deref(), Ok(expected), "{raw}");
            assert_eq!(path(expected).as_deref(), Ok(expected), "a spelling is its own");
        }
        assert!(matches!(path("/a/b"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn a_query_gets_one_spelling() {
        let cases = [
            ("", ""),
            ("list-type=2&prefix=a/b", "list-type=2&prefix=a%2Fb"),
            ("a+b=c+d", "a%20b=c%20d"),
            ("uploads", "uploads"),
            ("uploads=", "uploads="),
            ("&&z=1&&a=2&", "z=1&a=2"),
            ("a=b=c", "a=b%3Dc"),
            ("a=%2B%e1%88%b4", "a=%2B%E1%88%B4"),
        ];
        for (raw, expected) in cases {
            assert_eq!(query(raw).as_deref(), Ok(expected), "{raw}");
            assert_eq!(query(expected).as_deref(), Ok(expected), "a spelling is its own");
        }
    }

    #[test]
    fn what_two_readers_may_take_differently_is_refused() {
        assert_eq!(path("/a%2Fb"), Err(SpellingError::Hidden));
        assert_eq!(path("/a%00"), Err(SpellingError::Hidden));
        for broken in ["/%", "/%4", "/%zz", "/%+1"] {
            assert_eq!(path(broken), Err(SpellingError::Escape), "{broken}");
            assert_eq!(query(broken), Err(SpellingError::Escape), "{broken}");
        }
        assert_eq!(query("a=%ff"), Err(SpellingError::NotUtf8));
    }
}
