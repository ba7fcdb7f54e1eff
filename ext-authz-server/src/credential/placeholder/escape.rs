//! What stands directly before a placeholder. An escape that is not finished there would take in the first characters of
//! the secret, and what an upstream then shows of it would not be found any more.

use zeroize::Zeroizing;

use crate::credential::query;

/// How much is looked at, in bytes: more than the longest escape, also where it is encoded several times.
const WINDOW_BYTES: usize = 64;

/// Whether a plain text ends within an escape, as it is or once it is percent-decoded: it may hold a URL or a document that
/// somebody behind the upstream reads.
pub(super) fn is_open(text: &str) -> bool {
    levels(text).any(|level| ends_within(&level))
}

/// The same for percent-encoded text. Nobody knows in which character set it is read, so a byte beyond ASCII is open as
/// well: some sets make one character of it and of what follows.
pub(super) fn is_open_encoded(text: &str) -> bool {
    levels(text).any(|level| ends_within(&level) || level.ends_with(|last: char| !last.is_ascii()))
}

/// The end of the text: as it is, decoded, decoded once more, until nothing changes. Of two placeholders side by side, the
/// first one's secret stands there.
fn levels(text: &str) -> impl Iterator<Item = Zeroizing<String>> {
    let start = text.len().saturating_sub(WINDOW_BYTES);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let end = Zeroizing::new(text.get(start..).unwrap_or_default().to_owned());
    std::iter::successors(Some(end), |level| {
        let bytes = Zeroizing::new(query::decode(level));
        let decoded = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
        (decoded.as_str() != level.as_str()).then_some(decoded)
    })
}

/// Whether what follows would belong to an escape: behind `%`, `%4`, `%u00`, `\`, `\u00`, `\u{1f`, `\x4`, `\10`.
fn ends_within(text: &str) -> bool {
    let Some((at, mark)) = text.char_indices().rfind(|(_, own)| matches!(own, '%' | '\\')) else { return false };
    let rest = text.get(at + 1..).unwrap_or_default();
    let short = |digits: &str, full: usize| digits.len() < full && digits.bytes().all(|own| own.is_ascii_hexdigit());
    if rest.is_empty() {
        return true;
    }
    if let Some(digits) = rest.strip_prefix('u') {
        return short(digits, 4) || (digits.starts_with('{') && !digits.contains('}'));
    }
    if mark == '%' {
        // Some decoders read a sign or a space as the first of two digits.
        return rest.len() == 1;
    }
    rest.strip_prefix('x').is_some_and(|digits| short(digits, 2))
        || rest.strip_prefix('U').is_some_and(|digits| short(digits, 8))
        || (rest.len() < 3 && rest.bytes().all(|own| matches!(own, b'0'..=b'7')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_is_open_until_its_last_digit() {
        let open = [
            "% a% %4 %f %+ %% %%41 %%4 %41% %25 %254 %2525 %25%34 %u %u004 %5C %5Cu00 %255C",
            r"\ a\\ \u \u004 \u{1f \x \x4 \U0001f60 \1 \10",
        ];
        for text in open.into_iter().flat_map(|line| line.split(' ')) {
            assert!(is_open(text) && is_open_encoded(text), "{text}");
        }
        let closed = [
            "|a|=|Bearer |Bearer%20|%41|100%20off-|%u0041|%2541|a+b|50% off: ",
            r"\n|\u0041|\u{1f}|\x41|\101|C:\keys:",
        ];
        for text in closed.into_iter().flat_map(|line| line.split('|')) {
            assert!(!is_open(text) && !is_open_encoded(text), "{text}");
        }
        // What a character set would read together with what follows.
        for text in ["%81", "%E2%82%AC", "é", "%25C3%25A9"] {
            assert!(is_open_encoded(text) && !is_open(text), "{text}");
        }
        assert!(!is_open_encoded("%E2%82%AC:") && is_open(&format!("{}%4", "é".repeat(80))));
    }
}
