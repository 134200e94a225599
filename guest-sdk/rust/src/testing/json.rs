//! Columns as JSON, for conformance cases and for the harness.
//!
//! Numbers are numbers (`"NaN"`, `"inf"` and `"-inf"` for floats that JSON lacks), decimals are strings, dates, times, timestamps and
//! durations are numbers of their unit, bytes are hexadecimal strings, structs are objects, maps are lists of `[key, value]`.

use serde_json::{Map, Number, Value};

use super::kinds::{DataType, Field};
use crate::{
    bindings::Column,
    value::{BitBuilder, Buffers, Malformed, bits},
};

/// A column of `values`.
///
/// # Errors
/// A value does not fit the type.
pub fn to_column(data_type: &DataType, values: &[Value]) -> Result<Column, String> {
    let mut buffers = Vec::new();
    let values: Vec<&Value> = values.iter().collect();
    encode(data_type, &values, &mut buffers)?;
    Ok(Column { length: values.len() as u32, buffers })
}

/// The values of a column.
///
/// # Errors
/// The column is not what its type says.
pub fn from_column(data_type: &DataType, column: &Column) -> Result<Vec<Value>, Malformed> {
    let mut buffers = Buffers::of(column);
    let values = decode(data_type, column.length as usize, &mut buffers)?;
    match buffers.take() {
        Ok(_) => Err(Malformed("a buffer too many")),
        Err(_) => Ok(values),
    }
}

/// Bytes that order as the host orders map keys of this type.
pub fn order_key(data_type: &DataType, value: &Value) -> Vec<u8> {
    match (data_type, value) {
        (DataType::Struct(fields), value) => {
            let mut key = Vec::new();
            for field in fields {
                for byte in order_key(&field.data_type, &value[&field.name]) {
                    key.extend(if byte == 0 { &[0, 0xff][..] } else { std::slice::from_ref(&byte) });
                }
                key.extend([0, 0]);
            }
            key
        }
        (DataType::Float(_), value) => {
            let bits = float(value).unwrap_or(f64::NAN).to_bits();
            (if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) }).to_be_bytes().to_vec()
        }
        (DataType::Decimal(scale), value) => flipped(decimal(value, *scale).unwrap_or_default()),
        (_, Value::Number(number)) => flipped(number.as_i128().unwrap_or_default()),
        (_, Value::String(text)) => text.as_bytes().to_vec(),
        (_, Value::Bool(set)) => vec![u8::from(*set)],
        _ => Vec::new(),
    }
}

fn flipped(number: i128) -> Vec<u8> {
    (number as u128 ^ (1 << 127)).to_be_bytes().to_vec()
}

fn misfit(data_type: &DataType, value: &Value) -> String {
    format!("{value} does not fit {data_type:?}")
}

