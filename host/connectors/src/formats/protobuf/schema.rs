//! Message types, and the text of the files that define them, in `proto2` and `proto3` (language specification of Protocol Buffers).
//!
//! What says nothing of how messages are encoded is read and forgotten: options, reserved names, services, extensions. Groups are refused: nobody
//! can write one since `proto3`.

use std::{collections::BTreeMap, sync::Arc};

use super::parse;

/// A message type. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema {
    message: Message,
    text: Arc<str>,
    /// The messages of the file that is no import, in order.
    file: Arc<[usize]>,
}

/// All types of some files.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub(super) messages: Vec<MessageType>,
    pub(super) enums: Vec<EnumType>,
}

#[derive(Debug)]
pub(super) struct MessageType {
    pub(super) full_name: String,
    pub(super) parent: Option<usize>,
    /// Messages within this one, in order.
    pub(super) children: Vec<usize>,
    pub(super) fields: Vec<FieldType>,
    pub(super) is_map_entry: bool,
}

#[derive(Debug)]
pub(super) struct EnumType {
    pub(super) full_name: String,
    pub(super) values: Vec<(String, i32)>,
}

#[derive(Debug)]
pub(super) struct FieldType {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) label: Label,
    pub(super) is_packed: bool,
    pub(super) has_presence: bool,
    /// As it is written; `proto2` only.
    pub(super) default: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Label {
    One,
    Required,
    Repeated,
    Map,
}

/// What the values of a field are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    /// By their numbers in the pool.
    Message(usize),
    Enum(usize),
}

/// A message type in its pool.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) pool: Arc<Pool>,
    pub(super) id: usize,
}

/// A field in its pool.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) message: Message,
    index: usize,
}

impl Message {
    fn get(&self) -> &MessageType {
        &self.pool.messages[self.id]
    }

    pub(super) fn full_name(&self) -> &str {
        &self.get().full_name
    }

    pub(super) fn is_map_entry(&self) -> bool {
        self.get().is_map_entry
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = Field> + '_ {
        (0..self.get().fields.len()).map(|index| Field { message: self.clone(), index })
    }

    pub(super) fn named(&self, name: &str) -> Option<Field> {
        self.fields().find(|field| field.name() == name)
    }

    pub(super) fn numbered(&self, number: u32) -> Option<Field> {
        self.fields().find(|field| field.number() == number)
    }
}

impl Field {
    fn get(&self) -> &FieldType {
        &self.message.get().fields[self.index]
    }

    pub(super) fn name(&self) -> &str {
        &self.get().name
    }

    pub(super) fn full_name(&self) -> String {
        format!("{}.{}", self.message.full_name(), self.name())
    }

    pub(super) fn number(&self) -> u32 {
        self.get().number
    }

    pub(super) fn kind(&self) -> Kind {
        self.get().kind
    }

    pub(super) fn label(&self) -> Label {
        self.get().label
    }

    pub(super) fn is_packed(&self) -> bool {
        self.get().is_packed
    }

    pub(super) fn has_presence(&self) -> bool {
        self.get().has_presence
    }

    pub(super) fn default(&self) -> Option<&str> {
        self.get().default.as_deref()
    }

    /// The type of its messages.
    pub(super) fn of(&self, id: usize) -> Message {
        Message { pool: self.message.pool.clone(), id }
    }

    /// Names and numbers of its enum.
    pub(super) fn of_enum(&self, id: usize) -> &EnumType {
        &self.message.pool.enums[id]
    }

    /// The key and the value of the entries of a map.
    pub(super) fn entry(&self) -> Option<(Self, Self)> {
        match self.kind() {
            Kind::Message(id) if self.label() == Label::Map => {
                let entry = self.of(id);
                Some((entry.numbered(1)?, entry.numbered(2)?))
            }
            _ => None,
        }
    }
}

impl Schema {
    /// Out of the text of a file, and of those that it imports (name and text); those of `google/protobuf` are known. `message` is the full name, or that
    /// within the package. None: the first message of the file.
    ///
    /// # Errors
    /// The text is none of Protocol Buffers, or has no such message; a clause.
    pub fn parse(text: &str, imports: &[(String, String)], message: Option<&str>) -> Result<Self, String> {
        let imports: BTreeMap<&str, &str> = imports.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let parsed = parse::pool(text, &imports).map_err(|error| format!("the schema is none of Protocol Buffers: {error}"))?;
        let (pool, package, file) = (Arc::new(parsed.pool), parsed.package, parsed.file);
        let id = find(&pool, &package, &file, message)?;
        Ok(Self { message: Message { pool, id }, text: text.into(), file: file.into() })
    }

    /// The text of its file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The full name of the message.
    pub fn name(&self) -> &str {
        self.message.full_name()
    }

    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    /// Where the message stands in its file: its number among the messages of the file, then among those within that one …
    pub fn indexes(&self) -> Vec<usize> {
        let mut indexes = Vec::new();
        let mut id = self.message.id;
        loop {
            let parent = self.message.pool.messages[id].parent;
            let beside = parent.map_or(&self.file[..], |parent| &self.message.pool.messages[parent].children);
            indexes.extend(beside.iter().position(|&known| known == id));
            match parent {
                Some(parent) => id = parent,
                None => break,
            }
        }
        indexes.reverse();
        indexes
    }

    /// The message that stands there in the same file.
    ///
    /// # Errors
    /// None does; a clause.
    pub fn at(&self, indexes: &[usize]) -> Result<Self, String> {
        let missing = || format!("there is no message {indexes:?} in the file of its schema");
        let (first, inner) = indexes.split_first().ok_or_else(missing)?;
        let mut id = *self.file.get(*first).ok_or_else(missing)?;
        for &index in inner {
            id = *self.message.pool.messages[id].children.get(index).ok_or_else(missing)?;
        }
        Ok(Self { message: Message { pool: self.message.pool.clone(), id }, ..self.clone() })
    }
}

fn find(pool: &Pool, package: &str, file: &[usize], name: Option<&str>) -> Result<usize, String> {
    let Some(name) = name else { return file.first().copied().ok_or_else(|| "the schema has no message".to_owned()) };
    let within = format!("{package}.{name}");
    let is_it = |message: &MessageType| message.full_name == name || message.full_name == within;
    pool.messages.iter().position(is_it).ok_or_else(|| {
        let known: Vec<&str> = file.iter().map(|&id| pool.messages[id].full_name.as_str()).collect();
        format!("there is no message {name} in the schema, which has {}", known.join(", "))
    })
}
