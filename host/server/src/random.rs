//! Randomness of the system: secrets that nobody may guess, and a seed for numbers that nobody needs to.

use std::{
    fs::File,
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
};

use millstream_engine::clock::Random;
use millstream_model::ErrorKind;

use crate::failure::Failure;

/// Bytes that nobody can guess.
///
/// # Errors
/// The system gives none.
pub fn secret<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.map_err(|error| Failure::new(ErrorKind::Unavailable, "the system gives no random numbers").because(&error))?;
    Ok(bytes)
}

/// Random numbers that nobody needs to guess wrong: names of manifests and the spread of waits. Steele, Lea, Flood: Fast splittable pseudorandom
/// number generators, 2014.
pub struct Seeded(AtomicU64);

impl Seeded {
    /// Seeded by the system.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn from_system() -> Result<Self, Failure> {
        Ok(Self(AtomicU64::new(u64::from_le_bytes(secret()?))))
    }
}

impl Random for Seeded {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
