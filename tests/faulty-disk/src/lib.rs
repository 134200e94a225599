//! A disk that is full, or breaks: preloaded into a process (`LD_PRELOAD`), it makes every write below a directory fail from the k-th on. So the
//! real process meets the error at the real call, whoever makes it: ours, or RocksDB.
//!
//! `FAULTY_DISK_BELOW`: the directory, absolute. `FAULTY_DISK_FIRST`: the number of the first write that fails, from 1. `FAULTY_DISK_ERRNO`: with what.
//! Writes are counted over all threads: of content, of length, of names (rename, link, directory) and syncs. The first that fails is told on
//! standard error.

#![cfg(target_os = "linux")]

use std::{
    env,
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    io::Write as _,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use libc::{iovec, mode_t, off64_t, size_t, ssize_t};

/// What fails.
struct Faults {
    below: PathBuf,
    first: u64,
    errno: c_int,
}

static WRITES: AtomicU64 = AtomicU64::new(0);

/// None: this process is not told to fail.
fn faults() -> Option<&'static Faults> {
    static FAULTS: OnceLock<Option<Faults>> = OnceLock::new();
    let read = || {
        let number = |name: &str| env::var(name).ok()?.parse().ok();
        let below = env::var_os("FAULTY_DISK_BELOW")?.into();
        Some(Faults { below, first: number("FAULTY_DISK_FIRST")?, errno: c_int::try_from(number("FAULTY_DISK_ERRNO")?).ok()? })
    };
    FAULTS.get_or_init(read).as_ref()
}

/// Whether a write to `path` fails; counts it.
fn fails(path: &Path) -> bool {
    let Some(faults) = faults().filter(|faults| path.starts_with(&faults.below)) else { return false };
    let number = WRITES.fetch_add(1, Ordering::Relaxed) + 1;
    if number < faults.first {
        return false;
    }
    if number == faults.first {
        // Without standard error nobody listens.
        let _told = writeln!(std::io::stderr(), "faulty disk: write {number} fails: {}", path.display());
    }
    // SAFETY: the location of errno of this thread is always valid.
    unsafe { *libc::__errno_location() = faults.errno };
    true
}

fn fails_at(file: c_int) -> bool {
    faults().is_some() && std::fs::read_link(format!("/proc/self/fd/{file}")).is_ok_and(|path| fails(&path))
}

/// Whether a write of the name `path` fails.
fn fails_named(path: *const c_char) -> bool {
    if path.is_null() || faults().is_none() {
        return false;
    }
    // SAFETY: the caller of the intercepted function gives a C string.
    let path = Path::new(std::ffi::OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    env::current_dir().is_ok_and(|directory| fails(&directory.join(path)))
}

/// Defines a function of the C library that fails where `fails` says so, and else is the real one.
macro_rules! intercept {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty, fails if $fails:expr;)*) => {
        $(
            /// As the function of the C library of this name.
            ///
            /// # Safety
            /// As there.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $result {
                static REAL: OnceLock<usize> = OnceLock::new();
                // SAFETY: the name is a C string, and the C library has this function.
                let real = *REAL.get_or_init(|| unsafe { libc::dlsym(libc::RTLD_NEXT, concat!(stringify!($name), "\0").as_ptr().cast()) } as usize);
                if $fails {
                    return -1;
                }
                // SAFETY: it is the function of this name, which has this signature.
                let real: unsafe extern "C" fn($($type),*) -> $result = unsafe { std::mem::transmute::<usize, _>(real) };
                // SAFETY: the caller keeps to what that function asks for.
                unsafe { real($($argument),*) }
            }
        )*
    };
}

intercept! {
    fn write(file: c_int, bytes: *const c_void, count: size_t) -> ssize_t, fails if fails_at(file);
    fn pwrite(file: c_int, bytes: *const c_void, count: size_t, at: off64_t) -> ssize_t, fails if fails_at(file);
    fn pwrite64(file: c_int, bytes: *const c_void, count: size_t, at: off64_t) -> ssize_t, fails if fails_at(file);
    fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t, fails if fails_at(file);
    fn fsync(file: c_int) -> c_int, fails if fails_at(file);
    fn fdatasync(file: c_int) -> c_int, fails if fails_at(file);
    fn ftruncate(file: c_int, length: off64_t) -> c_int, fails if fails_at(file);
    fn ftruncate64(file: c_int, length: off64_t) -> c_int, fails if fails_at(file);
    fn copy_file_range(from: c_int, at: *mut off64_t, to: c_int, to_at: *mut off64_t, count: size_t, flags: c_uint) -> ssize_t, fails if fails_at(to);
    fn rename(from: *const c_char, to: *const c_char) -> c_int, fails if fails_named(to);
    fn link(from: *const c_char, to: *const c_char) -> c_int, fails if fails_named(to);
    fn linkat(from_directory: c_int, from: *const c_char, directory: c_int, to: *const c_char, flags: c_int) -> c_int, fails if fails_named(to);
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int, fails if fails_named(path);
}
