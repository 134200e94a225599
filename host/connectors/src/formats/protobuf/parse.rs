//! The text of a file → types.
//!
//! First all files become trees of names ([`Draft`]), then the names that fields use become types: innermost scope first, as the specification says.
//! Texts come from strangers: nesting, sizes and numbers are bounded.

use std::collections::BTreeMap;

use super::schema::{EnumType, FieldType, Kind, Label, MessageType, Pool};

/// Bytes of all texts together.
const TEXT_BYTES_MAX: usize = 8 << 20;
/// How deep messages may nest: they are parsed recursively.
const NESTING_MAX: usize = 64;
/// The largest number of a field.
const NUMBER_MAX: u32 = (1 << 29) - 1;

/// What every compiler knows, as far as it is of use in messages.
const KNOWN: &str = r#"syntax = "proto3"; package google.protobuf;
message Timestamp { int64 seconds = 1; int32 nanos = 2; }
message Duration { int64 seconds = 1; int32 nanos = 2; }
message DoubleValue { double value = 1; } message FloatValue { float value = 1; }
message Int64Value { int64 value = 1; } message UInt64Value { uint64 value = 1; }
message Int32Value { int32 value = 1; } message UInt32Value { uint32 value = 1; }
message BoolValue { bool value = 1; } message StringValue { string value = 1; } message BytesValue { bytes value = 1; }
message Any { string type_url = 1; bytes value = 2; } message Empty {} message FieldMask { repeated string paths = 1; }
message Struct { map<string, Value> fields = 1; } message ListValue { repeated Value values = 1; } enum NullValue { NULL_VALUE = 0; }
message Value { oneof kind { NullValue null_value = 1; double number_value = 2; string string_value = 3; bool bool_value = 4; Struct struct_value = 5; ListValue list_value = 6; } }
"#;

/// What a text became.
pub(super) struct Parsed {
    pub(super) pool: Pool,
    /// Of the file that is no import.
    pub(super) package: String,
    /// Its messages, in order.
    pub(super) file: Vec<usize>,
}

