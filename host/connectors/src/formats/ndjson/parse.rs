//! A cursor over one JSON value (RFC 8259): it checks all of the grammar, and copies only strings that have escapes.

use std::borrow::Cow;

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
    #[inline]
    pub fn more_members(&mut self) -> Result<bool, String> {
        if self.take(b',') {
            return Ok(true);
        }
        self.expect(b'}').map_err(|_| self.error("expected `,`"))?;
        self.close().map(|()| false)
    }

    /// Passes the name of a member and its colon: what it means, and what stands there.
    pub fn member_name(&mut self) -> Result<(Cow<'a, str>, &'a str), String> {
        if self.peek() != Some(b'"') {
            return Err(self.error("expected a member name in quotes"));
        }
        let start = self.at;
        let name = self.string()?;
        self.expect(b':')?;
        Ok((name, &self.text[start..self.at]))
    }

    /// Passes `text` if it stands there, letter by letter.
    #[inline]
    pub fn pass(&mut self, text: &str) -> bool {
        self.peek();
        let found = begins_with(&self.text.as_bytes()[self.at..], text.as_bytes());
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Passes a number without fraction and exponent, of at most 18 digits, if one stands there and `take` does.
    #[inline]
    pub fn integer(&mut self, take: impl FnOnce(i64) -> bool) -> bool {
        self.peek();
        let bytes = &self.text.as_bytes()[self.at..];
        let is_negative = bytes.first() == Some(&b'-');
        let bytes = &bytes[usize::from(is_negative)..];
        let (value, digits) = digits_in_one_step(bytes).unwrap_or_else(|| digits_one_by_one(bytes));
        // Also for whom takes its time: `-0`, which is a float of its own.
        let is_other = matches!(bytes.get(digits), Some(b'.' | b'e' | b'E' | b'0'..=b'9'));
        if digits == 0 || is_other || (bytes[0] == b'0' && (digits > 1 || is_negative)) || !take(if is_negative { -value } else { value }) {
            return false;
        }
        self.at += digits + usize::from(is_negative);
        true
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
        let Some(end) = end_of_plain(&bytes[start..]) else {
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

/// Eight times the same byte.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The first quote, backslash or control character, eight bytes at a time (Mycroft's test for a byte that is zero; bytes above the first that is found
/// may be found wrongly, which nobody sees).
#[inline]
fn end_of_plain(bytes: &[u8]) -> Option<usize> {
    const fn below(word: u64, bound: u8) -> u64 {
        word.wrapping_sub(each(bound)) & !word & each(0x80)
    }
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = below(word ^ each(b'"'), 1) | below(word ^ each(b'\\'), 1) | below(word, b' ');
        if found != 0 {
            return Some(number * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let end = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < b' ')?;
    Some(words.len() * 8 + end)
}

/// The digits at the front of eight bytes: what they mean, and how many there are; none: there are not so many bytes, or all of them are digits. No branch
/// depends on how long the number is (Lemire's `parse_eight_digits_unrolled`).
#[inline]
fn digits_in_one_step(bytes: &[u8]) -> Option<(i64, usize)> {
    let digits = u64::from_le_bytes(*bytes.first_chunk::<8>()?) ^ each(b'0');
    // 0 to 9 stay below 16 when 6 is added, other bytes do not; a carry only goes up, to bytes behind the first that is found.
    let others = (digits | digits.wrapping_add(each(6))) & each(0xf0);
    let count = others.trailing_zeros() as usize / 8;
    if others == 0 || count == 0 {
        return (count == 0).then_some((0, 0));
    }
    let digits = digits << (64 - 8 * count);
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    Some(((low.wrapping_add(high) >> 32) as i64, count))
}

/// Up to 18 digits at the front: what they mean, and how many there are.
fn digits_one_by_one(bytes: &[u8]) -> (i64, usize) {
    const DIGITS_MAX: usize = 18;
    let digits = bytes.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit());
    digits.fold((0, 0), |(value, count), byte| (value * 10 + i64::from(byte - b'0'), count + 1))
}

/// `bytes.starts_with(text)` without a call, for the few words that a name has.
#[inline]
fn begins_with(bytes: &[u8], text: &[u8]) -> bool {
    let Some(front) = bytes.get(..text.len()) else { return false };
    let words = front.as_chunks::<8>().0.iter().zip(text.as_chunks::<8>().0);
    let same = words.fold(true, |same, (a, b)| same & (u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b)));
    // The rest, with some of what is before it.
    match (front.last_chunk::<8>(), text.last_chunk::<8>(), front.last_chunk::<4>(), text.last_chunk::<4>()) {
        (Some(a), Some(b), ..) => same && u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b),
        (.., Some(a), Some(b)) => u32::from_ne_bytes(*a) == u32::from_ne_bytes(*b) && front[..3] == text[..3],
        _ => front == text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_found_eight_bytes_at_a_time_is_what_is_found_byte_by_byte(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..b' '));
            prop_assert_eq!(end_of_plain(&bytes), end);
        }

        #[test]
        fn digits_in_one_step_are_the_digits_one_by_one(text in "[0-9]{0,9}[^0-9]{0,9}", any in prop::collection::vec(any::<u8>(), 8..20)) {
            for bytes in [text.as_bytes(), &any] {
                let (value, count) = digits_one_by_one(bytes);
                prop_assert_eq!(digits_in_one_step(bytes), (bytes.len() >= 8 && count < 8).then_some((value, count)));
            }
        }

        #[test]
        fn a_text_stands_at_the_front_as_the_library_says(text in "[a-c]{0,20}", bytes in "[a-c]{0,24}", follows in any::<bool>()) {
            let bytes = if follows { format!("{text}{bytes}") } else { bytes };
            prop_assert_eq!(begins_with(bytes.as_bytes(), text.as_bytes()), bytes.starts_with(&text));
        }

        #[test]
        fn an_integer_is_passed_whole_or_not_at_all(text in " {0,2}-?[0-9]{0,21}[.eE,} a]?[0-9]{0,2}") {
            let mut cursor = Cursor::new(&text);
            let mut taken = None;
            let is_passed = cursor.integer(|integer| { taken = Some(integer); true });
            // Spaces before a value are passed whatever it is.
            let value = text.trim_start();
            let start = text.len() - value.len();
            let end = value.strip_prefix('-').unwrap_or(value).find(|letter: char| !letter.is_ascii_digit());
            let end = end.map_or(value.len(), |end| end + usize::from(value.starts_with('-')));
            let expected = serde_json::from_str::<i64>(&value[..end]).ok();
            let is_one = expected.is_some() && !value[end..].starts_with(['.', 'e', 'E']) && value[..end].trim_start_matches('-').len() <= 18 && &value[..end] != "-0";
            prop_assert_eq!((is_passed, taken, cursor.at), if is_one { (true, expected, start + end) } else { (false, None, start) });
        }
    }
}
