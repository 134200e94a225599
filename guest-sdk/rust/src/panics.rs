//! Which row is being handled, so that a line of log is said of it, and a panic before it traps.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A component has one thread; natively, tests have several, and the number is not shown.
static ROW: AtomicU32 = AtomicU32::new(u32::MAX);

/// Row `row` is being handled.
#[inline(always)]
pub fn enter(row: usize) {
    if cfg!(target_family = "wasm") {
        ROW.store(row as u32, Relaxed);
    }
}

/// No row is being handled.
pub(crate) fn leave() {
    ROW.store(u32::MAX, Relaxed);
}

/// The row that is being handled.
pub(crate) fn row() -> Option<u32> {
    Some(ROW.load(Relaxed)).filter(|&row| row != u32::MAX)
}

/// Logs panics of this component, with their place and row.
#[cfg(target_family = "wasm")]
pub fn log_panics() {
    use crate::host::{Level, log};

    std::panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("panic");
        let place = info.location().map(|location| format!(" at {}:{}", location.file(), location.line())).unwrap_or_default();
        let row = row().map(|row| format!(" (row {row} of the call)")).unwrap_or_default();
        log(Level::Error, &format!("panic{place}: {message}{row}"));
    }));
}
