//! Giving rows their event times: from a column or an expression, in ms since epoch. Used by sources and by `assign-watermarks`.
//!
//! A row without a time (null) or with an absurd one ([`EventTime::is_supported`]) is rejected: it could neither be ordered nor be late.

use arrow_array::{
    Array, ArrayRef, BooleanArray,
    cast::AsArray,
    types::{Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, TimeUnit};
use millstream_model::{Batch, EventTime, types::type_text};

use crate::{graph::EventTimeFrom, operator::OperatorError, operators::keep, rejected::Rejection};

/// Whether event times can be made from values of this type.
///
/// # Errors
/// They cannot; a clause that says what could.
pub fn check_type(data_type: &DataType) -> Result<(), String> {
    match data_type {
        DataType::Timestamp(..) | DataType::Int64 => Ok(()),
        other => Err(format!("event time is a timestamp, or an Int64 of ms since epoch, not a {}", type_text(other))),
    }
}

/// The rows of `batch` that have an event time, with it. The others are rejected, shown with the columns `shown`.
///
/// # Errors
/// A column is not of the planned type: a bug.
pub fn assign(batch: Batch, from: &EventTimeFrom, shown: &[usize], rejections: &mut Vec<Rejection>) -> Result<Batch, OperatorError> {
    let (values, failed) = match from {
        EventTimeFrom::Source => return Ok(batch),
        EventTimeFrom::Column(column) => (batch.column(*column).clone(), Vec::new()),
        EventTimeFrom::Expression(expression) => {
            let evaluated = expression.evaluate_rows(batch.columns());
            (evaluated.values, evaluated.failed)
        }
    };
    let times = to_ms(&values)?;
    if values.null_count() == 0 && all_supported(&times) {
        return Ok(batch.with_event_times(Some(times)));
    }
    let mut has_time = Vec::with_capacity(batch.num_rows());
    for (row, &time) in times.iter().enumerate() {
        let reason = if values.is_null(row) {
            let failure = failed.iter().find(|failure| failure.row == row);
            Some(failure.map_or_else(|| "no event time".to_owned(), |failure| format!("no event time: {}", failure.reason)))
        } else {
            (!EventTime(time).is_supported()).then(|| format!("absurd event time: {time} ms since epoch is outside the years 1 to 9999"))
        };
        has_time.push(reason.is_none());
        rejections.extend(reason.map(|reason| Rejection::of_row(&batch, row, shown, reason)));
    }
    let batch = batch.with_event_times(Some(times));
    let empty = batch.slice(0..0);
    Ok(keep(batch, &BooleanArray::from(has_time)).unwrap_or(empty))
}

fn all_supported(times: &[i64]) -> bool {
    // No branch per row: the loop becomes vector instructions.
    times.iter().fold(true, |all, &time| all & EventTime(time).is_supported())
}

/// Values in ms since epoch, rounded down; what does not fit becomes an absurd time. Null rows have any value.
pub(crate) fn to_ms(values: &ArrayRef) -> Result<ScalarBuffer<i64>, OperatorError> {
    Ok(match values.data_type() {
        DataType::Int64 => values.as_primitive::<Int64Type>().values().clone(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => values.as_primitive::<TimestampMillisecondType>().values().clone(),
        DataType::Timestamp(TimeUnit::Second, _) => {
            values.as_primitive::<TimestampSecondType>().values().iter().map(|seconds| seconds.saturating_mul(1_000)).collect()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            values.as_primitive::<TimestampMicrosecondType>().values().iter().map(|micros| micros.div_euclid(1_000)).collect()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            values.as_primitive::<TimestampNanosecondType>().values().iter().map(|nanos| nanos.div_euclid(1_000_000)).collect()
        }
        other => return Err(OperatorError::internal(format!("event times from a column of type {other}"))),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, TimestampMicrosecondArray};
    use arrow_schema::{Field, Schema};

    use super::*;

    fn assigned(column: ArrayRef) -> (Vec<i64>, Vec<String>) {
        let schema = Arc::new(Schema::new(vec![Field::new("at", column.data_type().clone(), true)]));
        let rows = column.len();
        let batch = Batch::try_new(schema, vec![column], rows).expect("one column fits the schema");
        let mut rejections = Vec::new();
        let batch = assign(batch, &EventTimeFrom::Column(0), &[0], &mut rejections).expect("a time column");
        let reasons = rejections.into_iter().map(|rejection| format!("{} {}", rejection.row, rejection.reason)).collect();
        (batch.event_times().expect("timed").to_vec(), reasons)
    }

    #[test]
    fn microseconds_before_the_epoch_are_rounded_down() {
        assert_eq!(assigned(Arc::new(TimestampMicrosecondArray::from(vec![1_999, -1]))).0, [1, -1]);
    }

    #[test]
    fn rows_without_a_time_or_with_an_absurd_one_are_rejected() {
        let (times, reasons) = assigned(Arc::new(Int64Array::from(vec![Some(5), None, Some(i64::MAX), Some(7)])));
        assert_eq!(times, [5, 7]);
        let absurd = r#"{"at":9223372036854775807} absurd event time: 9223372036854775807 ms since epoch is outside the years 1 to 9999"#;
        assert_eq!(reasons, [r#"{"at":null} no event time"#, absurd]);
    }
}