fn encode(data_type: &DataType, values: &[&Value], buffers: &mut Vec<Vec<u8>>) -> Result<(), String> {
    buffers.push(validity(values));
    let fit = |value: &&Value| misfit(data_type, value);
    match data_type {
        DataType::Boolean => {
            let mut bits = BitBuilder::default();
            values.iter().for_each(|value| bits.push(value.as_bool().unwrap_or_default()));
            buffers.push(bits.into_bytes());
        }
        DataType::Int(width) | DataType::UInt(width) => {
            let number = |value: &&Value| if value.is_null() { Some(0) } else { value.as_number()?.as_i128() };
            buffers.push(fixed(values, *width, |value| number(value).map(i128::to_le_bytes).ok_or_else(|| fit(value)))?);
        }
        DataType::Float(width) => {
            let bytes = |number: f64| if *width == 4 { widen((number as f32).to_le_bytes()) } else { widen(number.to_le_bytes()) };
            buffers.push(fixed(values, *width, |value| float(value).map(bytes).ok_or_else(|| fit(value)))?);
        }
        DataType::Decimal(scale) => {
            buffers.push(fixed(values, 16, |value| decimal(value, *scale).map(i128::to_le_bytes).ok_or_else(|| fit(value)))?);
        }
        DataType::Text(width) => {
            let texts = values.iter().map(|value| text(value).map(str::as_bytes).map(<[u8]>::to_vec).ok_or_else(|| fit(value)));
            encode_bytes(*width, texts, buffers)?;
        }
        DataType::Bytes(width) => {
            encode_bytes(*width, values.iter().map(|value| text(value).and_then(from_hex).ok_or_else(|| fit(value))), buffers)?;
        }
        DataType::FixedBytes(size) => {
            let mut data = Vec::new();
            for value in values {
                let bytes = if value.is_null() { Some(vec![0; *size]) } else { text(value).and_then(from_hex) };
                data.extend(bytes.filter(|bytes| bytes.len() == *size).ok_or_else(|| fit(value))?);
            }
            buffers.push(data);
        }
        DataType::List(item) => {
            let lists = values.iter().map(|value| items(value).ok_or_else(|| fit(value))).collect::<Result<Vec<_>, _>>()?;
            encode_items(&item.data_type, &lists, buffers)?;
        }
        DataType::FixedList(size, item) => {
            let null = Value::Null;
            let mut all: Vec<&Value> = Vec::new();
            for value in values {
                match items(value).filter(|items| items.len() == *size) {
                    Some(items) => all.extend(items),
                    None if value.is_null() => all.extend(std::iter::repeat_n(&null, *size)),
                    None => return Err(fit(value)),
                }
            }
            encode(&item.data_type, &all, buffers)?;
        }
        DataType::Struct(fields) => encode_fields(fields, values, buffers)?,
        DataType::Map(entries) => {
            let lists = values.iter().map(|value| items(value).ok_or_else(|| fit(value))).collect::<Result<Vec<_>, _>>()?;
            let structs =
                |pair: &&Value| Value::Object(Map::from_iter([("key".into(), pair[0].clone()), ("value".into(), pair[1].clone())]));
            let lists: Vec<Vec<Value>> = lists.iter().map(|list| list.iter().map(structs).collect()).collect();
            let lists: Vec<Vec<&Value>> = lists.iter().map(|list| list.iter().collect()).collect();
            encode_items(&DataType::Struct(entry_fields(entries)), &lists, buffers)?;
        }
    }
    Ok(())
}

fn entry_fields((key, value): &(Field, Field)) -> Vec<Field> {
    vec![Field { name: "key".into(), ..key.clone() }, Field { name: "value".into(), ..value.clone() }]
}

fn validity(values: &[&Value]) -> Vec<u8> {
    if !values.iter().any(|value| value.is_null()) {
        return Vec::new();
    }
    let mut bits = BitBuilder::default();
    values.iter().for_each(|value| bits.push(!value.is_null()));
    bits.into_bytes()
}

fn fixed(values: &[&Value], width: usize, bytes: impl Fn(&&Value) -> Result<[u8; 16], String>) -> Result<Vec<u8>, String> {
    let mut data = Vec::with_capacity(values.len() * width);
    for value in values {
        data.extend_from_slice(&bytes(value)?[..width]);
    }
    Ok(data)
}

fn widen<const N: usize>(bytes: [u8; N]) -> [u8; 16] {
    let mut wide = [0; 16];
    wide[..N].copy_from_slice(&bytes);
    wide
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    }
}

fn text(value: &Value) -> Option<&str> {
    if value.is_null() { Some("") } else { value.as_str() }
}

fn items(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Null => Some(Vec::new()),
        other => other.as_array().map(|items| items.iter().collect()),
    }
}

