//! How soon a job goes on: after `kill -9` of its process, and at another parallelism from a savepoint. The real binary, a million keys of state
//! on RocksDB, rows at a fixed rate.
//!
//! The job counts per key and prints the rows of a few keys, which is at-least-once: a row is seen as soon as it is made. A run is killed or
//! stopped when every key has had a row and some checkpoints were taken since. Then the clock runs until the next run prints its first row; the
//! rows since the last checkpoint come again before new ones, at the rate of the source.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    figures::{Figure, median, now},
    guests::Guests,
};

const KEYS: i64 = 1_000_000;
const RATE: i64 = 400_000;
const TRIES: usize = 3;
/// Numbers that a run goes on for before it is ended: more than a second of checkpoints after all keys are there.
const SETTLED: i64 = 600_000;

/// All figures of this group.
///
/// # Errors
/// The binary is not there, or does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let (mut first, mut new, mut to_two, mut to_one) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TRIES {
        let job = Job::prepare(guests)?;
        let (killed, mut last) = job.run("state", &["-p", "1"])?.read_until(KEYS + SETTLED)?.kill()?;
        let mut run = job.run("state", &["-p", "1"])?;
        run.next()?;
        first.push(seconds_since(killed));
        last = run.read_past(last)?;
        new.push(seconds_since(killed));
        run.read_until(last + SETTLED)?;
        to_two.push(job.rescale(run, ("state", "one"), ("two", "2"))?);
        let run = job.run("two", &["-p", "2"])?;
        to_one.push(job.rescale(run, ("two", "two"), ("one", "1"))?);
        job.run("one", &["-p", "1"])?.kill()?;
    }
    let how = format!(
        "`millstream run --state`, {KEYS} keys on RocksDB, {RATE} rows/s, a checkpoint every 300 ms; wall clock, median of {TRIES}"
    );
    let rescaled = format!("{how}; from `millstream stop --savepoint` to the first row of `run --restore`");
    Ok(vec![
        Figure::at_most("kill -9 to the first row of the next run", median(first), "s", 1.0, &how),
        Figure::for_scale("kill -9 to the first new row, replay included", median(new), "s", &how),
        Figure::at_most("rescale 1 to 2 from a savepoint", median(to_two), "s", 1.0, &rescaled),
        Figure::at_most("rescale 2 to 1 from a savepoint", median(to_one), "s", 1.0, &rescaled),
    ])
}

fn seconds_since(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}

/// A directory with the job, its component, a cache, and what its runs keep.
struct Job {
    directory: TempDir,
    binary: PathBuf,
}

impl Job {
    fn prepare(guests: &Guests) -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("millstream");
        ensure!(binary.is_file(), "{} is not there: `make bench` builds it", binary.display());
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("tally.wasm"), guests.bytes("tally")?)?;
        fs::write(directory.path().join("job.yaml"), job())?;
        Ok(Self { directory, binary })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.directory.path()).env("XDG_CACHE_HOME", self.directory.path()).stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn run(&self, state: &str, more: &[&str]) -> anyhow::Result<Run> {
        let mut command = self.command();
        command.args(["run", "job.yaml", "--state", state]).args(more).stdout(Stdio::piped());
        let mut process = command.spawn().context("starting the binary")?;
        let output = BufReader::new(process.stdout.take().context("its standard output is a pipe")?);
        Ok(Run { process, output })
    }

    /// Stops a run with a savepoint and starts another from it, in a directory of its own; seconds until that prints a row.
    fn rescale(&self, mut run: Run, (state, savepoint): (&str, &str), (to, parallelism): (&str, &str)) -> anyhow::Result<f64> {
        let last = run.next()?;
        run.read_until(last + SETTLED)?;
        // Nobody may wait for a full pipe while the job stops.
        let rest = std::thread::spawn(move || run.finish());
        let began = now();
        let status = self.command().args(["stop", state, "--savepoint", savepoint]).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "`millstream stop` ended with {status}");
        let path = format!("{state}/savepoints/{savepoint}");
        let mut next = self.run(to, &["--restore", &path, "-p", parallelism])?;
        next.next()?;
        let seconds = seconds_since(began);
        rest.join().map_err(|_| anyhow::anyhow!("reading the rest of a run failed"))??;
        next.kill()?;
        Ok(seconds)
    }
}

fn job() -> String {
    format!(
        "job: recovery
checkpoints: {{ interval: 300ms }}
sources:
  numbers:
    sequence: {{ rate: {RATE} }}
operators:
  keyed:
    input: numbers
    compute: {{ key: \"value % {KEYS}\" }}
  tally:
    input: keyed
    key-by: [key]
    component: {{ path: tally.wasm }}
  few:
    input: tally
    filter: \"value % 1000 = 0\"
sinks:
  out:
    input: few
    stdout: {{}}
"
    )
}

/// A run of the binary.
struct Run {
    process: Child,
    output: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Numbered {
    value: i64,
}

impl Run {
    /// The number of the next row that it prints.
    fn next(&mut self) -> anyhow::Result<i64> {
        let mut row = String::new();
        self.output.read_line(&mut row)?;
        let numbered: Numbered = serde_json::from_str(&row).with_context(|| format!("the job printed `{row}` instead of a row"))?;
        Ok(numbered.value)
    }

    fn read_past(&mut self, number: i64) -> anyhow::Result<i64> {
        loop {
            let next = self.next()?;
            if next > number {
                return Ok(next);
            }
        }
    }

    fn read_until(&mut self, number: i64) -> anyhow::Result<&mut Self> {
        self.read_past(number)?;
        Ok(self)
    }

    /// Ends it at once; when that was, and the greatest number that it had printed.
    fn kill(&mut self) -> anyhow::Result<(Instant, i64)> {
        let killed = now();
        self.process.kill()?;
        let mut last = i64::MIN;
        while let Ok(number) = self.next() {
            last = last.max(number);
        }
        self.process.wait()?;
        Ok((killed, last))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        std::io::copy(&mut self.output, &mut std::io::sink())?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the job ended with {status}");
        Ok(())
    }
}
