//! A column under construction, nested or not.
//!
//! Law: every push appends exactly one entry, also when it fails; what a failed one appends is some value that its column may hold. So
//! columns keep one length, and the rows of bad records can be cut out at the end.

use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, ListArray, MapArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, FieldRef, Fields};

use super::{
    super::values::{ColumnBuilder, TimestampFormat, scalar_builder, shown},
    parse::{Cursor, Scalar},
    quick,
};

/// A column or a part of one.
pub struct Node {
    name: String,
    data_type: DataType,
    nullable: bool,
    /// Said behind the type of a value that does not fit.
    note: &'static str,
    values: Values,
}

enum Values {
    Text(Box<dyn ColumnBuilder>),
    Scalar(Box<dyn ColumnBuilder>),
    List(Box<List>),
    Struct(Struct),
    Map(Box<Map>),
}

struct List {
    item: Node,
    item_field: FieldRef,
    /// Items of each entry; none: any.
    size: Option<usize>,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

struct Struct {
    members: Vec<Node>,
    fields: Fields,
    valid: Vec<bool>,
}

struct Map {
    keys: Box<dyn ColumnBuilder>,
    values: Node,
    entries: FieldRef,
    ends: Vec<i32>,
    valid: Vec<bool>,
}

impl Node {
    /// A column of `field`; none: NDJSON cannot hold its type.
    pub fn new(field: &FieldRef, timestamps: &TimestampFormat) -> Option<Self> {
        let (ends, valid) = (Vec::new(), Vec::new());
        let values = match field.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => Values::Text(scalar_builder(field.data_type(), timestamps)?),
            DataType::List(item) => {
                let list = List { item: Self::new(item, timestamps)?, item_field: item.clone(), size: None, ends, valid };
                Values::List(Box::new(list))
            }
            DataType::FixedSizeList(item, size) => {
                let size = Some(usize::try_from(*size).ok()?);
                Values::List(Box::new(List { item: Self::new(item, timestamps)?, item_field: item.clone(), size, ends, valid }))
            }
            DataType::Struct(fields) => {
                let members = fields.iter().map(|field| Self::new(field, timestamps)).collect::<Option<_>>()?;
                Values::Struct(Struct { members, fields: fields.clone(), valid })
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else { return None };
                let keys = scalar_builder(fields.first()?.data_type(), timestamps)?;
                let values = Self::new(fields.get(1)?, timestamps)?;
                Values::Map(Box::new(Map { keys, values, entries: entries.clone(), ends, valid }))
            }
            scalar => Values::Scalar(scalar_builder(scalar, timestamps)?),
        };
        Some(Self { name: field.name().clone(), data_type: field.data_type().clone(), nullable: field.is_nullable(), note: "", values })
    }

    /// Says `note` behind the type of a value that does not fit, here and in all parts.
    pub fn set_note(&mut self, note: &'static str) {
        self.note = note;
        match &mut self.values {
            Values::Text(_) | Values::Scalar(_) => {}
            Values::List(list) => list.item.set_note(note),
            Values::Struct(members) => members.members.iter_mut().for_each(|member| member.set_note(note)),
            Values::Map(map) => map.values.set_note(note),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Text(values) | Values::Scalar(values) => values.len(),
            Values::List(list) => list.valid.len(),
            Values::Struct(members) => members.valid.len(),
            Values::Map(map) => map.valid.len(),
        }
    }

    /// Appends the value that stands at `at`, if it is one of the most common; returns where it ends.
    #[inline]
    pub fn push_quick(&mut self, record: &str, at: usize) -> Option<usize> {
        let bytes = record.as_bytes();
        match &mut self.values {
            Values::Scalar(values) if let Some((integer, end)) = quick::integer(bytes, at) => values.push_integer(integer).then_some(end),
            Values::Text(values) if let Some(end) = quick::plain_string(bytes, at) => values.push(&record[at + 1..end]).then_some(end + 1),
            Values::Text(values) | Values::Scalar(values)
                if self.nullable
                    && let Some(end) = quick::null(bytes, at) =>
            {
                values.push_null();
                Some(end)
            }
            _ => None,
        }
    }

