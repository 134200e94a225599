//! A schema as it was written down: JSON → types, each with a number, so that recursive ones need no special care.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

/// Bytes of the text of a schema.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// The number of a type in its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TypeId(pub(super) u32);

/// A schema. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema {
    types: Arc<[Type]>,
    root: TypeId,
    text: Arc<str>,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int(Logical),
    Long(Logical),
    Float,
    Double,
    Bytes(Logical),
    String(Logical),
    Fixed { size: usize, logical: Logical },
    Enum(Arc<[String]>),
    Array(TypeId),
    Map(TypeId),
    Union(Vec<TypeId>),
    Record { name: String, fields: Vec<Field> },
}

/// What the number or the bytes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logical {
    None,
    Date,
    TimeMillis,
    TimeMicros,
    Timestamp { per_second: i64, is_local: bool },
    Decimal { precision: u8, scale: i8 },
    Uuid,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) type_id: TypeId,
    /// What a reader takes where the writer has none.
    pub(super) default: Option<Value>,
}

impl Schema {
    /// Reads the text of a schema.
    ///
    /// # Errors
    /// It is none; a clause.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_with(&[], text)
    }

    /// Reads the text of a schema that names types of others.
    ///
    /// # Errors
    /// It is none, or one of the others is; a clause.
    pub fn parse_with(others: &[&str], text: &str) -> Result<Self, String> {
        let mut parser = Parser::default();
        for other in others {
            parser.parse(&json(other)?, "")?;
        }
        let root = parser.parse(&json(text)?, "")?;
        Ok(Self { types: parser.types.into(), root, text: text.into() })
    }

    /// As it was written down.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn root(&self) -> TypeId {
        self.root
    }

    pub(super) fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }
}

fn json(text: &str) -> Result<Value, String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("the schema is longer than {TEXT_BYTES_MAX} bytes"));
    }
    // A type that is a bare name may stand without quotes, as registries give it.
    match serde_json::from_str(text) {
        Ok(json) => Ok(json),
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) => Ok(Value::String(text.to_owned())),
        Err(error) => Err(format!("the schema is no JSON: {error}")),
    }
}

#[derive(Default)]
struct Parser {
    types: Vec<Type>,
    /// By full name.
    names: BTreeMap<String, TypeId>,
}

impl Parser {
    fn add(&mut self, found: Type) -> TypeId {
        self.types.push(found);
        TypeId(self.types.len() as u32 - 1)
    }

    fn parse(&mut self, json: &Value, namespace: &str) -> Result<TypeId, String> {
        match json {
            Value::String(name) => self.named(name, Logical::None, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("{other} is no type")),
        }
    }

