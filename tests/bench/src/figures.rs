//! The figures: measured, compared with their bound, printed as a table, kept in `docs/bench/latest.json`.

use std::{fs, path::Path};

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
        Self { name: name.into(), value, unit: unit.into(), bound: format!(">= {bound}"), met: value >= bound, how: how.into() }
    }

    /// A figure for scale.
    pub fn for_scale(name: impl Into<String>, value: f64, unit: &str, how: impl Into<String>) -> Self {
        Self { name: name.into(), value, unit: unit.into(), bound: String::new(), met: true, how: how.into() }
    }

    /// Prints it as one line of the table.
    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    pub fn print(&self) {
        let verdict = match (self.bound.is_empty(), self.met) {
            (true, _) => "",
            (false, true) => "met",
            (false, false) => "NOT MET",
        };
        println!("{:<52} {:>12.3} {:<12} {:<10} {verdict}", self.name, self.value, self.unit, self.bound);
    }
}

/// Replaces the figures of the same names in the file at `path` and adds the new ones.
///
/// # Errors
/// The file is not readable as figures or cannot be written.
pub fn save(path: &Path, figures: &[Figure]) -> anyhow::Result<()> {
    let mut all: Vec<Figure> = match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} does not hold figures", path.display()))?,
        Err(_) => Vec::new(),
    };
    all.retain(|old| figures.iter().all(|new| new.name != old.name));
    all.extend_from_slice(figures);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    fs::create_dir_all(path.parent().context("a path with a directory")?)?;
    fs::write(path, serde_json::to_string_pretty(&all)? + "\n").with_context(|| format!("writing {}", path.display()))
}

/// The median of an odd number of samples.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// User and system time of this process, all threads, in seconds.
pub fn process_cpu_seconds() -> f64 {
    cpu_time::ProcessTime::now().as_duration().as_secs_f64()
}
