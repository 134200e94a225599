//! What stands at a place of a record, found several bytes at a time. Nothing here is an error: what is not found quickly is looked at again by
//! [`super::parse::Cursor`], which says what is wrong with it.

/// A text that is looked for in many records.
pub struct Word {
    text: Box<[u8]>,
    /// Its first sixteen bytes, and zeros; the bits that count.
    front: u128,
    mask: u128,
}

impl Word {
    pub fn new(text: &str) -> Self {
        let bytes = text.as_bytes().iter().take(16).rev();
        let front = bytes.fold(0, |front, &byte| front << 8 | u128::from(byte));
        let mask = u128::MAX.unbounded_shr(128_u32.saturating_sub(8 * text.len() as u32));
        Self { text: text.as_bytes().into(), front, mask }
    }

    /// Where it ends, if it stands at `at`.
    #[inline]
    pub fn end(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let (bytes, length) = (bytes.get(at..)?, self.text.len());
        let found = match bytes.first_chunk() {
            Some(front) if length <= 32 => {
                let is_front = (u128::from_le_bytes(*front) ^ self.front) & self.mask == 0;
                is_front && (length <= 16 || bytes.get(..length).and_then(<[u8]>::last_chunk::<16>) == self.text.last_chunk())
            }
            _ => bytes.starts_with(&self.text),
        };
        found.then_some(at + length)
    }
}

/// Passes a value that is most common: a string without escapes, an integer, a word.
#[inline]
pub fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => plain_string(bytes, at).map(|end| end + 1),
        b'n' => null(bytes, at),
        _ => integer(bytes, at).map(|(_, end)| end),
    }
}

/// Where a `null` ends that stands at `at`.
pub fn null(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.starts_with(b"null").then_some(at + 4)
}

/// Where the string that begins at `at` has its closing quote, if it has no escapes.
#[inline]
pub fn plain_string(bytes: &[u8], at: usize) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let end = at + 1 + end_of_plain(&bytes[at + 1..])?;
    (bytes[end] == b'"').then_some(end)
}

/// A number without fraction and exponent, of at most 18 digits, that stands at `at`: what it means, and where it ends. Not `-0`, which is a float of its own.
#[inline(always)]
pub fn integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let word = word(bytes, at);
    let is_negative = word as u8 == b'-';
    let word = if is_negative { word >> 8 } else { word };
    let at = at + usize::from(is_negative);
    let (value, bits) = digits_of_word(word);
    // No branch depends on the sign or on the number of digits: nobody foresees them.
    let follows = word.wrapping_shr(bits) as u8;
    let is_ended = (follows == b',') | (follows == b'}');
    let is_odd = (bits == 0) | ((word as u8 == b'0') & ((bits > 8) | is_negative));
    let (value, end) = if is_ended & !is_odd { (value, at + bits as usize / 8) } else { other_integer(bytes, at, is_negative)? };
    Some((if is_negative { -value } else { value }, end))
}

/// The same of one that is longer, or that something else follows; without its sign.
fn other_integer(bytes: &[u8], at: usize, is_negative: bool) -> Option<(i64, usize)> {
    let bytes = bytes.get(at..)?;
    let (value, count) = digits(bytes);
    let goes_on = matches!(bytes.get(count), Some(b'.' | b'e' | b'E' | b'0'..=b'9'));
    let is_odd = count == 0 || (bytes[0] == b'0' && (count > 1 || is_negative));
    (!goes_on && !is_odd).then_some((value, at + count))
}

