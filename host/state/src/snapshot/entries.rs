//! The file of our own in a snapshot: all entries of a store in memory, or the timers in memory of a store on RocksDB.
//!
//! # Bytes (format 1; never changed, numbers little-endian)
//! ```text
//! file    = head, block*, end
//! head    = "millstream entries 1\n"
//! block   = length of the payload (u32, never 0), payload, check
//! end     = 0 (u32), number of entries (u64), check
//! check   = XXH3-64 of all that the block has before it, seeded with the number of the block: the first is 1, the end counts
//! payload = entry*
//! entry   = varint length of the key, key, varint 0 (deleted) or 1 + length of the value, value
//! ```
//! Keys and values are those of [`crate::generation::StoredEntry`]. Of several entries with one key the last one counts. A file that is cut
//! short, longer, or has a bit changed anywhere is told from a good one.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::Xxh3;

use crate::{
    Error,
    memory::prefetch,
    row::{read_varint, write_varint},
};

const HEAD: &[u8] = b"millstream entries 1\n";
/// A block ends when it has so many bytes.
const BLOCK_BYTES: usize = 64 << 10;
/// No block is longer: an entry has a key of some KiB and a value of at most 1 MiB.
const BLOCK_BYTES_MAX: usize = 4 << 20;

/// How many entries before its turn one is asked for from memory.
const FETCHED_AHEAD: usize = 16;

/// Entries that are gathered for a file.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Payloads; all but the last are full.
    blocks: Vec<Vec<u8>>,
    count: u64,
    bytes: usize,
}

impl Entries {
    /// Number of entries.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Adds an entry; no value: it is deleted.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        if self.blocks.last().is_none_or(|block| block.len() >= BLOCK_BYTES) {
            self.blocks.push(Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 8));
        }
        let block = self.blocks.last_mut().expect("pushed above if there was none");
        write_varint(key.len() as u64, block);
        block.extend_from_slice(key);
        match value {
            None => block.push(0),
            Some(value) => {
                write_varint(value.len() as u64 + 1, block);
                block.extend_from_slice(value);
            }
        }
        self.count += 1;
        self.bytes += key.len() + value.map_or(0, <[u8]>::len) + 2;
    }

    /// Bytes of keys and values, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All entries, in the order of keys. Must have none twice.
    pub fn sorted(&self) -> impl Iterator<Item = EntryBytes<'_>> {
        let mut order = self.places();
        // Entries lie all over memory: most comparisons end before they have to go there.
        order.sort_unstable_by(|(start, place), (other_start, other)| {
            start.cmp(other_start).then_with(|| self.entry(*place).0.cmp(self.entry(*other).0))
        });
        (0..order.len()).map(move |at| {
            if let Some((_, ahead)) = order.get(at + FETCHED_AHEAD) {
                prefetch(&self.blocks[ahead.block as usize], ahead.offset as usize);
            }
            self.entry(order[at].1)
        })
    }

    fn places(&self) -> Vec<(KeyStart, Place)> {
        let mut places = Vec::with_capacity(usize::try_from(self.count).unwrap_or(0));
        for (block, bytes) in (0..).zip(&self.blocks) {
            let mut offset = 0;
            while offset < bytes.len() {
                let entry = split_entry(&bytes[offset..]).expect("written by `push`");
                let key = &bytes[offset + entry.key.start..offset + entry.key.end];
                places.push((key_start(key), Place { block, offset: offset as u32 }));
                offset += entry.length;
            }
        }
        places
    }

    fn entry(&self, place: Place) -> EntryBytes<'_> {
        let bytes = &self.blocks[place.block as usize][place.offset as usize..];
        let entry = split_entry(bytes).expect("written by `push`");
        (&bytes[entry.key], entry.value.map(|value| &bytes[value]))
    }

    /// Writes the file, which must not exist, and gives its length.
    pub fn write_to(&self, path: &Path) -> Result<u64, Error> {
        let write = || -> io::Result<u64> {
            let mut out = BufWriter::new(File::create_new(path)?);
            out.write_all(HEAD)?;
            let mut length = HEAD.len();
            let end: &[u8] = &self.count.to_le_bytes();
            let parts = self.blocks.iter().map(|block| (block.len(), &block[..])).chain([(0, end)]);
            for (number, (announced, payload)) in (1..).zip(parts) {
                let announced = u32::try_from(announced).expect("a block has one entry more than its bound").to_le_bytes();
                out.write_all(&announced)?;
                out.write_all(payload)?;
                out.write_all(&check(number, announced, payload).to_le_bytes())?;
                length += 4 + payload.len() + 8;
            }
            out.flush()?;
            Ok(length as u64)
        };
        write().map_err(|source| Error::io("write", source))
    }
}

/// The first bytes of a key, as numbers in the same order.
type KeyStart = [u64; 2];

/// Where an entry is: a block has less than 4 GiB.
#[derive(Clone, Copy)]
struct Place {
    block: u32,
    offset: u32,
}

