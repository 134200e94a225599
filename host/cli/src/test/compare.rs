//! What came out against what a case expects.

use std::fmt::Write as _;

use millstream_engine::rejected::Rejection;
use serde_json::{Map, Value};

use super::case::Row;

/// The first difference between the rows of an output; none: they are equal, in order if that counts.
pub fn rows(output: &str, expected: Vec<Row>, found: Vec<Row>, in_order: bool) -> Option<String> {
    let (mut expected, mut found): (Vec<_>, Vec<_>) = (expected.iter().map(shown).collect(), found.iter().map(shown).collect());
    if !in_order {
        expected.sort_unstable();
        found.sort_unstable();
    }
    differing(output, &expected, &found)
}

/// The first difference between rejected rows, as a multiset. Of a row, the columns that the operator reads are known.
pub fn rejected(expected: &[(Map<String, Value>, String)], found: &[Rejection]) -> Option<String> {
    let mut found: Vec<_> = found.iter().map(|rejection| (parsed(&rejection.row), &rejection.reason)).collect();
    let mut missing = Vec::new();
    for (row, reason) in expected {
        let fits = |(columns, found): &(Map<String, Value>, &String)| {
            *found == reason && columns.iter().all(|(name, value)| row.get(name) == Some(value))
        };
        match found.iter().position(fits) {
            Some(index) => drop(found.swap_remove(index)),
            None => missing.push(format!("{} because {reason}", Value::Object(row.clone()))),
        }
    }
    let found: Vec<_> = found.into_iter().map(|(row, reason)| format!("{} because {reason}", Value::Object(row))).collect();
    differing("rejected", &missing, &found)
}

/// The first difference between two lists.
pub fn differing(what: &str, expected: &[String], found: &[String]) -> Option<String> {
    let length = expected.len().max(found.len());
    let first = (0..length).find(|&index| expected.get(index) != found.get(index))?;
    let mut text =
        format!("`{what}` is not as expected ({} rows expected, {} found); the first difference:\n", expected.len(), found.len());
    let _ = writeln!(text, "expected {}", expected.get(first).map_or("nothing", String::as_str));
    let _ = write!(text, "found    {}", found.get(first).map_or("nothing", String::as_str));
    Some(text)
}

/// A row as a case writes it.
fn shown(row: &Row) -> String {
    let change = row.change.as_deref().filter(|change| *change != "+I").map(|change| format!(", \"{change}\"")).unwrap_or_default();
    format!("[{}, {}{change}]", Value::from(row.time), Value::Object(row.columns.clone()))
}

fn parsed(row: &str) -> Map<String, Value> {
    serde_json::from_str(row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(time: i64) -> Row {
        Row { time: Some(time), columns: Map::new(), change: None }
    }

    #[test]
    fn order_counts_only_if_it_is_said_to() {
        assert_eq!(rows("out", vec![row(1), row(2)], vec![row(2), row(1)], false), None);
        assert!(rows("out", vec![row(1), row(2)], vec![row(2), row(1)], true).is_some());
    }

    #[test]
    fn a_missing_row_and_a_row_too_many_are_differences() {
        let missing = rows("out", vec![row(1)], vec![], false).unwrap();
        assert!(missing.contains("1 rows expected, 0 found") && missing.ends_with("found    nothing"), "{missing}");
        assert!(rows("out", vec![], vec![row(1)], false).unwrap().contains("expected nothing"));
    }
}
