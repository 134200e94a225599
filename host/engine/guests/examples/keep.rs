//! Keeps every fourth number.

#[millstream::filter]
fn keep(number: i64) -> bool {
    number % 4 == 0
}
