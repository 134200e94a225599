//! Text → columns, one value at a time: what a cell of CSV and a scalar of JSON mean in a column of each type.
//!
//! | type | text |
//! |---|---|
//! | Boolean | `true` or `false`, any case |
//! | integers, floats, decimals | decimal digits; a fraction in an integer column is an error, never cut; `NaN` and `inf` in floats |
//! | Utf8 | itself |
//! | Timestamp | RFC 3339 (`2013-01-01T05:15:00.000Z`; `T` may be a space; no zone: the column's, else UTC), an integer in the column's unit, or the format the settings give. Within the years 1 to 9999 |
//! | Date | `2013-01-31` |
//! | Time | `05:15:00.123` |
//! | Duration | an integer in the column's unit |
//! | Binary | base64 |

use std::{str::FromStr, sync::Arc};

use arrow_array::{
    ArrayRef, ArrowPrimitiveType, PrimitiveArray,
    builder::{BooleanBuilder, FixedSizeBinaryBuilder, GenericBinaryBuilder, GenericStringBuilder},
    timezone::Tz,
    types::*,
};
use arrow_buffer::{NullBufferBuilder, ScalarBuffer};
use arrow_cast::{
    base64::{BASE64_STANDARD, Engine},
    parse::{Parser, parse_decimal, string_to_datetime},
};
use arrow_schema::{DataType, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use millstream_model::EventTime;

/// A column under construction. Every call that succeeds appends exactly one entry; one that fails appends none.
#[expect(clippy::len_without_is_empty, reason = "only the number of entries matters")]
pub trait ColumnBuilder: Send {
    /// Appends the value that `text` means; false: it means none of this type.
    fn push(&mut self, text: &str) -> bool;
    /// Appends what the decimal digits of `integer` mean; false: they mean none of this type, or only [`Self::push`] knows.
    fn push_integer(&mut self, integer: i64) -> bool {
        let _ = integer;
        false
    }
    /// Appends a null.
    fn push_null(&mut self);
    /// Appends some value, in place of one that could not be read.
    fn push_default(&mut self);
    /// Number of entries.
    fn len(&self) -> usize;
    /// The column; the builder is empty afterwards.
    fn finish(&mut self) -> ArrayRef;
}

/// How the text of a timestamp column is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    /// RFC 3339, or an integer in the column's unit.
    Standard,
    /// An integer in this unit since epoch.
    Unix(TimeUnit),
    /// strftime-like, as the crate chrono documents it.
    Pattern(Arc<str>),
}

impl FromStr for TimestampFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = match text {
            "rfc3339" => return Ok(Self::Standard),
            "unix-s" => TimeUnit::Second,
            "unix-ms" => TimeUnit::Millisecond,
            "unix-us" => TimeUnit::Microsecond,
            "unix-ns" => TimeUnit::Nanosecond,
            pattern => return check_pattern(pattern).map(|()| Self::Pattern(pattern.into())),
        };
        Ok(Self::Unix(unit))
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    let mut items = chrono::format::StrftimeItems::new(pattern);
    if !pattern.contains('%') || items.any(|item| matches!(item, chrono::format::Item::Error)) {
        return Err(format!(
            "`{pattern}` is no timestamp format; expected rfc3339, unix-s, unix-ms, unix-us, unix-ns or a pattern such as `%Y-%m-%d %H:%M:%S`"
        ));
    }
    Ok(())
}