    /// Appends the value at the cursor and passes it.
    pub fn push(&mut self, cursor: &mut Cursor<'_>) -> Result<(), String> {
        if let Values::Scalar(values) = &mut self.values
            && cursor.integer(|integer| values.push_integer(integer))
        {
            return Ok(());
        }
        match cursor.null() {
            Ok(false) => {}
            Ok(true) => return self.push_null(),
            Err(error) => {
                self.push_default();
                return Err(error);
            }
        }
        match &mut self.values {
            Values::Text(values) => match text(cursor) {
                Ok(text) => {
                    values.push(&text);
                    Ok(())
                }
                Err(error) => {
                    values.push_default();
                    Err(error)
                }
            },
            Values::Scalar(values) => push_scalar(values.as_mut(), cursor).map_err(|reason| match reason {
                Unreadable::Json(error) => error,
                Unreadable::Value(text) => {
                    format!("column {}: \"{}\" is not of type {}{}", self.name, shown(&text), self.data_type, self.note)
                }
            }),
            Values::List(list) => list.push(cursor, &self.name),
            Values::Struct(members) => members.push(cursor),
            Values::Map(map) => map.push(cursor, &self.name),
        }
    }

    /// Appends a null, if it may.
    pub fn push_null(&mut self) -> Result<(), String> {
        if !self.nullable {
            self.push_default();
            return Err(format!("column {}: null in a column declared without `?`", self.name));
        }
        match &mut self.values {
            Values::Text(values) | Values::Scalar(values) => values.push_null(),
            Values::List(list) => list.close(false),
            Values::Struct(members) => members.close(false),
            Values::Map(map) => map.close(false),
        }
        Ok(())
    }

    /// Appends the null of a member that is not there.
    pub fn push_absent(&mut self) -> Result<(), String> {
        if self.nullable {
            return self.push_null();
        }
        self.push_default();
        Err(format!("column {} is missing and was declared without `?`", self.name))
    }

    fn push_default(&mut self) {
        match &mut self.values {
            Values::Text(values) | Values::Scalar(values) => values.push_default(),
            Values::List(list) => list.close(true),
            Values::Struct(members) => members.close(true),
            Values::Map(map) => map.close(true),
        }
    }

    /// The column; the node is empty afterwards.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.values {
            Values::Text(values) | Values::Scalar(values) => values.finish(),
            Values::List(list) => list.finish(),
            Values::Struct(members) => Arc::new(members.finish()),
            Values::Map(map) => Arc::new(map.finish()),
        }
    }
}

/// A string as it is, anything else as the JSON that stands there.
fn text<'a>(cursor: &mut Cursor<'a>) -> Result<std::borrow::Cow<'a, str>, String> {
    if cursor.peek() != Some(b'"') {
        return cursor.raw_value().map(Into::into);
    }
    match cursor.scalar()? {
        Scalar::String(text) => Ok(text),
        Scalar::Bare(text) => Ok(text.into()),
        Scalar::Null => Ok("null".into()),
    }
}

enum Unreadable {
    Json(String),
    Value(String),
}

fn push_scalar(values: &mut dyn ColumnBuilder, cursor: &mut Cursor<'_>) -> Result<(), Unreadable> {
    let result = match cursor.scalar() {
        Ok(Scalar::String(text)) if values.push(&text) => return Ok(()),
        Ok(Scalar::Bare(text)) if values.push(text) => return Ok(()),
        Ok(Scalar::String(text)) => Unreadable::Value(text.into_owned()),
        Ok(Scalar::Bare(text)) => Unreadable::Value(text.to_owned()),
        Ok(Scalar::Null) => Unreadable::Value("null".into()),
        Err(error) => Unreadable::Json(error),
    };
    values.push_default();
    Err(result)
}

fn end(count: usize) -> i32 {
    i32::try_from(count).expect("a block is smaller than 2 GiB")
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
    OffsetBuffer::new(ScalarBuffer::from(offsets))
}

