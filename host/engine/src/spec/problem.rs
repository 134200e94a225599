//! Mistakes in a job file, all at once, each with its place.

use std::fmt;

use super::document::{Document, Side};

/// A mistake in a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The keys that lead there, as `operators.hourly.window.aggregates`; empty: the whole file.
    pub path: String,
    /// One clause that says what is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// All mistakes found in a job file, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The name of the file.
    pub file: String,
    /// Its lines, to show them.
    lines: Vec<String>,
    /// The mistakes; at least one when it is an error.
    pub problems: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        Self { file: file.into(), lines: text.lines().map(str::to_owned).collect(), problems: Vec::new() }
    }

    /// What a caller may do about it.
    pub fn kind(&self) -> millstream_model::ErrorKind {
        millstream_model::ErrorKind::Invalid
    }

    /// Whether no mistake was found.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    pub(crate) fn push(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// `Ok` if there is none; else all of them in the order of the file.
    pub(crate) fn into_result(mut self) -> Result<(), Self> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(self)
    }
}

/// Collects the mistakes of one document.
pub(crate) struct Report<'a> {
    pub(crate) document: &'a Document,
    pub(crate) problems: Problems,
}

impl<'a> Report<'a> {
    pub(crate) fn new(document: &'a Document) -> Self {
        Self { document, problems: Problems::new(&document.file, &document.text) }
    }

    /// A mistake in the value at `pointer` (RFC 6901), or where its nearest ancestor is if it does not exist.
    pub(crate) fn value(&mut self, pointer: &str, message: impl Into<String>, help: Option<String>) {
        self.push(pointer, Side::Value, message.into(), help);
    }

    /// A mistake in the key at `pointer`.
    pub(crate) fn key(&mut self, pointer: &str, message: impl Into<String>, help: Option<String>) {
        self.push(pointer, Side::Key, message.into(), help);
    }

    fn push(&mut self, pointer: &str, side: Side, message: String, help: Option<String>) {
        let (line, column) = self.document.position(pointer, side);
        self.problems.push(Problem { line, column, path: human_path(pointer), message, help });
    }
}

/// `/operators/hourly/inputs/0` as `operators.hourly.inputs[0]`.
fn human_path(pointer: &str) -> String {
    let mut path = String::new();
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        if segment.parse::<usize>().is_ok() && !path.is_empty() {
            path.push_str(&format!("[{segment}]"));
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&segment);
        }
    }
    path
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            self.write(f, problem)?;
        }
        let count = self.problems.len();
        write!(f, "\n{count} {} in {}", if count == 1 { "mistake" } else { "mistakes" }, self.file)
    }
}

impl Problems {
    fn write(&self, f: &mut fmt::Formatter<'_>, problem: &Problem) -> fmt::Result {
        let Problem { line, column, path, message, help } = problem;
        writeln!(f, "{}:{line}:{column}: {message}", self.file)?;
        if !path.is_empty() {
            writeln!(f, "  in {path}")?;
        }
        if let Some(text) = line.checked_sub(1).and_then(|index| self.lines.get(index)) {
            let shown: String = text.chars().take(200).collect();
            writeln!(f, "  {line} | {shown}")?;
            let indent: String = shown.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "  {:width$} | {indent}^", "", width = line.to_string().len())?;
        }
        if let Some(help) = help {
            writeln!(f, "  help: {help}")?;
        }
        Ok(())
    }
}