/// Parses a text and what it imports.
///
/// # Errors
/// One of them is none, or an import or a type is not there; a clause.
pub(super) fn pool(text: &str, imports: &BTreeMap<&str, &str>) -> Result<Parsed, String> {
    let mut draft = Draft::default();
    File::parse("google/protobuf", KNOWN, &mut draft)?;
    let mut left = vec![("", text)];
    let mut seen: Vec<&str> = Vec::new();
    let mut bytes = 0;
    let mut root = None;
    while let Some((name, text)) = left.pop() {
        bytes += text.len();
        if bytes > TEXT_BYTES_MAX {
            return Err(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let file = File::parse(name, text, &mut draft)?;
        for import in &file.imports {
            if import.starts_with("google/protobuf/") {
                continue;
            }
            let (&name, &text) =
                imports.get_key_value(import.as_str()).ok_or_else(|| format!("it imports {import}, which is not there"))?;
            if !seen.contains(&name) {
                seen.push(name);
                left.push((name, text));
            }
        }
        root = root.or(Some(file));
    }
    let root = root.expect("there is one text at least");
    Ok(Parsed { pool: draft.resolve()?, package: root.package, file: root.messages })
}

/// Types whose fields name others.
#[derive(Default)]
struct Draft {
    messages: Vec<(MessageType, Vec<String>)>,
    enums: Vec<EnumType>,
    names: BTreeMap<String, Kind>,
}

impl Draft {
    fn name(&mut self, full_name: &str, kind: Kind) -> Result<(), String> {
        match self.names.insert(full_name.to_owned(), kind) {
            None => Ok(()),
            Some(_) => Err(format!("type {full_name} is defined twice")),
        }
    }

    fn resolve(mut self) -> Result<Pool, String> {
        for (message, types) in &mut self.messages {
            for (field, name) in message.fields.iter_mut().zip(types) {
                if name.is_empty() {
                    continue;
                }
                let found = find(&self.names, &message.full_name, name);
                field.kind =
                    found.ok_or_else(|| format!("field {}.{} has type {name}, which is not known", message.full_name, field.name))?;
                match field.kind {
                    Kind::Message(_) => {
                        field.has_presence = field.label == Label::One || field.label == Label::Required;
                        field.is_packed = false;
                    }
                    Kind::String | Kind::Bytes => field.is_packed = false,
                    _ => {}
                }
            }
        }
        Ok(Pool { messages: self.messages.into_iter().map(|(message, _)| message).collect(), enums: self.enums })
    }
}

/// The type that `name` means within `scope`: innermost first.
fn find(names: &BTreeMap<String, Kind>, scope: &str, name: &str) -> Option<Kind> {
    if let Some(absolute) = name.strip_prefix('.') {
        return names.get(absolute).copied();
    }
    let mut scope = Some(scope);
    while let Some(within) = scope {
        if let Some(kind) = names.get(&format!("{within}.{name}")) {
            return Some(*kind);
        }
        scope = within.rsplit_once('.').map(|(outer, _)| outer);
    }
    names.get(name).copied()
}

fn scalar(name: &str) -> Option<Kind> {
    Some(match name {
        "double" => Kind::Double,
        "float" => Kind::Float,
        "int32" => Kind::Int32,
        "int64" => Kind::Int64,
        "uint32" => Kind::Uint32,
        "uint64" => Kind::Uint64,
        "sint32" => Kind::Sint32,
        "sint64" => Kind::Sint64,
        "fixed32" => Kind::Fixed32,
        "fixed64" => Kind::Fixed64,
        "sfixed32" => Kind::Sfixed32,
        "sfixed64" => Kind::Sfixed64,
        "bool" => Kind::Bool,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        _ => return None,
    })
}

/// What of a file is needed behind its types.
struct File {
    package: String,
    imports: Vec<String>,
    messages: Vec<usize>,
}

/// Words of a text: names and numbers, texts in quotes, single characters.
struct Words<'a> {
    file: &'a str,
    words: Vec<(usize, &'a str)>,
    at: usize,
}

impl<'a> Words<'a> {
    fn of(file: &'a str, text: &'a str) -> Result<Self, String> {
        let (mut words, mut at, mut line) = (Vec::new(), 0, 1);
        while let Some(first) = text[at..].chars().next() {
            let rest = &text[at..];
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").map(|end| end + 2).ok_or_else(|| format!("line {line}: a comment does not end"))?
            } else if first.is_whitespace() {
                first.len_utf8()
            } else {
                let length = word(rest).ok_or_else(|| format!("line {line}: a text in quotes does not end"))?;
                words.push((line, &rest[..length]));
                length
            };
            line += rest[..length].matches('\n').count();
            at += length;
        }
        Ok(Self { file, words, at: 0 })
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).map(|(_, word)| *word)
    }

    fn next(&mut self) -> Result<&'a str, String> {
        let word = self.peek().ok_or_else(|| self.error("the file ends too early"))?;
        self.at += 1;
        Ok(word)
    }

    fn error(&self, what: impl std::fmt::Display) -> String {
        let (line, _) = self.words.get(self.at.saturating_sub(1)).copied().unwrap_or((1, ""));
        let place = if self.file.is_empty() { String::new() } else { format!("{}, ", self.file) };
        format!("{place}line {line}: {what}")
    }

    fn is(&mut self, wanted: &str) -> bool {
        let found = self.peek() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        let found = self.next()?;
        if found == wanted { Ok(()) } else { Err(self.error(format!("`{}` where `{wanted}` should be", shortened(found)))) }
    }

    fn name(&mut self) -> Result<&'a str, String> {
        let found = self.next()?;
        let is_name = found.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '_' | '.'));
        if is_name { Ok(found) } else { Err(self.error(format!("`{}` is no name", shortened(found)))) }
    }

    fn number(&mut self) -> Result<i64, String> {
        let negative = self.is("-");
        let found = self.next()?;
        let digits = found.strip_prefix("0x").or(found.strip_prefix("0X"));
        let number = match digits {
            Some(digits) => i64::from_str_radix(digits, 16),
            None if found.len() > 1 && found.starts_with('0') => i64::from_str_radix(found, 8),
            None => found.parse(),
        };
        let number = number.map_err(|_| self.error(format!("`{}` is no number", shortened(found))))?;
        Ok(if negative { -number } else { number })
    }

    fn quoted(&mut self) -> Result<String, String> {
        let found = self.next()?;
        let inner = found.strip_prefix(['"', '\'']).and_then(|found| found.strip_suffix(['"', '\'']));
        inner.map(str::to_owned).ok_or_else(|| self.error(format!("`{}` is no text in quotes", shortened(found))))
    }

    /// Passes over a statement: up to `;`, or to the end of its braces.
    fn skip_statement(&mut self) -> Result<(), String> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                "{" => depth += 1,
                "}" if depth <= 1 => return Ok(()),
                "}" => depth -= 1,
                ";" if depth == 0 => return Ok(()),
                _ => {}
            }
        }
    }

    /// `[packed = true, default = 5]`: those of interest.
    fn options(&mut self) -> Result<(Option<bool>, Option<String>), String> {
        let (mut packed, mut default) = (None, None);
        if !self.is("[") {
            return Ok((packed, default));
        }
        let mut depth = 1_usize;
        while depth > 0 {
            match self.next()? {
                "[" | "{" => depth += 1,
                "]" | "}" => depth -= 1,
                "packed" if depth == 1 && self.is("=") => packed = Some(self.next()? == "true"),
                "default" if depth == 1 && self.is("=") => {
                    let sign = if self.is("-") { "-" } else { "" };
                    let value = self.next()?;
                    let inner = value.strip_prefix(['"', '\'']).and_then(|value| value.strip_suffix(['"', '\'']));
                    default = Some(format!("{sign}{}", inner.unwrap_or(value)));
                }
                _ => {}
            }
        }
        Ok((packed, default))
    }
}

