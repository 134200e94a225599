//! Log lines of the host and of guests, on standard error, between the lines of the progress display.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use indicatif::{MultiProgress, ProgressDrawTarget};
use millstream_server::logs::Logs;
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::LevelFilter, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::terminal;

/// The progress display; log lines are written above it.
pub static DISPLAY: LazyLock<MultiProgress> = LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Starts logging for the whole process; `logs` keep the lines of jobs. A filter that cannot be read is said and replaced by warnings.
pub fn start(filter: &str, logs: Option<Logs>) {
    let (filter, unreadable) = match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("warn"), Some(error)),
    };
    let colors = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let shown = tracing_subscriber::fmt::layer().with_ansi(colors).with_writer(AboveDisplay).with_filter(filter);
    let kept = logs.map(|logs| logs.with_filter(LevelFilter::INFO));
    tracing_subscriber::registry().with(shown).with(kept).init();
    if let Some(error) = unreadable {
        tracing::warn!("log filter not understood, showing warnings: {error}");
    }
}

struct AboveDisplay;

impl<'a> MakeWriter<'a> for AboveDisplay {
    type Writer = Line;

    fn make_writer(&'a self) -> Self::Writer {
        Line(Vec::new())
    }
}

/// One log line; written when it is complete.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nobody is left to tell when standard error is closed.
        let line = terminal::HIDDEN.redact(&String::from_utf8_lossy(&self.0));
        let _ = DISPLAY.suspend(|| io::stderr().write_all(line.as_bytes()));
    }
}
