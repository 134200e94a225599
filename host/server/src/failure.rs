//! How failures reach people and programs: what is wrong, where, because of what, and how to put it right. The command line prints it, the service
//! sends it as a problem document; both read the [`ErrorKind`] to decide what it means for the caller.

use std::{error::Error, fmt, path::PathBuf};

use millstream_engine::{
    operator::{Fault, OperatorError},
    spec,
};
use millstream_model::{ErrorKind, ids::OperatorId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tenants::Exceeded;

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The file it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Line in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column in it, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong, as one clause.
    pub message: String,
    /// The keys that lead there, as `operators.hourly.window`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The line, to show it.
    #[serde(skip)]
    pub excerpt: Option<String>,
    /// What it is due to, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// How to put it right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// The quota that is used up, if that is what is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Exceeded>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What a caller may do about it.
    pub kind: ErrorKind,
    /// Everything that is wrong; at least one.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// A failure with one cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, problems: vec![Problem { message: message.into(), ..Problem::default() }] }
    }

    /// A failure that an error explains: its message, then its chain of causes.
    pub fn from_error(kind: ErrorKind, error: &(dyn Error + 'static)) -> Self {
        Self::new(kind, error.to_string()).with_causes(error.source())
    }

    /// All mistakes of a job file, each with its line.
    pub fn of_spec(problems: &spec::Problems, file: Option<PathBuf>, text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let shown = |problem: &spec::Problem| Problem {
            file: file.clone(),
            excerpt: problem.line.checked_sub(1).and_then(|index| lines.get(index)).map(|line| (*line).to_owned()),
            line: Some(problem.line),
            column: Some(problem.column),
            message: problem.message.clone(),
            path: Some(problem.path.clone()).filter(|path| !path.is_empty()),
            fix: problem.help.clone(),
            causes: Vec::new(),
            quota: None,
        };
        Self { kind: problems.kind(), problems: problems.problems.iter().map(shown).collect() }
    }

    /// What the outside does not have that a job needs, among what was found ([`millstream_engine::plan::check_outside`]), if there is something.
    pub fn of_outside(found: &[(OperatorId, OperatorError)]) -> Option<Self> {
        Self::of_operators(ErrorKind::Invalid, found.iter().filter(|(_, error)| error.fault == Fault::User))
    }

    /// Who could not be asked for it, if there is somebody.
    pub fn of_silence(found: &[(OperatorId, OperatorError)]) -> Option<Self> {
        Self::of_operators(ErrorKind::Unavailable, found.iter().filter(|(_, error)| error.fault != Fault::User))
    }

    fn of_operators<'a>(kind: ErrorKind, errors: impl Iterator<Item = &'a (OperatorId, OperatorError)>) -> Option<Self> {
        let told = |(id, error): &(OperatorId, OperatorError)| {
            let mut failure = Self::from_error(error.kind(), error);
            let problem = failure.last();
            problem.message = format!("`{id}`: {}", problem.message);
            failure.problems
        };
        let problems: Vec<Problem> = errors.flat_map(told).collect();
        (!problems.is_empty()).then_some(Self { kind, problems })
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

    /// The first thing that is wrong, as one clause.
    pub fn message(&self) -> &str {
        self.problems.first().map_or("", |problem| problem.message.as_str())
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
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())?;
        let causes = self.problems.first().map_or(&[][..], |problem| &problem.causes[..]);
        causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for Failure {}

impl From<millstream_storage::Error> for Failure {
    fn from(error: millstream_storage::Error) -> Self {
        Self::from_error(error.kind(), &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_errors_is_told_without_repetition() {
        let error = std::io::Error::other(std::io::Error::other("disk full"));
        let failure = Failure::new(ErrorKind::Unavailable, "`x` cannot be written").because(&error);
        assert_eq!(failure.problems[0].causes, ["disk full"]);
    }
}