/// How long the word at the front is.
fn word(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.');
    match bytes[0] {
        quote @ (b'"' | b'\'') => {
            let mut at = 1;
            loop {
                match bytes.get(at)? {
                    b'\\' => at += 2,
                    byte if *byte == quote => return Some(at + 1),
                    _ => at += 1,
                }
            }
        }
        first if is_part(&first) => Some(bytes.iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len())),
        _ => text.chars().next().map(char::len_utf8),
    }
}

fn shortened(word: &str) -> String {
    crate::formats::values::shown(word)
}

impl File {
    fn parse(name: &str, text: &str, draft: &mut Draft) -> Result<Self, String> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("it is longer than {TEXT_BYTES_MAX} bytes"));
        }
        let mut words = Words::of(name, text)?;
        let (mut is_proto3, mut file) = (false, Self { package: String::new(), imports: Vec::new(), messages: Vec::new() });
        while let Some(word) = words.peek() {
            words.at += 1;
            match word {
                "syntax" => {
                    words.expect("=")?;
                    is_proto3 = match words.quoted()?.as_str() {
                        "proto2" => false,
                        "proto3" => true,
                        other => return Err(words.error(format!("syntax {other} is not known: proto2 or proto3"))),
                    };
                    words.expect(";")?;
                }
                "edition" => return Err(words.error("editions are not known: proto2 or proto3")),
                "package" => {
                    file.package = words.name()?.to_owned();
                    words.expect(";")?;
                }
                "import" => {
                    let _kind = words.is("public") || words.is("weak");
                    file.imports.push(words.quoted()?);
                    words.expect(";")?;
                }
                "message" => {
                    let scope = Scope { package: &file.package, is_proto3, parent: None };
                    file.messages.push(message(&mut words, &scope, draft, NESTING_MAX)?);
                }
                "enum" => enumeration(&mut words, &file.package, draft)?,
                "option" | "service" | "extend" => words.skip_statement()?,
                ";" => {}
                other => return Err(words.error(format!("`{}` begins nothing that is known", shortened(other)))),
            }
        }
        Ok(file)
    }
}

struct Scope<'a> {
    package: &'a str,
    is_proto3: bool,
    parent: Option<usize>,
}

