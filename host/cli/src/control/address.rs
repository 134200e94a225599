//! Addresses of sockets: 108 bytes at most, while a path may be thousands of bytes long.

use std::{fs::File, io, os::fd::AsRawFd, path::Path};

/// The longest path that is an address by itself, in bytes; one byte less than the kernel has room for.
const ADDRESS_BYTES_MAX: usize = 107;

/// Calls `using` with a path that leads to `socket` and is short enough to be an address: through an open directory, if need be.
pub fn with<T>(socket: &Path, using: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if socket.as_os_str().len() <= ADDRESS_BYTES_MAX {
        return using(socket);
    }
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else { return using(socket) };
    let directory = File::open(directory)?;
    using(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}
