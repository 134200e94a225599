//! Rows and items of arrays by number.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, ListArray, UInt32Array, new_null_array};
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

/// The items of all lists, in order, and the number of the list of each.
pub fn items_of(lists: &ListArray) -> (ArrayRef, Vec<u32>) {
    let offsets = lists.value_offsets();
    let (mut numbers, mut list_of_item) = (Vec::with_capacity(lists.values().len()), Vec::with_capacity(lists.values().len()));
    for list in (0..lists.len()).filter(|&list| lists.is_valid(list)) {
        numbers.extend(offsets[list] as u32..offsets[list + 1] as u32);
        list_of_item.resize(numbers.len(), list as u32);
    }
    if numbers.len() == lists.values().len() {
        return (Arc::clone(lists.values()), list_of_item);
    }
    (take_rows(lists.values(), &numbers), list_of_item)
}