fn joined(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

fn message(words: &mut Words<'_>, scope: &Scope<'_>, draft: &mut Draft, depth: usize) -> Result<usize, String> {
    let depth = depth.checked_sub(1).ok_or_else(|| words.error(format!("messages nest deeper than {NESTING_MAX}")))?;
    let full_name = joined(scope.package, words.name()?);
    let id = add(draft, full_name.clone(), scope.parent, false)?;
    words.expect("{")?;
    let within = Scope { package: &full_name, is_proto3: scope.is_proto3, parent: Some(id) };
    while !words.is("}") {
        match words.next()? {
            "message" => {
                let child = message(words, &within, draft, depth)?;
                draft.messages[id].0.children.push(child);
            }
            "enum" => enumeration(words, &full_name, draft)?,
            "option" | "reserved" | "extensions" | "extend" => words.skip_statement()?,
            ";" => {}
            "oneof" => {
                words.name()?;
                words.expect("{")?;
                while !words.is("}") {
                    if words.is("option") {
                        words.skip_statement()?;
                    } else if !words.is(";") {
                        field(words, &within, draft, Written { label: Label::One, has_presence: true })?;
                    }
                }
            }
            "map" if words.peek() == Some("<") => map(words, &within, draft)?,
            label => {
                let written = match label {
                    "repeated" => Written { label: Label::Repeated, has_presence: false },
                    "optional" => Written { label: Label::One, has_presence: true },
                    "required" => Written { label: Label::Required, has_presence: true },
                    _ => {
                        words.at -= 1;
                        Written { label: Label::One, has_presence: !scope.is_proto3 }
                    }
                };
                field(words, &within, draft, written)?;
            }
        }
    }
    Ok(id)
}

fn add(draft: &mut Draft, full_name: String, parent: Option<usize>, is_map_entry: bool) -> Result<usize, String> {
    let id = draft.messages.len();
    draft.name(&full_name, Kind::Message(id))?;
    let found = MessageType { full_name, parent, children: Vec::new(), fields: Vec::new(), is_map_entry };
    draft.messages.push((found, Vec::new()));
    Ok(id)
}

/// What stands in front of a field.
#[derive(Clone, Copy)]
struct Written {
    label: Label,
    has_presence: bool,
}

fn field(words: &mut Words<'_>, scope: &Scope<'_>, draft: &mut Draft, written: Written) -> Result<(), String> {
    let type_name = words.name()?.to_owned();
    if type_name == "group" {
        return Err(words.error("groups are not known: use a message"));
    }
    let name = words.name()?.to_owned();
    let number = field_number(words)?;
    let (packed, default) = words.options()?;
    words.expect(";")?;
    let is_packed = written.label == Label::Repeated && packed.unwrap_or(scope.is_proto3);
    let found = FieldType { name, number, kind: Kind::Bytes, label: written.label, is_packed, has_presence: written.has_presence, default };
    put(words, scope, draft, found, type_name)
}

fn field_number(words: &mut Words<'_>) -> Result<u32, String> {
    words.expect("=")?;
    let number = words.number()?;
    let fits = u32::try_from(number).ok().filter(|number| (1..=NUMBER_MAX).contains(number));
    fits.ok_or_else(|| words.error(format!("{number} is no number of a field")))
}

fn put(words: &Words<'_>, scope: &Scope<'_>, draft: &mut Draft, mut field: FieldType, type_name: String) -> Result<(), String> {
    let (message, types) = &mut draft.messages[scope.parent.expect("fields stand in messages")];
    if let Some(known) = message.fields.iter().find(|known| known.name == field.name || known.number == field.number) {
        return Err(words.error(format!("field {} has the name or the number of field {}", field.name, known.name)));
    }
    match scalar(&type_name) {
        Some(kind) => {
            field.kind = kind;
            field.is_packed &= !matches!(kind, Kind::String | Kind::Bytes);
            types.push(String::new());
        }
        None => types.push(type_name),
    }
    message.fields.push(field);
    Ok(())
}

/// `map<string, Value> name = 1;` is a repeated message of a key and a value.
fn map(words: &mut Words<'_>, scope: &Scope<'_>, draft: &mut Draft) -> Result<(), String> {
    words.expect("<")?;
    let key = words.name()?.to_owned();
    words.expect(",")?;
    let value = words.name()?.to_owned();
    words.expect(">")?;
    let name = words.name()?.to_owned();
    let number = field_number(words)?;
    words.options()?;
    words.expect(";")?;
    if scalar(&key).is_none_or(|key| matches!(key, Kind::Double | Kind::Float | Kind::Bytes)) {
        return Err(words.error(format!("the keys of a map are integers or text, and {key} is neither")));
    }
    // No name of a user's has a blank in it.
    let entry_name = joined(scope.package, &format!("{name} entry"));
    let entry = add(draft, entry_name.clone(), scope.parent, true)?;
    let within = Scope { package: &entry_name, is_proto3: true, parent: Some(entry) };
    let part = |name: &str, number| FieldType {
        name: name.to_owned(),
        number,
        kind: Kind::Bytes,
        label: Label::One,
        is_packed: false,
        has_presence: false,
        default: None,
    };
    put(words, &within, draft, part("key", 1), key)?;
    put(words, &within, draft, part("value", 2), value)?;
    let field = FieldType { label: Label::Map, ..part(&name, number) };
    put(words, scope, draft, field, format!(".{entry_name}"))
}

fn enumeration(words: &mut Words<'_>, scope: &str, draft: &mut Draft) -> Result<(), String> {
    let full_name = joined(scope, words.name()?);
    draft.name(&full_name, Kind::Enum(draft.enums.len()))?;
    words.expect("{")?;
    let mut values = Vec::new();
    while !words.is("}") {
        match words.next()? {
            "option" | "reserved" => words.skip_statement()?,
            ";" => {}
            name => {
                words.expect("=")?;
                let number = words.number()?;
                let number = i32::try_from(number).map_err(|_| words.error(format!("{number} is no number of an enum")))?;
                words.options()?;
                words.expect(";")?;
                values.push((name.to_owned(), number));
            }
        }
    }
    if values.is_empty() {
        return Err(words.error(format!("enum {full_name} has no value")));
    }
    draft.enums.push(EnumType { full_name, values });
    Ok(())
}
