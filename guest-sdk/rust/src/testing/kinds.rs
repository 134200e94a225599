//! Data types as text (`wit/types.md`), read back: what the harness needs to know to make and read columns.

use std::{iter::Peekable, str::Chars};

/// A field: its name, type and nullability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: DataType,
    /// Whether it may be null.
    pub nullable: bool,
}

/// A type, by how its columns are laid out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `Boolean`.
    Boolean,
    /// Signed integers and what is stored like them (dates, times, timestamps, durations), of this many bytes.
    Int(usize),
    /// Unsigned integers of this many bytes.
    UInt(usize),
    /// Floats of this many bytes.
    Float(usize),
    /// `Decimal128` with this scale.
    Decimal(i8),
    /// Text with offsets of this many bytes.
    Text(usize),
    /// Bytes with offsets of this many bytes.
    Bytes(usize),
    /// Exactly this many bytes.
    FixedBytes(usize),
    /// A list.
    List(Box<Field>),
    /// A list of exactly so many items.
    FixedList(usize, Box<Field>),
    /// A struct.
    Struct(Vec<Field>),
    /// A map, by its entries: key and value.
    Map(Box<(Field, Field)>),
}

impl DataType {
    /// The type that `text` means.
    ///
    /// # Errors
    /// The text is no type that crosses.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { characters: text.trim().chars().peekable() };
        let parsed = parser.data_type().filter(|_| parser.characters.peek().is_none());
        parsed.ok_or_else(|| format!("`{text}` is not a data type"))
    }
}

struct Parser<'t> {
    characters: Peekable<Chars<'t>>,
}

impl Parser<'_> {
    fn data_type(&mut self) -> Option<DataType> {
        let name = self.word();
        Some(match name.as_str() {
            "Boolean" => DataType::Boolean,
            "Int8" => DataType::Int(1),
            "Int16" => DataType::Int(2),
            "Int32" | "Date32" => DataType::Int(4),
            "Int64" | "Date64" => DataType::Int(8),
            "UInt8" => DataType::UInt(1),
            "UInt16" => DataType::UInt(2),
            "UInt32" => DataType::UInt(4),
            "UInt64" => DataType::UInt(8),
            "Float32" => DataType::Float(4),
            "Float64" => DataType::Float(8),
            "Utf8" => DataType::Text(4),
            "LargeUtf8" => DataType::Text(8),
            "Binary" => DataType::Bytes(4),
            "LargeBinary" => DataType::Bytes(8),
            "Timestamp" | "Duration" | "Time64" => self.skip_arguments(DataType::Int(8))?,
            "Time32" => self.skip_arguments(DataType::Int(4))?,
            other => return self.with_arguments(other),
        })
    }

    fn with_arguments(&mut self, name: &str) -> Option<DataType> {
        self.expect('(')?;
        let parsed = match name {
            "Decimal128" => {
                self.number()?;
                self.expect(',')?;
                DataType::Decimal(i8::try_from(self.number()?).ok()?)
            }
            "FixedSizeBinary" => DataType::FixedBytes(usize::try_from(self.number()?).ok()?),
            "List" => DataType::List(Box::new(self.item()?)),
            "FixedSizeList" => {
                let size = usize::try_from(self.number()?).ok()?;
                if self.word() != "x" {
                    return None;
                }
                DataType::FixedList(size, Box::new(self.item()?))
            }
            "Struct" => DataType::Struct(self.fields()?),
            "Map" => self.map()?,
            _ => return None,
        };
        self.expect(')')?;
        Some(parsed)
    }

    fn fields(&mut self) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        self.spaces();
        while self.characters.peek() == Some(&'"') {
            fields.push(self.field()?);
            if self.peek() != Some(',') {
                break;
            }
            self.expect(',')?;
            self.spaces();
        }
        Some(fields)
    }

    fn map(&mut self) -> Option<DataType> {
        let entries = self.field()?;
        self.expect(',')?;
        let unsorted = self.word() == "unsorted";
        let DataType::Struct(fields) = entries.data_type else { return None };
        let [key, value] = <[Field; 2]>::try_from(fields).ok()?;
        (unsorted && !entries.nullable && !key.nullable).then(|| DataType::Map(Box::new((key, value))))
    }

    /// `"name": [non-null] type`.
    fn field(&mut self) -> Option<Field> {
        let name = self.quoted('"')?;
        self.expect(':')?;
        let (nullable, data_type) = self.nullable_type()?;
        Some(Field { name, data_type, nullable })
    }

    /// `[non-null] type[, field: 'name']`.
    fn item(&mut self) -> Option<Field> {
        let (nullable, data_type) = self.nullable_type()?;
        let mut name = "item".to_owned();
        if self.peek() == Some(',') {
            self.expect(',')?;
            if self.word() != "field" {
                return None;
            }
            self.expect(':')?;
            name = self.quoted('\'')?;
        }
        Some(Field { name, data_type, nullable })
    }

    fn nullable_type(&mut self) -> Option<(bool, DataType)> {
        self.spaces();
        let before = self.characters.clone();
        match self.word().as_str() {
            "non-null" => Some((false, self.data_type()?)),
            "nullable" => Some((true, self.data_type()?)),
            _ => {
                self.characters = before;
                Some((true, self.data_type()?))
            }
        }
    }

    fn skip_arguments(&mut self, parsed: DataType) -> Option<DataType> {
        self.expect('(')?;
        self.characters.by_ref().find(|character| *character == ')').map(|_| parsed)
    }

    fn quoted(&mut self, quote: char) -> Option<String> {
        self.expect(quote)?;
        let mut text = String::new();
        loop {
            match self.characters.next()? {
                end if end == quote => return Some(text),
                character => text.push(character),
            }
        }
    }

    fn number(&mut self) -> Option<i64> {
        self.word().parse().ok()
    }

    fn word(&mut self) -> String {
        self.spaces();
        let mut word = String::new();
        while let Some(character) = self.characters.next_if(|character| character.is_alphanumeric() || *character == '-') {
            word.push(character);
        }
        word
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.spaces();
        self.characters.next_if_eq(&wanted).map(drop)
    }

    fn peek(&mut self) -> Option<char> {
        self.spaces();
        self.characters.peek().copied()
    }

    fn spaces(&mut self) {
        while self.characters.next_if_eq(&' ').is_some() {}
    }
}
