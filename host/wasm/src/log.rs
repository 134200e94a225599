//! The log of guests: one line each, control characters escaped, and no more bytes a second than the limit allows.
//!
//! The limit is that of a subtask, not of an instance: whoever traps and comes back has not said less. What was dropped is counted, and said
//! before the next line that passes or, at the latest, when the last instance of the subtask is gone.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millstream_model::ids::{JobId, OperatorId, SubtaskIndex, TenantId};

/// Longest line in the log, in bytes.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Receives the log lines of a guest: at once, rate-limited, one line each, control characters escaped.
pub trait GuestLog: Send + Sync {
    /// The guest says something.
    fn emit(&self, said: &Said<'_>);
}

/// One line of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// How urgent it is.
    pub level: LogLevel,
    /// The line.
    pub message: &'a str,
    /// Whose.
    pub by: SaidBy<'a>,
}

/// What a line was said by, and of: what the host knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaidBy<'a> {
    /// The version of the component, as its author writes it.
    pub version: Option<&'a str>,
    /// The hash of the key of the row.
    pub key_hash: Option<u64>,
    /// The event time of the row (of a due timer: what it was set for), in ms since epoch.
    pub event_time: Option<i64>,
    /// The split of a source that the row comes from, and its position there, as far as they are known.
    pub source: Option<(&'a str, u64)>,
}

/// How urgent a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Every detail.
    Trace,
    /// For the author.
    Debug,
    /// For the operator of the job.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// The log of one subtask, shared by all its instances, which come and go.
pub struct SubtaskLog {
    receiver: Arc<dyn GuestLog>,
    gate: Mutex<Gate>,
}

impl SubtaskLog {
    /// Lines that pass go to `receiver`.
    pub fn new(receiver: impl GuestLog + 'static) -> Arc<Self> {
        Self::to(Arc::new(receiver))
    }

    /// Lines that pass go to `receiver`, which others may know too.
    pub fn to(receiver: Arc<dyn GuestLog>) -> Arc<Self> {
        Arc::new(Self { receiver, gate: Mutex::default() })
    }

    /// One line of the guest, if `bytes_per_second` allow it.
    pub(crate) fn emit(&self, level: LogLevel, message: &str, by: SaidBy<'_>, bytes_per_second: u32) {
        let line = printable(message);
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if !gate.admits(crate::meter::now(), line.len(), bytes_per_second) {
            return;
        }
        self.say_dropped(&mut gate);
        self.receiver.emit(&Said { level, message: &line, by });
    }

    fn say_dropped(&self, gate: &mut Gate) {
        let dropped = std::mem::take(&mut gate.dropped);
        if dropped > 0 {
            let limit = gate.bytes_per_second;
            let message = &format!("{dropped} lines were dropped: the log is limited to {limit} bytes per second");
            self.receiver.emit(&Said { level: LogLevel::Warn, message, by: SaidBy::default() });
        }
    }
}

impl Drop for SubtaskLog {
    fn drop(&mut self) {
        let mut gate = std::mem::take(self.gate.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.say_dropped(&mut gate);
    }
}

impl fmt::Debug for SubtaskLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubtaskLog").finish_non_exhaustive()
    }
}

/// A bucket that fills with one second's bytes.
#[derive(Default)]
struct Gate {
    bytes_per_second: u32,
    bytes_used: f64,
    looked_at: Option<Instant>,
    /// Lines dropped and not yet spoken of.
    dropped: u64,
}

impl Gate {
    fn admits(&mut self, now: Instant, bytes: usize, bytes_per_second: u32) -> bool {
        let since = self.looked_at.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.looked_at = Some(now);
        self.bytes_per_second = bytes_per_second;
        let rate = f64::from(bytes_per_second);
        self.bytes_used = (self.bytes_used - since.as_secs_f64() * rate).max(0.0);
        let cost = bytes as f64 + 32.0;
        if self.bytes_used + cost > rate {
            self.dropped += 1;
            return false;
        }
        self.bytes_used += cost;
        true
    }
}

