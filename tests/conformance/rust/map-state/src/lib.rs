//! Conformance case `map-state`. An ordered map: reads see the writes of the same call.

use millstream::{MapState, Out, Reject, Row};

/// What to do.
#[derive(Row)]
pub struct Operation<'a> {
    key: &'a str,
    operation: &'a str,
    at: i64,
    value: Option<&'a str>,
}

/// What was found.
#[derive(Row)]
pub struct Answer {
    key: String,
    found: Vec<String>,
}

/// Does what the row says to the map of its key.
#[millstream::operator(keyed)]
pub fn apply(row: Operation<'_>, entries: &mut MapState<i64, String>, out: &mut Out<Answer>) -> Result<(), Reject> {
    let show = |entries: Vec<(i64, String)>| entries.into_iter().map(|(at, value)| format!("{at}={value}")).collect();
    let found: Vec<String> = match row.operation {
        "put" => {
            entries.insert(row.at, row.value.unwrap_or_default().to_owned());
            return Ok(());
        }
        "remove" => {
            entries.remove(&row.at);
            return Ok(());
        }
        "put-and-fail" => {
            entries.insert(row.at, "never".to_owned());
            return Err(Reject::new("told to fail"));
        }
        "get" => entries.get(&row.at).cloned().into_iter().collect(),
        "all" => show(entries.entries()),
        "before" => show(entries.range(..row.at)),
        "through" => show(entries.range(..=row.at)),
        "from" => show(entries.range(row.at..)),
        "last-two" => show(entries.last_in(.., 2)),
        other => return Err(Reject::new(format!("unknown operation {other}"))),
    };
    out.push(Answer { key: row.key.to_owned(), found });
    Ok(())
}
