//! Instants, durations, dates and times of day: a number in a unit, with the unit in the type.

use std::marker::PhantomData;

use super::{
    Buffers, Malformed, ReadValue, Value,
    fixed::{Fixed, FixedBuilder, fixed_value},
};

/// The unit of a [`Timestamp`], [`Duration`] or [`Time`].
pub trait Unit: Copy + 'static {
    /// As in the text of a data type: `s`, `ms`, `µs`, `ns`.
    const NAME: &'static str;
}

macro_rules! units {
    ($($(#[$doc:meta])* $unit:ident $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $unit;

        impl Unit for $unit {
            const NAME: &'static str = $name;
        }
    )*};
}

units! {
    /// Seconds.
    Sec "s";
    /// Milliseconds.
    Ms "ms";
    /// Microseconds.
    Us "µs";
    /// Nanoseconds.
    Ns "ns";
}

/// The zone of a [`Timestamp`]. Implement it for a zone of your own; the number is always relative to 1970-01-01T00:00:00Z if there is one.
pub trait Zone: Copy + 'static {
    /// As in the text of a data type, or none: then the timestamp is a clock reading, not an instant.
    const NAME: Option<&'static str>;
}

/// A clock reading of no zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoZone;

impl Zone for NoZone {
    const NAME: Option<&'static str> = None;
}

/// The zone `UTC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc;

impl Zone for Utc {
    const NAME: Option<&'static str> = Some("UTC");
}

/// A point in time: `Timestamp<Ms>` is `Timestamp(ms)`, `Timestamp<Us, Utc>` is `Timestamp(µs, "UTC")`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp<U: Unit, Z: Zone = NoZone> {
    /// Units since 1970-01-01T00:00:00.
    pub value: i64,
    unit: PhantomData<(U, Z)>,
}

impl<U: Unit, Z: Zone> Timestamp<U, Z> {
    /// `value` units since 1970-01-01T00:00:00.
    #[inline(always)]
    pub const fn new(value: i64) -> Self {
        Self { value, unit: PhantomData }
    }
}

fixed_value!([U: Unit, Z: Zone] Timestamp<U, Z>, 8,
    |text| match Z::NAME {
        None => text.push_str(&format!("Timestamp({})", U::NAME)),
        Some(zone) => text.push_str(&format!("Timestamp({}, \"{zone}\")", U::NAME)),
    },
    |value| value.value.to_le_bytes(), |bytes| Self::new(i64::from_le_bytes(bytes)));

/// A length of time: `Duration<Ms>` is `Duration(ms)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration<U: Unit> {
    /// Number of units; may be negative.
    pub value: i64,
    unit: PhantomData<U>,
}

impl<U: Unit> Duration<U> {
    /// `value` units.
    #[inline(always)]
    pub const fn new(value: i64) -> Self {
        Self { value, unit: PhantomData }
    }
}

fixed_value!([U: Unit] Duration<U>, 8,
    |text| text.push_str(&format!("Duration({})", U::NAME)),
    |value| value.value.to_le_bytes(), |bytes| Self::new(i64::from_le_bytes(bytes)));

/// A unit together with the number of bits that a time of day has in it.
pub trait TimeOfDayUnit: Unit {
    /// The number of units since midnight.
    type Number: Copy + PartialEq + for<'a> ReadValue<'a>;
    /// `Time32` or `Time64`.
    const TYPE: &'static str;
}

macro_rules! times_of_day {
    ($($unit:ty, $number:ty, $name:literal;)*) => {$(
        impl TimeOfDayUnit for $unit {
            type Number = $number;
            const TYPE: &'static str = $name;
        }
    )*};
}

times_of_day! {
    Sec, i32, "Time32";
    Ms, i32, "Time32";
    Us, i64, "Time64";
    Ns, i64, "Time64";
}

/// A time of day: `Time<Ms>` is `Time32(ms)`, `Time<Us>` is `Time64(µs)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time<U: TimeOfDayUnit>(
    /// Units since midnight.
    pub U::Number,
);

impl<U: TimeOfDayUnit> Value for Time<U> {
    type Builder = <U::Number as Value>::Builder;

    fn write_type(text: &mut String) {
        text.push_str(&format!("{}({})", U::TYPE, U::NAME));
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) {
        self.0.append(builder);
    }

    fn duplicate(&self) -> Self {
        *self
    }
}

impl<'a, U: TimeOfDayUnit> ReadValue<'a> for Time<U> {
    type Reader = <U::Number as ReadValue<'a>>::Reader;

    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        U::Number::reader_of_values(buffers, length)
    }

    #[inline]
    fn get(reader: &Self::Reader, row: usize) -> Self {
        Self(U::Number::get(reader, row))
    }

    #[inline]
    fn same(&self, reader: &Self::Reader, row: usize) -> bool {
        self.0.same(reader, row)
    }
}

/// A calendar day: `Date32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(
    /// Days since 1970-01-01.
    pub i32,
);

fixed_value!([] Date, 4, |text| text.push_str("Date32"), |value| value.0.to_le_bytes(), |bytes| Self(i32::from_le_bytes(bytes)));

/// A calendar day in milliseconds: `Date64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date64(
    /// Milliseconds since 1970-01-01.
    pub i64,
);

fixed_value!([] Date64, 8, |text| text.push_str("Date64"), |value| value.0.to_le_bytes(), |bytes| Self(i64::from_le_bytes(bytes)));