fn key_start(key: &[u8]) -> KeyStart {
    let mut bytes = [0; 16];
    let length = key.len().min(bytes.len());
    bytes[..length].copy_from_slice(&key[..length]);
    [0, 8].map(|at| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes")))
}

fn check(number: u64, announced: [u8; 4], payload: &[u8]) -> u64 {
    let mut hasher = Xxh3::with_seed(number);
    hasher.update(&announced);
    hasher.update(payload);
    hasher.digest()
}

/// Key and value of an entry; no value: it is deleted.
pub(crate) type EntryBytes<'a> = (&'a [u8], Option<&'a [u8]>);

/// Reads a file block by block; what it gives out has been checked.
pub(crate) struct EntriesReader {
    path: PathBuf,
    input: BufReader<File>,
    number: u64,
    announced: u64,
    read: u64,
    block: Vec<u8>,
    at: usize,
    is_at_end: bool,
}

impl EntriesReader {
    /// Opens a file that holds `announced` entries.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: it is missing, or is no such file. [`Error::Backend`].
    pub fn open(path: &Path, announced: u64) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::damaged_file(path, "it is missing"),
            _ => Error::io("read", source),
        })?;
        let input = BufReader::with_capacity(BLOCK_BYTES, file);
        let path = path.to_owned();
        let mut reader = Self { path, input, number: 0, announced, read: 0, block: Vec::new(), at: 0, is_at_end: false };
        let mut head = [0; HEAD.len()];
        reader.fill(&mut head)?;
        if head != HEAD {
            return Err(reader.damaged("its first line is another"));
        }
        Ok(reader)
    }

    /// The next entry; none: that was all.
    pub fn next(&mut self) -> Result<Option<EntryBytes<'_>>, Error> {
        while self.at == self.block.len() {
            if self.is_at_end {
                return Ok(None);
            }
            self.read_block()?;
        }
        let Some(entry) = split_entry(&self.block[self.at..]) else { return Err(self.damaged("an entry is cut short")) };
        let (key, value, length) = (entry.key, entry.value, entry.length);
        // As ranges, so that the borrow of the block begins anew.
        let key = self.at + key.start..self.at + key.end;
        let value = value.map(|value| self.at + value.start..self.at + value.end);
        self.at += length;
        self.read += 1;
        Ok(Some((&self.block[key], value.map(|value| &self.block[value]))))
    }

    fn read_block(&mut self) -> Result<(), Error> {
        self.number += 1;
        let mut announced = [0; 4];
        self.fill(&mut announced)?;
        let length = u32::from_le_bytes(announced) as usize;
        if length > BLOCK_BYTES_MAX {
            return Err(self.damaged("a block is too long"));
        }
        let mut payload = std::mem::take(&mut self.block);
        payload.resize(if length == 0 { 8 } else { length }, 0);
        self.fill(&mut payload)?;
        let mut stored_check = [0; 8];
        self.fill(&mut stored_check)?;
        if u64::from_le_bytes(stored_check) != check(self.number, announced, &payload) {
            return Err(self.damaged("a block does not have its checksum"));
        }
        self.at = 0;
        self.block = payload;
        if length == 0 {
            self.end()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        let written = u64::from_le_bytes(self.block[..8].try_into().expect("the end has 8 bytes"));
        if written != self.read || written != self.announced {
            return Err(self.damaged(&format!("it has {} entries, its end says {written}, its description {}", self.read, self.announced)));
        }
        if self.input.read(&mut [0]).map_err(|source| Error::io("read", source))? != 0 {
            return Err(self.damaged("it goes on behind its end"));
        }
        self.block.clear();
        self.is_at_end = true;
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.input.read_exact(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is cut short"),
            _ => Error::io("read", source),
        })
    }

    fn damaged(&self, reason: &str) -> Error {
        Error::damaged_file(&self.path, reason)
    }
}

/// Where an entry has its parts, and its length.
struct EntryPlace {
    key: Range<usize>,
    value: Option<Range<usize>>,
    length: usize,
}

fn split_entry(bytes: &[u8]) -> Option<EntryPlace> {
    let mut rest = bytes;
    let key_length = usize::try_from(read_varint(&mut rest)?).ok()?;
    let key = take(bytes, &mut rest, key_length)?;
    let value = match read_varint(&mut rest)? {
        0 => None,
        stored => Some(take(bytes, &mut rest, usize::try_from(stored - 1).ok()?)?),
    };
    Some(EntryPlace { key, value, length: bytes.len() - rest.len() })
}

/// The next bytes as a range of `bytes`, of which `rest` is what is left.
fn take(bytes: &[u8], rest: &mut &[u8], length: usize) -> Option<Range<usize>> {
    let start = bytes.len() - rest.len();
    *rest = rest.get(length..)?;
    Some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::Entries;

    #[test]
    fn entries_are_sorted_by_their_whole_keys() {
        let keys: Vec<Vec<u8>> =
            vec![vec![7; 40], [&[7; 20][..], b"b"].concat(), vec![7; 16], vec![7; 15], [&[7; 15][..], &[0]].concat(), vec![], vec![7, 255]];
        let mut entries = Entries::default();
        keys.iter().for_each(|key| entries.push(key, Some(key)));
        let sorted: Vec<Vec<u8>> = entries.sorted().map(|(key, _)| key.to_vec()).collect();
        let mut expected = keys;
        expected.sort_unstable();
        assert_eq!(sorted, expected);
    }
}