/// The number times 10 to the power of `scale`.
fn decimal(value: &Value, scale: i8) -> Option<i128> {
    let text = text(value)?;
    let (digits, fraction) = text.split_once('.').unwrap_or((text, ""));
    let places = usize::try_from(scale).unwrap_or(0);
    if value.is_null() {
        return Some(0);
    }
    let digits: i128 = format!("{digits}{fraction:0<places$}").parse().ok().filter(|_| fraction.len() <= places)?;
    Some(if scale < 0 { digits / 10_i128.pow(u32::from(scale.unsigned_abs())) } else { digits })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(byte).collect::<Option<_>>()).flatten()
}

fn to_hex(bytes: &[u8]) -> Value {
    Value::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn push_offset(width: usize, end: usize, offsets: &mut Vec<u8>) {
    offsets.extend_from_slice(&(end as u64).to_le_bytes()[..width]);
}

fn encode_bytes(width: usize, rows: impl Iterator<Item = Result<Vec<u8>, String>>, buffers: &mut Vec<Vec<u8>>) -> Result<(), String> {
    let (mut offsets, mut data) = (vec![0; width], Vec::new());
    for row in rows {
        data.extend(row?);
        push_offset(width, data.len(), &mut offsets);
    }
    buffers.extend([offsets, data]);
    Ok(())
}

fn encode_items(item: &DataType, lists: &[Vec<&Value>], buffers: &mut Vec<Vec<u8>>) -> Result<(), String> {
    let mut offsets = vec![0; 4];
    let mut end = 0;
    for list in lists {
        end += list.len();
        push_offset(4, end, &mut offsets);
    }
    buffers.push(offsets);
    encode(item, &lists.concat(), buffers)
}

fn encode_fields(fields: &[Field], values: &[&Value], buffers: &mut Vec<Vec<u8>>) -> Result<(), String> {
    for field in fields {
        let column: Vec<&Value> = values.iter().map(|value| &value[&field.name]).collect();
        if !field.nullable && column.iter().zip(values).any(|(field, value)| field.is_null() && !value.is_null()) {
            return Err(format!("`{}` is missing", field.name));
        }
        encode(&field.data_type, &column, buffers)?;
    }
    Ok(())
}

fn decode(data_type: &DataType, length: usize, buffers: &mut Buffers<'_>) -> Result<Vec<Value>, Malformed> {
    let validity = buffers.take()?;
    if !validity.is_empty() {
        bits::count_ones(validity, length)?;
    }
    let mut values = decode_values(data_type, length, buffers)?;
    for (row, value) in values.iter_mut().enumerate() {
        if !validity.is_empty() && !bits::is_set(validity, row) {
            *value = Value::Null;
        }
    }
    Ok(values)
}

fn decode_values(data_type: &DataType, length: usize, buffers: &mut Buffers<'_>) -> Result<Vec<Value>, Malformed> {
    Ok(match data_type {
        DataType::Boolean => {
            let bitmap = buffers.take()?;
            bits::count_ones(bitmap, length)?;
            (0..length).map(|row| Value::Bool(bits::is_set(bitmap, row))).collect()
        }
        DataType::Int(width) => rows(buffers, length, *width)?.map(|bytes| signed(bytes).into()).collect(),
        DataType::UInt(width) => rows(buffers, length, *width)?.map(|bytes| unsigned(bytes).into()).collect(),
        DataType::Float(width) => rows(buffers, length, *width)?.map(float_value).collect(),
        DataType::Decimal(scale) => rows(buffers, length, 16)?.map(|bytes| decimal_value(bytes, *scale)).collect(),
        DataType::FixedBytes(size) => rows(buffers, length, *size)?.map(to_hex).collect(),
        DataType::Text(width) => {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).map(Value::from).map_err(|_| Malformed("text is not UTF-8"));
            decode_bytes(*width, length, buffers)?.into_iter().map(text).collect::<Result<_, _>>()?
        }
        DataType::Bytes(width) => decode_bytes(*width, length, buffers)?.into_iter().map(to_hex).collect(),
        DataType::List(item) => decode_lists(&item.data_type, length, buffers)?,
        DataType::FixedList(size, item) => {
            let items = decode(&item.data_type, length * size, buffers)?;
            (0..length).map(|row| Value::Array(items[row * size..(row + 1) * size].to_vec())).collect()
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| decode(&field.data_type, length, buffers)).collect::<Result<Vec<_>, _>>()?;
            let row = |row: usize| fields.iter().zip(&columns).map(|(field, column)| (field.name.clone(), column[row].clone())).collect();
            (0..length).map(row).map(Value::Object).collect()
        }
        DataType::Map(entries) => {
            let pair = |entry: &Value| Value::Array(vec![entry["key"].clone(), entry["value"].clone()]);
            let lists = decode_lists(&DataType::Struct(entry_fields(entries)), length, buffers)?;
            lists.iter().map(|list| list.as_array().into_iter().flatten().map(pair).collect()).collect()
        }
    })
}

