//! The real binary, as a process that can be killed.

use std::{
    fmt::Write as _,
    fs,
    io::Read,
    os::unix::{fs::symlink, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use millstream_job_tests::components::repository;
use tempfile::TempDir;

/// A directory with a job file, where the binary runs.
pub struct Place {
    directory: TempDir,
    file: String,
    settings: Vec<String>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none: a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    /// A directory that looks like one of the repository but has its own `out`.
    pub fn like(directory: &str, file: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(repository().join(directory)).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "out" {
                symlink(entry.path(), place.path().join(entry.file_name())).unwrap();
            }
        }
        Self { directory: place, file: file.to_owned(), settings: Vec::new() }
    }

    /// A directory with this job file.
    pub fn with(job: &str) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("job.yaml"), job).unwrap();
        Self { directory: place, file: "job.yaml".to_owned(), settings: Vec::new() }
    }

    /// Runs of this job have this value of the job file replaced.
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.settings.push(setting.into());
        self
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the directory.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.path().join(path)
    }

    /// Writes a file into the directory.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.join(name), text).unwrap();
    }

    /// Any command.
    pub fn millstream(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.current_dir(self.path()).stdin(Stdio::null()).env_remove("MILLSTREAM_LOG").env_remove("MILLSTREAM_CRASH_AT");
        command.env_remove("CLICOLOR_FORCE").args(arguments);
        command
    }

    /// `millstream run <job> <arguments>`.
    pub fn run(&self, arguments: &[&str]) -> Command {
        let mut command = self.millstream(&["run", &self.file]);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.args(arguments);
        command
    }

    /// What any command says.
    pub fn says(&self, arguments: &[&str]) -> Ended {
        ended(&mut self.millstream(arguments))
    }
}

impl Ended {
    /// Fails the test, with everything that was written, unless the process ended with `code`.
    #[track_caller]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless standard error says each of these.
    #[track_caller]
    pub fn saying(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in\n{}", self.stderr);
        }
        self
    }
}

/// Runs a process to its end.
pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Runs a process and kills it with SIGKILL if it has not ended after `wait`; none: it was killed.
pub fn killed_after(command: &mut Command, wait: Duration) -> Option<Ended> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (send_end, end) = mpsc::sync_channel(1);
    // Standard error closes when the process ends, whichever way.
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        // Nobody waits any more if the process was killed.
        let _heard = send_end.send(());
        text
    });
    let printed = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    if end.recv_timeout(wait).is_err() {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    let (stderr, stdout) = (reader.join().unwrap(), printed.join().unwrap());
    let died = status.signal();
    assert!(died.is_none() || died == Some(9), "it died of signal {died:?}:\n{stderr}");
    died.is_none().then(|| Ended { code: status.code(), stdout, stderr })
}

/// Random numbers that are the same for the same seed. Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
pub struct Random(u64);

impl Random {
    /// The seed in `MILLSTREAM_SEED`, else this one; printed, so that a failure can be repeated.
    pub fn seeded(name: &str, default: u64) -> Self {
        let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
        println!("{name}: MILLSTREAM_SEED={seed}");
        Self(seed)
    }

    /// Less than `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }

    /// A time between nothing and `limit`.
    pub fn time_up_to(&mut self, limit: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(limit.as_micros()).unwrap()))
    }
}

/// Whether the long form is asked for.
pub fn is_soak() -> bool {
    std::env::var_os("MILLSTREAM_SOAK").is_some()
}

/// What happened to a job on its way to its end, for the figures.
#[derive(Debug, Default)]
pub struct History {
    pub kills: u32,
    pub log: String,
}

impl History {
    pub fn note(&mut self, what: &str) {
        let _ = writeln!(self.log, "{what}");
    }
}
