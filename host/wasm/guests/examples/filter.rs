//! Keeps rows by a number: the smallest call there is.

/// Keeps a quarter of numbers that are spread evenly over 0..1000.
#[millstream::filter]
fn filter(number: i64) -> bool {
    number < 250
}
