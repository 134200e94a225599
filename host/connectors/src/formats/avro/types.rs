//! Which columns a schema has by itself, and which schema columns have.

use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use super::schema::{Logical, Schema, Type, TypeId};

/// How deep columns may nest; recursive types have no columns.
const DEPTH_MAX: usize = 16;

/// The columns of a record.
///
/// # Errors
/// It is none, or a field has no column; a clause that names it.
pub fn columns(schema: &Schema) -> Result<SchemaRef, String> {
    let Type::Record { fields, .. } = schema.get(schema.root()) else {
        return Err("the values of the schema are no records, so they have no columns".into());
    };
    let field = |field: &super::schema::Field| {
        let (data_type, nullable) = column(schema, field.type_id, DEPTH_MAX).map_err(|error| format!("field {}: {error}", field.name))?;
        Ok::<_, String>(ArrowField::new(&field.name, data_type, nullable))
    };
    Ok(Arc::new(arrow_schema::Schema::new(fields.iter().map(field).collect::<Result<Vec<_>, _>>()?)))
}

fn column(schema: &Schema, id: TypeId, depth_left: usize) -> Result<(DataType, bool), String> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err(format!("it nests deeper than {DEPTH_MAX}, or within itself: declare the columns without it"));
    };
    let part = |name: &str, id: TypeId| {
        let (data_type, nullable) = column(schema, id, depth_left)?;
        Ok::<_, String>(ArrowField::new(name, data_type, nullable))
    };
    let data_type = match schema.get(id) {
        Type::Null => return Err("it is always null: declare the columns without it".into()),
        Type::Boolean => DataType::Boolean,
        Type::Int(Logical::Date) => DataType::Date32,
        Type::Int(Logical::TimeMillis) => DataType::Time32(TimeUnit::Millisecond),
        Type::Int(_) => DataType::Int32,
        Type::Long(Logical::TimeMicros) => DataType::Time64(TimeUnit::Microsecond),
        Type::Long(Logical::Timestamp { per_second, is_local }) => {
            DataType::Timestamp(unit(*per_second), (!is_local).then(|| "UTC".into()))
        }
        Type::Long(_) => DataType::Int64,
        Type::Float => DataType::Float32,
        Type::Double => DataType::Float64,
        Type::Bytes(Logical::Decimal { precision, scale }) | Type::Fixed { logical: Logical::Decimal { precision, scale }, .. } => {
            DataType::Decimal128(*precision, *scale)
        }
        Type::Bytes(_) => DataType::Binary,
        Type::String(_) | Type::Enum(_) => DataType::Utf8,
        Type::Fixed { size, .. } => DataType::FixedSizeBinary(i32::try_from(*size).map_err(|_| "it is too large".to_owned())?),
        Type::Array(item) => DataType::List(Arc::new(part("item", *item)?)),
        Type::Map(value) => {
            let fields = vec![ArrowField::new("key", DataType::Utf8, false), part("value", *value)?];
            DataType::Map(Arc::new(ArrowField::new("entries", DataType::Struct(fields.into()), false)), false)
        }
        Type::Union(branches) => {
            let is_null = |branch: &&TypeId| matches!(schema.get(**branch), Type::Null);
            let nullable = branches.iter().any(|branch| is_null(&branch));
            let others: Vec<&TypeId> = branches.iter().filter(|branch| !is_null(branch)).collect();
            return match others.as_slice() {
                [one] => column(schema, **one, depth_left).map(|(data_type, inner)| (data_type, nullable || inner)),
                _ => Err("it is a union of several types: declare the columns, and its type or none for it".into()),
            };
        }
        Type::Record { fields, .. } => {
            let members = fields.iter().map(|field| part(&field.name, field.type_id).map_err(|error| format!("{}: {error}", field.name)));
            DataType::Struct(members.collect::<Result<Fields, _>>()?)
        }
    };
    Ok((data_type, false))
}

/// The unit of a timestamp.
pub(super) fn unit(per_second: i64) -> TimeUnit {
    match per_second {
        1_000 => TimeUnit::Millisecond,
        1_000_000 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

/// The schema of columns, for a record of this name (`a.b.Name`).
///
/// # Errors
/// Avro has no such type, or no such name; a clause that says what to do.
pub fn derived(columns: &arrow_schema::Schema, name: &str) -> Result<Schema, String> {
    let mut names = Names { prefix: name.to_owned(), count: 0 };
    let record = names.record(name, columns.fields())?;
    Schema::parse(&record.to_string())
}

/// Gives records and fixed types names of their own.
struct Names {
    prefix: String,
    count: usize,
}

impl Names {
    fn next(&mut self) -> String {
        self.count += 1;
        format!("{}_{}", self.prefix, self.count)
    }

    fn record(&mut self, name: &str, fields: &Fields) -> Result<Value, String> {
        let fields = fields.iter().map(|field| self.field(field)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "type": "record", "name": name, "fields": fields }))
    }

    fn field(&mut self, field: &ArrowField) -> Result<Value, String> {
        if !is_name(field.name()) {
            return Err(format!(
                "column {} has no name that Avro knows (letters, digits and _): rename it with `select` before",
                field.name()
            ));
        }
        let json = self.of(field).map_err(|error| format!("column {}: {error}", field.name()))?;
        let mut member = json!({ "name": field.name(), "type": json });
        if field.is_nullable() {
            member["default"] = Value::Null;
        }
        Ok(member)
    }

    fn of(&mut self, field: &ArrowField) -> Result<Value, String> {
        let json = self.valid(field.data_type())?;
        Ok(if field.is_nullable() { json!(["null", json]) } else { json })
    }

    fn valid(&mut self, data_type: &DataType) -> Result<Value, String> {
        use DataType as D;
        Ok(match data_type {
            D::Boolean => json!("boolean"),
            D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 => json!("int"),
            D::Int64 | D::UInt32 | D::Duration(_) => json!("long"),
            D::Float32 => json!("float"),
            D::Float64 => json!("double"),
            D::Utf8 | D::LargeUtf8 => json!("string"),
            D::Binary | D::LargeBinary => json!("bytes"),
            D::FixedSizeBinary(size) => json!({ "type": "fixed", "name": self.next(), "size": size }),
            D::Date32 => json!({ "type": "int", "logicalType": "date" }),
            D::Time32(_) => json!({ "type": "int", "logicalType": "time-millis" }),
            D::Time64(TimeUnit::Microsecond) => json!({ "type": "long", "logicalType": "time-micros" }),
            D::Timestamp(unit, zone) => {
                let unit = match unit {
                    TimeUnit::Second | TimeUnit::Millisecond => "millis",
                    TimeUnit::Microsecond => "micros",
                    TimeUnit::Nanosecond => "nanos",
                };
                let local = if zone.is_some() { "" } else { "local-" };
                json!({ "type": "long", "logicalType": format!("{local}timestamp-{unit}") })
            }
            D::Decimal128(precision, scale) if *scale >= 0 => {
                json!({ "type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale })
            }
            D::List(item) | D::LargeList(item) | D::FixedSizeList(item, _) => json!({ "type": "array", "items": self.of(item)? }),
            D::Map(entries, _) => match entries.data_type() {
                D::Struct(fields) if matches!(fields[0].data_type(), D::Utf8 | D::LargeUtf8) => {
                    json!({ "type": "map", "values": self.of(&fields[1])? })
                }
                _ => return Err("the keys of a map in Avro are text".into()),
            },
            D::Struct(fields) => {
                let name = self.next();
                self.record(&name, fields)?
            }
            other => return Err(format!("Avro has no type for {other}: convert it with `select` before")),
        })
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