/// A builder for a column of scalars of this type; none: the type is nested or cannot be written as text.
pub fn scalar_builder(data_type: &DataType, format: &TimestampFormat) -> Option<Box<dyn ColumnBuilder>> {
    use DataType as D;
    Some(match data_type {
        D::Boolean => Box::new(BooleanBuilder::new()),
        D::Int8 => number::<Int8Type>(data_type, |integer| integer.try_into().ok()),
        D::Int16 => number::<Int16Type>(data_type, |integer| integer.try_into().ok()),
        D::Int32 => number::<Int32Type>(data_type, |integer| integer.try_into().ok()),
        D::Int64 => number::<Int64Type>(data_type, Some),
        D::UInt8 => number::<UInt8Type>(data_type, |integer| integer.try_into().ok()),
        D::UInt16 => number::<UInt16Type>(data_type, |integer| integer.try_into().ok()),
        D::UInt32 => number::<UInt32Type>(data_type, |integer| integer.try_into().ok()),
        D::UInt64 => number::<UInt64Type>(data_type, |integer| integer.try_into().ok()),
        D::Float32 => number::<Float32Type>(data_type, |integer| Some(integer as f32)),
        D::Float64 => number::<Float64Type>(data_type, |integer| Some(integer as f64)),
        D::Date32 => number::<Date32Type>(data_type, |_| None),
        D::Date64 => number::<Date64Type>(data_type, |_| None),
        D::Time32(TimeUnit::Second) => number::<Time32SecondType>(data_type, |_| None),
        D::Time32(TimeUnit::Millisecond) => number::<Time32MillisecondType>(data_type, |_| None),
        D::Time64(TimeUnit::Microsecond) => number::<Time64MicrosecondType>(data_type, |_| None),
        D::Time64(TimeUnit::Nanosecond) => number::<Time64NanosecondType>(data_type, |_| None),
        D::Duration(TimeUnit::Second) => duration::<DurationSecondType>(data_type),
        D::Duration(TimeUnit::Millisecond) => duration::<DurationMillisecondType>(data_type),
        D::Duration(TimeUnit::Microsecond) => duration::<DurationMicrosecondType>(data_type),
        D::Duration(TimeUnit::Nanosecond) => duration::<DurationNanosecondType>(data_type),
        D::Timestamp(TimeUnit::Second, zone) => timestamp::<TimestampSecondType>(data_type, zone.as_deref(), format)?,
        D::Timestamp(TimeUnit::Millisecond, zone) => timestamp::<TimestampMillisecondType>(data_type, zone.as_deref(), format)?,
        D::Timestamp(TimeUnit::Microsecond, zone) => timestamp::<TimestampMicrosecondType>(data_type, zone.as_deref(), format)?,
        D::Timestamp(TimeUnit::Nanosecond, zone) => timestamp::<TimestampNanosecondType>(data_type, zone.as_deref(), format)?,
        D::Decimal128(precision, scale) => decimal(data_type, *precision, *scale),
        D::Utf8 => Box::new(GenericStringBuilder::<i32>::new()),
        D::LargeUtf8 => Box::new(GenericStringBuilder::<i64>::new()),
        D::Binary => Box::new(Base64(GenericBinaryBuilder::<i32>::new())),
        D::LargeBinary => Box::new(Base64(GenericBinaryBuilder::<i64>::new())),
        D::FixedSizeBinary(size) => Box::new(FixedBase64 { values: FixedSizeBinaryBuilder::new(*size), size: *size }),
        _ => return None,
    })
}

/// Whether a timestamp is within the years 1 to 9999, which is what event times may be; anything else is a mistake in the input.
fn supported(value: i64, unit: TimeUnit) -> Option<i64> {
    let ms = match unit {
        TimeUnit::Second => value.checked_mul(1_000)?,
        TimeUnit::Millisecond => value,
        TimeUnit::Microsecond => value.div_euclid(1_000),
        TimeUnit::Nanosecond => value.div_euclid(1_000_000),
    };
    EventTime(ms).is_supported().then_some(value)
}

struct Primitive<T: ArrowPrimitiveType, F, I> {
    data_type: DataType,
    values: Vec<T::Native>,
    /// Of the values up to the last null.
    valid: NullBufferBuilder,
    parse: F,
    /// The same of the digits of an integer; none: also if only `parse` knows.
    of_integer: I,
}

