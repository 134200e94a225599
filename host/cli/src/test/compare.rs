//! What left an operator against what a case expects.

use std::fmt::Write as _;

use serde_json::Value;

use super::{
    case::{Case, Row},
    drive::Seen,
    rows,
};

/// Everything that is not as expected, in words; empty: the case is good.
pub fn differences(case: &Case, seen: &Seen) -> Vec<String> {
    let compared = case.expect.iter().map(|(output, expected)| match (output.as_str(), seen.outputs.get(output)) {
        ("rejected", _) => differing(output, expected, &seen.rejected),
        (_, Some((stream, found))) => match rows::normalized(&stream.schema, expected) {
            Ok(expected) => differing(output, &expected, found),
            Err(reason) => Some(format!("`expect` of `{output}`: {reason}")),
        },
        (_, None) => {
            let known: Vec<_> = seen.outputs.keys().map(String::as_str).chain(["rejected"]).collect();
            Some(format!("there is no output `{output}`; the outputs are {}", known.join(", ")))
        }
    });
    let surprise = (!case.expect.contains_key("rejected") && !seen.rejected.is_empty()).then(|| differing("rejected", &[], &seen.rejected)).flatten();
    compared.flatten().chain(surprise).collect()
}

/// The first difference between two lists of rows; none: they are equal as far as the expected rows go.
fn differing(output: &str, expected: &[Row], found: &[Row]) -> Option<String> {
    let length = expected.len().max(found.len());
    let first = (0..length).find(|&index| !matches!((expected.get(index), found.get(index)), (Some(expected), Some(found)) if fits(expected, found)))?;
    let mut text = format!("`{output}` differs from its row {} on ({} rows expected, {} found)\n", first + 1, expected.len(), found.len());
    let _ = writeln!(text, "expected {}", shown(expected.get(first)));
    let _ = write!(text, "found    {}", shown(found.get(first)));
    Some(text)
}

/// Whether a row is as expected in everything that the expected row says.
fn fits(expected: &Row, found: &Row) -> bool {
    expected.iter().all(|(name, value)| found.get(name).unwrap_or(&Value::Null) == value)
}

fn shown(row: Option<&Row>) -> String {
    row.map_or_else(|| "nothing".to_owned(), |row| Value::Object(row.clone()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: Value) -> Row {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_an_expected_row_does_not_say_is_not_compared() {
        let found = [row(serde_json::json!({ "a": 1, "@time": 7 }))];
        assert_eq!(differing("output", &[row(serde_json::json!({ "a": 1 }))], &found), None);
        assert!(differing("output", &[row(serde_json::json!({ "a": 1, "@time": 8 }))], &found).is_some());
    }

    #[test]
    fn a_missing_row_and_a_row_too_many_are_differences() {
        let rows = [row(serde_json::json!({ "a": 1 }))];
        let missing = differing("output", &rows, &[]).unwrap();
        assert!(missing.contains("1 rows expected, 0 found") && missing.ends_with("found    nothing"), "{missing}");
        assert!(differing("output", &[], &rows).unwrap().contains("expected nothing"));
    }
}