    fn named(&mut self, name: &str, logical: Logical, namespace: &str) -> Result<TypeId, String> {
        Ok(match name {
            "null" => self.add(Type::Null),
            "boolean" => self.add(Type::Boolean),
            "int" => self.add(Type::Int(logical)),
            "long" => self.add(Type::Long(logical)),
            "float" => self.add(Type::Float),
            "double" => self.add(Type::Double),
            "bytes" => self.add(Type::Bytes(logical)),
            "string" => self.add(Type::String(logical)),
            _ => {
                let known = self.names.get(&full_name(name, namespace)).or_else(|| self.names.get(name));
                *known.ok_or_else(|| format!("type {name} is not known: it must be defined before it is used"))?
            }
        })
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<TypeId, String> {
        let branches = branches.iter().map(|branch| self.parse(branch, namespace)).collect::<Result<Vec<_>, _>>()?;
        if branches.is_empty() {
            return Err("a union has no types".into());
        }
        if branches.iter().any(|&branch| matches!(self.types.get(branch.0 as usize), Some(Type::Union(_)))) {
            return Err("a union stands right in a union".into());
        }
        Ok(self.add(Type::Union(branches)))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let kind = object.get("type").ok_or("an object of the schema has no `type`")?;
        let Value::String(kind) = kind else { return self.parse(kind, namespace) };
        match kind.as_str() {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let symbols = object.get("symbols").and_then(Value::as_array).ok_or("an enum has no `symbols`")?;
                let symbols = symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
                let symbols = symbols.ok_or("the symbols of an enum are text")?;
                self.define(object, namespace, Type::Enum(symbols.into())).map(|(id, ..)| id)
            }
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64).and_then(|size| i32::try_from(size).ok());
                let size = size.ok_or("a fixed has no usable `size`")?.unsigned_abs() as usize;
                let logical = logical(object, Some(size));
                self.define(object, namespace, Type::Fixed { size, logical }).map(|(id, ..)| id)
            }
            "array" => {
                let items = self.parse(object.get("items").ok_or("an array has no `items`")?, namespace)?;
                Ok(self.add(Type::Array(items)))
            }
            "map" => {
                let values = self.parse(object.get("values").ok_or("a map has no `values`")?, namespace)?;
                Ok(self.add(Type::Map(values)))
            }
            name => self.named(name, logical(object, None), namespace),
        }
    }

    /// Gives a type its name; returns it, and the namespace within.
    fn define(&mut self, object: &Map<String, Value>, namespace: &str, found: Type) -> Result<(TypeId, String), String> {
        let name = object.get("name").and_then(Value::as_str).ok_or("a record, enum or fixed has no `name`")?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        let within = full.rsplit_once('.').map_or("", |(within, _)| within).to_owned();
        let id = self.add(found);
        if self.names.insert(full.clone(), id).is_some() {
            return Err(format!("type {full} is defined twice"));
        }
        Ok((id, within))
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let name = object.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let (id, within) = self.define(object, namespace, Type::Record { name: name.clone(), fields: Vec::new() })?;
        let members = object.get("fields").and_then(Value::as_array).ok_or_else(|| format!("record {name} has no `fields`"))?;
        let mut fields: Vec<Field> = Vec::with_capacity(members.len());
        for member in members {
            let field = member.get("name").and_then(Value::as_str).ok_or_else(|| format!("a field of record {name} has no `name`"))?;
            if fields.iter().any(|known| known.name == field) {
                return Err(format!("record {name} has two fields {field}"));
            }
            let json = member.get("type").ok_or_else(|| format!("field {field} of record {name} has no `type`"))?;
            // Some write the logical type beside the type instead of in it.
            let with_logical = member.get("logicalType").filter(|_| json.is_string()).and_then(|_| member.as_object());
            let type_id = match with_logical {
                Some(member) => self.named(json.as_str().unwrap_or_default(), logical(member, None), &within),
                None => self.parse(json, &within),
            };
            let type_id = type_id.map_err(|error| format!("field {field} of record {name}: {error}"))?;
            fields.push(Field { name: field.to_owned(), type_id, default: member.get("default").cloned() });
        }
        self.types[id.0 as usize] = Type::Record { name, fields };
        Ok(id)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// A logical type that is not known, or has no sense, is none: so the specification wants it.
fn logical(object: &Map<String, Value>, fixed: Option<usize>) -> Logical {
    let timestamp = |per_second, is_local| Logical::Timestamp { per_second, is_local };
    match object.get("logicalType").and_then(Value::as_str).unwrap_or_default() {
        "date" => Logical::Date,
        "time-millis" => Logical::TimeMillis,
        "time-micros" => Logical::TimeMicros,
        "timestamp-millis" => timestamp(1_000, false),
        "timestamp-micros" => timestamp(1_000_000, false),
        "timestamp-nanos" => timestamp(1_000_000_000, false),
        "local-timestamp-millis" => timestamp(1_000, true),
        "local-timestamp-micros" => timestamp(1_000_000, true),
        "local-timestamp-nanos" => timestamp(1_000_000_000, true),
        "uuid" if fixed.is_none_or(|size| size == 16) => Logical::Uuid,
        "decimal" => {
            let precision = object.get("precision").and_then(Value::as_u64).and_then(|precision| u8::try_from(precision).ok());
            let scale = object.get("scale").map_or(Some(0), |scale| scale.as_i64().and_then(|scale| i8::try_from(scale).ok()));
            match (precision, scale) {
                (Some(precision @ 1..=38), Some(scale)) if scale >= 0 && scale.unsigned_abs() <= precision => {
                    Logical::Decimal { precision, scale }
                }
                _ => Logical::None,
            }
        }
        _ => Logical::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Schema, String> {
        Schema::parse(text)
    }

    #[test]
    fn names_are_looked_up_in_their_namespace_and_may_be_recursive() {
        let schema = parse(
            r#"{"type":"record","name":"Node","namespace":"a.b","fields":[
                {"name":"next","type":["null","Node"]},
                {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["X","Y"]}},
                {"name":"other","type":"a.b.Kind"}]}"#,
        )
        .expect("a schema");
        let Type::Record { fields, .. } = schema.get(schema.root()) else { panic!("a record") };
        let Type::Union(branches) = schema.get(fields[0].type_id) else { panic!("a union") };
        assert_eq!(branches[1], schema.root());
        assert_eq!(fields[1].type_id, fields[2].type_id);
    }

    #[test]
    fn what_is_no_schema_says_where() {
        let record = |fields: &str| format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
        let cases = [
            ("{nonsense".to_owned(), "the schema is no JSON"),
            (record(r#"{"name":"a","type":"Unknown"}"#), "field a of record R: type Unknown is not known"),
            (record(r#"{"name":"a","type":"int"},{"name":"a","type":"int"}"#), "record R has two fields a"),
            (record(r#"{"name":"a","type":[["null"],"int"]}"#), "a union stands right in a union"),
            (record(r#"{"name":"a","type":[]}"#), "a union has no types"),
            (record(r#"{"name":"a","type":{"type":"fixed","name":"F","size":-1}}"#), "a fixed has no usable `size`"),
            (record(r#"{"name":"a","type":{"type":"record","name":"R","fields":[]}}"#), "type R is defined twice"),
            (format!("{}\"int\"{}", "[".repeat(100_000), "]".repeat(100_000)), "the schema is no JSON"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err("no schema");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_logical_type_without_sense_is_none() {
        let logical_of = |text: &str| {
            let schema = parse(text).expect("a schema");
            match schema.get(schema.root()) {
                Type::Long(logical) | Type::Bytes(logical) | Type::String(logical) => *logical,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(logical_of(r#"{"type":"long","logicalType":"never-heard-of"}"#), Logical::None);
        assert_eq!(logical_of(r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":5}"#), Logical::None);
        assert_eq!(
            logical_of(r#"{"type":"bytes","logicalType":"decimal","precision":5,"scale":4}"#),
            Logical::Decimal { precision: 5, scale: 4 }
        );
        assert_eq!(logical_of("string"), Logical::None);
    }
}
