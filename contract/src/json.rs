//! Strict JSON: RFC 8259 without the freedoms that let two readers understand one text differently.
//!
//! Refused beyond the RFC's own grammar: a key that occurs twice in one object (after unescaping, at any depth, and
//! also when the two differ only in case, since some readers match keys without regard to it), lone surrogates,
//! integers that fit neither `i64` nor `u64`, numbers that overflow a double, a byte order mark, invalid UTF-8, and
//! whatever exceeds the [`Limits`]. The two cases of JSONTestSuite that demand duplicate keys to be accepted
//! (`y_object_duplicated_key.json` and `y_object_duplicated_key_and_value.json`) are therefore refused on purpose.

mod key;
mod parse;
mod write;

use std::borrow::Cow;

pub use write::write_string;

/// The deepest nesting that any [`Limits`] can allow; a larger `max_depth` counts as this.
pub const DEPTH_CEILING: usize = 256;

/// What a reader accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest text, in bytes, default 1 MiB.
    pub max_bytes: usize,
    /// How many arrays and objects may enclose one another, 0 to 256, default 64.
    pub max_depth: usize,
}

/// A JSON value that borrows from the text it was read from wherever no escape has to be resolved.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as written.
    Number(Number<'a>),
    /// A string, without its escapes.
    String(Cow<'a, str>),
    /// An array.
    Array(Vec<Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// A number as the client wrote it, known to be valid and in range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a>(&'a str);

/// The members of an object in the order in which they were written; no key occurs twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

/// Why a text was refused. Offsets are in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is longer than `max_bytes`.
    #[error("text longer than the limit of {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// Arrays and objects enclose one another deeper than `max_depth`.
    #[error("nesting deeper than the limit at byte {offset}")]
    TooDeep {
        /// Where the level too many opens.
        offset: usize,
    },
    /// The text is not JSON.
    #[error("syntax error at byte {offset}")]
    Syntax {
        /// The first byte that fits nowhere, or the length of a text that ends too early.
        offset: usize,
    },
    /// A key occurs twice in one object, or two keys differ only in case.
    #[error("duplicate key at byte {offset}")]
    DuplicateKey {
        /// Where the second key begins; in an object of more than 16 members, where the object ends.
        offset: usize,
    },
    /// The text is not UTF-8.
    #[error("invalid UTF-8 at byte {offset}")]
    InvalidUtf8 {
        /// The first byte that is no part of a character.
        offset: usize,
    },
    /// Something other than white space follows the value.
    #[error("trailing data at byte {offset}")]
    TrailingData {
        /// Where it begins.
        offset: usize,
    },
    /// An integer that fits neither `i64` nor `u64`, or a number that overflows a double.
    #[error("number out of range at byte {offset}")]
    NumberOutOfRange {
        /// Where the number begins.
        offset: usize,
    },
}

/// Reads one value that fills the whole text, in time proportional to its length (times the logarithm of the number of
/// members, for objects of more than 16).
///
/// # Errors
/// A [`JsonError`] for everything that is not strict JSON within the limits.
pub fn parse<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Value<'a>, JsonError> {
    parse::document(bytes, limits)
}

/// Whether two keys are one to a reader that matches keys without regard to case. Besides ASCII that concerns the long
/// s (U+017F) and the Kelvin sign (U+212A), the only two characters outside ASCII that fold into it.
#[must_use]
pub fn same_key(one: &str, other: &str) -> bool {
    key::same(one, other)
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Limits { max_bytes: 1 << 20, max_depth: 64 }
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    /// The string, if this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The boolean, if this is one.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    /// The number, if this is one.
    #[must_use]
    pub fn as_number(&self) -> Option<Number<'a>> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The object, if this is one.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The elements, if this is an array.
    #[must_use]
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        match self {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The value at a JSON pointer (RFC 6901), for example `/params/name`. The empty pointer is the value itself.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&Value<'a>> {
        if pointer.is_empty() {
            return Some(self);
        }
        pointer.strip_prefix('/')?.split('/').try_fold(self, |value, token| match value {
            Value::Object(object) if token.contains('~') => object.get(&token.replace("~1", "/").replace("~0", "~")),
            Value::Object(object) => object.get(token),
            Value::Array(elements) if token == "0" || !token.starts_with(['0', '+']) => {
                elements.get(token.parse::<usize>().ok()?)
            }
            _ => None,
        })
    }

    /// Appends the value as compact JSON. Numbers stay as they were written.
    pub fn write(&self, out: &mut Vec<u8>) {
        write::value(self, out);
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::String(Cow::Borrowed(text))
    }
}

// === impl Number ===

impl<'a> Number<'a> {
    /// The number as it was written.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// Whether it was written without fraction and exponent; such a number fits an `i64` or a `u64`.
    #[must_use]
    pub fn is_integer(self) -> bool {
        self.0.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    }

    /// The number as `i64`, if it was written as an integer that fits.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// The number as `u64`, if it was written as an integer that fits.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        self.0.parse().ok()
    }

    /// The nearest double; finite always.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0.parse().unwrap_or_default()
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    /// The value under exactly this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// All members in the order in which they were written.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value))
    }

    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> IntoIterator for Object<'a> {
    type Item = (Cow<'a, str>, Value<'a>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests;
