//! A cursor over one JSON value (RFC 8259): it checks all of the grammar, and copies only strings that have escapes.

use std::borrow::Cow;

use super::quick;

/// How deep arrays and objects may nest in a record.
const DEPTH_MAX: usize = 128;

/// Where parsing stands in one record.
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

/// A value that is not nested.
pub enum Scalar<'a> {
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// A number or boolean, as it stands there.
    Bare(&'a str),
    /// A null.
    Null,
}

impl<'a> Cursor<'a> {
    /// Stands before the value that `text` is to hold.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Checks that only white space follows.
    pub fn end(&mut self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("text behind the value")),
        }
    }

    /// The first byte of the next token.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Passes an object, calling `member` with each name; `member` passes the value.
    pub fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), String>) -> Result<(), String> {
        let mut more = self.open_object()?;
        while more {
            let (name, _) = self.member_name()?;
            member(self, &name)?;
            more = self.more_members()?;
        }
        Ok(())
    }

    /// Passes the beginning of an object; false: it has no members, and is passed.
    pub fn open_object(&mut self) -> Result<bool, String> {
        self.open(b'{', "an object")?;
        if self.take(b'}') { self.close().map(|()| false) } else { Ok(true) }
    }

    /// Passes what stands behind a member; false: it was the last one, and the object is passed.
    pub fn more_members(&mut self) -> Result<bool, String> {
        if self.take(b',') {
            return Ok(true);
        }
        self.expect(b'}').map_err(|_| self.error("expected `,`"))?;
        self.close().map(|()| false)
    }

    /// Passes the name of a member, its colon, and the space around them: what the name means, and what stands there.
    pub fn member_name(&mut self) -> Result<(Cow<'a, str>, &'a str), String> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a member name in quotes"));
        }
        let name = self.string()?;
        self.expect(b':')?;
        self.peek();
        Ok((name, &self.text[start..self.at]))
    }

    /// All of the record, and where the cursor stands in it.
    #[inline]
    pub fn place(&self) -> (&'a str, usize) {
        (self.text, self.at)
    }

    /// Stands at another place; it is for whoever calls this to have checked what is in between.
    #[inline]
    pub fn stand_at(&mut self, at: usize) {
        self.at = at;
    }

    /// Passes a number without fraction and exponent, of at most 18 digits, if one stands there and `take` does.
    pub fn integer(&mut self, take: impl FnOnce(i64) -> bool) -> bool {
        self.peek();
        match quick::integer(self.text.as_bytes(), self.at) {
            Some((value, end)) if take(value) => {
                self.at = end;
                true
            }
            _ => false,
        }
    }

    /// Passes an array, calling `item` before each value; `item` passes it.
    pub fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.open(b'[', "an array")?;
        if self.take(b']') {
            return self.close();
        }
        loop {
            item(self)?;
            if self.take(b']') {
                return self.close();
            }
            self.expect(b',')?;
        }
    }

    /// Passes a value that is not nested.
    pub fn scalar(&mut self) -> Result<Scalar<'a>, String> {
        match self.peek() {
            Some(b'"') => Ok(Scalar::String(self.string()?)),
            Some(b'n') => self.word("null").map(|_| Scalar::Null),
            Some(b't') => self.word("true").map(Scalar::Bare),
            Some(b'f') => self.word("false").map(Scalar::Bare),
            Some(b'-' | b'0'..=b'9') => self.number().map(Scalar::Bare),
            Some(b'[') => Err(self.error("expected a single value, found an array")),
            Some(b'{') => Err(self.error("expected a single value, found an object")),
            Some(_) => Err(self.error("expected a value")),
            None => Err(self.error("the record ends within a value")),
        }
    }

    /// Passes any value.
    pub fn skip_value(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(|cursor, _| cursor.skip_value()),
            Some(b'[') => self.array(Self::skip_value),
            _ if self.integer(|_| true) => Ok(()),
            _ => self.scalar().map(drop),
        }
    }

    /// Passes any value and gives the JSON that stands there.
    pub fn raw_value(&mut self) -> Result<&'a str, String> {
        self.peek();
        let start = self.at;
        self.skip_value()?;
        Ok(&self.text[start..self.at])
    }

    /// Passes `null` if it stands there.
    pub fn null(&mut self) -> Result<bool, String> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.word("null").map(|_| true)
    }

    fn open(&mut self, byte: u8, what: &str) -> Result<(), String> {
        if !self.take(byte) {
            return Err(self.error(&format!("expected {what}")));
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(self.error(&format!("nested deeper than {DEPTH_MAX}"))) } else { Ok(()) }
    }

    fn close(&mut self) -> Result<(), String> {
        self.depth -= 1;
        Ok(())
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.take(byte) { Ok(()) } else { Err(self.error(&format!("expected `{}`", char::from(byte)))) }
    }

    fn word(&mut self, word: &'static str) -> Result<&'static str, String> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(word)
    }

    fn number(&mut self) -> Result<&'a str, String> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        self.at += usize::from(bytes[self.at] == b'-');
        let leading_zero = bytes.get(self.at) == Some(&b'0');
        let mut whole = self.digits() > 0 && !(leading_zero && self.at - start > 2 - usize::from(bytes[start] != b'-'));
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            whole &= self.digits() > 0;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
            self.at += usize::from(matches!(bytes.get(self.at), Some(b'+' | b'-')));
            whole &= self.digits() > 0;
        }
        if whole { Ok(&self.text[start..self.at]) } else { Err(self.error("expected a number")) }
    }

    fn digits(&mut self) -> usize {
        let digits = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        digits
    }

    /// Passes a string; the cursor stands on its opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let Some(end) = quick::end_of_plain(&bytes[start..]) else {
            return Err(self.error("a string is not closed"));
        };
        if bytes[start + end] == b'"' {
            self.at = start + end + 1;
            return Ok(Cow::Borrowed(&self.text[start..start + end]));
        }
        self.escaped_string(start).map(Cow::Owned)
    }

    fn escaped_string(&mut self, start: usize) -> Result<String, String> {
        let bytes = self.text.as_bytes();
        let mut value = String::new();
        let (mut from, mut at) = (start, start);
        loop {
            match bytes.get(at) {
                Some(b'"') => {
                    value.push_str(&self.text[from..at]);
                    self.at = at + 1;
                    return Ok(value);
                }
                Some(b'\\') => {
                    value.push_str(&self.text[from..at]);
                    self.at = at + 1;
                    value.push(self.escape()?);
                    (from, at) = (self.at, self.at);
                }
                Some(0..0x20) => {
                    self.at = at;
                    return Err(self.error("a control character in a string"));
                }
                Some(_) => at += 1,
                None => return Err(self.error("a string is not closed")),
            }
        }
    }

    /// Passes what follows a backslash.
    fn escape(&mut self) -> Result<char, String> {
        let byte = self.text.as_bytes().get(self.at).copied();
        self.at += 1;
        Ok(match byte {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.error("an unknown escape in a string")),
        })
    }

    fn unicode_escape(&mut self) -> Result<char, String> {
        let first = self.hex_unit()?;
        let code = match first {
            0xD800..0xDC00 if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                let second = self.hex_unit()?;
                if !(0xDC00..0xE000).contains(&second) {
                    return Err(self.error("half of a surrogate pair in a string"));
                }
                0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair in a string"))
    }

    fn hex_unit(&mut self) -> Result<u32, String> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(digits) = digits else {
            return Err(self.error("an escape `\\u` without four hexadecimal digits"));
        };
        self.at += 4;
        Ok(digits.iter().fold(0, |code, &digit| code * 16 + char::from(digit).to_digit(16).expect("it is a hexadecimal digit")))
    }

    fn error(&self, what: &str) -> String {
        format!("invalid JSON: {what} at byte {} of the record", self.at)
    }
}
