//! The columns of a file whose schema nobody declared, guessed from its first records.
//!
//! Each column gets the first of these types that every value of the sample fits (nulls apart): Boolean, Int64, Float64, Date32
//! (`2013-01-31`), Timestamp(ms, "UTC") (RFC 3339 with a zone), Utf8. A column without any value in the sample is Utf8. All columns may be null. The
//! sample is documented with the `files` source; a later value that does not fit is rejected with a reason that says so.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{
    super::values::{ColumnBuilder, TimestampFormat, scalar_builder},
    Dialect, Field as FieldSpan, Found, Scanner, field_text,
};

/// The types that inference knows, from the most special to the most general.
pub fn candidates() -> [DataType; 6] {
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    [DataType::Boolean, DataType::Int64, DataType::Float64, DataType::Date32, timestamp, DataType::Utf8]
}

/// The types that all values so far fit.
pub struct Guess {
    builders: Vec<(DataType, Box<dyn ColumnBuilder>)>,
    seen: bool,
}

impl Default for Guess {
    fn default() -> Self {
        let builder = |data_type: DataType| {
            let builder = scalar_builder(&data_type, &TimestampFormat::Standard).expect("candidates are scalars");
            (data_type, builder)
        };
        Self { builders: candidates().into_iter().map(builder).collect(), seen: false }
    }
}

impl Guess {
    /// Takes a value into account.
    pub fn see(&mut self, text: &str) {
        self.seen = true;
        if self.builders.len() > 1 {
            self.builders.retain_mut(|(data_type, builder)| is_plausible(data_type, text) && builder.push(text));
        }
    }

    /// The most special type that all values fit.
    pub fn data_type(&self) -> DataType {
        let first = self.builders.first().filter(|_| self.seen);
        first.map_or(DataType::Utf8, |(data_type, _)| data_type.clone())
    }
}

/// Some types read more than should be guessed: integers and local times are no timestamps here, `05` is a code, not a number.
fn is_plausible(data_type: &DataType, text: &str) -> bool {
    match data_type {
        DataType::Timestamp(..) => text.len() >= 20 && text.as_bytes()[4] == b'-' && has_zone(text),
        DataType::Date32 => text.len() == 10,
        DataType::Int64 | DataType::Float64 => !has_leading_zero(text) && text.bytes().any(|byte| byte.is_ascii_digit()),
        _ => true,
    }
}

fn has_zone(text: &str) -> bool {
    text.ends_with(['Z', 'z']) || text.get(19..).is_some_and(|rest| rest.contains(['+', '-']))
}

fn has_leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']).as_bytes();
    digits.len() > 1 && digits[0] == b'0' && digits[1].is_ascii_digit()
}

/// The first records of a file, without its header.
pub struct Sample<'a> {
    /// The bytes; the last record may be cut off.
    pub bytes: &'a [u8],
    /// Most records to look at.
    pub records_max: usize,
}

/// The columns with these names, typed by the sample.
pub fn infer_schema(dialect: &Dialect, names: &[String], sample: &Sample<'_>) -> SchemaRef {
    let scanner = Scanner { bytes: sample.bytes, delimiter: dialect.delimiter, quote: dialect.quote, last: false };
    let mut guesses: Vec<Guess> = names.iter().map(|_| Guess::default()).collect();
    let (mut at, mut fields) = (0, Vec::new());
    for _ in 0..sample.records_max {
        fields.clear();
        let Found::Record { span, next, flaw } = scanner.record(at, &mut fields) else { break };
        at = next;
        if at >= sample.bytes.len() && span.is_empty() {
            break;
        }
        if let (None, Ok(text)) = (flaw, std::str::from_utf8(&sample.bytes[span.clone()])) {
            see_record(dialect, text, span.start, &fields, &mut guesses);
        }
    }
    let field = |(name, guess): (&String, &Guess)| Field::new(name, guess.data_type(), true);
    Arc::new(Schema::new(names.iter().zip(&guesses).map(field).collect::<Vec<_>>()))
}

fn see_record(dialect: &Dialect, text: &str, start: usize, fields: &[FieldSpan], guesses: &mut [Guess]) {
    for (field, guess) in fields.iter().zip(guesses) {
        let here = FieldSpan { start: field.start - start as u32, end: field.end - start as u32, ..*field };
        let value = field_text(text, here, dialect.quote);
        if field.quoted && !value.is_empty() || !field.quoted && !dialect.is_null(&value) {
            guess.see(&value);
        }
    }
}