fn nulls(valid: Vec<bool>) -> Option<NullBuffer> {
    Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0)
}

impl List {
    fn push(&mut self, cursor: &mut Cursor<'_>, name: &str) -> Result<(), String> {
        let first = self.item.len();
        let mut result = cursor.array(|cursor| self.item.push(cursor));
        let count = self.item.len() - first;
        if let (Ok(()), Some(size)) = (&result, self.size)
            && count != size
        {
            result = Err(format!("column {name}: expected {size} items, found {count}"));
        }
        if self.size.is_some_and(|size| result.is_err() && count > size) {
            // Items beyond a fixed size have no place in the column: `finish` cuts them out.
            self.ends.push(end(self.item.len()));
            self.valid.push(true);
        } else {
            self.close(true);
        }
        result
    }

    fn close(&mut self, valid: bool) {
        let start = self.ends.last().map_or(0, |&end| end as usize);
        while self.size.is_some_and(|size| self.item.len() < start + size) {
            self.item.push_default();
        }
        self.ends.push(end(self.item.len()));
        self.valid.push(valid);
    }

    fn finish(&mut self) -> ArrayRef {
        let (ends, nulls) = (std::mem::take(&mut self.ends), nulls(std::mem::take(&mut self.valid)));
        let items = self.item.finish();
        let Some(size) = self.size else {
            return Arc::new(ListArray::new(self.item_field.clone(), offsets(ends), items, nulls));
        };
        let starts = std::iter::once(0).chain(ends.iter().copied()).zip(&ends).map(|(start, _)| start);
        let kept: Vec<i32> = starts.flat_map(|start| start..start + end(size)).collect();
        let items = arrow_select::take::take(&items, &arrow_array::Int32Array::from(kept), None).expect("items are in range");
        Arc::new(FixedSizeListArray::new(self.item_field.clone(), end(size), items, nulls))
    }
}

impl Struct {
    fn push(&mut self, cursor: &mut Cursor<'_>) -> Result<(), String> {
        let row = self.valid.len();
        let members = &mut self.members;
        let result = cursor.object(|cursor, name| match members.iter_mut().find(|member| member.name == name) {
            None => cursor.skip_value(),
            Some(member) if member.len() > row => Err(format!("member {name:?} stands twice")),
            Some(member) => member.push(cursor),
        });
        let mut missing = Ok(());
        for member in members.iter_mut().filter(|member| member.len() == row) {
            missing = missing.and(member.push_absent());
        }
        self.valid.push(true);
        result.and(missing)
    }

    fn close(&mut self, valid: bool) {
        self.members.iter_mut().for_each(Node::push_default);
        self.valid.push(valid);
    }

    fn finish(&mut self) -> StructArray {
        let valid = std::mem::take(&mut self.valid);
        let rows = valid.len();
        let members = self.members.iter_mut().map(Node::finish).collect();
        StructArray::try_new_with_length(self.fields.clone(), members, nulls(valid), rows).expect("members have one entry per row")
    }
}

impl Map {
    fn push(&mut self, cursor: &mut Cursor<'_>, name: &str) -> Result<(), String> {
        let (keys, values) = (&mut self.keys, &mut self.values);
        let result = cursor.object(|cursor, key| {
            if !keys.push(key) {
                return Err(format!("column {name}: \"{}\" is no key of the map", shown(key)));
            }
            values.push(cursor)
        });
        self.close(true);
        result
    }

    fn close(&mut self, valid: bool) {
        self.ends.push(end(self.values.len()));
        self.valid.push(valid);
    }

    fn finish(&mut self) -> MapArray {
        let (ends, nulls) = (std::mem::take(&mut self.ends), nulls(std::mem::take(&mut self.valid)));
        let DataType::Struct(fields) = self.entries.data_type().clone() else { unreachable!("`Node::new` checked it") };
        let entries = StructArray::new(fields, vec![self.keys.finish(), self.values.finish()], None);
        MapArray::new(self.entries.clone(), offsets(ends), entries, nulls, false)
    }
}
