//! Conformance case `list-state`. An appended list: reads see the writes of the same call.

use millstream::{ListState, Out, Reject, Row};

/// What to do.
#[derive(Row)]
pub struct Operation<'a> {
    key: &'a str,
    operation: &'a str,
    value: Option<i64>,
}

/// What was found.
#[derive(Row)]
pub struct Answer<'a> {
    key: &'a str,
    values: Vec<i64>,
}

/// Does what the row says to the list of its key.
#[millstream::operator(keyed)]
pub fn apply(row: Operation<'_>, values: &mut ListState<i64>, out: &mut Out<Answer<'_>>) -> Result<(), Reject> {
    match row.operation {
        "push" => values.push(row.value.ok_or("nothing to push")?),
        "clear" => values.clear(),
        "clear-and-fail" => {
            values.clear();
            return Err(Reject::new("told to fail"));
        }
        "read" => out.push(Answer { key: row.key, values: values.values() }),
        other => return Err(Reject::new(format!("unknown operation {other}"))),
    }
    Ok(())
}