fn rows<'a>(buffers: &mut Buffers<'a>, length: usize, width: usize) -> Result<std::slice::ChunksExact<'a, u8>, Malformed> {
    let bytes = buffers.take()?.get(..length * width).ok_or(Malformed("a buffer is too short"))?;
    Ok(bytes.chunks_exact(width))
}

fn unsigned(bytes: &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(wide)
}

fn signed(bytes: &[u8]) -> i64 {
    let unused = 64 - 8 * bytes.len();
    ((unsigned(bytes) << unused) as i64) >> unused
}

fn float_value(bytes: &[u8]) -> Value {
    let number = match bytes.len() {
        4 => f64::from(f32::from_bits(unsigned(bytes) as u32)),
        _ => f64::from_bits(unsigned(bytes)),
    };
    Number::from_f64(number).map_or_else(|| Value::String(number.to_string()), Value::Number)
}

fn decimal_value(bytes: &[u8], scale: i8) -> Value {
    let number = i128::from_le_bytes(bytes.try_into().expect("rows have 16 bytes"));
    let digits = number.unsigned_abs().to_string();
    let sign = if number < 0 { "-" } else { "" };
    let text = match usize::try_from(scale) {
        Ok(0) => format!("{sign}{digits}"),
        Ok(places) => {
            let padded = format!("{digits:0>width$}", width = places + 1);
            format!("{sign}{}.{}", &padded[..padded.len() - places], &padded[padded.len() - places..])
        }
        Err(_) => format!("{sign}{digits}{}", "0".repeat(usize::from(scale.unsigned_abs()))),
    };
    Value::String(text)
}

fn offsets(width: usize, length: usize, buffers: &mut Buffers<'_>) -> Result<Vec<usize>, Malformed> {
    let bytes = buffers.take()?;
    if length == 0 && bytes.is_empty() {
        return Ok(vec![0]);
    }
    let bytes = bytes.get(..(length + 1) * width).ok_or(Malformed("an offsets buffer is too short"))?;
    let offsets: Vec<usize> = bytes.chunks_exact(width).map(|offset| unsigned(offset) as usize).collect();
    if offsets[0] != 0 || offsets.windows(2).any(|pair| pair[0] > pair[1]) {
        return Err(Malformed("offsets do not ascend from 0"));
    }
    Ok(offsets)
}

fn decode_bytes<'a>(width: usize, length: usize, buffers: &mut Buffers<'a>) -> Result<Vec<&'a [u8]>, Malformed> {
    let offsets = offsets(width, length, buffers)?;
    let data = buffers.take()?;
    offsets.windows(2).map(|pair| data.get(pair[0]..pair[1]).ok_or(Malformed("offsets point behind the data"))).collect()
}

fn decode_lists(item: &DataType, length: usize, buffers: &mut Buffers<'_>) -> Result<Vec<Value>, Malformed> {
    let offsets = offsets(4, length, buffers)?;
    let items = decode(item, offsets[length], buffers)?;
    Ok(offsets.windows(2).map(|pair| Value::Array(items[pair[0]..pair[1]].to_vec())).collect())
}
