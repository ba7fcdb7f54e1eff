//! The reader: one pass over text that is already known to be UTF-8, by recursive descent with a bounded depth.

use std::borrow::Cow;

use super::{DEPTH_CEILING, JsonError, Limits, Number, Object, Value, key};

/// Reads one value that fills the whole text.
pub(super) fn document<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Value<'a>, JsonError> {
    if bytes.len() > limits.max_bytes {
        return Err(JsonError::TooLarge { max_bytes: limits.max_bytes });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| JsonError::InvalidUtf8 { offset: error.valid_up_to() })?;
    let mut reader = Reader { text, bytes, at: 0, depth_left: limits.max_depth.min(DEPTH_CEILING) };
    reader.skip_white_space();
    let value = reader.value()?;
    reader.skip_white_space();
    if reader.at == bytes.len() { Ok(value) } else { Err(JsonError::TrailingData { offset: reader.at }) }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth_left: usize,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn syntax<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::Syntax { offset: self.at })
    }

    /// Takes the byte if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn skip_white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn slice(&self, from: usize, to: usize) -> Result<&'a str, JsonError> {
        self.text.get(from..to).ok_or(JsonError::Syntax { offset: from })
    }

    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        match self.peek() {
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => self.syntax(),
        }
    }

    fn literal(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        for byte in word.bytes() {
            if !self.take(byte) {
                return self.syntax();
            }
        }
        Ok(value)
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value<'a>, JsonError>) -> Result<Value<'a>, JsonError> {
        let Some(left) = self.depth_left.checked_sub(1) else {
            return Err(JsonError::TooDeep { offset: self.at });
        };
        self.depth_left = left;
        self.at += 1;
        self.skip_white_space();
        let value = read(self)?;
        self.depth_left += 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Value<'a>, JsonError> {
        let mut elements = Vec::new();
        if self.take(b']') {
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            self.skip_white_space();
            if self.take(b']') {
                return Ok(Value::Array(elements));
            }
            if !self.take(b',') {
                return self.syntax();
            }
            self.skip_white_space();
        }
    }

    fn object(&mut self) -> Result<Value<'a>, JsonError> {
        let mut members: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        if self.take(b'}') {
            return Ok(Value::Object(Object(members)));
        }
        loop {
            let key_offset = self.at;
            if self.peek() != Some(b'"') {
                return self.syntax();
            }
            let name = self.string()?;
            if members.len() < key::FEW && key::is_among(&members, &name) {
                return Err(JsonError::DuplicateKey { offset: key_offset });
            }
            self.skip_white_space();
            if !self.take(b':') {
                return self.syntax();
            }
            self.skip_white_space();
            let value = self.value()?;
            members.push((name, value));
            self.skip_white_space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return self.syntax();
            }
            self.skip_white_space();
        }
        if members.len() > key::FEW && key::any_twice(&members) {
            return Err(JsonError::DuplicateKey { offset: self.at - 1 });
        }
        Ok(Value::Object(Object(members)))
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        let mut integer = true;
        let mut has_exponent = false;
        if self.take(b'.') {
            integer = false;
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            integer = false;
            has_exponent = true;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        let raw = self.slice(start, self.at)?;
        let in_range = if integer {
            raw.len() <= 18 || raw.parse::<i64>().is_ok() || raw.parse::<u64>().is_ok()
        } else {
            // Without exponent, 300 characters stay below the largest double.
            (!has_exponent && raw.len() <= 300) || raw.parse::<f64>().is_ok_and(f64::is_finite)
        };
        if in_range { Ok(Value::Number(Number(raw))) } else { Err(JsonError::NumberOutOfRange { offset: start }) }
    }

    /// One digit or more.
    fn digits(&mut self) -> Result<(), JsonError> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return self.syntax();
        }
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    /// Reads a string whose opening quote comes next.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let mut start = self.at;
        self.skip_plain();
        if self.peek() == Some(b'"') {
            let text = self.slice(start, self.at)?;
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut text = String::new();
        loop {
            text.push_str(self.slice(start, self.at)?);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(text));
                }
                Some(b'\\') => {
                    self.at += 1;
                    text.push(self.escape()?);
                }
                _ => return self.syntax(),
            }
            start = self.at;
            self.skip_plain();
        }
    }

    /// Skips what needs no attention inside a string, eight bytes at a time.
    fn skip_plain(&mut self) {
        const ONES: u64 = u64::from_ne_bytes([1; 8]);
        const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
        let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        while let Some(chunk) = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_ne_bytes(*chunk);
            let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
            let quote = zero_byte(word ^ (ONES * u64::from(b'"')));
            let backslash = zero_byte(word ^ (ONES * u64::from(b'\\')));
            if control | quote | backslash != 0 {
                break;
            }
            self.at += 8;
        }
        while matches!(self.peek(), Some(byte) if byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.at += 1;
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self) -> Result<char, JsonError> {
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return self.syntax(),
        };
        self.at += 1;
        Ok(character)
    }

    /// Reads the rest of `\uXXXX`, and the second half where the first is the high half of a pair.
    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let offset = self.at;
        let high = self.four_digits()?;
        let code_point = if (0xd800..0xdc00).contains(&high) {
            if !self.take(b'\\') || self.peek() != Some(b'u') {
                return Err(JsonError::Syntax { offset });
            }
            let low = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&low) {
                return Err(JsonError::Syntax { offset });
            }
            0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
        } else {
            high
        };
        char::from_u32(code_point).ok_or(JsonError::Syntax { offset })
    }

    /// Reads `uXXXX`.
    fn four_digits(&mut self) -> Result<u32, JsonError> {
        self.at += 1;
        let mut code_unit = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                return self.syntax();
            };
            code_unit = code_unit << 4 | digit;
            self.at += 1;
        }
        Ok(code_unit)
    }
}
