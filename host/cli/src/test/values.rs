//! Values of a case as Arrow arrays and back, in the form of `tests/conformance/README.md`: numbers are numbers (floats also `"NaN"`, `"inf"`,
//! `"-inf"`), decimals strings, dates, times, timestamps and durations numbers of their unit, bytes hexadecimal, structs objects, maps lists of
//! `[key, value]`.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray, LargeBinaryArray, LargeStringArray, ListArray,
    MapArray, PrimitiveArray, StringArray, StructArray,
    cast::AsArray,
    types::{
        ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
        UInt64Type,
    },
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, FieldRef, Fields};
use serde_json::{Map, Value};

/// The values as an array of `data_type`.
pub fn array(data_type: &DataType, values: &[&Value]) -> Result<ArrayRef, String> {
    Ok(match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from(each(values, data_type, |value| value.as_bool())?)),
        DataType::Int8 => integers::<Int8Type>(values, data_type)?,
        DataType::Int16 => integers::<Int16Type>(values, data_type)?,
        DataType::Int32 => integers::<Int32Type>(values, data_type)?,
        DataType::Int64 => integers::<Int64Type>(values, data_type)?,
        DataType::UInt8 => integers::<UInt8Type>(values, data_type)?,
        DataType::UInt16 => integers::<UInt16Type>(values, data_type)?,
        DataType::UInt32 => integers::<UInt32Type>(values, data_type)?,
        DataType::UInt64 => integers::<UInt64Type>(values, data_type)?,
        DataType::Float32 => {
            Arc::new(PrimitiveArray::<Float32Type>::from(each(values, data_type, |value| float(value).map(|float| float as f32))?))
        }
        DataType::Float64 => Arc::new(PrimitiveArray::<Float64Type>::from(each(values, data_type, float)?)),
        DataType::Date32 | DataType::Time32(_) => cast(&integers::<Int32Type>(values, data_type)?, data_type)?,
        DataType::Date64 | DataType::Time64(_) | DataType::Timestamp(..) | DataType::Duration(_) => {
            cast(&integers::<Int64Type>(values, data_type)?, data_type)?
        }
        DataType::Decimal128(..) => cast(&array(&DataType::Utf8, values)?, data_type)?,
        DataType::Utf8 => Arc::new(StringArray::from(each(values, data_type, |value| value.as_str())?)),
        DataType::LargeUtf8 => Arc::new(LargeStringArray::from(each(values, data_type, |value| value.as_str())?)),
        DataType::Binary => Arc::new(BinaryArray::from_iter(each(values, data_type, bytes)?)),
        DataType::LargeBinary => Arc::new(LargeBinaryArray::from_iter(each(values, data_type, bytes)?)),
        DataType::FixedSizeBinary(size) => {
            let bytes = each(values, data_type, bytes)?;
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), *size).map_err(|error| error.to_string())?)
        }
        DataType::List(item) => list(item, values, data_type)?,
        DataType::FixedSizeList(item, size) => fixed_list(item, *size, values, data_type)?,
        DataType::Struct(fields) => Arc::new(structs(fields, values, data_type)?),
        DataType::Map(entries, _) => map(entries, values, data_type)?,
        other => return Err(format!("a case cannot hold values of type {other}")),
    })
}

/// The values of an array.
pub fn values(array: &ArrayRef) -> Result<Vec<Value>, String> {
    let each = |of: &dyn Fn(usize) -> Result<Value, String>| {
        (0..array.len()).map(|row| if array.is_null(row) { Ok(Value::Null) } else { of(row) }).collect()
    };
    match array.data_type() {
        DataType::Boolean => each(&|row| Ok(array.as_boolean().value(row).into())),
        DataType::Float32 => each(&|row| Ok(float_value(array.as_primitive::<Float32Type>().value(row).into()))),
        DataType::Float64 => each(&|row| Ok(float_value(array.as_primitive::<Float64Type>().value(row)))),
        DataType::UInt64 => each(&|row| Ok(array.as_primitive::<UInt64Type>().value(row).into())),
        DataType::Utf8 => each(&|row| Ok(array.as_string::<i32>().value(row).into())),
        DataType::LargeUtf8 => each(&|row| Ok(array.as_string::<i64>().value(row).into())),
        DataType::Binary => each(&|row| Ok(hexadecimal(array.as_binary::<i32>().value(row)))),
        DataType::LargeBinary => each(&|row| Ok(hexadecimal(array.as_binary::<i64>().value(row)))),
        DataType::FixedSizeBinary(_) => each(&|row| Ok(hexadecimal(array.as_fixed_size_binary().value(row)))),
        DataType::List(_) => each(&|row| values(&array.as_list::<i32>().value(row)).map(Value::Array)),
        DataType::FixedSizeList(..) => each(&|row| values(&array.as_fixed_size_list().value(row)).map(Value::Array)),
        DataType::Struct(_) => {
            let rows = objects(array.as_struct())?;
            each(&|row| Ok(Value::Object(rows[row].clone())))
        }
        DataType::Map(..) => each(&|row| pairs(&array.as_map().value(row))),
        DataType::Decimal128(..) => values(&cast(array, &DataType::Utf8)?),
        DataType::Date32 | DataType::Time32(_) => values(&cast(array, &DataType::Int32)?),
        _ => {
            let numbers = cast(array, &DataType::Int64)?;
            each(&|row| Ok(numbers.as_primitive::<Int64Type>().value(row).into()))
        }
    }
}

