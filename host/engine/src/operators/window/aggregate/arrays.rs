//! Rows of arrays by number.

use arrow_array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow_select::take::take;

/// The rows with these numbers.
pub fn take_rows(array: &ArrayRef, rows: &[u32]) -> ArrayRef {
    take(array, &UInt32Array::from(rows.to_vec()), None).expect("row numbers are in range")
}

/// The rows with these numbers, null for no number.
pub fn take_or_null(array: &ArrayRef, rows: &UInt32Array) -> ArrayRef {
    if array.is_empty() {
        return new_null_array(array.data_type(), rows.len());
    }
    take(array, rows, None).expect("row numbers are in range")
}
