//! The figures: measured, compared with their bound, printed as a table, kept in `docs/bench/latest.json`.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// One measured figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured; unique.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: String,
    /// What it shall reach, such as `>= 200`; empty: for scale only.
    pub bound: String,
    /// Whether it does; true without a bound.
    pub met: bool,
    /// How it was measured.
    pub how: String,
}

impl Figure {
    /// A figure that shall reach at least `bound`.
    pub fn at_least(name: impl Into<String>, value: f64, unit: &str, bound: f64, how: impl Into<String>) -> Self {
        Self { bound: format!(">= {bound}"), met: value >= bound, ..Self::for_scale(name, value, unit, how) }
    }

    /// A figure that shall be at most `bound`.
    pub fn at_most(name: impl Into<String>, value: f64, unit: &str, bound: f64, how: impl Into<String>) -> Self {
        Self { bound: format!("<= {bound}"), met: value <= bound, ..Self::for_scale(name, value, unit, how) }
    }

    /// A figure for scale.
    pub fn for_scale(name: impl Into<String>, value: f64, unit: &str, how: impl Into<String>) -> Self {
        Self { name: name.into(), value, unit: unit.into(), bound: String::new(), met: true, how: how.into() }
    }

    /// One line of the table.
    fn line(&self) -> String {
        let verdict = match (self.bound.is_empty(), self.met) {
            (true, _) => "",
            (false, true) => "met",
            (false, false) => "NOT MET",
        };
        let value = match self.value.abs() {
            large if large >= 100.0 => format!("{:.0}", self.value),
            small if small < 1.0 => format!("{:.3}", self.value),
            _ => format!("{:.2}", self.value),
        };
        format!("{:<58} {value:>9} {:<15} {:<8} {verdict}", self.name, self.unit, self.bound).trim_end().to_owned()
    }
}

/// What was measured so far: every group is on disk before the next one begins, so a run that is cut off keeps what it has.
pub struct Report {
    path: PathBuf,
    measured: Vec<Figure>,
}

impl Report {
    /// A report that is kept in the file at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, measured: Vec::new() }
    }

    /// Replaces the figures of the same names in the file and adds the new ones.
    ///
    /// # Errors
    /// The file is not readable as figures or cannot be written.
    pub fn add(&mut self, figures: Vec<Figure>) -> anyhow::Result<()> {
        save(&self.path, &figures)?;
        self.measured.extend(figures);
        Ok(())
    }

    /// Prints everything that was measured, and how many bounds were met.
    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    pub fn print(&self) {
        self.measured.iter().for_each(|figure| println!("{}", figure.line()));
        let bounds = self.measured.iter().filter(|figure| !figure.bound.is_empty());
        let (met, missed): (Vec<&Figure>, Vec<&Figure>) = bounds.partition(|figure| figure.met);
        println!("{} of {} bounds met", met.len(), met.len() + missed.len());
    }
}

fn save(path: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    let mut all: Vec<Figure> = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} does not hold figures", path.display()))?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    all.retain(|old| figures.iter().all(|new| new.name != old.name));
    all.extend_from_slice(figures);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    fs::create_dir_all(path.parent().context("a path with a directory")?)?;
    let beside = path.with_extension("json.new");
    fs::write(&beside, serde_json::to_string_pretty(&all)? + "\n").with_context(|| format!("writing {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("writing {}", path.display()))
}

/// The median of some samples; of an even number: the mean of the two in the middle.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    if samples.len().is_multiple_of(2) { f64::midpoint(samples[middle - 1], samples[middle]) } else { samples[middle] }
}

/// The clock on the wall, for what no other clock can measure.
#[expect(clippy::disallowed_methods, reason = "a figure is only shown")]
pub fn now() -> Instant {
    Instant::now()
}

/// User and system time of this process, all threads, in seconds.
pub fn process_cpu_seconds() -> f64 {
    cpu_time::ProcessTime::now().as_duration().as_secs_f64()
}

/// User and system time of this thread, in ns.
pub fn thread_cpu_ns() -> f64 {
    cpu_time::ThreadTime::now().as_duration().as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_that_is_measured_again_replaces_the_old_one_and_the_others_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("figures.json");
        let mut report = Report::new(path.clone());
        let figure = |name: &str, value| Figure::at_least(name, value, "times", 2.0, "by counting");
        report.add(vec![figure("b", 1.0), figure("a", 2.0)]).expect("it is written");
        report.add(vec![figure("b", 3.0)]).expect("it is written");
        let kept: Vec<Figure> = serde_json::from_slice(&fs::read(path).expect("it is there")).expect("figures");
        let kept: Vec<(&str, f64, bool)> = kept.iter().map(|figure| (&*figure.name, figure.value, figure.met)).collect();
        assert_eq!(kept, [("a", 2.0, true), ("b", 3.0, true)]);
    }

    #[test]
    fn the_bound_itself_is_within_the_bound() {
        assert!(Figure::at_most("n", 1.0, "ms", 1.0, "").met && !Figure::at_most("n", 1.1, "ms", 1.0, "").met);
        assert!(Figure::at_least("n", 1.0, "ms", 1.0, "").met && !Figure::at_least("n", 0.9, "ms", 1.0, "").met);
    }

    #[test]
    fn the_median_of_an_even_number_of_samples_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![9.0, 1.0, 3.0]), 3.0);
    }
}