/// The rows of a struct, or of the columns of a batch.
pub fn objects(rows: &StructArray) -> Result<Vec<Map<String, Value>>, String> {
    let mut objects = vec![Map::new(); rows.len()];
    for (field, column) in rows.fields().iter().zip(rows.columns()) {
        for (object, value) in objects.iter_mut().zip(values(column)?) {
            object.insert(field.name().clone(), value);
        }
    }
    Ok(objects)
}

/// Objects as the columns of `fields`. A member that is no field is a mistake; one that is missing is null.
pub fn columns(fields: &Fields, rows: &[&Map<String, Value>]) -> Result<Vec<ArrayRef>, String> {
    if let Some(unknown) = rows.iter().flat_map(|row| row.keys()).find(|name| fields.find(name).is_none()) {
        let names: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
        return Err(format!("there is no column `{unknown}`; the columns are {}", names.join(", ")));
    }
    let column = |field: &FieldRef| {
        let values: Vec<&Value> = rows.iter().map(|row| row.get(field.name()).unwrap_or(&Value::Null)).collect();
        array(field.data_type(), &values).map_err(|reason| format!("column `{}`: {reason}", field.name()))
    };
    fields.iter().map(column).collect()
}

/// The value of each, or null; an error names the first that is neither.
fn each<'v, T>(values: &[&'v Value], data_type: &DataType, of: impl Fn(&'v Value) -> Option<T>) -> Result<Vec<Option<T>>, String> {
    let one = |value: &&'v Value| match value {
        Value::Null => Ok(None),
        value => of(value).map(Some).ok_or_else(|| format!("{value} is no {data_type}")),
    };
    values.iter().map(one).collect()
}

fn integers<T: ArrowPrimitiveType>(values: &[&Value], data_type: &DataType) -> Result<ArrayRef, String>
where
    T::Native: TryFrom<i128>,
{
    let integer = |value: &Value| value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    let of = |value| integer(value).and_then(|integer| T::Native::try_from(integer).ok());
    Ok(Arc::new(PrimitiveArray::<T>::from_iter(each(values, data_type, of)?)))
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "inf" => Some(f64::INFINITY),
            "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        value => value.as_f64(),
    }
}

fn float_value(float: f64) -> Value {
    match float {
        float if float.is_nan() => "NaN".into(),
        f64::INFINITY => "inf".into(),
        f64::NEG_INFINITY => "-inf".into(),
        float => float.into(),
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        value.as_str()?.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let (pairs, odd) = digits.as_ref()?.as_chunks::<2>();
    odd.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

fn hexadecimal(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    let options = arrow_cast::CastOptions { safe: false, ..arrow_cast::CastOptions::default() };
    arrow_cast::cast_with_options(array, to, &options).map_err(|error| error.to_string())
}

fn nulls(values: &[&Value]) -> NullBuffer {
    values.iter().map(|value| !value.is_null()).collect::<Vec<bool>>().into()
}

fn list(item: &FieldRef, values: &[&Value], data_type: &DataType) -> Result<ArrayRef, String> {
    let lists = each(values, data_type, Value::as_array)?;
    let lengths = lists.iter().map(|list| list.map_or(0, Vec::len));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let items: Vec<&Value> = lists.iter().flatten().flat_map(|list| list.iter()).collect();
    let items = array(item.data_type(), &items)?;
    Ok(Arc::new(ListArray::try_new(item.clone(), offsets, items, Some(nulls(values))).map_err(|error| error.to_string())?))
}

fn fixed_list(item: &FieldRef, size: i32, values: &[&Value], data_type: &DataType) -> Result<ArrayRef, String> {
    let lists = each(values, data_type, |value| value.as_array().filter(|list| i32::try_from(list.len()) == Ok(size)))?;
    let absent = vec![Value::Null; usize::try_from(size).map_err(|error| error.to_string())?];
    let items: Vec<&Value> = lists.iter().flat_map(|list| list.unwrap_or(&absent)).collect();
    let items = array(item.data_type(), &items)?;
    Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), size, items, Some(nulls(values))).map_err(|error| error.to_string())?))
}

