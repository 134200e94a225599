//! Rows as a table that grows: columns are as wide as what they have held so far.

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;

/// A cell is cut at this many characters.
const CELL_CHARACTERS_MAX: usize = 60;

/// A table that grows.
#[derive(Debug, Default)]
pub struct Table {
    widths: Vec<usize>,
    rows: usize,
}

impl Table {
    /// Appends the rows to `out`, after the header if it is the first time or a column became wider.
    ///
    /// # Errors
    /// A value cannot be shown; a clause.
    pub fn rows(&mut self, columns: &RecordBatch, out: &mut String) -> Result<(), String> {
        if columns.num_rows() == 0 {
            return Ok(());
        }
        let cells = columns.columns().iter().map(|column| cells(column.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = columns.schema().fields().iter().map(|field| shown(field.name())).collect();
        if self.widen(&names, &cells) || self.rows == 0 {
            self.header(columns, &names, out);
        }
        for row in 0..columns.num_rows() {
            let line = cells.iter().zip(columns.columns()).map(|(cells, column)| (cells[row].as_str(), is_number(column.data_type())));
            self.line(line, out);
        }
        self.rows += columns.num_rows();
        Ok(())
    }

    fn widen(&mut self, names: &[String], cells: &[Vec<String>]) -> bool {
        let needed = names.iter().zip(cells).map(|(name, cells)| cells.iter().map(|cell| width(cell)).max().unwrap_or(0).max(width(name)));
        let needed: Vec<usize> = needed.collect();
        self.widths.resize(needed.len(), 0);
        let wider = needed.iter().zip(&self.widths).any(|(needed, width)| needed > width);
        self.widths.iter_mut().zip(needed).for_each(|(width, needed)| *width = needed.max(*width));
        wider
    }

    fn header(&self, columns: &RecordBatch, names: &[String], out: &mut String) {
        if self.rows > 0 {
            out.push('\n');
        }
        self.line(names.iter().zip(columns.columns()).map(|(name, column)| (name.as_str(), is_number(column.data_type()))), out);
        let rules: Vec<String> = self.widths.iter().map(|&width| "─".repeat(width)).collect();
        self.line(rules.iter().map(|rule| (rule.as_str(), false)), out);
    }

    fn line<'a>(&self, cells: impl Iterator<Item = (&'a str, bool)>, out: &mut String) {
        let start = out.len();
        for ((cell, right), &column_width) in cells.zip(&self.widths) {
            let padding = " ".repeat(column_width - width(cell));
            let (before, after) = if right { (padding.as_str(), "") } else { ("", padding.as_str()) };
            if out.len() > start {
                out.push_str("  ");
            }
            out.extend([before, cell, after]);
        }
        out.truncate(start + out[start..].trim_end().len());
        out.push('\n');
    }
}

fn cells(column: &dyn Array) -> Result<Vec<String>, String> {
    let formatter = ArrayFormatter::try_new(column, &FormatOptions::new()).map_err(|error| error.to_string())?;
    let cell = |row| if column.is_null(row) { Ok("-".to_owned()) } else { formatter.value(row).try_to_string().map(|text| shown(&text)) };
    (0..column.len()).map(cell).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// A text on one line without control characters: data must not steer the terminal.
fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().take(CELL_CHARACTERS_MAX).map(|character| if character.is_control() { '\u{FFFD}' } else { character }).collect();
    if text.chars().nth(CELL_CHARACTERS_MAX).is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}
