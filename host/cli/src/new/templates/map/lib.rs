//! Adds the temperature in Fahrenheit to every reading.

use millstream::Row;

/// The columns that the operator reads.
#[derive(Row)]
pub struct Reading {
    pub celsius: Option<f64>,
}

/// The columns that it adds.
#[derive(Row, Debug, PartialEq)]
pub struct Added {
    pub fahrenheit: Option<f64>,
}

/// Adds the temperature in Fahrenheit.
#[millstream::map]
pub fn {{function}}(reading: Reading) -> Added {
    Added { fahrenheit: reading.celsius.map(|celsius| celsius * 1.8 + 32.0) }
}

#[cfg(test)]
mod tests {
    use millstream::testing::Harness;

    use super::*;

    #[test]
    fn water_boils_at_212() {
        let mut operator = Harness::<{{function}}>::new();
        operator.rows([Reading { celsius: Some(100.0) }, Reading { celsius: None }]);
        let added: Vec<Added> = operator.output();
        assert_eq!(added, [Added { fahrenheit: Some(212.0) }, Added { fahrenheit: None }]);
    }
}
