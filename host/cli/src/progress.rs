//! What a running job shows of itself on standard error: rows and rate, how much of the input is read and how long the rest will take,
//! the watermark and how far it is behind the clock.
//!
//! On a terminal it is a display that is redrawn in place, one bar per source and one line for the job; elsewhere, if asked for, one line
//! a second.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use millstream_engine::run::{JobStatus, OperatorKind, OperatorStatus, Phase};

use crate::{
    logging::DISPLAY,
    summary,
    terminal::{self, grouped},
};

/// How often it is looked at.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// A line elsewhere than on a terminal appears only every so many looks.
const LOOKS_PER_LINE: u32 = 5;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Off,
    /// Redrawn in place.
    Display,
    /// A line a second.
    Lines,
}

impl Mode {
    /// What suits standard error, unless more is asked for.
    pub fn choose(asked_for: bool, quiet: bool) -> Self {
        let on_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        match (quiet, on_terminal, asked_for) {
            (true, _, _) | (false, false, false) => Self::Off,
            (false, true, _) => Self::Display,
            (false, false, true) => Self::Lines,
        }
    }
}

/// Shows the progress of one job.
pub struct Progress {
    mode: Mode,
    /// One per source, then one for the job; made at the first look.
    bars: Vec<ProgressBar>,
    looks: u32,
    previous: Option<Look>,
}

/// What the last look saw, for rates.
struct Look {
    at: Duration,
    rows_read: u64,
}

/// What one look shows.
struct Shown {
    rows_read: u64,
    rows_per_second: u64,
    rows_written: u64,
    watermark: Option<i64>,
    lag: Option<Duration>,
    rows_behind: Option<u64>,
    phase: Phase,
}

impl Progress {
    pub fn new(mode: Mode) -> Self {
        Self { mode, bars: Vec::new(), looks: 0, previous: None }
    }

    /// Whether anything is shown at all.
    pub fn is_off(&self) -> bool {
        self.mode == Mode::Off
    }

    /// Shows what the job does `at` this time since its start; `now_ms` is the clock of the machine.
    pub fn show(&mut self, status: &JobStatus, at: Duration, now_ms: i64) {
        let shown = self.shown(status, at, now_ms);
        match self.mode {
            Mode::Off => {}
            Mode::Display => self.redraw(status, &shown),
            Mode::Lines if self.looks % LOOKS_PER_LINE == LOOKS_PER_LINE - 1 => terminal::note(&line(status, &shown)),
            Mode::Lines => {}
        }
        self.looks += 1;
    }

    /// Takes the display away, so that what follows stands in its place.
    pub fn clear(&mut self) {
        for bar in self.bars.drain(..) {
            bar.finish_and_clear();
        }
    }

    fn shown(&mut self, status: &JobStatus, at: Duration, now_ms: i64) -> Shown {
        let rows_read = total(status, OperatorKind::Source, |source| source.rows_out);
        let (since, before) = self.previous.as_ref().map_or((Duration::ZERO, 0), |look| (look.at, look.rows_read));
        let elapsed = at.saturating_sub(since).as_secs_f64().max(0.001);
        self.previous = Some(Look { at, rows_read });
        let watermark = lowest_watermark(status);
        Shown {
            rows_read,
            rows_per_second: (rows_read.saturating_sub(before) as f64 / elapsed) as u64,
            rows_written: total(status, OperatorKind::Sink, |sink| sink.rows_in),
            watermark,
            lag: watermark.and_then(|watermark| lag(watermark, now_ms)).filter(|_| !is_bounded(status)),
            rows_behind: rows_behind(status),
            phase: status.phase,
        }
    }

    fn redraw(&mut self, status: &JobStatus, shown: &Shown) {
        if self.bars.is_empty() {
            self.bars = status.operators.iter().filter(is_source).map(bar).chain([job_line()]).map(|bar| DISPLAY.add(bar)).collect();
        }
        for (bar, source) in self.bars.iter().zip(status.operators.iter().filter(is_source)) {
            bar.set_position(source.progress.min(source.progress_total.unwrap_or(u64::MAX)));
            bar.set_message(format!("{} rows", grouped(source.rows_out)));
        }
        if let Some(job) = self.bars.last() {
            job.set_message(numbers(shown));
            job.tick();
        }
    }
}

