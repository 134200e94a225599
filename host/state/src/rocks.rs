//! RocksDB: the only file that names it.

/// Sizes of what all RocksDB instances of a process share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksSharedSettings {
    /// Uncompressed blocks kept in memory, in bytes. Default: 64 MiB.
    pub block_cache_bytes: usize,
    /// Written data not yet in files, in bytes; counted inside the block cache's memory. Default: 64 MiB.
    pub write_buffer_bytes: usize,
}

impl Default for RocksSharedSettings {
    fn default() -> Self {
        Self { block_cache_bytes: 64 << 20, write_buffer_bytes: 64 << 20 }
    }
}

/// What all RocksDB instances of a process share: block cache, write-buffer manager.
#[derive(Debug)]
pub struct RocksShared {
    settings: RocksSharedSettings,
}

impl RocksShared {
    /// Allocates nothing before the first instance is opened.
    pub fn new(settings: RocksSharedSettings) -> Self {
        Self { settings }
    }
}
