//! How failures reach a person, or a program: what, where, because of what, how to put it right; and which exit code it means.

use std::{error::Error, fmt::Write as _, path::PathBuf, process::ExitCode};

use millstream_model::ErrorKind;
use millstream_server::failure;
pub use millstream_server::failure::Problem;

use crate::terminal::{self, ERROR, FAINT, GOOD};

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The job, a build or a test failed.
    Failed,
    /// The input is wrong: the command line, a job file, a component.
    Invalid,
    /// Ctrl-C before it was done.
    Interrupted,
    /// SIGTERM before it was done.
    Terminated,
}

impl Exit {
    /// The exit code, as documented in `--help`.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// What kind of failure ends a process so.
    fn kind(self) -> ErrorKind {
        match self {
            Self::Invalid => ErrorKind::Invalid,
            Self::Done | Self::Failed | Self::Interrupted | Self::Terminated => ErrorKind::Unavailable,
        }
    }

    /// What a failure of this kind means for the process.
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid | ErrorKind::NotFound => Self::Invalid,
            ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Corrupt | ErrorKind::Guest | ErrorKind::Internal => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not succeed: what the service and the commands share, and how the process ends.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// Everything that is wrong.
    pub told: failure::Failure,
}

impl Failure {
    /// A failure with one cause.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, told: failure::Failure::new(exit.kind(), message) }
    }

    /// A failure that an error explains: its message, then its chain of causes.
    pub fn from_error(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self { exit, told: failure::Failure::from_error(exit.kind(), error) }
    }

    /// Several things that are wrong; at least one.
    pub fn of(exit: Exit, problems: Vec<Problem>) -> Self {
        Self { exit, told: failure::Failure { kind: exit.kind(), problems } }
    }

    /// Adds an error and its causes below the message.
    pub fn because(self, error: &(dyn Error + 'static)) -> Self {
        Self { told: self.told.because(error), ..self }
    }

    /// Adds how to put it right.
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { told: self.told.fix(fix), ..self }
    }

    /// Adds the file it is about.
    pub fn in_file(self, file: impl Into<PathBuf>) -> Self {
        Self { told: self.told.in_file(file), ..self }
    }

    /// Writes it to standard error.
    pub fn print(&self, json: bool) {
        terminal::note(&if json { self.to_json() } else { self.to_text() });
    }

    fn to_json(&self) -> String {
        serde_json::json!({ "exit-code": self.exit.code(), "problems": self.told.problems }).to_string()
    }

    fn to_text(&self) -> String {
        self.told.problems.iter().map(problem_text).collect()
    }
}

/// `file:line:column: error: message`, then causes and fix, a line each.
fn problem_text(problem: &Problem) -> String {
    let mut text = place(problem);
    let _ = writeln!(text, "{ERROR}error:{ERROR:#} {}", problem.message);
    if let Some(path) = &problem.path {
        let _ = writeln!(text, "  {FAINT}in{FAINT:#} {path}");
    }
    text += &shown_excerpt(problem).unwrap_or_default();
    for cause in &problem.causes {
        let _ = writeln!(text, "  {FAINT}because:{FAINT:#} {}", cause.replace('\n', "\n    "));
    }
    if let Some(fix) = &problem.fix {
        let _ = writeln!(text, "  {GOOD}fix:{GOOD:#} {}", fix.replace('\n', "\n       "));
    }
    text
}

/// The line in the file, and a mark under the column.
fn shown_excerpt(problem: &Problem) -> Option<String> {
    const WIDTH_MAX: usize = 160;
    let (excerpt, line, column) = (problem.excerpt.as_ref()?, problem.line?, problem.column?);
    let shown: String = excerpt.chars().take(WIDTH_MAX).collect();
    let indent = " ".repeat(column.saturating_sub(1).min(WIDTH_MAX));
    let margin = " ".repeat(line.to_string().len());
    Some(format!("  {FAINT}{line} |{FAINT:#} {shown}\n  {margin} {FAINT}|{FAINT:#} {indent}{ERROR}^{ERROR:#}\n"))
}

fn place(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(file) = &problem.file {
        let _ = write!(text, "{}:", file.display());
        for number in [problem.line, problem.column].into_iter().flatten() {
            let _ = write!(text, "{number}:");
        }
        text.push(' ');
    }
    text
}

impl From<failure::Failure> for Failure {
    fn from(failure: failure::Failure) -> Self {
        Self { exit: Exit::of(failure.kind), told: failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_in_a_file_starts_with_its_place() {
        let problem = Problem {
            file: Some("job.yaml".into()),
            line: Some(3),
            column: Some(7),
            message: "unknown key `pth`".into(),
            path: Some("sources.in.files".into()),
            excerpt: Some("      pth: x".into()),
            causes: vec!["of `files`".into()],
            fix: Some("did you mean `path`?".into()),
            quota: None,
        };
        let plain = anstream::adapter::strip_str(&problem_text(&problem)).to_string();
        insta::assert_snapshot!(plain, @r"
        job.yaml:3:7: error: unknown key `pth`
          in sources.in.files
          3 |       pth: x
            |       ^
          because: of `files`
          fix: did you mean `path`?
        ");
    }
}
