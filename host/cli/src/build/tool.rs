//! Running the compilers of other people, and saying what to do when one is not there.

use std::{
    ffi::OsStr,
    io::ErrorKind,
    process::{Command, Output, Stdio},
};

use super::{Needed, Requirement};
use crate::report::{Exit, Failure};

/// A program that is needed.
pub struct Tool {
    /// As it is called.
    pub program: &'static str,
    /// How to install it.
    pub install: &'static str,
}

impl Tool {
    /// Runs it to its end; what it says on standard error is shown as it comes, what it says on standard output is returned.
    pub fn run(&self, configure: impl FnOnce(&mut Command) -> &mut Command) -> Result<Output, Failure> {
        let mut command = Command::new(self.program);
        configure(&mut command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.output().map_err(|error| self.not_started(&error))
    }

    /// What it answers to a question; none if it is not there or says no.
    pub fn ask<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Option<String> {
        let output = Command::new(self.program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Whether it is here.
    pub fn requirement(&self, needed: Needed) -> Requirement {
        Requirement { name: self.program, needed, found: self.ask(["--version"]), fix: self.install.to_owned() }
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        if error.kind() == ErrorKind::NotFound {
            Failure::new(Exit::Failed, format!("`{}` is not installed", self.program)).fix(self.install)
        } else {
            Failure::new(Exit::Failed, format!("`{}` could not be started", self.program)).because(error)
        }
    }
}
