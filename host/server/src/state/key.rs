//! Keys on the command line: `--key tailnum=N123`, one per column of the key; `--key tailnum` alone is null.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, StringArray, StructArray};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, Fields};
use millstream_engine::checkpoint::manifest::KeyColumn;
use millstream_model::{
    key::{EncodedKeys, decode_keys, encode_keys},
    types::parse_type,
};

/// The columns of an operator's key.
pub struct KeyType {
    fields: Fields,
}

impl KeyType {
    /// The columns that a manifest names.
    ///
    /// # Errors
    /// They do not fit; one clause says why.
    pub fn new(columns: &[KeyColumn]) -> Result<Self, String> {
        let field = |column: &KeyColumn| match parse_type(&column.data_type) {
            Ok(data_type) => Ok(Field::new(&column.name, data_type, true)),
            Err(error) => Err(format!("the type of the key column `{}` is not understood: {error}", column.name)),
        };
        Ok(Self { fields: columns.iter().map(field).collect::<Result<_, _>>()? })
    }

    /// One key, from what was said on the command line.
    ///
    /// # Errors
    /// They do not fit; one clause says why.
    pub fn parse(&self, said: &[(String, Option<String>)]) -> Result<EncodedKeys, String> {
        if let Some((unknown, _)) = said.iter().find(|(name, _)| self.fields.find(name).is_none()) {
            return Err(format!("the key has no column `{unknown}`; its columns are {}", self.names()));
        }
        let column = |field: &Arc<Field>| {
            let mut values = said.iter().filter(|(name, _)| name == field.name());
            match (values.next(), values.next()) {
                (Some((_, value)), None) => parsed(field, value.as_deref()),
                (None, _) => Err(format!("the key has the columns {}; `--key {}=…` is missing", self.names(), field.name())),
                (Some(_), Some(_)) => Err(format!("`--key {}=…` is there twice", field.name())),
            }
        };
        let columns = self.fields.iter().map(column).collect::<Result<Vec<_>, _>>()?;
        encode_keys(&columns, 1).map_err(|error| error.to_string())
    }

    /// Encoded keys as one column, a struct of the key's columns.
    ///
    /// # Errors
    /// They do not fit; one clause says why.
    pub fn decode<'a>(&self, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<StructArray, String> {
        let types: Vec<DataType> = self.fields.iter().map(|field| field.data_type().clone()).collect();
        let mut rows = 0;
        let columns = decode_keys(&types, keys.into_iter().inspect(|_| rows += 1)).map_err(|error| error.to_string())?;
        let made = StructArray::try_new_with_length(self.fields.clone(), columns, None, rows);
        made.map_err(|error| error.to_string())
    }

    /// Whether there is one key for all rows.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.fields.iter().map(|field| format!("`{}`", field.name())).collect();
        names.join(", ")
    }
}

fn parsed(field: &Field, text: Option<&str>) -> Result<ArrayRef, String> {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![text]));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let value = cast_with_options(&texts, field.data_type(), &options);
    let value = value.map_err(|error| format!("`--key {}=…` is no {}: {error}", field.name(), field.data_type()))?;
    debug_assert_eq!(value.len(), 1);
    Ok(value)
}

/// `NAME=VALUE`, or `NAME` for null.
///
/// # Errors
/// They do not fit; one clause says why.
pub fn said(text: &str) -> Result<(String, Option<String>), String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
    if name.is_empty() { Err("expected NAME=VALUE, as tailnum=N14228".to_owned()) } else { Ok((name.to_owned(), value)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> KeyType {
        let column = |name: &str, data_type: &str| KeyColumn { name: name.into(), data_type: data_type.into() };
        KeyType::new(&[column("origin", "Utf8"), column("at", "Timestamp(ms, \"UTC\")"), column("number", "Int64")]).unwrap()
    }

    #[test]
    fn a_key_is_read_by_its_types_and_comes_back() {
        let said: Vec<_> = ["number=7", "origin=E=R", "at=2013-01-05T03:00:00Z"].map(|text| said(text).unwrap()).into();
        let encoded = key().parse(&said).unwrap();
        let decoded = key().decode([encoded.key(0)]).unwrap();
        let shown = arrow_cast::pretty::pretty_format_columns("key", &[Arc::new(decoded)]).unwrap().to_string();
        assert!(shown.contains("{origin: E=R, at: 2013-01-05T03:00:00Z, number: 7}"), "{shown}");
    }

    #[test]
    fn a_column_alone_is_null() {
        let said: Vec<_> = ["number", "origin", "at"].map(|text| said(text).unwrap()).into();
        let encoded = key().parse(&said).unwrap();
        assert_eq!(key().decode([encoded.key(0)]).unwrap().column(2).null_count(), 1);
    }

    #[test]
    fn what_is_no_key_is_refused_by_name() {
        let refusal = |texts: &[&str]| key().parse(&texts.iter().map(|text| said(text).unwrap()).collect::<Vec<_>>()).err().unwrap();
        assert!(refusal(&["orign=a"]).contains("`orign`"));
        assert!(refusal(&["origin=a", "at"]).contains("`--key number=…` is missing"));
        assert!(refusal(&["origin=a", "origin=b", "at", "number"]).contains("twice"));
        assert!(refusal(&["origin=a", "at", "number=seven"]).contains("`--key number=…`"));
        assert!(said("=x").is_err());
    }
}
