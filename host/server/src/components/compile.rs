//! Compiling in a child process: the same program, short-lived, with limits of the system, so that no upload stalls or kills what runs.
//!
//! The child is `<program> <arguments> FILE`; it writes the native code into the cache and a [`Report`] as JSON to standard output, or
//! `{"problems":[…]}`. Its limits are set by the shell before it becomes the program: `ulimit -d` (memory that it may write to; reserved addresses do
//! not count) and `ulimit -t` (seconds of CPU). Whatever else happens to it, it is killed at its deadline.

use std::{
    ffi::OsString,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use millstream_model::ErrorKind;
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    failure::{Failure, Problem},
    report::Report,
};

/// Longest answer of a child, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Who compiles, and what it may use.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// What it is told before the file.
    pub arguments: Vec<OsString>,
    /// Memory that it may write to. Default: 2 GiB.
    pub memory_bytes: u64,
    /// CPU time. Default: 120 s.
    pub cpu: Duration,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Report(Box<Report>),
    Problems { problems: Vec<Problem> },
}

/// Compiles a component; what it is.
///
/// # Errors
/// It is none, asks for what it may not have, or needs more than the limits.
pub async fn in_child(settings: &Settings, file: &Path, digest: &str) -> Result<Report, Failure> {
    let limits = format!("ulimit -d {} && ulimit -t {} && exec \"$0\" \"$@\"", settings.memory_bytes >> 10, settings.cpu.as_secs());
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(limits).arg(&settings.program).args(&settings.arguments).arg(file);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |error: std::io::Error| Failure::new(ErrorKind::Unavailable, "the compiler cannot be started").because(&error);
    let mut child = Running(command.spawn().map_err(failed)?);
    let stdout = child.0.stdout.take().expect("standard output is a pipe");
    let mut reading = tokio::task::spawn_blocking(move || {
        let mut answer = Vec::new();
        stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map(|_| answer)
    });
    // A child that waits uses no CPU: its deadline is one of time too.
    let read = timeout(settings.cpu * 2, &mut reading).await.map_err(|_late| too_much(settings, "did not come to an end"))?;
    let answer = read.expect("reading does not panic").map_err(failed)?;
    let status = tokio::task::spawn_blocking(move || child.0.wait()).await.expect("waiting does not panic").map_err(failed)?;
    match serde_json::from_slice(&answer) {
        Ok(Answer::Report(report)) if report.digest == digest => Ok(*report),
        Ok(Answer::Report(_)) => Err(Failure::new(ErrorKind::Corrupt, "the component changed while it was compiled").fix("push it again")),
        Ok(Answer::Problems { problems }) if !problems.is_empty() => Err(Failure { kind: ErrorKind::Invalid, problems }),
        _ => Err(too_much(settings, &format!("ended without an answer ({status})"))),
    }
}

/// A child that does not outlive who waits for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended; one that was killed is waited for, so that nothing is left of it.
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

fn too_much(settings: &Settings, how: &str) -> Failure {
    let (memory, cpu) = (crate::text::size(settings.memory_bytes), settings.cpu.as_secs());
    Failure::new(ErrorKind::Invalid, format!("compiling the component {how}: it may use {memory} and {cpu} s of CPU"))
        .fix("make it smaller, or have the operator of the service allow more")
}
