//! Texts: names, places, channels, and random letters.

use std::{fmt::Write as _, sync::LazyLock};

use arrow_array::{ArrayRef, StringArray};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};

use super::random::{Random, below, next};

/// First names, as in Beam's generator.
pub const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
/// Last names, as in Beam's generator.
pub const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
/// Cities, as in Beam's generator.
pub const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
/// States, as in Beam's generator.
pub const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// Channels of bids: the first four are hot.
pub struct Channels {
    /// Names by number.
    pub names: Vec<String>,
    /// Addresses by number.
    pub urls: Vec<String>,
}

/// Number of hot channels.
pub const HOT_CHANNELS: u64 = 4;
/// Number of other channels.
pub const OTHER_CHANNELS: u64 = 10_000;

/// All channels. They do not depend on the seed.
pub static CHANNELS: LazyLock<Channels> = LazyLock::new(|| {
    let random = Random::new(0, 63);
    let mut names: Vec<String> = ["Google", "Facebook", "Baidu", "Apple"].map(str::to_owned).into();
    names.extend((0..OTHER_CHANNELS).map(|number| format!("channel-{number}")));
    let urls = (0..names.len() as u64).map(|number| channel_url(number, random)).collect();
    Channels { names, urls }
});

fn channel_url(number: u64, random: Random) -> String {
    let mut letters = vec![0; 15];
    fill_letters(random.at(number), &mut letters);
    let text = String::from_utf8(letters).expect("letters are ASCII");
    let mut url = format!("https://www.nexmark.com/{}/{}/{}/item.htm?query=1", &text[..5], &text[5..10], &text[10..]);
    // Nine of ten of the other channels say their number, as in Nexmark's own data.
    if number >= HOT_CHANNELS && !number.is_multiple_of(10) {
        write!(url, "&channel_id={}", number.reverse_bits() >> 33).expect("a string takes all writes");
    }
    url
}

/// A column under construction whose texts are made in place.
pub struct TextColumn {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

impl TextColumn {
    /// An empty column with room for `rows` texts of `bytes_each`.
    pub fn with_capacity(rows: usize, bytes_each: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Self { bytes: Vec::with_capacity(rows * bytes_each), ends }
    }

    /// Appends a text.
    #[inline]
    pub fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.end();
    }

    /// Appends bytes to the text that the next [`Self::end`] ends. They are ASCII.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends `count` random letters to that text.
    #[inline]
    pub fn letters(&mut self, random: u64, count: usize) {
        let start = self.bytes.len();
        self.bytes.resize(start + count, 0);
        fill_letters(random, &mut self.bytes[start..]);
    }

    /// Ends a text.
    #[inline]
    pub fn end(&mut self) {
        self.ends.push(i32::try_from(self.bytes.len()).expect("a batch of events is smaller than 2 GiB"));
    }

    /// The column.
    pub fn finish(self) -> ArrayRef {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        std::sync::Arc::new(StringArray::try_new(offsets, Buffer::from_vec(self.bytes), None).expect("texts are UTF-8"))
    }
}

/// Fills `text` with random small letters: eight from each number.
#[inline]
fn fill_letters(mut random: u64, text: &mut [u8]) {
    let mut chunks = text.chunks_exact_mut(8);
    for chunk in &mut chunks {
        chunk.copy_from_slice(&eight_letters(random));
        random = next(random);
    }
    let rest = chunks.into_remainder();
    rest.copy_from_slice(&eight_letters(random)[..rest.len()]);
}

/// A letter from each byte: `a` + byte · 26 / 256, computed on four 16-bit lanes at a time.
#[inline]
fn eight_letters(random: u64) -> [u8; 8] {
    const LANES: u64 = 0x00FF_00FF_00FF_00FF;
    let even = (((random & LANES) * 26) >> 8) & LANES;
    let odd = (((random >> 8) & LANES) * 26) & !LANES;
    ((even | odd) + u64::from_ne_bytes([b'a'; 8])).to_le_bytes()
}

/// `count` random letters and spaces, about as Beam's `nextString` makes words.
pub fn words(column: &mut TextColumn, random: u64, count: usize) {
    const WORD: usize = 12;
    let (mut random, mut left) = (random, count);
    while left > 0 {
        let length = (1 + below(random, WORD as u64) as usize).min(left);
        random = next(random);
        column.letters(random, length);
        left -= length;
        if left > 0 {
            column.bytes(b" ");
            left -= 1;
        }
        random = next(random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_texts_are_small_letters_only() {
        for number in 0..10_000 {
            let letters = eight_letters(super::super::random::mix(number));
            assert!(letters.iter().all(u8::is_ascii_lowercase), "{letters:?}");
        }
        assert_eq!(eight_letters(0), *b"aaaaaaaa");
        assert_eq!(eight_letters(u64::MAX), *b"zzzzzzzz");
    }
}
