//! Records, whole and broken, against serde_json and against readers that expect nothing.

use std::fmt;

use arrow_array::{Array, RecordBatch, StringArray};
use proptest::prelude::*;
use serde::{Deserializer, de};
use serde_json::{Value, json};

use super::*;
use crate::testing::schema;

fn reader(columns: &[(&str, &str)]) -> Reader {
    Reader::new(schema(columns), &vec![TimestampFormat::Standard; columns.len()]).expect("columns of JSON")
}

/// What each record becomes, by one reader that has seen those before.
fn read(reader: &mut Reader, records: &[Vec<u8>]) -> (Vec<Result<(), String>>, RecordBatch) {
    let results = records.iter().map(|record| reader.push(std::str::from_utf8(record))).collect();
    (results, reader.finish())
}

/// The members of an object in order, also those that stand twice.
struct Members(Vec<(String, Value)>);

impl<'de> de::Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: de::MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some(member) = map.next_entry()? {
            self.0.push(member);
        }
        Ok(self)
    }
}

/// The members as serde_json reads them.
fn members(record: &[u8]) -> serde_json::Result<Vec<(String, Value)>> {
    let mut deserializer = serde_json::Deserializer::from_slice(record);
    let members = deserializer.deserialize_map(Members(Vec::new()))?;
    deserializer.end().map(|()| members.0)
}

/// A text column as it says it reads.
fn text_of(column: &StringArray, row: usize) -> Value {
    if column.is_null(row) { Value::Null } else { column.value(row).into() }
}

fn value() -> impl Strategy<Value = String> {
    let string = r#"([ -!#-\[\]-~é€]|\\["\\/bfnrt]|\\u00[0-9a-f]{2}|\\ud83d\\ude00){0,12}"#.prop_map(|text| format!("\"{text}\""));
    let number = "-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,3})?([eE][+-]?[0-9])?";
    let integer = "-?(0|[1-9][0-9]{0,9})";
    let leaf = prop_oneof![3 => string, 3 => integer, 1 => number, 2 => "null|true|false"];
    leaf.prop_recursive(2, 6, 3, |inner| {
        let items = prop::collection::vec(inner, 0..3);
        prop_oneof![
            items.clone().prop_map(|items| format!("[{}]", items.join(","))),
            items.prop_map(|items| format!("{{{}}}", items.iter().map(|item| format!("\"m\": {item}")).collect::<Vec<_>>().join(" ,"))),
        ]
    })
}

const NAMES: [&str; 6] = ["a", "b", "\\u0061", "a_longer_name", "a_name_of_more_than_thirty_two_bytes_0", "b0"];

/// Records of which most have the same members in one order, in one way to write.
fn records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let spaces = prop::sample::select(vec![["", ""], ["", " "], [" ", "\t"], ["\r\n", ""]]);
    let names = prop::sample::subsequence(NAMES.to_vec(), 1..=NAMES.len()).prop_shuffle();
    (spaces, names).prop_flat_map(|([before, behind], names)| {
        let member = move |name: &'static str| value().prop_map(move |value| format!("{before}\"{name}\":{behind}{value}"));
        let members = names.into_iter().map(member).collect::<Vec<_>>();
        let record = (members, 0_u8..8, 0_u8..8).prop_map(move |(mut members, left_out, twice)| {
            if usize::from(left_out) < members.len() {
                members.remove(left_out.into());
            }
            if twice == 0 {
                members.extend(members.first().cloned());
            }
            format!("{{{}{behind}}}", members.join(&format!("{before},"))).into_bytes()
        });
        prop::collection::vec((record, changes()).prop_map(|(record, changes)| changed(record, &changes)), 1..6)
    })
}

type Change = (prop::sample::Index, u8, u8);

/// Mostly none.
fn changes() -> impl Strategy<Value = Vec<Change>> {
    let byte = prop_oneof![prop::sample::select(b"\"\\{}[]:,0-9.eE+ \ntfnul\0\x80".to_vec()), any::<u8>()];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), 0_u8..4, byte), 1..3);
    prop_oneof![2 => Just(Vec::new()), 3 => changes]
}

