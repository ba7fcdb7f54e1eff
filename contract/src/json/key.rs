//! When two keys of one object are the same to some reader.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::Value;

/// Up to this many members an object is checked by comparing every pair, which needs no allocation.
pub(super) const FEW: usize = 16;

/// Whether `key` is already among the members.
pub(super) fn is_among(members: &[(Cow<'_, str>, Value<'_>)], key: &str) -> bool {
    members.iter().any(|(name, _)| same(name, key))
}

/// Whether two of the members have the same key. Sorts, so that an object of very many members costs no more than its
/// length times the logarithm of their number.
pub(super) fn any_twice(members: &[(Cow<'_, str>, Value<'_>)]) -> bool {
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
    if names.iter().all(|name| name.is_ascii()) {
        names.sort_unstable_by(|one, other| ascii_order(one, other));
        names.windows(2).any(|pair| matches!(pair, [one, other] if one.eq_ignore_ascii_case(other)))
    } else {
        names.sort_unstable_by(|one, other| folded(one).cmp(folded(other)));
        names.windows(2).any(|pair| matches!(pair, [one, other] if folded(one).eq(folded(other))))
    }
}

/// Whether two keys are equal without regard to case.
pub(super) fn same(one: &str, other: &str) -> bool {
    if one.len() == other.len() && one.eq_ignore_ascii_case(other) {
        return true;
    }
    // Both characters that fold into ASCII are longer than what they fold into, so one of the keys is not ASCII.
    !(one.is_ascii() && other.is_ascii()) && folded(one).eq(folded(other))
}

fn ascii_order(one: &str, other: &str) -> Ordering {
    one.bytes().map(|byte| byte.to_ascii_lowercase()).cmp(other.bytes().map(|byte| byte.to_ascii_lowercase()))
}

fn folded(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|character| match character {
        '\u{17f}' => 's',
        // Some readers compare in upper case.
        '\u{130}' | '\u{131}' => 'i',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    })
}
