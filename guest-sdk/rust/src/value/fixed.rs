//! Types of a fixed number of bytes: integers, floats, decimals, fixed-size binary.

use std::{fmt, str::FromStr};

use super::{Buffers, ColumnBuilder, Malformed, ReadValue, Value};

/// A column of values of `N` bytes.
pub struct Fixed<'a, const N: usize>(pub(crate) &'a [[u8; N]]);

/// Makes a column of values of `N` bytes.
#[derive(Default)]
pub struct FixedBuilder<const N: usize>(Vec<[u8; N]>);

impl<const N: usize> FixedBuilder<N> {
    /// Appends one value's bytes.
    #[inline(always)]
    pub fn push(&mut self, bytes: [u8; N]) {
        self.0.push(bytes);
    }
}

impl<const N: usize> ColumnBuilder for FixedBuilder<N> {
    fn reserve(&mut self, rows: usize) {
        self.0.reserve(rows);
    }

    fn append_null(&mut self) {
        self.0.push([0; N]);
    }

    fn truncate(&mut self, rows: usize) {
        self.0.truncate(rows);
    }

    fn finish(self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        buffers.extend([validity, self.0.into_flattened()]);
    }
}

/// Implements both directions for a type that is `$bytes` bytes: `$to` and `$from` convert, equality is by bytes.
macro_rules! fixed_value {
    ([$($generics:tt)*] $type:ty, $bytes:literal, $text:expr, $to:expr, $from:expr) => {
        impl<$($generics)*> Value for $type {
            type Builder = FixedBuilder<$bytes>;

            fn write_type(text: &mut String) {
                let write: fn(&mut String) = $text;
                write(text);
            }

            #[inline(always)]
            fn append(&self, builder: &mut Self::Builder) {
                let to: fn(&Self) -> [u8; $bytes] = $to;
                builder.push(to(self));
            }

            #[inline(always)]
            fn duplicate(&self) -> Self {
                *self
            }
        }

        impl<'a, $($generics)*> ReadValue<'a> for $type {
            type Reader = Fixed<'a, $bytes>;

            fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
                buffers.take_fixed(length).map(Fixed)
            }

            #[inline(always)]
            fn get(reader: &Self::Reader, row: usize) -> Self {
                let from: fn([u8; $bytes]) -> Self = $from;
                from(reader.0[row])
            }

            #[inline(always)]
            fn same(&self, reader: &Self::Reader, row: usize) -> bool {
                let to: fn(&Self) -> [u8; $bytes] = $to;
                to(self) == reader.0[row]
            }
        }
    };
}
pub(crate) use fixed_value;

macro_rules! numbers {
    ($($type:ty, $bytes:literal, $name:literal;)*) => {$(
        fixed_value!([] $type, $bytes, |text| text.push_str($name), |value| value.to_le_bytes(), Self::from_le_bytes);
    )*};
}

numbers! {
    i8, 1, "Int8";
    i16, 2, "Int16";
    i32, 4, "Int32";
    i64, 8, "Int64";
    u8, 1, "UInt8";
    u16, 2, "UInt16";
    u32, 4, "UInt32";
    u64, 8, "UInt64";
    f32, 4, "Float32";
    f64, 8, "Float64";
}

/// An exact decimal number of up to `PRECISION` (1 to 38) digits, `SCALE` of them after the point: `Decimal128(PRECISION, SCALE)`.
///
/// ```
/// use millstream::Decimal;
/// let price: Decimal<10, 2> = "12.5".parse().unwrap();
/// assert_eq!(price, Decimal(1250));
/// assert_eq!(price.to_string(), "12.50");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal<const PRECISION: u8, const SCALE: i8>(
    /// The number times 10 to the power of `SCALE`.
    pub i128,
);

fixed_value!([const PRECISION: u8, const SCALE: i8] Decimal<PRECISION, SCALE>, 16,
    |text| text.push_str(&format!("Decimal128({PRECISION}, {SCALE})")),
    |value| value.0.to_le_bytes(), |bytes| Self(i128::from_le_bytes(bytes)));

impl<const PRECISION: u8, const SCALE: i8> fmt::Display for Decimal<PRECISION, SCALE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.unsigned_abs().to_string();
        let sign = if self.0 < 0 { "-" } else { "" };
        let Ok(scale) = usize::try_from(SCALE) else {
            return write!(f, "{sign}{digits}{}", "0".repeat(usize::from(SCALE.unsigned_abs())));
        };
        if scale == 0 {
            return write!(f, "{sign}{digits}");
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        write!(f, "{sign}{whole}.{fraction}")
    }
}

/// The text is no decimal number, or has more digits than the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseDecimalError;

impl fmt::Display for ParseDecimalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a decimal number of this precision and scale")
    }
}

impl std::error::Error for ParseDecimalError {}

impl<const PRECISION: u8, const SCALE: i8> FromStr for Decimal<PRECISION, SCALE> {
    type Err = ParseDecimalError;

    fn from_str(text: &str) -> Result<Self, ParseDecimalError> {
        let scale = usize::try_from(SCALE).map_err(|_| ParseDecimalError)?;
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || fraction.len() > scale {
            return Err(ParseDecimalError);
        }
        let number: i128 = format!("{whole}{fraction:0<scale$}").parse().map_err(|_| ParseDecimalError)?;
        if number >= 10_i128.pow(u32::from(PRECISION)) {
            return Err(ParseDecimalError);
        }
        Ok(Self(if negative { -number } else { number }))
    }
}

impl<const N: usize> Value for [u8; N] {
    type Builder = FixedBuilder<N>;

    fn write_type(text: &mut String) {
        text.push_str(&format!("FixedSizeBinary({N})"));
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) {
        builder.push(*self);
    }

    fn duplicate(&self) -> Self {
        *self
    }
}

impl<'a, const N: usize> ReadValue<'a> for [u8; N] {
    type Reader = Fixed<'a, N>;

    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        buffers.take_fixed(length).map(Fixed)
    }

    #[inline]
    fn get(reader: &Self::Reader, row: usize) -> Self {
        reader.0[row]
    }

    #[inline]
    fn same(&self, reader: &Self::Reader, row: usize) -> bool {
        *self == reader.0[row]
    }
}