/// Up to 18 digits at the front: what they mean, and how many there are.
fn digits(bytes: &[u8]) -> (i64, usize) {
    const TENS: [i64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
    match (digits_of_word(word(bytes, 0)), digits_of_word(word(bytes, 8))) {
        ((high, 64), (low, bits @ 8..64)) => (high * TENS[bits as usize / 8] + low, 8 + bits as usize / 8),
        _ => digits_one_by_one(bytes),
    }
}

fn digits_one_by_one(bytes: &[u8]) -> (i64, usize) {
    const DIGITS_MAX: usize = 18;
    let digits = bytes.iter().take(DIGITS_MAX).take_while(|byte| byte.is_ascii_digit());
    digits.fold((0, 0), |(value, count), byte| (value * 10 + i64::from(byte - b'0'), count + 1))
}

/// The digits at the front of eight bytes: what they mean (anything if there are none), and how many bits they take (Lemire's
/// `parse_eight_digits_unrolled`).
#[inline(always)]
fn digits_of_word(word: u64) -> (i64, u32) {
    let digits = word ^ each(b'0');
    // 0 to 9 stay below 16 when 6 is added, other bytes do not; a carry only goes up, to bytes behind the first that is found.
    let others = (digits | digits.wrapping_add(each(6))) & each(0xf0);
    let bits = others.trailing_zeros() & !7;
    let digits = digits.wrapping_shl(64 - bits);
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = ((pairs >> 16) & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    (i64::from((low.wrapping_add(high) >> 32) as u32), bits)
}

/// The eight bytes from `at` on, the first one lowest; zeros behind the last of all bytes.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match (rest.first_chunk(), bytes.last_chunk()) {
        (Some(word), _) => u64::from_le_bytes(*word),
        (None, Some(last)) => u64::from_le_bytes(*last).unbounded_shr(64 - 8 * rest.len() as u32),
        (None, None) => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    }
}

/// The first quote, backslash or control character, eight bytes at a time (Mycroft's test for a byte that is zero; bytes above the first that is found
/// may be found wrongly, which nobody sees).
#[inline]
pub fn end_of_plain(bytes: &[u8]) -> Option<usize> {
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

/// Eight times the same byte.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
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
        fn a_word_is_the_next_eight_bytes_and_zeros(bytes in prop::collection::vec(any::<u8>(), 0..20), at in 0_usize..24) {
            let padded: Vec<u8> = bytes.iter().skip(at).copied().chain([0; 8]).take(8).collect();
            prop_assert_eq!(word(&bytes, at).to_le_bytes().to_vec(), padded);
        }

        #[test]
        fn digits_eight_at_a_time_are_the_digits_one_by_one(text in "[0-9]{0,20}[^0-9]{0,9}", any in prop::collection::vec(any::<u8>(), 0..20)) {
            for bytes in [text.as_bytes(), &any] {
                prop_assert_eq!(digits(bytes), digits_one_by_one(bytes));
            }
        }

        #[test]
        fn a_text_stands_at_a_place_as_the_library_says(before in "[a-c]{0,3}", text in "[a-c]{0,40}", bytes in "[a-c]{0,24}", follows in any::<bool>()) {
            let bytes = if follows { format!("{before}{text}{bytes}") } else { format!("{before}{bytes}") };
            let end = bytes[before.len()..].starts_with(&text).then_some(before.len() + text.len());
            prop_assert_eq!(Word::new(&text).end(bytes.as_bytes(), before.len()), end);
        }

        #[test]
        fn a_long_text_that_differs_in_one_byte_is_not_found(text in "[a-c]{1,40}", follows in "[a-c]{0,20}", at in any::<prop::sample::Index>()) {
            let mut other = text.clone().into_bytes();
            other[at.index(text.len())] = b'd';
            other.extend_from_slice(follows.as_bytes());
            prop_assert_eq!(Word::new(&text).end(&other, 0), None);
        }

        #[test]
        fn an_integer_is_found_whole_or_not_at_all(before in "[0-9]{0,3}", text in "-?0{0,2}[0-9]{0,20}", follows in "|[,}]|[.eE,} a\\]][0-9]{0,9}") {
            let bytes = format!("{before}{text}{follows}");
            let expected = serde_json::from_str::<i64>(&text).ok().filter(|_| {
                text.trim_start_matches('-').len() <= 18 && text != "-0" && !follows.starts_with(['.', 'e', 'E'])
            });
            prop_assert_eq!(integer(bytes.as_bytes(), before.len()), expected.map(|value| (value, before.len() + text.len())));
        }
    }
}
