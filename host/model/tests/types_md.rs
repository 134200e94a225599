//! The table of `wit/types.md` holds: what the types of the contract are, and how arrow-schema prints them.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

use arrow_schema::DataType;
use millstream_model::types;

/// Rows of the table of cases: text, and what it prints as (none: it is refused).
fn cases() -> Vec<(String, Option<String>)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/types.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cell = |cell: &str| cell.trim_matches(' ').strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).map(str::to_owned);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        (cell(cells[0]).unwrap(), cell(cells[1]))
    })
    .collect()
}

#[test]
fn cases_are_the_text_form_of_arrow_schema() {
    let cases = cases();
    assert!(cases.len() > 60, "the table was found");
    for (text, printed) in cases {
        let parsed = types::parse_type(&text).ok();
        assert_eq!(parsed.as_ref().map(DataType::to_string), printed, "{text}");
        if let (Some(parsed), Some(printed)) = (parsed, printed) {
            assert_eq!(printed.parse::<DataType>().ok(), Some(parsed), "{text} is read back");
        }
    }
}
