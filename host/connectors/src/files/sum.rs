//! A file that sums up what is written into it, so that a part which is staged can be compared with what it was when it was complete.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use xxhash_rust::xxh3::Xxh3;

/// A new file, and the XXH3-64 of its content so far.
pub struct Summed {
    file: File,
    sum: Xxh3,
}

impl Summed {
    /// Sums up what is written from here on.
    pub fn new(file: File) -> Self {
        Self { file, sum: Xxh3::new() }
    }

    /// The same file, and the sum of what was written so far.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { file: self.file.try_clone()?, sum: self.sum.clone() })
    }

    /// The file, and the sum of its content as a checkpoint remembers it.
    pub fn finish(self) -> (File, String) {
        (self.file, text(&self.sum))
    }
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The sum of a file that lies there.
///
/// # Errors
/// It cannot be read.
pub fn of_file(path: &Path) -> io::Result<String> {
    let (mut file, mut sum, mut buffer) = (File::open(path)?, Xxh3::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(text(&sum)),
            Ok(count) => sum.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn text(sum: &Xxh3) -> String {
    format!("{:016x}", sum.digest())
}
