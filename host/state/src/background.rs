//! Threads whose work may wait: they give way to the threads of streams.

use std::{io, thread};

/// How much they give way: ten steps of nice are about a tenth of the processor beside a thread that wants all of it, and all of it when it is idle.
const NICE: libc::c_int = 10;

/// Does `work` on a thread of its own that gives way to all others of the process.
///
/// # Errors
/// There can be no further thread.
pub fn spawn_background(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        give_way();
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

/// The calling thread gives way from now on. It cannot take this back without privileges, so it must not be one that serves others afterwards.
fn give_way() {
    // SAFETY: a call with numbers only. On Linux the priority is that of a thread, and 0 is the calling one. Where it is refused, the work is done
    // all the same, so its answer is of no interest.
    #[cfg(target_os = "linux")]
    #[expect(unsafe_code, reason = "there is no safe call for it among our dependencies")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}
