//! Keeps the readings of 30 °C and more.

use millstream::Row;

/// The columns that the operator reads; the others pass by without crossing into it.
#[derive(Row)]
pub struct Reading {
    pub celsius: Option<f64>,
}

/// Keeps the readings of 30 °C and more.
#[millstream::filter]
pub fn {{function}}(reading: Reading) -> bool {
    reading.celsius.is_some_and(|celsius| celsius >= 30.0)
}

#[cfg(test)]
mod tests {
    use millstream::testing::Harness;

    use super::*;

    #[test]
    fn hot_readings_stay() {
        let mut operator = Harness::<{{function}}>::new();
        operator.rows([Some(29.9), Some(30.0), None, Some(41.5)].map(|celsius| Reading { celsius }));
        let kept = operator.emitted();
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[0].columns["celsius"], 30.0);
    }
}