fn structs(fields: &Fields, values: &[&Value], data_type: &DataType) -> Result<StructArray, String> {
    let absent = Map::new();
    let objects = each(values, data_type, Value::as_object)?;
    let objects: Vec<&Map<String, Value>> = objects.into_iter().map(|object| object.unwrap_or(&absent)).collect();
    let columns = columns(fields, &objects)?;
    StructArray::try_new_with_length(fields.clone(), columns, Some(nulls(values)), values.len()).map_err(|error| error.to_string())
}

fn map(entries: &FieldRef, values: &[&Value], data_type: &DataType) -> Result<ArrayRef, String> {
    let DataType::Struct(fields) = entries.data_type() else { return Err(format!("{data_type} is no map")) };
    let maps = each(values, data_type, Value::as_array)?;
    let offsets = OffsetBuffer::from_lengths(maps.iter().map(|map| map.map_or(0, Vec::len)));
    let pairs: Vec<&Value> = maps.iter().flatten().flat_map(|map| map.iter()).collect();
    let part = |index: usize| {
        pairs.iter().map(|pair| pair.get(index).ok_or_else(|| format!("{pair} is no [key, value]"))).collect::<Result<Vec<_>, _>>()
    };
    let columns =
        fields.iter().enumerate().map(|(index, field)| array(field.data_type(), &part(index)?)).collect::<Result<Vec<_>, String>>()?;
    let entries_array = StructArray::try_new_with_length(fields.clone(), columns, None, pairs.len()).map_err(|error| error.to_string())?;
    let map = MapArray::try_new(entries.clone(), offsets, entries_array, Some(nulls(values)), false);
    Ok(Arc::new(map.map_err(|error| error.to_string())?))
}

/// The entries of one map.
fn pairs(entries: &StructArray) -> Result<Value, String> {
    let columns = entries.columns().iter().map(values).collect::<Result<Vec<_>, _>>()?;
    Ok((0..entries.len()).map(|row| columns.iter().map(|column| column[row].clone()).collect::<Value>()).collect())
}

#[cfg(test)]
mod tests {
    use millstream_model::types::parse_type;
    use serde_json::json;

    use super::*;

    /// As in the conformance case `types`.
    #[test]
    fn every_value_comes_back_as_it_was_written() {
        let cases = [
            ("Boolean", json!([true, null])),
            ("Int8", json!([-128, 127, null])),
            ("UInt64", json!([u64::MAX])),
            ("Int64", json!([i64::MIN])),
            ("Float64", json!([0.5, "NaN", "-inf", null])),
            ("Decimal128(20, 3)", json!(["-12345678901234567.891"])),
            ("Binary", json!(["00ff", ""])),
            ("FixedSizeBinary(2)", json!(["0a0b", null])),
            ("Date32", json!([-1])),
            ("Time64(µs)", json!([1])),
            ("Timestamp(ns, \"UTC\")", json!([1_700_000_000_000_000_001_i64])),
            ("Duration(s)", json!([-5])),
            ("List(Int64)", json!([[1, null], [], null])),
            ("FixedSizeList(2 x Int32)", json!([[7, -7], null])),
            ("Struct(\"x\": non-null Float64, \"name\": Utf8)", json!([{ "x": 0.5, "name": null }, null])),
            ("Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": Int64), unsorted)", json!([[["a", 1], ["b", null]], []])),
        ];
        for (text, written) in cases {
            let written = written.as_array().unwrap();
            let made = array(&parse_type(text).unwrap(), &written.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(&values(&made).unwrap(), written, "{text}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        assert_eq!(array(&DataType::Int8, &[&json!(128)]).unwrap_err(), "128 is no Int8");
        assert_eq!(array(&DataType::Binary, &[&json!("0")]).unwrap_err(), "\"0\" is no Binary");
    }
}
