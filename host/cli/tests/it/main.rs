//! The `millstream` command as its users meet it: the real binary, real files, real signals.

#![expect(clippy::unwrap_used, reason = "a failure is the test's; clippy excuses the tests themselves, but not their helpers")]

mod conformance;
mod documentation;
mod help;
mod jobs;
mod operators;
mod references;
mod signals;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// The command, with no input, no colours and nothing of this machine's settings.
fn millstream(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.current_dir(directory).stdin(Stdio::null()).env_remove("MILLSTREAM_LOG").env_remove("CLICOLOR_FORCE");
    command
}

/// Runs the command to its end.
fn run(directory: &Path, arguments: &[&str]) -> Ended {
    Ended::of(millstream(directory).args(arguments).output().expect("the binary was just built"))
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the command writes UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Fails the test, with everything that was written, unless the command ended with `code`.
    #[track_caller]
    fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}