impl<T, F, I> ColumnBuilder for Primitive<T, F, I>
where
    T: ArrowPrimitiveType,
    F: Fn(&str) -> Option<T::Native> + Send,
    I: Fn(i64) -> Option<T::Native> + Send,
{
    fn push(&mut self, text: &str) -> bool {
        let value = (self.parse)(text);
        value.map(|value| self.values.push(value)).is_some()
    }

    fn push_integer(&mut self, integer: i64) -> bool {
        let value = (self.of_integer)(integer);
        value.map(|value| self.values.push(value)).is_some()
    }

    fn push_null(&mut self) {
        self.valid.append_n_non_nulls(self.values.len() - self.valid.len());
        self.valid.append_null();
        self.values.push(T::Native::default());
    }

    fn push_default(&mut self) {
        self.values.push(T::Native::default());
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn finish(&mut self) -> ArrayRef {
        self.valid.append_n_non_nulls(self.values.len() - self.valid.len());
        // The next column is about as long.
        let next = Vec::with_capacity(self.values.len());
        let values = ScalarBuffer::from(std::mem::replace(&mut self.values, next));
        Arc::new(PrimitiveArray::<T>::new(values, self.valid.finish()).with_data_type(self.data_type.clone()))
    }
}

fn primitive<T: ArrowPrimitiveType>(
    data_type: &DataType,
    parse: impl Fn(&str) -> Option<T::Native> + Send + 'static,
    of_integer: impl Fn(i64) -> Option<T::Native> + Send + 'static,
) -> Box<dyn ColumnBuilder> {
    let (data_type, values, valid) = (data_type.clone(), Vec::new(), NullBufferBuilder::new(0));
    Box::new(Primitive::<T, _, _> { data_type, values, valid, parse, of_integer })
}

fn number<T: ArrowPrimitiveType + Parser>(
    data_type: &DataType,
    of_integer: impl Fn(i64) -> Option<T::Native> + Send + 'static,
) -> Box<dyn ColumnBuilder> {
    primitive::<T>(data_type, |text| T::parse(text.trim_ascii()), of_integer)
}

fn duration<T: ArrowPrimitiveType<Native = i64>>(data_type: &DataType) -> Box<dyn ColumnBuilder> {
    primitive::<T>(data_type, |text| text.trim_ascii().parse().ok(), Some)
}

fn decimal(data_type: &DataType, precision: u8, scale: i8) -> Box<dyn ColumnBuilder> {
    let parse = move |text: &str| parse_decimal::<Decimal128Type>(text.trim_ascii(), precision, scale).ok();
    primitive::<Decimal128Type>(data_type, parse, |_| None)
}

fn timestamp<T: ArrowTimestampType>(data_type: &DataType, zone: Option<&str>, format: &TimestampFormat) -> Option<Box<dyn ColumnBuilder>> {
    let zone: Tz = zone.unwrap_or("+00:00").parse().ok()?;
    let in_unit = |time: DateTime<Utc>| in_unit(time, T::UNIT);
    Some(match format.clone() {
        TimestampFormat::Standard => {
            let parse = move |text: &str| {
                let text = text.trim_ascii();
                let value = match quick_rfc3339(text) {
                    Some(time) => in_unit(time)?,
                    None => match text.parse() {
                        Ok(number) => number,
                        Err(_) => in_unit(string_to_datetime(&zone, text).ok()?.to_utc())?,
                    },
                };
                supported(value, T::UNIT)
            };
            primitive::<T>(data_type, parse, |integer| supported(integer, T::UNIT))
        }
        TimestampFormat::Unix(unit) => {
            let of_integer = move |integer| {
                let value = supported(integer, unit)?;
                if unit == T::UNIT {
                    return Some(value);
                }
                let time = match unit {
                    TimeUnit::Second => DateTime::from_timestamp_secs(value)?,
                    TimeUnit::Millisecond => DateTime::from_timestamp_millis(value)?,
                    TimeUnit::Microsecond => DateTime::from_timestamp_micros(value)?,
                    TimeUnit::Nanosecond => DateTime::from_timestamp_nanos(value),
                };
                in_unit(time)
            };
            primitive::<T>(data_type, move |text| of_integer(text.trim_ascii().parse().ok()?), of_integer)
        }
        TimestampFormat::Pattern(pattern) => {
            let parse = move |text: &str| {
                let time = parse_pattern(text.trim_ascii(), &pattern, &zone)?;
                supported(in_unit(time)?, T::UNIT)
            };
            primitive::<T>(data_type, parse, |_| None)
        }
    })
}

fn in_unit(time: DateTime<Utc>, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::Second => Some(time.timestamp()),
        TimeUnit::Millisecond => Some(time.timestamp_millis()),
        TimeUnit::Microsecond => Some(time.timestamp_micros()),
        TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
    }
}

/// The two shapes that nearly all files have: `2013-01-01T05:15:00Z` and `2013-01-01T05:15:00.000Z`.
fn quick_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let bytes = text.as_bytes();
    let millis = match bytes {
        [.., b'Z'] if bytes.len() == 20 => 0,
        [_, .., b'Z'] if bytes.len() == 24 && bytes[19] == b'.' => digits(&bytes[20..23])?,
        _ => return None,
    };
    if bytes[4] != b'-' || bytes[7] != b'-' || !matches!(bytes[10], b'T' | b' ') || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let date = NaiveDate::from_ymd_opt(digits(&bytes[..4])?.cast_signed(), digits(&bytes[5..7])?, digits(&bytes[8..10])?)?;
    let time = NaiveTime::from_hms_milli_opt(digits(&bytes[11..13])?, digits(&bytes[14..16])?, digits(&bytes[17..19])?, millis)?;
    Some(date.and_time(time).and_utc())
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0')))
}

fn parse_pattern(text: &str, pattern: &str, zone: &Tz) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_str(text, pattern) {
        return Some(time.to_utc());
    }
    let local = NaiveDateTime::parse_from_str(text, pattern)
        .or_else(|_| NaiveDate::parse_from_str(text, pattern).map(|date| date.and_time(NaiveTime::MIN)))
        .ok()?;
    zone.from_local_datetime(&local).earliest().map(|time| time.to_utc())
}

impl ColumnBuilder for BooleanBuilder {
    fn push(&mut self, text: &str) -> bool {
        let text = text.trim_ascii();
        let value = text.eq_ignore_ascii_case("true");
        let readable = value || text.eq_ignore_ascii_case("false");
        if readable {
            self.append_value(value);
        }
        readable
    }

    fn push_null(&mut self) {
        self.append_null();
    }

    fn push_default(&mut self) {
        self.append_value(false);
    }

