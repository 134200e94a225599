//! Where in the bytes of an entry of a map the key ends and the map key begins. The encoding is that of [`millstream_model::key`].

use arrow_schema::DataType;

/// The length of the key that `bytes` begin with, a key of these types; none: they begin with no such key.
pub(crate) fn key_length(types: &[DataType], bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    types.iter().try_for_each(|data_type| skip(data_type, &mut rest))?;
    Some(bytes.len() - rest.len())
}

/// The length of every map key of this type; none: it varies.
pub(crate) fn map_key_length(data_type: &DataType) -> Option<usize> {
    Some(1 + width(data_type)?)
}

fn skip(data_type: &DataType, input: &mut &[u8]) -> Option<()> {
    let (&tag, rest) = input.split_first()?;
    *input = rest;
    match (tag, data_type) {
        (0, _) => Some(()),
        (1, DataType::Struct(fields)) => fields.iter().try_for_each(|field| skip(field.data_type(), input)),
        (1, DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary) => skip_text(input),
        (1, fixed) => {
            *input = input.get(width(fixed)?..)?;
            Some(())
        }
        _ => None,
    }
}

/// Up to the end mark, 00 not followed by FF.
fn skip_text(input: &mut &[u8]) -> Option<()> {
    loop {
        let zero = input.iter().position(|&byte| byte == 0)?;
        *input = &input[zero + 1..];
        match input.first() {
            Some(0xff) => *input = &input[1..],
            _ => return Some(()),
        }
    }
}

/// Bytes of a value behind its tag; none: they vary.
fn width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::Boolean => Some(1),
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}