fn changed(mut record: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for (at, how, byte) in changes {
        let at = at.index(record.len() + 1);
        match how {
            0 => record.truncate(at),
            1 => record.insert(at, *byte),
            2 if at < record.len() => drop(record.remove(at)),
            _ if at < record.len() => record[at] = *byte,
            _ => {}
        }
    }
    record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Text columns take every value, so a record is read if and only if it is JSON, and what it becomes is what stands there.
    #[test]
    fn a_record_is_read_as_serde_json_reads_it(records in records()) {
        let names = ["a", "a_longer_name", "a_name_of_more_than_thirty_two_bytes_0"];
        let mut reader = reader(&names.map(|name| (name, "Utf8?")));
        let (results, rows) = read(&mut reader, &records);
        let mut row = 0;
        for (record, result) in records.iter().zip(results) {
            let shown = String::from_utf8_lossy(record);
            let members = members(record);
            // It is JSON all the same, of which serde_json makes no f64.
            prop_assume!(!members.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")));
            let is_twice = |name: &&str| members.iter().flatten().filter(|(member, _)| member == name).count() > 1;
            prop_assert_eq!(result.is_ok(), members.is_ok() && !names.iter().any(is_twice), "{}: {:?} {:?}", shown, result, members);
            if result.is_err() {
                continue;
            }
            for (name, column) in names.iter().zip(rows.columns()) {
                let expected = members.iter().flatten().find(|(member, _)| member == name).map_or(Value::Null, |(_, value)| value.clone());
                let found = text_of(column.as_any().downcast_ref().expect("text"), row);
                match (&expected, &found) {
                    (Value::Null | Value::String(_), _) => prop_assert_eq!(&found, &expected, "{}", shown),
                    (_, Value::String(raw)) => prop_assert_eq!(serde_json::from_str::<Value>(raw).expect("JSON"), expected, "{}", shown),
                    _ => prop_assert!(false, "{}: {} is lost", shown, expected),
                }
            }
            row += 1;
        }
        prop_assert_eq!(row, rows.num_rows());
    }

    /// What a reader expects changes neither what it reads nor what it says, to the letter.
    #[test]
    fn a_reader_that_has_seen_records_reads_as_one_that_has_not(records in records()) {
        let columns = [("a_name_of_more_than_thirty_two_bytes_0", "Int64?"), ("a", "Int32"), ("b", "Utf8?"), ("a_longer_name", "Float64?")];
        let (results, rows) = read(&mut reader(&columns), &records);
        let fresh: Vec<_> = records.iter().map(|record| read(&mut reader(&columns), std::slice::from_ref(record))).collect();
        prop_assert_eq!(results, fresh.iter().flat_map(|(results, _)| results.clone()).collect::<Vec<_>>());
        let fresh_rows: Vec<_> = fresh.into_iter().map(|(_, rows)| rows).collect();
        prop_assert_eq!(&rows, &arrow_select::concat::concat_batches(&rows.schema(), &fresh_rows).expect("one schema"));
    }

    #[test]
    fn numbers_texts_and_nulls_are_what_was_written(values in prop::collection::vec((any::<i64>(), 0_u32..64, any::<Option<String>>(), any::<bool>()), 1..20)) {
        let mut reader = reader(&[("number", "Int64?"), ("text", "Utf8?"), ("small", "Int8?")]);
        let value = |(number, shift, text, is_null): &(i64, u32, Option<String>, bool)| {
            let number = number >> shift;
            json!({ "number": if *is_null { None } else { Some(number) }, "skipped": number, "text": text, "small": i8::try_from(number).ok() })
        };
        let expected: Vec<Value> = values.iter().map(value).collect();
        let records: Vec<Vec<u8>> = expected.iter().map(|value| value.to_string().into_bytes()).collect();
        let (results, rows) = read(&mut reader, &records);
        prop_assert!(results.iter().all(Result::is_ok), "{:?}", results);
        let mut found = crate::testing::shown(&rows);
        found.iter_mut().zip(&expected).for_each(|(found, expected)| found["skipped"] = expected["skipped"].clone());
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn what_is_wrong_with_a_record_is_said_with_its_place() {
    let mut reader = reader(&[("a", "Int64"), ("b", "Utf8?")]);
    let mut error = |record: &str| reader.push(Ok(record)).expect_err("it is wrong");
    for _ in 0..2 {
        assert_eq!(error(r#"{"a":1,"b":"x","a":2}"#), "member \"a\" stands twice");
        assert_eq!(error(r#"{"a":01}"#), "invalid JSON: expected a number at byte 7 of the record");
        assert_eq!(error(r#"{"a":1 "b":"x"}"#), "invalid JSON: expected `,` at byte 7 of the record");
        assert_eq!(error(r#"{"a":1,}"#), "invalid JSON: expected a member name in quotes at byte 7 of the record");
        assert_eq!(error(r#"{"a":1,"b":"x}"#), "invalid JSON: a string is not closed at byte 11 of the record");
        assert_eq!(error(r#"{"a":1}}"#), "invalid JSON: text behind the value at byte 7 of the record");
        assert_eq!(error(r#"{"a":"x"}"#), "column a: \"x\" is not of type Int64");
        assert_eq!(error(r#"{"a":null}"#), "column a: null in a column declared without `?`");
        assert_eq!(error(r#"{"b":"x"}"#), "column a is missing and was declared without `?`");
    }
}
