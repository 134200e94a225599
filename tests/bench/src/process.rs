//! The process: from `millstream run` to the first row that it prints, its memory then, and what an idle job adds.
//!
//! Start and memory are those of the real binary, built beside this program. Idle jobs run in a child of this program, so that nothing else
//! is in its memory: an unbounded source with a row a second, one keyed component, state; memory is the slope between few and many jobs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use millstream_engine::{
    clock::{Clock as _, SystemClock},
    run::{self, JobHandle, RunSettings, StateDirectory},
};
use millstream_state::{RocksShared, RocksSharedSettings};
use millstream_wasm::{Runtime, RuntimeSettings};
use tempfile::TempDir;

use crate::{
    child,
    figures::{Figure, median, now},
    guests::Guests,
    jobs,
};

const STARTS: usize = 10;
const FEW_JOBS: usize = 20;
const MANY_JOBS: usize = 120;

/// All figures of this group.
///
/// # Errors
/// The binary is not there, or does not print.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let job = Jobs::prepare(guests)?;
    // The first run puts the component into the cache.
    job.start("bounded.yaml")?.finish()?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let run = job.start("bounded.yaml")?;
        starts.push(run.first_row_ms);
        run.finish()?;
    }
    let run = job.start("unbounded.yaml")?;
    let at_start = run.resident_mib()?;
    run.give_up()?;
    let idle = child::ask("idle-jobs", job.directory.path())?;
    let cores = std::thread::available_parallelism()?;
    Ok(vec![
        Figure::at_most(
            "start of the process to its first row",
            median(starts),
            "ms",
            100.0,
            format!("`millstream run` of a job with a keyed component, precompiled in the cache; wall clock, median of {STARTS} starts"),
        ),
        Figure::at_most(
            "memory of the process at its first row",
            at_start,
            "MiB",
            60.0,
            "resident set of `millstream run` of the same job without end",
        ),
        Figure::at_most(
            "memory of an idle job",
            idle,
            "MiB",
            2.0,
            format!(
                "resident set of {MANY_JOBS} jobs in one process less that of {FEW_JOBS}, per job; each an unbounded source and a keyed component at parallelism {cores}"
            ),
        ),
    ])
}

/// A directory with jobs, their component, and a cache of their own.
struct Jobs {
    directory: TempDir,
    binary: PathBuf,
}

impl Jobs {
    fn prepare(guests: &Guests) -> anyhow::Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("millstream");
        ensure!(binary.is_file(), "{} is not there: `make bench` builds it", binary.display());
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("tally.wasm"), guests.bytes("tally")?)?;
        fs::write(directory.path().join("bounded.yaml"), job("to: 9", "stdout"))?;
        fs::write(directory.path().join("unbounded.yaml"), job("rate: 100", "stdout"))?;
        Ok(Self { directory, binary })
    }

    fn start(&self, job: &str) -> anyhow::Result<Run> {
        let began = now();
        let mut command = Command::new(&self.binary);
        command.args(["run", job]).current_dir(self.directory.path()).env("XDG_CACHE_HOME", self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().context("starting the binary")?;
        let mut output = BufReader::new(process.stdout.take().context("its standard output is a pipe")?);
        let mut row = String::new();
        output.read_line(&mut row)?;
        ensure!(row.starts_with('{'), "{job} printed `{row}` instead of a row");
        Ok(Run { process, output, first_row_ms: began.elapsed().as_secs_f64() * 1e3 })
    }
}

fn job(numbers: &str, sink: &str) -> String {
    format!(
        "job: numbers
sources:
  numbers:
    sequence: {{ {numbers} }}
operators:
  tally:
    input: numbers
    key-by: [value]
    component: {{ path: tally.wasm }}
sinks:
  out:
    input: tally
    {sink}: {{}}
"
    )
}

/// A run of the binary that has printed its first row.
struct Run {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    first_row_ms: f64,
}

impl Run {
    fn finish(mut self) -> anyhow::Result<()> {
        std::io::copy(&mut self.output, &mut std::io::sink())?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the job ended with {status}");
        Ok(())
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
        memory_mib(&self.process.id().to_string(), "VmRSS")
    }

    fn give_up(mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }
}

/// A line of `/proc/<process>/status`, in MiB: `VmRSS`, what is in memory now; `VmHWM`, the most that ever was.
///
/// # Errors
/// There is no such process or line.
pub fn memory_mib(process: &str, line: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')?.trim().strip_suffix(" kB"));
    Ok(found.with_context(|| format!("/proc/{process}/status has {line}"))?.trim().parse::<f64>()? / 1024.0)
}

// ---- in the child ----

/// MiB per idle job. The component lies in `directory`.
///
/// # Errors
/// A job does not run.
pub async fn idle_jobs(directory: &Path) -> anyhow::Result<f64> {
    let components = Runtime::new(RuntimeSettings { cache_dir: Some(directory.join("compiled")), ..RuntimeSettings::default() })?;
    let shared = Arc::new(RocksShared::new(RocksSharedSettings::default()));
    let parallelism = NonZeroU32::try_from(std::thread::available_parallelism()?)?;
    let state = tempfile::tempdir()?;
    let mut running: Vec<JobHandle> = Vec::new();
    let mut resident = Vec::new();
    for jobs in [FEW_JOBS, MANY_JOBS] {
        while running.len() < jobs {
            let plan =
                jobs::planned(&job("rate: 1", "blackhole"), directory, &millstream_connectors::all(), &components, parallelism).await?;
            let state = StateDirectory { path: state.path().join(running.len().to_string()), shared: shared.clone() };
            running.push(run::start(plan, RunSettings { state: Some(state), ..RunSettings::new() }));
        }
        for handle in &running {
            counted(handle).await?;
        }
        resident.push(memory_mib("self", "VmRSS")?);
    }
    for handle in &running {
        handle.cancel().await;
        handle.wait().await;
    }
    Ok((resident[1] - resident[0]) / (MANY_JOBS - FEW_JOBS) as f64)
}

/// Returns when the job has taken a row through its component.
async fn counted(handle: &JobHandle) -> anyhow::Result<()> {
    loop {
        let status = handle.status().await.context("the job runs")?;
        if status.operators.iter().any(|operator| operator.id.as_str() == "tally" && operator.rows_out > 0) {
            return Ok(());
        }
        SystemClock.sleep_until(SystemClock.now_ms() + 20).await;
    }
}