fn is_source(operator: &&OperatorStatus) -> bool {
    operator.kind == OperatorKind::Source
}

/// Bounded input knows its size, so it has a bar; other input has none to show.
fn bar(source: &OperatorStatus) -> ProgressBar {
    let (bar, template) = match source.progress_total {
        Some(total) => (ProgressBar::new(total), "  {prefix:<16} [{bar:30}] {percent:>3} %  {msg}  eta {eta}"),
        None => (ProgressBar::no_length(), "  {prefix:<16} {msg}"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is well-formed").progress_chars("=> ");
    bar.with_style(style).with_prefix(source.id.to_string())
}

fn job_line() -> ProgressBar {
    let style = ProgressStyle::with_template("  {elapsed:<16} {msg}").expect("the template is well-formed");
    ProgressBar::no_length().with_style(style)
}

fn line(status: &JobStatus, shown: &Shown) -> String {
    let read = total(status, OperatorKind::Source, |source| source.progress);
    let size: Option<u64> = status.operators.iter().filter(is_source).map(|source| source.progress_total).sum();
    let percent = size.filter(|size| *size > 0).map(|size| format!("{} %, ", read.min(size).saturating_mul(100) / size));
    format!("{}{} rows read, {}", percent.unwrap_or_default(), grouped(shown.rows_read), numbers(shown))
}

fn numbers(shown: &Shown) -> String {
    let mut text = format!("{} rows/s, {} written", grouped(shown.rows_per_second), grouped(shown.rows_written));
    if let Some(watermark) = shown.watermark {
        text += &format!(", watermark {}", time(watermark));
    }
    if let Some(lag) = shown.lag {
        text += &format!(" ({} behind)", summary::duration(lag));
    }
    if let Some(rows) = shown.rows_behind {
        text += &format!(", {} rows behind the end", grouped(rows));
    }
    if shown.phase == Phase::Draining {
        text += ", draining";
    }
    text
}

fn total(status: &JobStatus, kind: OperatorKind, of: fn(&OperatorStatus) -> u64) -> u64 {
    status.operators.iter().filter(|operator| operator.kind == kind).map(of).sum()
}

fn is_bounded(status: &JobStatus) -> bool {
    status.operators.iter().filter(is_source).all(|source| source.progress_total.is_some())
}

/// The watermark of the slowest source that has one.
fn lowest_watermark(status: &JobStatus) -> Option<i64> {
    status.operators.iter().filter(is_source).filter_map(|source| source.watermark).min()
}

/// Rows that are there and were not read yet, of all sources that know.
fn rows_behind(status: &JobStatus) -> Option<u64> {
    let known: Vec<u64> = status.operators.iter().filter_map(OperatorStatus::rows_behind).collect();
    (!known.is_empty()).then(|| known.iter().sum())
}

fn lag(watermark: i64, now_ms: i64) -> Option<Duration> {
    now_ms.checked_sub(watermark).and_then(|lag_ms| u64::try_from(lag_ms).ok()).map(Duration::from_millis)
}

/// `2013-01-05 03:00:00`, in UTC; the end of input has no time.
fn time(watermark: i64) -> String {
    if watermark == i64::MAX {
        return "at the end".to_owned();
    }
    terminal::time(watermark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_are_shown_as_times() {
        assert_eq!(time(1_357_354_800_000), "2013-01-05T03:00:00Z");
        assert_eq!(time(i64::MAX), "at the end");
        assert_eq!(time(i64::MIN), i64::MIN.to_string());
    }

    #[test]
    fn a_watermark_ahead_of_the_clock_has_no_lag() {
        assert_eq!(lag(2_000, 1_000), None);
        assert_eq!(lag(1_000, 3_000), Some(Duration::from_secs(2)));
    }
}
