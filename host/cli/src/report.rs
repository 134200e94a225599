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

/// Why a command did not succeed.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// Everything that is wrong; at least one.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// A failure with one cause.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, problems: vec![Problem { message: message.into(), ..Problem::default() }] }
    }

    /// A failure that an error explains: its message, then its chain of causes.
    pub fn from_error(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self::new(exit, error.to_string()).with_causes(error.source())
    }

    /// Adds an error and its causes below the message.
    pub fn because(self, error: &(dyn Error + 'static)) -> Self {
        self.with_causes(Some(error))
    }

    /// Adds how to put it right.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.last().fix = Some(fix.into());
        self
    }

    /// Adds the file it is about.
    pub fn in_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.last().file = Some(file.into());
        self
    }

    /// Writes it to standard error.
    pub fn print(&self, json: bool) {
        terminal::note(&if json { self.to_json() } else { self.to_text() });
    }

    fn with_causes(mut self, first: Option<&(dyn Error + 'static)>) -> Self {
        let mut next = first;
        while let Some(error) = next {
            let message = error.to_string();
            let problem = self.last();
            if problem.message != message && problem.causes.last() != Some(&message) {
                problem.causes.push(message);
            }
            next = error.source();
        }
        self
    }

    fn last(&mut self) -> &mut Problem {
        self.problems.last_mut().expect("a failure has at least one problem")
    }

    fn to_json(&self) -> String {
        serde_json::json!({ "exit-code": self.exit.code(), "problems": self.problems }).to_string()
    }

    fn to_text(&self) -> String {
        self.problems.iter().map(problem_text).collect()
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
        Self { exit: Exit::of(failure.kind), problems: failure.problems }
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

    #[test]
    fn a_chain_of_errors_is_printed_without_repetition() {
        let error = std::io::Error::other(std::io::Error::other("disk full"));
        let failure = Failure::new(Exit::Failed, "`x` cannot be written").because(&error);
        assert_eq!(failure.problems[0].causes, ["disk full"]);
    }
}
