//! What goes wrong with an expression: when it is parsed (the job file is wrong) and when it is evaluated (a row is wrong).

use arrow_schema::ArrowError;
use datafusion_common::{DataFusionError, SchemaError};
use millstream_model::ErrorKind;

/// An expression that cannot be parsed or typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", .help.iter().map(|help| format!("; {help}")).collect::<String>())]
pub struct ExprError {
    /// One clause that says what is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where in the text, in bytes, if known.
    pub offset: Option<usize>,
}

impl ExprError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, offset: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    pub(crate) fn at(self, offset: Option<usize>) -> Self {
        Self { offset, ..self }
    }

    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    /// What DataFusion says about `text`, in our words.
    pub(crate) fn from_datafusion(error: &DataFusionError, text: &str) -> Self {
        match error.find_root() {
            DataFusionError::SchemaError(schema_error, _) => Self::from_schema_error(schema_error, text),
            DataFusionError::SQL(parser_error, _) => Self::from_parser_error(&parser_error.to_string(), text),
            root => {
                // A suggestion comes on a line of its own.
                let message = root.message();
                match message.split_once("\nDid you mean ") {
                    Some((message, suggested)) => {
                        Self::new(clause(message)).help(format!("did you mean {}", suggested.trim().replace('\'', "`")))
                    }
                    None => Self::new(clause(&message)),
                }
            }
        }
    }

    fn from_schema_error(error: &SchemaError, text: &str) -> Self {
        let SchemaError::FieldNotFound { field, valid_fields } = error else {
            return Self::new(clause(&error.to_string()));
        };
        let name = field.name();
        let known: Vec<&str> = valid_fields.iter().map(datafusion_common::Column::name).collect();
        Self::new(format!("unknown column `{name}`")).help(one_of(name, &known)).at(text.find(name))
    }

    fn from_parser_error(message: &str, text: &str) -> Self {
        let message = message.trim_start_matches("sql parser error: ").trim_start_matches("ParserError(\"");
        let (message, offset) = match message.split_once(" at Line: ") {
            Some((message, position)) => (message, offset_of(position, text)),
            None => (message, None),
        };
        Self::new(clause(message)).at(offset)
    }
}

/// "did you mean …" if a known name is close, else all of them.
fn one_of(name: &str, known: &[&str]) -> String {
    let closest = known.iter().map(|known| (distance(name, known), known)).min();
    match closest {
        Some((distance, closest)) if distance <= name.chars().count().div_ceil(3) => format!("did you mean `{closest}`?"),
        Some(_) => format!("the columns are {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
        None => "there are no columns".into(),
    }
}

fn distance(a: &str, b: &str) -> usize {
    datafusion_common::utils::datafusion_strsim::levenshtein(&a.to_lowercase(), &b.to_lowercase())
}

/// The byte offset of `"<line>, Column: <column>…"` in `text`.
fn offset_of(position: &str, text: &str) -> Option<usize> {
    let (line, column) = position.split_once(", Column: ")?;
    let digits: String = column.chars().take_while(char::is_ascii_digit).collect();
    let (line, column): (usize, usize) = (line.parse().ok()?, digits.parse().ok()?);
    let line_start = text.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum::<usize>();
    let in_line = text[line_start..].char_indices().nth(column.checked_sub(1)?).map_or(text.len() - line_start, |(offset, _)| offset);
    Some(line_start + in_line)
}

/// The first line, as a lower-case clause.
fn clause(message: &str) -> String {
    let message = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let message = message.trim_end_matches('.');
    let mut chars = message.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_uppercase() && !second.is_uppercase() => {
            first.to_lowercase().chain(message.chars().skip(1)).collect()
        }
        _ => message.to_owned(),
    }
}

/// An expression failed on a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvaluationError(String);

impl EvaluationError {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    pub(crate) fn from_datafusion(error: DataFusionError) -> Self {
        Self(match error.find_root() {
            DataFusionError::ArrowError(error, _) => arrow_clause(error),
            root => clause(&root.message()),
        })
    }
}

fn arrow_clause(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "division by zero".into(),
        ArrowError::ArithmeticOverflow(detail) => format!("arithmetic overflow: {}", detail.trim_start_matches("Overflow happened on: ")),
        ArrowError::CastError(detail) | ArrowError::ParseError(detail) | ArrowError::ComputeError(detail) => clause(detail),
        other => clause(&other.to_string()),
    }
}