    fn len(&self) -> usize {
        arrow_array::builder::ArrayBuilder::len(self)
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(BooleanBuilder::finish(self))
    }
}

impl<O: arrow_array::OffsetSizeTrait> ColumnBuilder for GenericStringBuilder<O> {
    fn push(&mut self, text: &str) -> bool {
        self.append_value(text);
        true
    }

    fn push_null(&mut self) {
        self.append_null();
    }

    fn push_default(&mut self) {
        self.append_value("");
    }

    fn len(&self) -> usize {
        arrow_array::builder::ArrayBuilder::len(self)
    }

    fn finish(&mut self) -> ArrayRef {
        // The next column is about as long.
        let next = Self::with_capacity(arrow_array::builder::ArrayBuilder::len(self), self.values_slice().len());
        Arc::new(GenericStringBuilder::finish(&mut std::mem::replace(self, next)))
    }
}

struct Base64<O: arrow_array::OffsetSizeTrait>(GenericBinaryBuilder<O>);

impl<O: arrow_array::OffsetSizeTrait> ColumnBuilder for Base64<O> {
    fn push(&mut self, text: &str) -> bool {
        match BASE64_STANDARD.decode(text.trim_ascii()) {
            Ok(bytes) => {
                self.0.append_value(bytes);
                true
            }
            Err(_) => false,
        }
    }

    fn push_null(&mut self) {
        self.0.append_null();
    }

    fn push_default(&mut self) {
        self.0.append_value([]);
    }

    fn len(&self) -> usize {
        arrow_array::builder::ArrayBuilder::len(&self.0)
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

struct FixedBase64 {
    values: FixedSizeBinaryBuilder,
    size: i32,
}

impl ColumnBuilder for FixedBase64 {
    fn push(&mut self, text: &str) -> bool {
        BASE64_STANDARD.decode(text.trim_ascii()).is_ok_and(|bytes| self.values.append_value(bytes).is_ok())
    }

    fn push_null(&mut self) {
        self.values.append_null();
    }

    fn push_default(&mut self) {
        let zeros = vec![0; self.size.unsigned_abs() as usize];
        self.values.append_value(zeros).expect("as long as the column's size");
    }

    fn len(&self) -> usize {
        arrow_array::builder::ArrayBuilder::len(&self.values)
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.values.finish())
    }
}

/// The text of a value, shortened to what a message can carry.
pub fn shown(text: &str) -> String {
    shortened(text, 60)
}

/// What somebody else said, shortened to what a message can carry.
pub fn shown_long(text: &str) -> String {
    shortened(text, 600)
}

fn shortened(text: &str, characters_max: usize) -> String {
    let mut shown: String = text.chars().take(characters_max).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data_type: DataType, format: &str, text: &str) -> Option<String> {
        let mut builder = scalar_builder(&data_type, &format.parse().expect("a format")).expect("a scalar type");
        builder.push(text).then(|| arrow_cast::display::array_value_to_string(&builder.finish(), 0).expect("it has one entry"))
    }

    fn ms() -> DataType {
        DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
    }

    #[test]
    fn timestamps_are_read_as_rfc_3339_or_in_the_columns_unit() {
        let same = Some("2013-01-01T05:15:00Z".to_owned());
        assert_eq!(read(ms(), "rfc3339", "2013-01-01T05:15:00Z"), same);
        assert_eq!(read(ms(), "rfc3339", "2013-01-01 05:15:00.000Z"), same);
        assert_eq!(read(ms(), "rfc3339", "2013-01-01T00:15:00-05:00"), same);
        assert_eq!(read(ms(), "rfc3339", "1357017300000"), same);
        assert_eq!(read(ms(), "unix-s", "1357017300"), same);
        assert_eq!(read(ms(), "%d.%m.%Y %H:%M", "01.01.2013 05:15"), same);
    }

    #[test]
    fn absurd_timestamps_are_unreadable() {
        for text in ["2013-13-01T00:00:00Z", "9999999999999999", "-99999999999999999", "12345-01-01T00:00:00Z", "yesterday"] {
            assert_eq!(read(ms(), "rfc3339", text), None, "{text}");
        }
        assert!(read(ms(), "rfc3339", "9999-12-31T23:59:59.999Z").is_some());
    }

    #[test]
    fn a_fraction_is_not_cut_to_an_integer() {
        assert_eq!(read(DataType::Int64, "rfc3339", "1.5"), None);
        assert_eq!(read(DataType::Int64, "rfc3339", "9223372036854775808"), None);
        assert_eq!(read(DataType::Int64, "rfc3339", " 7 "), Some("7".into()));
    }

    #[test]
    fn a_text_without_fields_is_no_timestamp_format() {
        assert!("iso".parse::<TimestampFormat>().is_err());
        assert!("%Y-%Q".parse::<TimestampFormat>().is_err());
    }
}
