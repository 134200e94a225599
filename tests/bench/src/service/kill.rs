//! `kill -9` of a service with a hundred running jobs: from the kill until each of them has taken a row through its component again, and whether every
//! row counts once, in their state and in their files.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, ensure};

use super::{jobs::Numbered, process::Service};
use crate::{
    figures::{Figure, now},
    guests::Guests,
};

const JOBS: usize = 100;
const KEYS: u64 = 7;
const RATE: u64 = 100;

/// The figures of this part.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let mut service = Service::start(guests)?;
    let names: Vec<String> = (0..JOBS).map(|number| format!("job{number}")).collect();
    for name in &names {
        let sink = format!("files: {{ path: out/{name}, format: csv }}");
        let job = Numbered { settings: "checkpoints: { interval: 1s }", sink: &sink, ..Numbered::new(name, RATE, KEYS) };
        service.submit(&job.file())?;
    }
    for name in &names {
        while service.run(name)?.last_checkpoint() < 2 {}
    }
    service.kill()?;
    let killed = now();
    service.restart()?;
    let answers = killed.elapsed().as_secs_f64();
    for name in &names {
        // Until it is started there is no run to look at.
        while !service.run(name).is_ok_and(|run| run.of("tally", "rows-out") > 0) {}
    }
    let all = killed.elapsed().as_secs_f64();
    let mut wrong = 0;
    for name in &names {
        wrong += service.run(name)?.of("wrong", "rows-out");
        service.json("POST", &format!("/v1/jobs/{name}/stop"), b"{}")?;
        wrong += misses(&service.files().join("out").join(name))?;
    }
    let how =
        format!("kill -9 of the process, started again at once, until each of {JOBS} jobs has taken a row through its keyed component");
    Ok(vec![
        Figure::for_scale("kill -9 with 100 jobs, the API answers", answers, "s", &how),
        Figure::at_most("kill -9 with 100 jobs, all running again", all, "s", 5.0, &how),
        Figure::at_most("kill -9 with 100 jobs, rows lost, twice or out of order", wrong as f64, "rows", 0.0, &how),
    ])
}

/// Rows that are missing in the files of a job, or there twice.
fn misses(directory: &Path) -> anyhow::Result<u64> {
    let (mut values, mut doubled) = (BTreeSet::new(), 0);
    for file in fs::read_dir(directory).with_context(|| format!("the files in {}", directory.display()))? {
        let text = fs::read_to_string(file?.path())?;
        for line in text.lines().skip(1) {
            let value: u64 = line.split(',').next().context("a column")?.parse().with_context(|| format!("the row {line}"))?;
            doubled += u64::from(!values.insert(value));
        }
    }
    let last = *values.last().context("rows")?;
    ensure!(last > 2 * RATE, "{} holds only {last} rows", directory.display());
    Ok(doubled + last + 1 - values.len() as u64)
}
