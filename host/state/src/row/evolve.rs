//! Which newer types can read which older rows, and how.

use arrow_schema::{DataType, Field, FieldRef};

use super::fixed_width;

/// Rows of one type cannot be read as another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Incompatible(pub String);

/// Checks that rows written as `writer` can be read as `reader`; the rules stand at the head of [`crate::row`].
///
/// # Errors
/// Names the first difference that no rule covers.
pub fn resolve_compatible(writer: &DataType, reader: &DataType) -> Result<(), Incompatible> {
    Plan::resolve(writer, reader).map(drop)
}

/// How to read the body of a row of one type into a column of another.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// The same bytes, of the same width in both.
    Fixed(usize),
    Boolean,
    /// Strings and binaries.
    Bytes,
    /// A number that becomes wider.
    Number {
        from: Number,
        to: Number,
    },
    List(Box<Part>),
    FixedList(usize, Box<Part>),
    Map(Box<Part>, Box<Part>),
    /// For each field as written: the number of the reader's field, if it still has it.
    Struct {
        written: Vec<(Option<usize>, Part)>,
        added: Vec<usize>,
    },
}

/// A field or an item: its value, and whether it is preceded by a null tag.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub tagged: bool,
    pub plan: Plan,
}

/// The numbers that may become wider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Signed(usize),
    Unsigned(usize),
    Float(usize),
}

impl Number {
    fn of(data_type: &DataType) -> Option<Self> {
        use DataType as D;
        let width = data_type.primitive_width()?;
        match data_type {
            D::Int8 | D::Int16 | D::Int32 | D::Int64 => Some(Self::Signed(width)),
            D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => Some(Self::Unsigned(width)),
            D::Float32 | D::Float64 => Some(Self::Float(width)),
            _ => None,
        }
    }

    fn widens_to(self, to: Self) -> bool {
        match (self, to) {
            (Self::Signed(from), Self::Signed(to)) | (Self::Unsigned(from), Self::Unsigned(to)) | (Self::Float(from), Self::Float(to)) => {
                from <= to
            }
            (Self::Unsigned(from), Self::Signed(to)) => from < to,
            (Self::Signed(from) | Self::Unsigned(from), Self::Float(to)) => from * 2 <= to,
            _ => false,
        }
    }
}

impl Plan {
    /// The plan to read `writer`'s rows as `reader`.
    pub fn resolve(writer: &DataType, reader: &DataType) -> Result<Self, Incompatible> {
        use DataType as D;
        if let (Some(from), Some(to)) = (Number::of(writer), Number::of(reader))
            && from != to
        {
            return if from.widens_to(to) { Ok(Self::Number { from, to }) } else { Err(changed(writer, reader)) };
        }
        match (writer, reader) {
            (D::Boolean, D::Boolean) => Ok(Self::Boolean),
            (D::Utf8 | D::LargeUtf8, D::LargeUtf8) | (D::Utf8, D::Utf8) => Ok(Self::Bytes),
            (D::Binary | D::LargeBinary, D::LargeBinary) | (D::Binary, D::Binary) => Ok(Self::Bytes),
            (D::Timestamp(from, _), D::Timestamp(to, _)) if from == to => Ok(Self::Fixed(8)),
            (D::Decimal128(precision, scale), D::Decimal128(to, to_scale)) if precision <= to && scale == to_scale => Ok(Self::Fixed(16)),
            (D::List(from), D::List(to)) => Ok(Self::List(Box::new(Part::resolve(from, to)?))),
            (D::FixedSizeList(from, size), D::FixedSizeList(to, same)) if size == same => {
                Ok(Self::FixedList(usize::try_from(*size).unwrap_or(0), Box::new(Part::resolve(from, to)?)))
            }
            (D::Struct(from), D::Struct(to)) => Self::resolve_struct(from, to),
            (D::Map(from, _), D::Map(to, _)) => Self::resolve_map(from, to),
            (from, to) if from == to => {
                fixed_width(from).map(Self::Fixed).ok_or_else(|| Incompatible(format!("{from} has no row encoding")))
            }
            (from, to) => Err(changed(from, to)),
        }
    }

    fn resolve_struct(from: &[FieldRef], to: &[FieldRef]) -> Result<Self, Incompatible> {
        let written = from.iter().map(|field| {
            let number = to.iter().position(|candidate| candidate.name() == field.name());
            // A dropped field is read as what it is, to find its end.
            let part = Part::resolve(field, number.map_or(field, |number| &to[number]))?;
            Ok((number, part))
        });
        let written = written.collect::<Result<Vec<_>, Incompatible>>()?;
        let added: Vec<usize> = (0..to.len()).filter(|number| !written.iter().any(|(known, _)| known == &Some(*number))).collect();
        match added.iter().find(|&&number| !to[number].is_nullable()) {
            Some(&number) => Err(Incompatible(format!("the new field {:?} is not nullable", to[number].name()))),
            None => Ok(Self::Struct { written, added }),
        }
    }

    fn resolve_map(from: &Field, to: &Field) -> Result<Self, Incompatible> {
        let (DataType::Struct(from), DataType::Struct(to)) = (from.data_type(), to.data_type()) else {
            return Err(Incompatible("the entries of a map are a struct".into()));
        };
        let ([from_key, from_value], [to_key, to_value]) = (&from[..], &to[..]) else {
            return Err(Incompatible("the entries of a map have a key and a value".into()));
        };
        if from_key.data_type() != to_key.data_type() {
            return Err(changed(from_key.data_type(), to_key.data_type()));
        }
        let key = Part { tagged: false, plan: Self::resolve(from_key.data_type(), to_key.data_type())? };
        Ok(Self::Map(Box::new(key), Box::new(Part::resolve(from_value, to_value)?)))
    }
}

impl Part {
    fn resolve(from: &Field, to: &Field) -> Result<Self, Incompatible> {
        if from.is_nullable() && !to.is_nullable() {
            return Err(Incompatible(format!("{:?} was nullable", from.name())));
        }
        let plan =
            Plan::resolve(from.data_type(), to.data_type()).map_err(|inner| Incompatible(format!("{}: {}", from.name(), inner.0)))?;
        Ok(Self { tagged: from.is_nullable(), plan })
    }
}

fn changed(from: &DataType, to: &DataType) -> Incompatible {
    Incompatible(format!("{from} cannot become {to}"))
}