/// What a terminal or a reader takes for something else than text: control characters, ends of lines and paragraphs, and what changes the direction in
/// which text is shown (Unicode Standard Annex 9; CVE-2021-42574).
pub(crate) fn is_deceptive(character: char) -> bool {
    character.is_control() || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Words of a guest as one line: what deceives is escaped, and it is cut to a line's length.
pub(crate) fn printable(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(LINE_BYTES_MAX));
    for character in message.trim_end().chars() {
        if line.len() >= LINE_BYTES_MAX {
            line.push('…');
            break;
        }
        match character {
            '\t' => line.push(' '),
            deceptive if is_deceptive(deceptive) => line.extend(deceptive.escape_default()),
            plain => line.push(plain),
        }
    }
    line
}

/// Writes guest logs as `tracing` events with tenant, job, operator and subtask, and with version, key, event time and position in the source where they are known.
#[derive(Clone, Debug)]
pub struct TracedLog {
    tenant: TenantId,
    job: JobId,
    operator: OperatorId,
    subtask: SubtaskIndex,
}

impl TracedLog {
    /// The log of one subtask.
    pub fn new(tenant: TenantId, job: JobId, operator: OperatorId, subtask: SubtaskIndex) -> Self {
        Self { tenant, job, operator, subtask }
    }
}

impl GuestLog for TracedLog {
    fn emit(&self, said: &Said<'_>) {
        let Said { level, message, by: SaidBy { version, key_hash, event_time, source } } = *said;
        let (source, position) = source.unzip();
        let (tenant, job, operator, subtask) = (&self.tenant, &self.job, &self.operator, self.subtask.0);
        let key_hash = key_hash.map(|hash| format!("{hash:016x}"));
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    target: "guest", %tenant, %job, %operator, subtask, version, key_hash = key_hash.as_deref(), event_time, source, position, "{message}"
                )
            };
        }
        match level {
            LogLevel::Trace => event!(trace),
            LogLevel::Debug => event!(debug),
            LogLevel::Info => event!(info),
            LogLevel::Warn => event!(warn),
            LogLevel::Error => event!(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl GuestLog for Lines {
        fn emit(&self, Said { level, message, .. }: &Said<'_>) {
            self.0.lock().expect("no panic while held").push(format!("{level:?}: {message}"));
        }
    }

    #[test]
    fn a_log_line_cannot_forge_another_line() {
        assert_eq!(printable("a\nERROR b\u{1b}[31m\n"), "a\\nERROR b\\u{1b}[31m");
        assert_eq!(printable("a\u{2028}ERROR \u{202e}b"), "a\\u{2028}ERROR \\u{202e}b");
    }

    #[test]
    fn a_guest_that_talks_too_much_is_cut_and_counted() {
        let start = crate::meter::now();
        let mut gate = Gate::default();
        assert!(gate.admits(start, 900, 1_000));
        assert!(!gate.admits(start, 900, 1_000));
        assert!(!gate.admits(start, 900, 1_000));
        assert!(gate.admits(start + Duration::from_secs(1), 900, 1_000));
        assert_eq!(gate.dropped, 2);
    }

    #[test]
    fn what_was_dropped_is_said_at_the_end_at_the_latest() {
        let lines = Arc::new(Lines::default());
        let log = SubtaskLog::to(lines.clone());
        // No line fits into ten bytes a second, so none will pass.
        log.emit(LogLevel::Info, "one", SaidBy::default(), 10);
        log.emit(LogLevel::Info, "two", SaidBy::default(), 10);
        assert!(lines.0.lock().expect("not held").is_empty());
        drop(log);
        assert_eq!(*lines.0.lock().expect("not held"), ["Warn: 2 lines were dropped: the log is limited to 10 bytes per second"]);
    }
}
